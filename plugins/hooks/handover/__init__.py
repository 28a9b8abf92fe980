"""Hook ``handover``: event A3 (TS 38.331 5.5.4.4) on the forecast instead of the measured RSRP, so it is early.

With ``rule = "cost"`` it weighs forecast costs instead, as ``netpredict evaluate handover --dataset ns3-uma`` does by
the same formulas of ``netpredict.radio.handover_cost``.

The serving radio cell has no id in the state. A *tenure* stands for it: the slot in which the serving radio cell of the
UE became that. Every row of a report keeps the tenure it was compared under, and a row whose tenure is not that of the
report starts anew. Two changes of the serving radio cell inside one slot look like one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from netpredict.errors import ConfigError
from netpredict.plugins import Plugin
from netpredict.radio import handover_cost
from netpredict.radio.events import Conditions, NeighbourOffsets, TttState, a3, advance_ttt, ttt_in_slots
from netpredict.radio.quantities import KPIS, check_a3_offset_db, check_cio_db, check_hysteresis_db, check_ttt_ms
from netpredict.types import (
    NO_SLOT,
    AnyArray,
    BoolArray,
    DueAction,
    FiringBatch,
    HookBatch,
    IntArray,
    Quality,
    Source,
    StateArray,
)
from netpredict_plugins.hooks.handover.cost import check_price, costs_of, gains
from netpredict_plugins.hooks.handover.difference import MEDIAN, Difference, compared

_KPI = "rsrp_dbm"
_SERVING = "serving"
_TICKS_PER_DB = 10 ** KPIS[_KPI].decimals  # forecasts are rounded to ticks; in whole numbers "strictly above" is exact

Floats = npt.NDArray[np.float64]


class HandoverOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the handover hook. ``cio_db`` is by source and target radio_cell_id."""

    rule: Literal["a3", "cost"] = "a3"
    lead_steps: int = 2
    a3_offset_db: float = 3.0
    hysteresis_db: float = 1.0
    ttt_ms: int = 320
    c_under: float = 1.0
    c_over: float = 1.0
    correlation: float = 0.5
    cio_db: dict[str, dict[str, int]] = {}
    handover_cost: float = 0.12
    back_cost: float = 0.1
    back_within_s: float = 1.0
    cooldown_slots: int = 5
    forget_after_slots: int = 10
    allow_approximate: bool = False
    object_template: str = "UE={ue_id}"
    valid_for_s: float = 0.0

    def __post_init__(self) -> None:
        _check(self.lead_steps >= 1, "lead_steps", self.lead_steps, "1 or more")
        check_a3_offset_db(self.a3_offset_db)
        check_hysteresis_db(self.hysteresis_db)
        check_ttt_ms(self.ttt_ms)
        _check(0 < self.c_under < float("inf"), "c_under", self.c_under, "a finite cost above 0")
        _check(0 < self.c_over < float("inf"), "c_over", self.c_over, "a finite cost above 0")
        _check(0 <= self.correlation <= 1, "correlation", self.correlation, "0..1")
        for source, targets in self.cio_db.items():
            for target, cio_db in targets.items():
                check_cio_db(cio_db, f"cio_db.{source}.{target}")
        check_price("handover_cost", self.handover_cost)
        check_price("back_cost", self.back_cost)
        _check(0 <= self.back_within_s < float("inf"), "back_within_s", self.back_within_s, "0 or more seconds")
        _check(self.cooldown_slots >= 0, "cooldown_slots", self.cooldown_slots, "0 or more")
        _check(self.forget_after_slots >= 0, "forget_after_slots", self.forget_after_slots, "0 or more")
        _check(0 <= self.valid_for_s < float("inf"), "valid_for_s", self.valid_for_s, "0 or more seconds")
        _check_template(self.object_template)


