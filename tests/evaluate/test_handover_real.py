"""The evaluation of the handover hook on drives without identity: nothing sees what it is scored on."""

import msgspec
import numpy as np
import pytest

from netpredict import plugins
from netpredict.errors import DataError
from netpredict.evaluate import handover_real, handover_real_pairs
from netpredict.evaluate.handover_real_compare import Fold, curve, fewer_ping_pongs, interpolated
from netpredict.evaluate.handover_real_drives import FOLDS, folds_of, runs_of
from netpredict.evaluate.handover_real_field import Tally, field_of
from netpredict.evaluate.handover_real_links import LIBERAL, stretches_of
from netpredict.evaluate.handover_real_pairs import Promised, below, pairs_of, promises, turned_round
from netpredict.evaluate.handover_real_replay import MEASUREMENT_PERIOD_S, PING_PONG_S, A3Setting, PlainA3, replay
from netpredict.evaluate.handover_wish import Wish
from netpredict.radio.events import a3, advance_ttt, l3_filter, l3_weight_at, new_ttt, ttt_in_slots
from tests.evaluate.wmnlab_drives import drive, street

NAN = np.nan


def ewma(training, name):
    """A predictor with nothing to train, and without TensorFlow."""
    plugin = plugins.load("predictors", "ewma")
    return plugin.build(plugins.options_of(plugin, {}, "ewma"), training.features, training.output)


def two_masts(differences, low=-100.0):
    """The serving one at -90 dBm, the other so many dB above it; both stay what they are."""
    difference = np.asarray(differences, float)
    levels = np.column_stack([np.full(len(difference), -90.0), -90.0 + difference, np.full(len(difference), low)])
    return field_of(stretches_of([drive(levels)], LIBERAL), LIBERAL)


def walked(field, *settings):
    return replay(field, PlainA3(field, [A3Setting(*each) for each in settings]))


def test_plain_a3_waits_for_offset_and_time_to_trigger():
    rise = [-5.0] * 5 + [4.0] * 6
    field = two_masts(rise)
    tally = walked(field, (3.0, 0, 0), (5.0, 0, 0), (3.0, 2560, 0), (3.0, 5120, 0))
    assert tally.handovers[0].tolist() == [1, 0, 1, 0]  # a TTT of 5120 ms needs 6 s after the first

    late = walked(two_masts([-5.0] * 5 + [8.0] * 10), (3.0, 0, 0), (3.0, 640, 0), (3.0, 2560, 0))
    assert late.outages[0].tolist() == [1, 2, 4]  # the second of the rise, and one more for each slot


def test_the_replay_triggers_when_the_event_of_the_standard_does():
    rng = np.random.default_rng(4)
    for _ in range(10):
        difference = np.clip(np.cumsum(rng.normal(0, 1.2, 60)) - 2, -8, 9)
        for offset_db, ttt_ms, filter_k in ((1.0, 0, 0), (2.0, 1280, 0), (1.5, 640, 15)):
            weight = l3_weight_at(filter_k, 1.0, MEASUREMENT_PERIOD_S)
            state, filtered, expected = new_ttt(1), np.array([NAN, NAN]), 0
            for value in difference.astype(np.float32):
                filtered = l3_filter(filtered, np.array([-90.0, -90.0 + value]), weight)
                conditions = a3(filtered[:1], filtered[1:], offset_db, 0.0)
                state, entered = advance_ttt(state, conditions, ttt_in_slots(ttt_ms, 1_000_000))
                if expected := int(entered[0]):
                    break
            tally = walked(two_masts(difference, low=-120.0), (offset_db, ttt_ms, filter_k))
            assert (tally.handovers[0, 0] > 0) == bool(expected)


def test_a_return_is_a_ping_pong_only_within_its_time():
    for stay_s, expected in ((2, 1), (PING_PONG_S, 1), (PING_PONG_S + 1, 0)):
        field = two_masts([-6.0] * 5 + [6.0] * stay_s + [-6.0] * 8)
        tally = walked(field, (3.0, 0, 0))
        assert (tally.handovers[0, 0], tally.ping_pongs[0, 0]) == (2, expected)


