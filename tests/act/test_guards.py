from __future__ import annotations

from typing import Any

import pytest

from netpredict.act.guards import NOT_CONFIGURED, Deviation, Facts, GuardSettings, Reason, held_out, judged
from netpredict.clock import DayWindow, in_day_windows, parse_day_windows
from netpredict.errors import ConfigError
from netpredict.types import Firing, LastApplied, Lease, Mode, Quality
from tests.act.memory_outbox import NOW_US, firing

OPEN = GuardSettings(cooldown_s=60.0, rate_per_min=3)
MINUTE_US = 60_000_000
MIDNIGHT_US = NOW_US - 12 * 60 * MINUTE_US


def reason(
    f: Firing,
    last: LastApplied | None = None,
    now_us: int = NOW_US,
    settings: GuardSettings = OPEN,
    applied_last_minute: int = 0,
    **facts: Any,
) -> Reason | None:
    known = Facts(last, applied_last_minute=applied_last_minute, **facts)
    return judged(f, known, now_us, settings).reason


def applied_before(f: Firing, ago_us: int) -> LastApplied:
    return LastApplied("f0", f.slot_time_us - 1, NOW_US - ago_us)


def test_nothing_speaks_against_a_fresh_firing_in_auto_mode() -> None:
    assert reason(firing("f1")) is None


def test_a_shadow_firing_is_never_applied() -> None:
    assert reason(firing("f1", mode=Mode.SHADOW)) is Reason.SHADOW


def test_a_firing_expires_at_its_microsecond_and_not_before() -> None:
    f = firing("f1")
    assert reason(f, now_us=f.expires_at_us - 1) is None
    assert reason(f, now_us=f.expires_at_us) is Reason.EXPIRED


def test_the_cooldown_ends_at_its_microsecond() -> None:
    f = firing("f1")
    assert reason(f, applied_before(f, MINUTE_US - 1)) is Reason.COOLDOWN
    assert reason(f, applied_before(f, MINUTE_US)) is None


def test_a_clock_that_was_set_back_cools_down_longer_instead_of_acting() -> None:
    f = firing("f1")
    assert reason(f, applied_before(f, -3600 * 1_000_000)) is Reason.COOLDOWN


def test_a_firing_is_not_cooled_down_by_its_own_other_actuator() -> None:
    f = firing("f1")
    assert reason(f, LastApplied("f1", f.slot_time_us, NOW_US), applied_last_minute=99) is None


def test_an_old_value_never_replaces_a_younger_one() -> None:
    f = firing("f1")
    assert reason(f, LastApplied("f2", f.slot_time_us + 1, NOW_US - 10 * MINUTE_US)) is Reason.SUPERSEDED


def test_an_old_value_gives_way_to_a_younger_one_that_waits() -> None:
    verdict = judged(firing("f1"), Facts(younger="f2"), NOW_US, GuardSettings())
    assert (verdict.reason, verdict.said) == (Reason.SUPERSEDED, "f2 is of a later slot, and waits")


def test_what_may_have_been_sent_is_sent_again_though_a_younger_one_waits() -> None:
    f = firing("f1")
    under_way = Lease(f.hook, f.firing_id, 0, NOW_US + MINUTE_US, NOW_US)
    assert judged(f, Facts(lease=under_way, younger="f2"), NOW_US, GuardSettings()).reason is None


def test_the_rate_is_full_when_the_limit_is_reached() -> None:
    assert reason(firing("f1"), applied_last_minute=2) is None
    assert reason(firing("f1"), applied_last_minute=3) is Reason.RATE


A_VALUE = {"rRMPolicyMinRatio": 40}