class _Reports(NamedTuple):
    """How the rows of a batch stand together: first row of each report, report and serving row of each row."""

    starts: IntArray
    of_row: IntArray
    serving_row: IntArray
    has_serving: BoolArray  # by row: its report names exactly one serving radio cell
    is_serving: BoolArray

    def highest(self, values: AnyArray) -> AnyArray:
        """The highest value of each report, (reports,)."""
        return np.maximum.reduceat(values, self.starts)

    def first(self, mask: BoolArray) -> IntArray:
        """The first row of each report under the mask, (reports,); the number of rows where there is none."""
        rows = np.where(mask, np.arange(len(mask)), len(mask))
        return np.minimum.reduceat(rows, self.starts)


class HandoverHook:
    """State of a series (UE, radio cell): time to trigger, tenure, and the slot of the last firing of the UE."""

    api_version = 1

    def __init__(self, options: HandoverOptions) -> None:
        self._options, self._by_cost = options, options.rule == "cost"
        self._difference = Difference(options.c_under, options.c_over, options.correlation)
        self._cio_db = [cio_db for targets in options.cio_db.values() for cio_db in targets.values()]

    def levels_needed(self) -> Sequence[float]:
        """The median, and for costs that differ the two quantiles by which the difference is found."""
        return (MEDIAN,) if self._by_cost else self._difference.levels()

    def kpis_needed(self) -> Sequence[str]:
        """The RSRP of serving and neighbours, or what their links cost."""
        return handover_cost.KPIS if self._by_cost else (_KPI,)

    def columns_needed(self) -> Sequence[str]:
        """What tells the serving radio cell from its neighbours."""
        return (_KPI, _SERVING)

    def steps_needed(self) -> int:
        """The lead that it acts on."""
        return self._options.lead_steps

    def state_spec(self) -> Mapping[str, StateArray]:
        """Slots the pending condition holds, whether entered and fired, and the slots that timers count from.

        By cost: whether fired, and the slot in which the radio cell was last left.
        """
        if self._by_cost:
            return {
                "fired": StateArray((), "uint8"),
                "was_serving": StateArray((), "uint8"),
                "last_slot": StateArray((), "int64", NO_SLOT),
                "tenure_slot": StateArray((), "int64", NO_SLOT),
                "left_slot": StateArray((), "int64", NO_SLOT),
                "fired_slot": StateArray((), "int64", NO_SLOT),
            }
        return {
            "held_slots": StateArray((), "int32"),
            "entered": StateArray((), "uint8"),
            "fired": StateArray((), "uint8"),
            "was_serving": StateArray((), "uint8"),
            "last_slot": StateArray((), "int64", NO_SLOT),
            "tenure_slot": StateArray((), "int64", NO_SLOT),
            "fired_slot": StateArray((), "int64", NO_SLOT),
        }

    def decide(self, batch: HookBatch, state: Mapping[str, AnyArray]) -> tuple[FiringBatch, Mapping[str, AnyArray]]:
        """The best neighbour that has met A3 for the whole time to trigger, one per report, once until it leaves.

        By cost: the neighbour that saves most, once until it saves nothing.
        """
        if len(batch) == 0:
            return [], dict(state)
        reports = _reports(batch)
        if self._by_cost:
            return self._decide_by_cost(batch, state, reports)
        tenure_slot = self._tenure(batch, state, reports)
        before, fired = self._timers(batch, state, tenure_slot)
        level_ticks = self._level_ticks(batch)
        target_ticks = level_ticks + self._beyond_ticks(batch, reports)
        cio_ticks = self._cio_ticks(batch, reports, level_ticks, target_ticks)
        conditions = self._conditions(batch, reports, level_ticks, target_ticks, cio_ticks)
        ttt, _ = advance_ttt(before, conditions, ttt_in_slots(self._options.ttt_ms, batch.period_us))
        fired &= ttt.entered

        score = np.where(ttt.entered & conditions.entering, target_ticks + cio_ticks, -np.inf)
        best = reports.first(np.isfinite(score) & (score == reports.highest(score)[reports.of_row]))
        fired_slot = reports.highest(state["fired_slot"])
        rows = best[best < len(batch)]
        cooled = batch.slot[rows] - fired_slot[reports.of_row[rows]] >= self._options.cooldown_slots
        rows = rows[cooled & ~fired[rows]]
        fired[rows] = True
        fired_slot[reports.of_row[rows]] = batch.slot[rows]

        after = {
            "held_slots": ttt.held_slots,
            "entered": ttt.entered,
            "fired": fired,
            "was_serving": np.where(reports.has_serving, reports.is_serving, state["was_serving"]),
            "last_slot": batch.slot,
            "tenure_slot": tenure_slot,
            "fired_slot": fired_slot[reports.of_row],
        }
        ahead_ticks = target_ticks - level_ticks[reports.serving_row]
        actions = [
            self._action(batch, row, int(reports.serving_row[row]), float(cio_ticks[row]), float(ahead_ticks[row]))
            for row in rows.tolist()
        ]
        return actions, {name: array.astype(state[name].dtype) for name, array in after.items()}

    def _decide_by_cost(
        self, batch: HookBatch, state: Mapping[str, AnyArray], reports: _Reports
    ) -> tuple[FiringBatch, Mapping[str, AnyArray]]:
        options, tenure_slot = self._options, self._tenure(batch, state, reports)
        left = (state["was_serving"] != 0) & reports.has_serving & ~reports.is_serving
        left_slot = np.where(left, batch.slot, state["left_slot"])
        recent = (batch.slot - tenure_slot + 1) * batch.period_us < options.back_within_s * 1e6
        price = options.handover_cost + options.back_cost * (recent & (left_slot == tenure_slot))
        usable = self._usable(batch) & (batch.source == Source.MODEL)  # else it is a rule of thumb that is repeated
        costs = costs_of(batch, usable, options.lead_steps, _level_index(batch))
        gain = np.where(reports.has_serving, gains(costs, reports.serving_row, price), -np.inf)
        nearest = np.where(gain > -np.inf, -costs.arrival, -np.inf)
        best = reports.first(np.isfinite(nearest) & (nearest == reports.highest(nearest)[reports.of_row]))
        rows = best[best < len(batch)]
        rows = rows[gain[rows] > 0]

        fired = (state["fired"] != 0) & (batch.slot - state["last_slot"] == 1) & (state["tenure_slot"] == tenure_slot)
        pays = np.zeros(len(batch), np.bool_)
        pays[rows] = True
        fired &= pays
        fired_slot = reports.highest(state["fired_slot"])
        cooled = batch.slot[rows] - fired_slot[reports.of_row[rows]] >= options.cooldown_slots
        rows = rows[cooled & ~fired[rows]]
        fired[rows] = True
        fired_slot[reports.of_row[rows]] = batch.slot[rows]
        after = {
            "fired": fired,
            "was_serving": np.where(reports.has_serving, reports.is_serving, state["was_serving"]),
            "last_slot": batch.slot,
            "tenure_slot": tenure_slot,
            "left_slot": left_slot,
            "fired_slot": fired_slot[reports.of_row],
        }
        actions = []
        for row in rows.tolist():
            serving_row = int(reports.serving_row[row])
            why = {
                "rule": "cost: stay > late + (1 - late) * (price + arrival), in failures; the target of least arrival",
                "gain": _plain(gain[row]),
                "stay_cost": _plain(costs.stay[serving_row]),
                "late_ratio": _plain(costs.late[serving_row]),
                "arrival_cost": _plain(costs.arrival[row]),
                "price": _plain(price[row]),
            }
            actions.append(self._due(batch, row, serving_row, why))
        return actions, {name: array.astype(state[name].dtype) for name, array in after.items()}

    def _tenure(self, batch: HookBatch, state: Mapping[str, AnyArray], reports: _Reports) -> IntArray:
        """Since which slot the serving radio cell of each row's report has been that; unchanged without one."""
        as_serving = np.where(state["was_serving"] != 0, state["tenure_slot"], batch.slot)
        return np.where(reports.has_serving, as_serving[reports.serving_row], state["tenure_slot"])

    def _timers(
        self, batch: HookBatch, state: Mapping[str, AnyArray], tenure_slot: IntArray
    ) -> tuple[TttState, BoolArray]:
        """Timers before this slot: a missing slot breaks a pending run, a long gap or another tenure forgets all."""
        since = batch.slot - state["last_slot"]
        kept = (since <= self._options.forget_after_slots + 1) & (state["tenure_slot"] == tenure_slot)
        held = np.where(kept & (since == 1), state["held_slots"], 0).astype(np.int64)
        return TttState(held, kept & (state["entered"] != 0)), kept & (state["fired"] != 0)

    def _level_ticks(self, batch: HookBatch) -> Floats:
        """Forecast RSRP in ticks, NaN where a row must not take part."""
        level_dbm = _forecast(batch, self._options.lead_steps)[:, _level_index(batch)]
        return np.where(self._usable(batch), np.round(level_dbm * _TICKS_PER_DB), np.nan)

    def _beyond_ticks(self, batch: HookBatch, reports: _Reports) -> Floats:
        """What the quantile of the difference to the serving radio cell adds to its median, ticks."""
        wanted = self._difference.levels()
        for level in wanted:
            _level_index(batch, level)
        both = compared(_forecast(batch, self._options.lead_steps), batch.levels, wanted, reports.serving_row)
        ticks: Floats = np.round(self._difference.beyond_median(*both) * _TICKS_PER_DB)
        return ticks

    def _usable(self, batch: HookBatch) -> BoolArray:
        barred = Quality.SUSPECT if self._options.allow_approximate else Quality.SUSPECT | Quality.APPROXIMATE
        usable: BoolArray = (batch.source != Source.NONE) & (batch.flags & barred == 0)
        return usable

    def _conditions(
        self, batch: HookBatch, reports: _Reports, level_ticks: Floats, target_ticks: Floats, cio_ticks: Floats
    ) -> Conditions:
        entering, leaving = a3(
            level_ticks[reports.serving_row],
            target_ticks,
            self._options.a3_offset_db * _TICKS_PER_DB,
            self._options.hysteresis_db * _TICKS_PER_DB,
            NeighbourOffsets(ocn_db=cio_ticks),
        )
        neighbour = reports.has_serving & ~reports.is_serving
        return Conditions(entering & neighbour, leaving & neighbour)

    def _cio_ticks(self, batch: HookBatch, reports: _Reports, level_ticks: Floats, target_ticks: Floats) -> Floats:
        """CIO of each row's relation; ids are looked up only for rows on which some CIO could have a say."""
        cio_ticks = np.zeros(len(batch))
        if not self._cio_db:
            return cio_ticks
        ahead_db = (target_ticks - level_ticks[reports.serving_row]) / _TICKS_PER_DB - self._options.a3_offset_db
        matters = ahead_db + max(0, *self._cio_db) >= -self._options.hysteresis_db
        for row in np.flatnonzero(matters & reports.has_serving & ~reports.is_serving).tolist():
            cio_ticks[row] = self._cio(batch, row, int(reports.serving_row[row])) * _TICKS_PER_DB
        return cio_ticks

    def _cio(self, batch: HookBatch, row: int, serving_row: int) -> int:
        source, target = batch.key_of(serving_row).fields[-1], batch.key_of(row).fields[-1]
        return self._options.cio_db.get(source, {}).get(target, 0)

    def _action(self, batch: HookBatch, row: int, serving_row: int, cio_ticks: float, ahead_ticks: float) -> DueAction:
        options = self._options
        both = batch.forecasts[_KPI][[serving_row, row], options.lead_steps - 1]
        forecast = np.round(both.astype(np.float64), KPIS[_KPI].decimals)
        (serving_dbm, target_dbm), cio_db = forecast[:, _level_index(batch)].tolist(), cio_ticks / _TICKS_PER_DB
        ahead_db = ahead_ticks / _TICKS_PER_DB
        why = {
            "rule": "A3 on forecasts: target - serving at the quantile + CIO - hysteresis > a3_offset, throughout TTT;"
            " the best target",
            "quantile": self._difference.tau,
            "c_under": options.c_under,
            "c_over": options.c_over,
            "correlation": options.correlation,
            "difference_at_quantile_db": round(ahead_db, 6),
            "serving_forecast_dbm": serving_dbm,
            "target_forecast_dbm": target_dbm,
            "interval_levels": [batch.levels[0], batch.levels[-1]],
            "serving_interval_dbm": forecast[0, [0, -1]].tolist(),
            "target_interval_dbm": forecast[1, [0, -1]].tolist(),
            "a3_offset_db": options.a3_offset_db,
            "hysteresis_db": options.hysteresis_db,
            "cio_db": cio_db,
            "margin_db": round(ahead_db + cio_db - options.a3_offset_db - options.hysteresis_db, 6),
            "ttt_ms": options.ttt_ms,
            "ttt_slots": ttt_in_slots(options.ttt_ms, batch.period_us),
        }
        return self._due(batch, row, serving_row, why)

    def _due(self, batch: HookBatch, row: int, serving_row: int, why: Mapping[str, object]) -> DueAction:
        options, key = self._options, batch.key_of(row).fields
        source, target = batch.key_of(serving_row).fields[-1], key[-1]
        observed = batch.observed[[serving_row, row], batch.columns.index(_KPI)]
        shared = {
            "lead_steps": options.lead_steps,
            "lead_s": options.lead_steps * batch.period_us / 1e6,
            "serving_observed_dbm": _plain(observed[0]),
            "target_observed_dbm": _plain(observed[1]),
            "serving_forecast_source": Source(int(batch.source[serving_row])).name.lower(),
            "target_forecast_source": Source(int(batch.source[row])).name.lower(),
            "target_approximate": bool(batch.flags[row] & Quality.APPROXIMATE),
            "cooldown_slots": options.cooldown_slots,
        }
        object_id = options.object_template.format(ue_id=key[0], radio_cell_id=source)
        valid_for_s = options.valid_for_s or (options.lead_steps + 1) * batch.period_us / 1e6
        return DueAction(
            row, object_id, "servingCell", {"target": target, "source": source}, {**why, **shared}, valid_for_s
        )


