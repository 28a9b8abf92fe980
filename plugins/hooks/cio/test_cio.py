from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.plugins import options_of
from netpredict.radio.quantities import CIO_DB
from netpredict.types import LastSet, PolicyAction, Served, Window
from netpredict_plugins.hooks.cio import PLUGIN, CioHook, CioOptions, Counts, Relation, counted, step_of

SAMPLE = Path(__file__).with_name("sample.toml")
HOUR_US = 3_600_000_000
WINDOW = Window(HOUR_US, 2 * HOUR_US)
GOOD, LOST = -90.0, -125.0
OPTIONS = CioOptions(attempts_min=5)

Stay = tuple[str, float, float]
"""Radio cell, how long, last level."""


def walk(ue_id: str, stays: Sequence[Stay], begin_us: int = HOUR_US) -> Iterator[Served]:
    """Reports every 100 ms."""
    now_us = begin_us
    for radio_cell_id, stay_s, level_dbm in stays:
        for _ in range(round(stay_s * 10)):
            yield Served(now_us, ue_id, radio_cell_id, level_dbm)
            now_us += 100_000


def of(*stays: Stay, begin_us: int = HOUR_US) -> dict[Relation, Counts]:
    return counted(walk("ue", stays, begin_us), WINDOW, OPTIONS)


def test_a_handover_that_stays_is_counted_and_is_no_trouble() -> None:
    assert of(("a", 5, GOOD), ("b", 5, GOOD)) == {Relation("a", "b"): Counts(handovers=1)}


def test_a_link_lost_without_a_handover_was_too_late_towards_where_the_ue_came_back() -> None:
    assert of(("a", 5, LOST), ("b", 5, GOOD)) == {Relation("a", "b"): Counts(too_late=1)}


def test_a_link_lost_right_behind_a_handover_was_too_early_when_the_ue_came_back_in_the_source() -> None:
    found = of(("a", 5, GOOD), ("b", 0.5, LOST), ("a", 5, GOOD))
    assert found == {Relation("a", "b"): Counts(handovers=1, too_early=1)}


def test_a_link_lost_right_behind_a_handover_was_the_wrong_radio_cell_when_the_ue_came_back_in_a_third() -> None:
    found = of(("a", 5, GOOD), ("b", 0.5, LOST), ("c", 5, GOOD))
    assert found == {
        Relation("a", "b"): Counts(handovers=1, wrong_radio_cell=1),
        Relation("a", "c"): Counts(after_wrong=1),
    }


def test_a_link_lost_long_behind_a_handover_was_too_late() -> None:
    found = of(("a", 5, GOOD), ("b", 2.0, LOST), ("a", 5, GOOD))
    assert found == {Relation("a", "b"): Counts(handovers=1), Relation("b", "a"): Counts(too_late=1)}


@pytest.mark.parametrize(("stay_s", "ping_pongs"), [(0.9, 1), (1.0, 0)])
def test_a_quick_return_is_ping_pong_of_the_relation_that_was_left_again(stay_s: float, ping_pongs: int) -> None:
    found = of(("a", 5, GOOD), ("b", stay_s, GOOD), ("a", 5, GOOD))
    assert found[Relation("a", "b")] == Counts(handovers=1, ping_pong=ping_pongs)
    assert found[Relation("b", "a")] == Counts(handovers=1)


def test_what_lies_before_the_window_tells_where_ues_came_from_and_is_not_counted() -> None:
    """The handover into b lies before it, the failure in it: one window blames it, and only one."""
    found = of(("a", 1, GOOD), ("b", 0.5, LOST), ("a", 5, GOOD), begin_us=WINDOW.from_us - 1_200_000)
    assert found == {Relation("a", "b"): Counts(too_early=1)}
    assert of(("a", 1, GOOD), ("b", 0.5, GOOD), begin_us=WINDOW.until_us - 1_000_000) == {}


@pytest.mark.parametrize(
    ("counts", "step"),
    [
        (Counts(handovers=10, too_late=3), 1),
        (Counts(handovers=10, too_late=2), 0),  # fewer than troubles_min
        (Counts(handovers=1, too_late=3), 0),  # fewer than attempts_min
        (Counts(handovers=10, after_wrong=3), 1),
        (Counts(handovers=10, ping_pong=3), -1),
        (Counts(handovers=10, too_early=1, wrong_radio_cell=1, ping_pong=1), -1),
        (Counts(handovers=10, too_late=4, ping_pong=4), 0),
        (Counts(handovers=96, too_late=4), 0),  # 4 of 100: less than lead_ratio
        (Counts(handovers=95, too_late=5), 1),
        (Counts(), 0),
    ],
)
def test_the_larger_trouble_moves_the_offset_one_step(counts: Counts, step: int) -> None:
    assert step_of(counts, OPTIONS) == step


def ping_pongs(count: int = 6) -> list[Served]:
    return [row for ue in range(count) for row in walk(f"ue-{ue}", [("a", 5, GOOD), ("b", 0.5, GOOD), ("a", 5, GOOD)])]


def reviewed(
    options: CioOptions, last: LastSet | None = None, rows: Sequence[Served] | None = None
) -> Sequence[PolicyAction]:
    rows = ping_pongs() if rows is None else rows
    return CioHook(options).review(rows, WINDOW, lambda object_id, attribute: last if "=a," in object_id else None)


