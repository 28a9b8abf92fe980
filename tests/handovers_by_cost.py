"""The rule ``cost`` of the handover hook written once more, over what a store holds: forecasts, and who served."""

from __future__ import annotations

from typing import Any, NamedTuple

from netpredict.radio import handover_cost
from netpredict.store.history import History

MANY = 100_000


class Link(NamedTuple):
    """A row of a report: radio cell, whether it serves, forecast costs by a model (None without)."""

    cell: str
    serves: bool
    costs: list[float] | None


class Handover(NamedTuple):
    """A firing."""

    slot_time_us: int
    ue: str
    source: str
    target: str


def fired_and_wanted(url: str, stream: str, price: float) -> tuple[list[Handover], list[Handover]]:
    """What the hook fired, and what it should have, both in order; for a hook without cooldown and price of return."""
    fired = [
        Handover(
            row["slot_time_us"], row["object_id"].removeprefix("UE="), row["value"]["source"], row["value"]["target"]
        )
        for row in History(url).firings(limit=MANY)
    ]
    wanted, standing = [], dict[str, tuple[int, str, str | None]]()
    for (time_us, ue), links in sorted(_reports(url, stream).items()):
        serving = [link for link in links if link.serves]
        if len(serving) != 1:
            continue
        target = _decided(serving[0], [link for link in links if not link.serves], price)
        if target is not None and standing.get(ue, (0,))[1:] != (serving[0].cell, target):
            wanted.append(Handover(time_us, ue, serving[0].cell, target))
        standing[ue] = (time_us, serving[0].cell, target)
    return sorted(fired), sorted(wanted)


def _reports(url: str, stream: str) -> dict[tuple[int, str], list[Link]]:
    store, reports = History(url), dict[tuple[int, str], list[Link]]()
    for row in store.series(stream=stream, limit=MANY):
        ue, cell = row["series"].split("|")
        costs = {
            found["slot_time_us"]: [
                found["values"][kpi][0][len(found["values"][kpi][0]) // 2] for kpi in handover_cost.KPIS
            ]
            for found in store.forecasts(stream, row["series"], limit=MANY)
            if found["sources"][handover_cost.STAY_COST] == "model"
        }
        for seen in store.recent_observations(stream, row["series"], limit=MANY):
            link = Link(cell, seen["values"]["serving"] == 1, costs.get(seen["slot_time_us"]))
            reports.setdefault((seen["slot_time_us"], ue), []).append(link)
    return reports


def _decided(serving: Link, others: list[Link], price: float) -> str | None:
    if serving.costs is None:
        return None
    stay, late, _ = serving.costs
    own = _arrival(serving.costs)
    found = [(_arrival(link.costs), link.cell) for link in others if link.costs is not None]
    better = [(arrival, cell) for arrival, cell in found if arrival < own]
    if not better:
        return None
    arrival, cell = min(better)
    return cell if stay - (late + (1 - late) * (price + arrival)) > 0 else None


def _arrival(costs: Any) -> float:
    stay, _, refused = costs
    return float(refused + (1 - refused) * stay)
