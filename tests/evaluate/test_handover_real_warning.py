"""Early warning: causal inputs, what counts as a positive, and alarms counted per event."""

import numpy as np
import pytest

from netpredict.evaluate import handover_real_warning as warning
from netpredict.evaluate.handover_real_drives import Drive
from tests.evaluate.test_handover_real import ewma
from tests.evaluate.wmnlab_drives import drive, street


def quiet(steps, **events):
    return drive(np.full((steps, 3), -90.0), events)


def test_no_input_knows_what_is_to_come():
    whole = street(3)
    for second in (20, 57, 90):
        levels, events = whole.levels.copy(), whole.events.copy()
        levels[second + 1 :], events[second + 1 :] = -60.0, 1
        changed = Drive(whole.name, 0, levels, events, whole.recorded)
        before, after = (warning.inputs_of(each)[: second + 1] for each in (whole, changed))
        np.testing.assert_array_equal(before, after)


def test_the_second_of_an_event_is_left_out_and_those_before_it_are_positives():
    one = quiet(40, rlf=[20])
    chances = [np.tile(np.arange(40, dtype=np.float32)[:, None, None] / 100, (1, 3, 5))]
    within = warning.scored([one], np.array([0]), chances, 0, 3, exactly=False)
    exactly = warning.scored([one], np.array([0]), chances, 0, 3, exactly=True)
    assert len(within.positive) == 40 - warning.WARM_S - 3 - 1
    assert within.positive.sum() == 3
    assert exactly.positive.sum() == 1
    np.testing.assert_allclose(exactly.chance[exactly.positive], 0.17)
    np.testing.assert_allclose(
        within.chance[within.positive], [1 - (1 - s / 100) ** 3 for s in (17, 18, 19)], rtol=1e-5
    )


def test_auc_is_the_chance_that_a_positive_stands_above():
    rng = np.random.default_rng(0)
    chance, positive = rng.integers(0, 6, 80) / 6, rng.random(80) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in chance[positive] for b in chance[~positive]]
    assert warning.auc(chance, positive) == pytest.approx(np.mean(pairs))
    assert np.isnan(warning.auc(chance, np.zeros(80, bool)))


def test_alarms_are_counted_per_event():
    """A long false alarm counts every horizon anew; one alarm tells of one event only."""
    one = quiet(100, rlf=[30, 32, 60])
    chance = np.zeros(100, np.float32)
    chance[[27, 28, 29]] = 0.9  # of 30; it says nothing of 32
    chance[40:52] = 0.9  # false, twelve seconds long
    chance[97] = 0.9  # the drive ends before it is known
    found = warning.alarms(one, chance, 0.5)
    assert (found.events, found.caught, found.false) == (3, 1, 2)
    assert found.leads_s == [3]

    chance[31] = 0.9
    assert warning.alarms(one, chance, 0.5).caught == 2
    chance[30] = 0.9
    assert warning.alarms(one, chance, 0.5).caught == 2  # in its own second nothing is raised
    assert found.seconds == 100 - warning.WARM_S


def test_the_bar_is_the_lowest_that_gives_one_false_alarm_in_ten_minutes():
    drives = [quiet(608, rlf=[300, 320, 340, 360]) for _ in range(4)]
    chances = [np.zeros(608, np.float32) for _ in drives]
    for each, high in zip(chances, (0.3, 0.5, 0.7, 0.9), strict=True):
        each[[100, 200]] = high
        each[[298, 318, 338, 358]] = 0.95
    assert warning.bar_for(drives, chances, (0.2, 0.4, 0.6, 0.8)) == 0.6


def test_the_bar_rises_until_most_alarms_are_true():
    """Two false alarms an hour are rare enough, yet a third of six or one of four is too much; one of five is not."""
    long = quiet(3608, rlf=[1000, 2000, 3000, 3500])
    chance = np.zeros(3608, np.float32)
    chance[[500, 1500]] = 0.3, 0.5
    chance[[998, 1998, 2998, 3498]] = 0.3, 0.9, 0.9, 0.9
    assert warning.bar_for([long], [chance], (0.2, 0.4, 0.6)) == 0.6
    chance[998] = 0.9
    assert warning.bar_for([long], [chance], (0.2, 0.4, 0.6)) == 0.4


def test_no_weights_see_the_runs_that_they_warn_of():
    drives, learnt = [street(number) for number in range(10)], []

    def fit(training, name):
        learnt.append(set(training.series_names))
        return ewma(training, name)

    fold = np.arange(10) // 2
    found = warning.chances_by_folds(drives, fold, 5, [fit])
    assert len(found) == 10
    for number, by in enumerate(learnt):
        assert by == {each.name for each, of in zip(drives, fold, strict=True) if of != number}