def test_an_action_names_the_relation_the_new_offset_and_all_it_was_decided_from() -> None:
    (action,) = reviewed(OPTIONS)
    assert (action.radio_cell_id, action.object_id) == ("a", "NRCellCU=a,NRCellRelation=b")
    assert (action.attribute, action.value) == ("cellIndividualOffset", {"rsrpOffsetSSB": -1})
    assert (action.why["set_before_db"], action.why["late"], action.why["early"], action.why["attempts"]) == (
        0,
        0,
        6,
        6,
    )
    assert action.why["basis"]["observed"]["ping_pong"] == 6
    assert action.valid_for_s == OPTIONS.window_s


def test_the_offset_moves_on_the_uneven_ladder_from_what_was_set_last() -> None:
    old = LastSet({"rsrpOffsetSSB": -6}, 0)
    (action,) = reviewed(CioOptions(attempts_min=5, most_db=8), old)
    assert action.value == {"rsrpOffsetSSB": -8}
    assert reviewed(OPTIONS, old) == [], "it stands at most_db"
    (configured,) = reviewed(CioOptions(attempts_min=5, cio_db={"a": {"b": 3}}))
    assert (configured.value, configured.why["baseline_db"]) == ({"rsrpOffsetSSB": 2}, 3)


def test_an_offset_beyond_the_bound_may_come_back_only() -> None:
    far = LastSet({"rsrpOffsetSSB": 12}, 0)
    (action,) = reviewed(OPTIONS, far)
    assert action.value == {"rsrpOffsetSSB": 10}
    assert reviewed(OPTIONS, LastSet({"rsrpOffsetSSB": -12}, 0)) == []


@pytest.mark.parametrize(
    ("slot_time_us", "settle_windows", "acts"),
    [(HOUR_US, 1, False), (0, 1, True), (HOUR_US, 0, True), (0, 2, False)],
)
def test_windows_behind_an_own_change_are_let_pass(slot_time_us: int, settle_windows: int, acts: bool) -> None:
    options = CioOptions(attempts_min=5, settle_windows=settle_windows)
    assert bool(reviewed(options, LastSet({"rsrpOffsetSSB": 0}, slot_time_us))) is acts


def test_behind_what_was_taken_back_the_next_step_begins_at_the_baseline_and_later() -> None:
    options = CioOptions(attempts_min=5, cio_db={"a": {"b": 3}})
    (action,) = reviewed(options, LastSet({}, 0))
    assert action.value == {"rsrpOffsetSSB": 2}
    assert reviewed(options, LastSet({}, HOUR_US)) == []


STAYS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([0.3, 0.9, 1.5, 3.0]), st.sampled_from([GOOD, LOST])), max_size=30
)


@settings(max_examples=100, deadline=None)
@given(walks=st.lists(STAYS, max_size=6), before_db=st.sampled_from(CIO_DB), most_db=st.sampled_from([1, 6, 24]))
def test_whatever_happens_an_offset_moves_one_rung_on_the_ladder_and_never_away_beyond_its_bound(
    walks: list[list[Stay]], before_db: int, most_db: int
) -> None:
    rows = [row for ue, stays in enumerate(walks) for row in walk(f"ue-{ue}", stays)]
    rows.sort(key=lambda row: row.slot_time_us)
    options = CioOptions(attempts_min=1, troubles_min=1, most_db=most_db)
    actions = CioHook(options).review(rows, WINDOW, lambda *_: LastSet({"rsrpOffsetSSB": before_db}, 0))
    assert len({action.object_id for action in actions}) == len(actions)
    for action in actions:
        after_db = action.value["rsrpOffsetSSB"]
        assert abs(CIO_DB.index(after_db) - CIO_DB.index(before_db)) == 1
        assert abs(after_db) <= most_db or abs(after_db) < abs(before_db)
    departures = sum(one[0] != other[0] for stays in walks for one, other in pairwise(stays))
    found = counted(rows, WINDOW, options)
    assert sum(counts.handovers + counts.too_late for counts in found.values()) <= departures


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_s": 0.5},
        {"settle_windows": -1},
        {"attempts_min": 0},
        {"troubles_min": 0},
        {"lead_ratio": 1.0},
        {"failure_dbm": -10.0},
        {"recent_s": 0.0},
        {"ping_pong_s": 0.0},
        {"most_db": 7},
        {"most_db": 0},
        {"cio_db": {"a": {"b": 7}}},
        {"object_template": "{source}"},
        {"object_template": "{source}{target:>9}"},
        {"valid_for_s": float("inf")},
        {"window": 1},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        options_of(PLUGIN, wrong, "hooks.cio.options")


def test_the_commented_defaults_are_the_real_ones() -> None:
    lines = (line[1:] if line[:1] == "#" != line[1:2] else line for line in SAMPLE.read_text().split("\n"))
    section = tomllib.loads("\n".join(lines))["hooks"]["cio"]
    assert options_of(PLUGIN, section["options"], "hooks.cio") == CioOptions()
    assert set(section["options"]) == set(CioOptions.__struct_fields__)


def test_every_option_is_in_the_readme() -> None:
    readme = SAMPLE.with_name("README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in CioOptions.__struct_fields__)