def in_force(**changes: Any) -> LastApplied:
    """What a refresh of firing f0 repeats."""
    told = {"hook": "bandwidth", "value": A_VALUE, "effect_until_us": NOW_US + MINUTE_US} | changes
    return LastApplied("f0", NOW_US - 2 * MINUTE_US, NOW_US - MINUTE_US // 2, **told)


def refresh(**changes: object) -> Firing:
    return firing("f1", why={"refreshes": "f0"}, **changes)


def now_in(mode: Mode) -> GuardSettings:
    return GuardSettings(mode_of=lambda radio_cell_id: mode if radio_cell_id == "c1" else Mode.AUTO)


@pytest.mark.parametrize(
    ("decided", "now", "refused"),
    [
        (Mode.AUTO, Mode.SHADOW, True),
        (Mode.ASSIST, Mode.SHADOW, True),
        (Mode.AUTO, Mode.ASSIST, True),
        (Mode.ASSIST, Mode.ASSIST, False),
        (Mode.ASSIST, Mode.AUTO, False),
        (Mode.SHADOW, Mode.AUTO, True),
    ],
)
def test_what_is_on_its_way_does_not_outlive_its_mode(decided: Mode, now: Mode, refused: bool) -> None:
    f = firing("f1", mode=decided, series="ue|c1")
    assert reason(f, settings=now_in(now)) is (Reason.SHADOW if refused else None)


def test_a_hook_that_is_not_configured_any_more_does_nothing() -> None:
    verdict = judged(firing("f1"), Facts(), NOW_US, NOT_CONFIGURED)
    assert (verdict.reason, verdict.said) == (Reason.SHADOW, "no hook 'bandwidth' is configured")


def test_what_was_taken_back_at_one_actuator_is_not_set_at_the_other() -> None:
    f = firing("f1")
    assert reason(f, LastApplied("f1", f.slot_time_us, NOW_US, taken_back=True)) is Reason.TAKEN_BACK


FULL = GuardSettings(cooldown_s=60.0, rate_per_min=3, blast_ratio=0.1)


def test_a_refresh_of_what_holds_passes_where_a_change_would_not() -> None:
    full: dict[str, Any] = {"applied_last_minute": 9, "changed": {"other"}, "radio_cells": 10, "settings": FULL}
    assert reason(refresh(), in_force(), **full) is None
    assert reason(firing("f1"), in_force(), **full) is Reason.COOLDOWN
    verdict = judged(refresh(), Facts(in_force()), NOW_US, FULL)
    assert verdict.refreshes == "f0"
    assert judged(refresh(), Facts(in_force(refreshes="origin")), NOW_US, FULL).refreshes == "origin"


@pytest.mark.parametrize(
    "last",
    [
        in_force(value={"rRMPolicyMinRatio": 45}),
        in_force(hook="other"),
        in_force(effect_until_us=NOW_US),
    ],
    ids=["another value", "of another hook", "it has ended"],
)
def test_a_refresh_of_what_does_not_hold_is_judged_as_the_change_that_it_is(last: LastApplied) -> None:
    assert judged(refresh(), Facts(last), NOW_US, FULL)[0] is Reason.COOLDOWN
    assert reason(refresh(), None, settings=FULL, applied_last_minute=3) is Reason.RATE


def test_nothing_is_only_refreshed_while_nobody_knows_what_was_set() -> None:
    """A runner took the attribute for another value and died."""
    lease = Lease("bandwidth", "f9", 0, NOW_US + MINUTE_US, NOW_US - 1)
    assert reason(refresh(), in_force(), lease=lease) is Reason.COOLDOWN
    assert reason(refresh(), in_force(), lease=lease._replace(firing_id="f0")) is None


def test_a_refresh_does_not_bring_back_what_was_taken_back() -> None:
    gone = in_force(taken_back=True)
    assert reason(refresh(), gone) is Reason.TAKEN_BACK
    later = NOW_US + 5 * MINUTE_US
    assert reason(refresh(expires_at_us=later + 1), gone, now_us=later) is Reason.TAKEN_BACK
    assert reason(firing("f1", expires_at_us=later + 1), gone, now_us=later) is None, "asked for anew"
    assert reason(refresh(expires_at_us=later + 1, value={"rRMPolicyMinRatio": 45}), gone, now_us=later) is None


def test_a_refresh_does_not_cool_down_the_change_behind_it() -> None:
    fresh = in_force(refreshes="f-1", changed_us=NOW_US - MINUTE_US)
    assert reason(firing("f1"), fresh) is None
    lease = Lease("bandwidth", "f0", 0, NOW_US + MINUTE_US, NOW_US - 1)
    assert reason(firing("f1"), fresh, lease=lease) is None
    assert reason(firing("f1"), fresh._replace(changed_us=NOW_US - MINUTE_US + 1)) is Reason.COOLDOWN


@pytest.mark.parametrize("settings", [GuardSettings(blackouts=parse_day_windows(["11:00-13:00"], "x"))])
def test_all_other_guards_hold_for_a_refresh(settings: GuardSettings) -> None:
    assert reason(refresh(), in_force(), settings=settings) is Reason.BLACKOUT
    assert reason(refresh(), in_force(), disarmed="skill") is Reason.DISARMED
    assert reason(refresh(mode=Mode.SHADOW), in_force()) is Reason.SHADOW


@pytest.mark.parametrize(
    ("window", "minute", "inside"),
    [
        ("11:30-12:30", 11 * 60 + 29, False),
        ("11:30-12:30", 11 * 60 + 30, True),
        ("11:30-12:30", 12 * 60 + 29, True),
        ("11:30-12:30", 12 * 60 + 30, False),
        ("22:00-05:30", 21 * 60 + 59, False),
        ("22:00-05:30", 23 * 60, True),
        ("22:00-05:30", 0, True),
        ("22:00-05:30", 5 * 60 + 29, True),
        ("22:00-05:30", 5 * 60 + 30, False),
    ],
)
def test_a_blackout_holds_from_its_begin_to_before_its_end_also_over_midnight(
    window: str, minute: int, inside: bool
) -> None:
    blackouts = parse_day_windows([window], "blackout_utc")
    now_us = MIDNIGHT_US + minute * MINUTE_US
    assert in_day_windows(now_us, blackouts) is inside
    f = firing("f1", expires_at_us=now_us + 1, effect_until_us=now_us + 1)
    assert reason(f, now_us=now_us, settings=GuardSettings(blackouts=blackouts)) is (
        Reason.BLACKOUT if inside else None
    )


def test_blackouts_are_read_as_minutes_of_the_day() -> None:
    assert parse_day_windows(["22:00-05:30"], "blackout_utc") == (DayWindow(22 * 60, 5 * 60 + 30),)


@pytest.mark.parametrize(
    "text", ["", "22-06", "24:00-01:00", "10:60-11:00", "10:00-10:00", "10:00-11:00 ", "1:00-2:00"]
)
def test_a_blackout_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="blackout_utc"):
        parse_day_windows([text], "blackout_utc")


