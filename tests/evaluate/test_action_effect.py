"""What an action did is told from what would have come anyway, and from too little."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from netpredict.evaluate.action_effect import Acted, Observed, Verdict, effects

PERIOD_US = 60_000_000
SLOTS = 200
EVERY = 20


def acted(series: str, applied: bool) -> Iterator[Acted]:
    for slot in range(EVERY, SLOTS - EVERY, EVERY):
        time_us = slot * PERIOD_US
        yield Acted("bandwidth", "quota", "traffic", series, time_us, time_us + 5 * PERIOD_US, applied)


def network(treated: int, held_out: int, step: float, trend: float, noise: float = 1.0) -> tuple[list[Acted], dict]:
    """Radio cells whose KPI rises by ``trend`` a slot, and by ``step`` for five slots behind each applied action."""
    rng = np.random.default_rng(7)
    done: list[Acted] = []
    seen: dict[str, Observed] = {}
    for number in range(treated + held_out):
        series, applied = f"cell-{number}", number < treated
        mine = list(acted(series, applied))
        values = rng.normal(10.0 * number, noise, SLOTS) + trend * np.arange(SLOTS)
        for one in mine if applied else ():
            slot = one.slot_time_us // PERIOD_US
            values[slot + 1 : slot + 6] += step
        done += mine
        seen[series] = Observed(np.arange(SLOTS) * PERIOD_US, ("load",), values[:, None])
    return done, seen


def judge(done: list[Acted], seen: dict) -> dict:
    def observed(_stream: str, series: str, from_us: int, to_us: int) -> Observed:
        whole = seen[series]
        inside = (whole.times_us >= from_us) & (whole.times_us <= to_us)
        return Observed(whole.times_us[inside], whole.columns, whole.values[inside])

    (found,) = effects(done, observed)
    return found.row()


def test_an_effect_is_found_with_its_size_and_an_interval_around_it() -> None:
    row = judge(*network(12, 10, step=4.0, trend=0.0))
    assert row["verdict"] == Verdict.HIGHER
    assert row["effect"] == pytest.approx(4.0, abs=0.4)
    assert 0 < row["low"] < row["effect"] < row["high"]
    assert (row["acted"]["radio_cells"], row["held_out"]["radio_cells"]) == (12, 10)
    assert judge(*network(12, 10, step=-4.0, trend=0.0))["verdict"] == Verdict.LOWER


def test_what_comes_anyway_is_not_taken_for_an_effect() -> None:
    row = judge(*network(12, 10, step=0.0, trend=0.5))
    assert row["acted"]["after"] - row["acted"]["before"] == pytest.approx(2.5, abs=0.4)
    assert row["verdict"] == Verdict.NONE_SEEN
    assert row["low"] < 0 < row["high"]


def test_the_slot_of_the_action_itself_lies_before_it() -> None:
    values = np.zeros((SLOTS, 1))
    values[EVERY] = 100.0
    one = Acted("h", "a", "s", "cell-0", EVERY * PERIOD_US, (EVERY + 5) * PERIOD_US, True)
    seen = Observed(np.arange(SLOTS) * PERIOD_US, ("load",), values)
    (found,) = effects([one], lambda *_: seen)
    assert found.row()["acted"] == {"radio_cells": 1, "firings": 1, "before": 20.0, "after": 0.0}
    (wider,) = effects([one], lambda *_: seen, window_us=10 * PERIOD_US)
    assert wider.row()["acted"]["before"] == 10.0


@pytest.mark.parametrize(
    ("treated", "held_out", "who"), [(7, 20, "7 radio cells acted on"), (20, 7, "7 radio cells held out")]
)
def test_too_few_radio_cells_give_no_interval(treated: int, held_out: int, who: str) -> None:
    row = judge(*network(treated, held_out, step=4.0, trend=0.0))
    assert row["verdict"] == Verdict.TOO_LITTLE
    assert row["effect"] is row["low"] is None
    assert who in row["why"]


def test_few_actions_in_many_radio_cells_are_too_little_too() -> None:
    done, seen = network(10, 10, step=4.0, trend=0.0)
    row = judge([one for one in done if one.slot_time_us == EVERY * PERIOD_US], seen)
    assert row["verdict"] == Verdict.TOO_LITTLE


def test_without_a_hold_out_it_is_before_and_after_and_says_so() -> None:
    row = judge(*network(12, 0, step=0.0, trend=0.5))
    assert row["verdict"] == Verdict.NO_HOLDOUT
    assert row["effect"] == pytest.approx(2.5, abs=0.4)
    assert "holdout_ratio" in row["why"]


def test_radio_cells_are_drawn_not_their_actions() -> None:
    """Actions of a radio cell are alike: many of them must not make the interval narrow."""
    few, many = (network(10, 10, step=0.0, trend=0.0, noise=0.0) for _ in range(2))
    rng = np.random.default_rng(1)
    for name in few[1]:  # each radio cell has a way of its own to react
        own = rng.normal(0.0, 3.0)
        for world in (few, many):
            for one in world[0]:
                if one.series == name:
                    slot = one.slot_time_us // PERIOD_US
                    world[1][name].values[slot + 1 : slot + 6] += own
    half = [one for one in few[0] if one.slot_time_us % (2 * EVERY * PERIOD_US) == 0]
    narrow, wide = judge(many[0], many[1]), judge(half, few[1])
    assert narrow["high"] - narrow["low"] == pytest.approx(wide["high"] - wide["low"], rel=0.05)


def test_what_was_not_measured_on_both_sides_does_not_count() -> None:
    done, seen = network(10, 10, step=4.0, trend=0.0)
    for whole in seen.values():
        whole.values[EVERY + 1 : EVERY + 6] = np.nan
    row = judge(done, seen)
    assert row["acted"]["firings"] == 10 * (len(list(acted("x", True))) - 1)
    assert row["effect"] == pytest.approx(4.0, abs=0.4)


def test_hooks_attributes_and_kpis_stand_apart() -> None:
    done, seen = network(10, 10, step=4.0, trend=0.0)
    done += [one._replace(attribute="sleep") for one in done] + [one._replace(hook="mcs") for one in done]
    two = {
        name: whole._replace(columns=("load", "ues"), values=np.repeat(whole.values, 2, axis=1))
        for name, whole in seen.items()
    }
    found = effects(done, lambda _stream, series, *_: two[series])
    keys = [(each.hook, each.attribute, each.kpi) for each in found]
    assert keys == sorted(
        {(h, a, k) for h in ("bandwidth", "mcs") for a in ("quota", "sleep") for k in ("load", "ues")} & set(keys)
    )
    assert [each.kpi for each in effects(done, lambda _stream, series, *_: two[series], kpis=["ues"])].count(
        "load"
    ) == 0
    assert effects([], lambda *_: two["cell-0"]) == []
