from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from netpredict.config import GroupConfig, HookConfig
from netpredict.decide import BoundHook, Fired, refresh_slots
from netpredict.forecast.series import SeriesTable
from netpredict.types import DueAction, Firing, HookBatch, Mode, SeriesKey


def test_firings_reach_their_lane_in_the_order_of_the_log_and_not_of_the_rounds():
    """Two reports of a UE in one slot may fire with one id: the store keeps the first it is given."""
    bound = BoundHook("handover", HookConfig(plugin="handover", stream="rsrp"), None, ())
    lanes = [SimpleNamespace(firings=[]), None, SimpleNamespace(firings=[])]
    fired = Fired()
    lane = np.array([0, 1, 2])
    fired.add(bound, [(0, "later"), (1, "of a lane that has gone")], np.array([7, 8, 9]), lane)  # round 0
    fired.add(bound, [(0, "earlier"), (2, "elsewhere")], np.array([3, 4, 5]), lane)  # round 1
    fired.hand_over(lanes)
    assert [firing for firing, _ in lanes[0].firings] == ["earlier", "later"]
    assert lanes[2].firings == [("elsewhere", ("log",))]
    fired.hand_over(lanes)
    assert len(lanes[0].firings) == 2


class SetAlways:
    """A hook that sets something for every row."""

    api_version = 1

    def kpis_needed(self):
        return ("prb",)

    def columns_needed(self):
        return ("users",)

    def steps_needed(self):
        return 2

    def state_spec(self):
        return {}

    def decide(self, batch, state):
        return [DueAction(row, f"cell-{row}", "quota", {"quota": 1}, {"rule": "test"}, 60.0) for row in range(3)], {}


def seen() -> HookBatch:
    return HookBatch(
        "traffic",
        60_000_000,
        np.array([7, 7, 7]),
        np.array([7, 7, 7]) * 60_000_000,
        np.array([0, 1, 2], np.int32),
        ("prb", "users", "other"),
        np.array([[1.5, np.nan, 9.0]] * 3, np.float32),
        (0.1, 0.5, 0.8, 0.9),
        {"prb": np.arange(36, dtype=np.float32).reshape(3, 3, 4)},
        np.array([0, 2, 0], np.uint8),
        np.array([0, 1, 0], np.uint16),
        lambda row: SeriesKey(("ue-1", f"lab-{row}" if row else "site")),
        lambda row: "gru@v3",
    )


def fired_firings() -> list[Firing]:
    groups = [
        GroupConfig(name="one", match="lab-1", mode=Mode.AUTO),
        GroupConfig(name="lab", match="lab-*", mode=Mode.ASSIST),
    ]
    config = HookConfig(plugin="p", stream="traffic", groups=groups)
    bound = BoundHook("h", config, SetAlways(), ())
    return [firing for _, firing in bound.decide(SeriesTable(4), seen(), np.array([0, 1, 2]))]


def test_the_first_group_that_matches_the_radio_cell_gives_the_mode():
    fired = fired_firings()
    assert [firing.mode for firing in fired] == [Mode.SHADOW, Mode.AUTO, Mode.ASSIST]
    assert [firing.group for firing in fired] == ["", "one", "lab"]
    assert [(firing.series, firing.radio_cell_id) for firing in fired][:2] == [
        ("ue-1|site", "site"),
        ("ue-1|lab-1", "lab-1"),
    ]


def test_a_firing_says_what_its_hook_could_see():
    why = fired_firings()[1].why
    assert why["rule"] == "test"
    assert why["basis"] == {
        "model": "gru@v3",
        "source": "naive",
        "quality": 1,
        "observed": {"prb": 1.5, "users": None},
        "levels": [0.1, 0.5, 0.9],
        "forecast": {"prb": [[12.0, 13.0, 15.0], [16.0, 17.0, 19.0]]},
    }


def test_an_action_may_not_be_applied_once_its_effect_is_over():
    config = HookConfig(plugin="p", stream="traffic", effect_s=45.0)
    ((_, action), *_) = BoundHook("h", config, SetAlways(), ()).decide(SeriesTable(4), seen(), np.array([0, 1, 2]))
    assert action.expires_at_us == action.effect_until_us == action.slot_time_us + 45_000_000


def test_a_refresh_names_the_firing_whose_value_it_repeats_and_has_an_id_of_its_own():
    hook = SetAlways()
    config = HookConfig(plugin="p", stream="traffic", effect_s=600.0)
    bound = BoundHook("h", config, hook, ())
    table, due = SeriesTable(4), []
    hook.decide = lambda batch, state: due.append(batch.refresh_slots) or SetAlways().decide(batch, state)
    first = [firing for _, firing in bound.decide(table, seen(), np.array([0, 1, 2]))]
    assert due == [5], "half of its effect, in slots"
    again = [DueAction(0, "cell-0", "quota", {"quota": 1}, {"rule": "test"}, 60.0, set_slot=7)]
    hook.decide = lambda batch, state: (again, {})
    later = replace(seen(), slot=np.array([12, 12, 12]), slot_time_us=np.array([12, 12, 12]) * 60_000_000)
    ((_, refresh),) = bound.decide(table, later, np.array([0, 1, 2]))
    assert refresh.refreshes == refresh.why["refreshes"] == first[0].firing_id != refresh.firing_id
    assert first[0].refreshes == ""
    assert refresh_slots(HookConfig(plugin="p", stream="traffic", effect_s=60.0), 60_000_000) == 0