@pytest.mark.parametrize(
    "wrong", [{"cooldown_s": -1.0}, {"cooldown_s": float("nan")}, {"rate_per_min": 0}, {"rate_per_min": float("nan")}]
)
def test_guard_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        GuardSettings(**wrong)  # type: ignore[arg-type]


# -- quality, deviation, lease, blast radius ---------------------------------------------------------------------------


def test_a_source_that_is_not_trusted_to_act_is_refused() -> None:
    careful = GuardSettings(sources=frozenset({"model"}))
    assert reason(firing("f1", why={"basis": {"source": "model"}}), settings=careful) is None
    assert reason(firing("f1", why={"basis": {"source": "naive"}}), settings=careful) is Reason.QUALITY


def test_a_flag_that_is_not_trusted_to_act_is_refused_and_named() -> None:
    careful = GuardSettings(refused_quality=Quality.SUSPECT | Quality.FAILED)
    doubted = firing("f1", why={"basis": {"quality": int(Quality.SUSPECT | Quality.WARMING)}})
    verdict = judged(doubted, Facts(), NOW_US, careful)
    assert (verdict.reason, verdict.said) == (Reason.QUALITY, "the forecast is flagged suspect")
    assert reason(firing("f1", why={"basis": {"quality": int(Quality.WARMING)}}), settings=careful) is None


@pytest.mark.parametrize(
    ("why", "value", "refused"),
    [
        ({"before": 30}, 50, None),
        ({"before": 30}, 51, Reason.DEVIATION),
        ({"before": 70}, 49, Reason.DEVIATION),
        ({"before": None}, 60, None),  # the configured one
        ({}, 61, Reason.DEVIATION),
        ({}, "much", Reason.DEVIATION),
        ({}, float("nan"), Reason.DEVIATION),
    ],
)
def test_a_value_stays_near_its_baseline(why: dict[str, Any], value: Any, refused: Reason | None) -> None:
    bounded = GuardSettings(deviations=(Deviation("quota", 20, baseline=40, baseline_why="before"),))
    assert reason(firing("f1", why=why, value={"quota": value}), settings=bounded) is refused


def test_without_a_baseline_nothing_is_near_it() -> None:
    bounded = GuardSettings(deviations=(Deviation("quota", 20, baseline_why="before"),))
    assert reason(firing("f1", value={"quota": 1}), settings=bounded) is Reason.DEVIATION
    assert reason(firing("f1", value={"other": 1}), settings=bounded) is None


@pytest.mark.parametrize(
    ("holder", "until", "priority", "refused"),
    [
        ("handover", 1, 0, Reason.LEASE),
        ("handover", 1, 1, None),  # a higher priority takes it
        ("handover", 0, 0, None),  # it has ended
        ("bandwidth", 1, 0, None),  # its own
    ],
)
def test_a_hook_waits_for_the_lease_of_another(holder: str, until: int, priority: int, refused: Reason | None) -> None:
    lease = Lease(holder, "f0", 0, NOW_US + until)
    assert reason(firing("f1"), settings=GuardSettings(priority=priority), lease=lease) is refused


@pytest.mark.parametrize(
    ("changed", "cells", "refused"),
    [({"a"}, 20, None), ({"a", "b"}, 20, Reason.BLAST_RADIUS), ({"a", "me"}, 20, None), (set(), 3, None)],
)
def test_a_share_of_the_radio_cells_may_be_changed(changed: set[str], cells: int, refused: Reason | None) -> None:
    small = GuardSettings(blast_ratio=0.1)
    assert reason(firing("f1", series="ue|me"), settings=small, changed=changed, radio_cells=cells) is refused


def test_a_verdict_records_what_passed_and_what_refused() -> None:
    verdict = judged(firing("f1"), Facts(applied_last_minute=3), NOW_US, OPEN)
    record = verdict.record()
    assert record["refused"] == "rate"
    assert record["said"] == "3 were applied within a minute"
    assert record["passed"][-1] == "cooldown"


def test_a_disarmed_hook_and_a_held_out_radio_cell_get_no_action() -> None:
    assert reason(firing("f1"), disarmed="skill -0.2") is Reason.DISARMED
    cells = [f"cell-{number}" for number in range(1000)]
    share = sum(held_out(cell, 0.2) for cell in cells) / len(cells)
    assert 0.15 < share < 0.25
    kept = {cell for cell in cells if held_out(cell, 0.1)}
    assert kept <= {cell for cell in cells if held_out(cell, 0.2)}
    out = next(iter(sorted(kept)))
    assert reason(firing("f1", series=out), settings=GuardSettings(holdout_ratio=0.1)) is Reason.HOLDOUT
    assert reason(firing("f1", series=out), settings=GuardSettings()) is None