def test_a_handover_that_comes_late_costs_the_outage_of_the_old_radio_cell():
    tally = walked(two_masts([-5.0] * 5 + [8.0] * 10), (3.0, 0, 0))
    assert tally.late[0, 0] == 1
    tally = walked(two_masts([-5.0] * 5 + [4.0] * 10), (3.0, 0, 0))
    assert tally.late[0, 0] == 0


def test_in_a_skipped_second_nothing_is_decided_or_counted():
    other = np.where((np.arange(20) >= 8) & (np.arange(20) < 14), -80.0, -95.0)
    levels = np.column_stack([np.full(20, -90.0), other, np.full(20, -100.0)])
    tallies = []
    for events in ({}, {"rlf": range(8, 14)}):
        field = field_of(stretches_of([drive(levels, events)], LIBERAL), LIBERAL)
        tally = walked(field, (3.0, 0, 0))
        tallies.append((int(field.counted()[0]), int(tally.handovers[0, 0]), int(tally.outages[0, 0])))
    assert tallies == [(19, 2, 2), (13, 0, 0)]


def test_a_promise_is_read_off_the_quantiles():
    even = np.linspace(-10, 10, 21)[[1, 3, 6, 10, 14, 17, 19]]  # of a uniform difference between -10 and 10 dB
    np.testing.assert_allclose(below(even[None].astype(np.float32), 0.0), 0.5, atol=1e-6)
    np.testing.assert_allclose(below(even[None].astype(np.float32), -4.0), 0.3, atol=1e-6)
    assert below(even[None].astype(np.float32), -30.0) == 0.0
    assert below(even[None].astype(np.float32), 30.0) == 1.0
    chances = [float(below(even[None].astype(np.float32), bar)[0]) for bar in np.linspace(-12, 12, 60)]
    assert (np.diff(chances) >= 0).all()


def test_a_pair_turned_round_twice_is_itself():
    pairs = pairs_of(two_masts(np.linspace(-6, 6, 30)))
    for values in pairs.values:
        np.testing.assert_array_equal(turned_round(turned_round(values)), values)
        assert (turned_round(values)[:, 0] == -values[:, 0]).all()


def test_the_policy_goes_where_the_forecast_says_and_only_then():
    field = two_masts([-1.0] * 10 + [8.0] * 10)
    pairs = pairs_of(field)
    knows = [
        np.broadcast_to(np.append(each[1:, 0], each[-1, 0])[:, None, None], (len(each), 5, 7)) for each in pairs.values
    ]
    (promise,) = promises(field, pairs, knows, 3.0, (1,))
    tally = replay(field, Promised(promise, (0.5,)))
    assert tally.handovers[0, 0] == 1
    assert tally.outages[0, 0] == 0  # the second before the rise

    stays = [np.full((len(each), 5, 7), abs(each[0, 0]) * np.sign(each[0, 0]), np.float32) for each in pairs.values]
    (promise,) = promises(field, pairs, stays, 3.0, (1,))
    assert replay(field, Promised(promise, (0.5,))).handovers[0, 0] == 0


def tally_of(outages, ping_pongs):
    """Of two settings on four stretches."""
    handovers = 2 * np.asarray(ping_pongs)
    return Tally(np.asarray(outages), handovers, np.asarray(ping_pongs), np.zeros_like(handovers))


def test_settings_are_chosen_without_what_is_scored():
    scored = np.array([True, True, False, False])
    found = []
    for there in ([[0, 9], [0, 9]], [[9, 0], [9, 0]]):
        tally = tally_of([[5, 5], [5, 5], [5, 5], [5, 5]], [*there, [1, 3], [1, 3]])
        fold = Fold(("few", "many"), tally, ~scored, scored)
        found.append(curve([fold], np.full(4, 100.0), np.arange(4), (0.06,), "outage", 0.0))
    assert [each.names for each in found] == [[["few"]], [["few"]]]
    assert [each.ping_pongs.sum() for each in found] == [0, 18]