def _reports(batch: HookBatch) -> _Reports:
    begins = np.ones(len(batch), dtype=np.bool_)
    begins[1:] = batch.record[1:] != batch.record[:-1]
    starts, of_row = np.flatnonzero(begins), np.cumsum(begins) - 1
    serving = batch.observed[:, batch.columns.index(_SERVING)] == 1
    has_serving = (np.add.reduceat(serving.astype(np.int64), starts) == 1)[of_row]
    serving_row = np.maximum.reduceat(np.where(serving, np.arange(len(batch)), 0), starts)[of_row]
    return _Reports(starts, of_row, serving_row, has_serving, serving & has_serving)


def _forecast(batch: HookBatch, lead_steps: int) -> Floats:
    """Forecast RSRP ``lead_steps`` ahead, (n, levels)."""
    forecast = batch.forecasts[_KPI]
    if lead_steps > forecast.shape[1]:
        raise ConfigError(f"lead_steps = {lead_steps} is beyond the horizon of {batch.stream}: {forecast.shape[1]}")
    return forecast[:, lead_steps - 1].astype(np.float64)


def _level_index(batch: HookBatch, level: float = MEDIAN) -> int:
    distance = np.abs(np.asarray(batch.levels) - level)
    if distance.min() > 1e-9:
        raise ConfigError(f"quantile level {level} is not among those of {batch.stream}: {list(batch.levels)}")
    return int(distance.argmin())


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _check(allowed: bool, key: str, value: object, wording: str) -> None:
    if not allowed:
        raise ConfigError(f"{key} = {value!r} is not allowed: use {wording}")


def _check_template(template: str) -> None:
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
    except ValueError as error:
        raise ConfigError(f"object_template = {template!r} is not allowed: {error}") from error
    plain = all(name in ("ue_id", "radio_cell_id") and not spec and not conversion for name, spec, conversion in fields)
    _check(
        bool(fields) and plain,
        "object_template",
        template,
        "{ue_id} or {radio_cell_id} in it, and nothing else in braces",
    )


PLUGIN = Plugin("handover", options=HandoverOptions, build=HandoverHook)