def test_ping_pongs_are_compared_where_both_have_the_same_outage():
    scored = np.array([True] * 4)
    plain = tally_of([[2, 6]] * 4, [[8, 4]] * 4)
    ours = tally_of([[2, 6]] * 4, [[4, 2]] * 4)
    curves = [
        curve([Fold(("a", "b"), each, scored, scored)], np.full(4, 100.0), np.arange(4), (0.03, 0.07), "outage", 0.0)
        for each in (ours, plain)
    ]
    change = fewer_ping_pongs(*curves, np.full(4, 100.0), 0.04)
    assert change.value == pytest.approx(-0.5)
    assert change.excludes_zero
    x, y = np.array([[0.02, 0.06]]), np.array([[8.0, 4.0]])
    assert interpolated(x, y, np.array([0.04]))[0] == pytest.approx(6.0)
    assert np.isnan(interpolated(x, y, np.array([0.07]))[0])


@pytest.fixture
def small_grids(monkeypatch):
    """Of the grids, so much that the whole takes seconds."""
    monkeypatch.setattr(handover_real, "GRID_OFFSETS_DB", tuple(float(x) for x in range(10)))
    monkeypatch.setattr(handover_real, "GRID_TTTS_MS", (0, 640))
    monkeypatch.setattr(handover_real, "GRID_FILTER_KS", (0, 4))
    monkeypatch.setattr(handover_real, "BARS_DB", (1.0, 4.0))
    monkeypatch.setattr(handover_real, "LEADS", (1,))
    monkeypatch.setattr(handover_real, "ALARM_BARS", (0.1, 0.5))
    monkeypatch.setattr(handover_real.warning, "AUC_DRAWS", 10)


def test_no_weights_see_the_runs_that_they_are_scored_or_chosen_on(monkeypatch):
    drives = [street(number) for number in range(24)]
    run = runs_of(drives)
    stretches = stretches_of(drives, LIBERAL)
    field = field_of(stretches, LIBERAL)
    of_run, fold = run[field.drive], folds_of(run)[field.drive]
    learnt, asked = [], []
    training_set, quantiles = handover_real_pairs.training_set, handover_real_pairs.quantiles
    monkeypatch.setattr(handover_real, "BARS_DB", (3.0,))
    monkeypatch.setattr(handover_real, "LEADS", (1,))

    def spy_set(pairs):
        learnt.append(set(of_run[pairs.stretch].tolist()))
        return training_set(pairs)

    def spy_quantiles(predictor, pairs):
        asked.append(set(of_run[pairs.stretch].tolist()))
        return quantiles(predictor, pairs)

    monkeypatch.setattr(handover_real_pairs, "training_set", spy_set)
    monkeypatch.setattr(handover_real_pairs, "quantiles", spy_quantiles)
    found = handover_real.forecast_folds(field, of_run, fold, ewma, "liberal")

    assert len(learnt) == len(asked) == 2 * FOLDS
    assert not any(by & on for by, on in zip(learnt, asked, strict=True))
    for number, each in enumerate(found):
        scored = set(of_run[fold == number].tolist())
        assert asked[2 * number] == scored
        assert not scored & (learnt[2 * number + 1] | asked[2 * number + 1])
        assert not (each.tuned & each.scored).any()


def test_the_whole_on_a_street(small_grids):
    drives = [street(number) for number in range(24)]
    fits = {"warning": [ewma], "ping_pongs": [ewma]}
    scenes = tuple(handover_real.SCENES)
    result = handover_real.evaluate(drives, scenes, 200, fits, {}, lambda _: None)

    assert [each.linking for each in result.curves] == ["liberal", "conservative"]
    assert {each.decision_delay_ms for each in result.ping_pongs} == {0, 200}
    assert [(each.event, each.ahead_s) for each in result.warnings][:3] == [("rlf", 1), ("rlf", 3), ("rlf", 5)]
    assert result.alarms[0].events > 0
    assert set(msgspec.json.decode(msgspec.json.encode(result))) == set(result.__struct_fields__)
    titles = [each.title for each in handover_real.tables(result)]
    assert len(titles) == 3
    page = handover_real.write_report(result)
    assert "Early warning" in page
    assert "conservative" in page


def test_too_few_runs_and_unknown_scenes_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no scene far: take liberal, conservative, warning"):
        handover_real.run(tmp_path, Wish(0, scenes=("far",)), lambda _: None)
