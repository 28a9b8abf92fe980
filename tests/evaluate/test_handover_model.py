"""The failure model against the reference figures of the data README, and its rules one by one on made-up radio."""

from pathlib import Path

import numpy as np
import pytest

from netpredict.evaluate.handover_model import PlainA3, radio_of, walk
from netpredict.traces import ns3_uma

# data README: per UE-minute, seeds 1 and 2 together, offset 3 dB, k = 4:
# handovers at 480 ms; failures and share of handovers that fail (%) at 480 and 160 ms; ping-pongs at 160 ms
REFERENCE = {
    "v003": (0.51, 0.00, 0.0, 0.00, 0.0, 0.00),
    "v030": (3.12, 0.30, 8.7, 0.14, 3.5, 0.02),
    "v060": (4.56, 1.32, 22.5, 0.77, 11.6, 0.06),
    "v120": (6.13, 3.86, 38.7, 2.89, 25.8, 0.18),
    "los_v060": (4.44, 3.34, 42.9, 2.91, 33.4, 0.09),
}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCE)
def test_plain_a3_does_what_the_data_readme_says(name: str, data_folder: Path):
    handovers, failures, failed, ping_pongs, minutes = 0, 0, 0, 0, 0.0
    for seed in (1, 2):
        scene = ns3_uma.read(data_folder / "ns3-uma", name, seed)
        rule = PlainA3(ns3_uma.measure(scene), [4], [3.0], [480, 160])
        counts = walk(radio_of(scene), rule)
        handovers = handovers + counts.handovers.sum(axis=1)
        failures = failures + counts.failures.sum(axis=1)
        failed = failed + counts.handover_failures.sum(axis=1)
        ping_pongs = ping_pongs + counts.ping_pongs.sum(axis=1)
        minutes += counts.minutes * counts.handovers.shape[1]
    share = 100 * failed / np.maximum(handovers + failed, 1)
    found = [handovers[0] / minutes, failures[0] / minutes, share[0], failures[1] / minutes, share[1]]
    found.append(ping_pongs[1] / minutes)
    # what another noise seed changes: events are counted over 267 UE-minutes
    away = np.abs(np.array(found) - REFERENCE[name])
    assert (away <= [0.06, 0.06, 1.0, 0.06, 1.0, 0.03]).all(), found


GOOD_DBM = -90.0


def scene_of(levels_dbm: dict[int, np.ndarray]) -> ns3_uma.Scene:
    """One UE; radio cells that are not named are far away."""
    steps = len(next(iter(levels_dbm.values())))
    rsrp = np.full((1, steps, 57), -170.0, np.float32)
    for cell, level_dbm in levels_dbm.items():
        rsrp[0, :, cell] = level_dbm
    return ns3_uma.Scene("made up", 1, 60.0, rsrp)


class Script:
    """Hands over as told: {period: target}, in one setting."""

    settings = 1
    wait = np.zeros((1, 1), np.int64)

    def __init__(self, told: dict[int, int], after_failure: int = 0) -> None:
        self.told, self.after_failure = told, after_failure
        self.seen: list[tuple[int, int]] = []

    def best(self, period: int) -> np.ndarray:
        return np.array([[self.after_failure if period else 0]])

    def decide(self, period: int, serving: np.ndarray, began: np.ndarray) -> np.ndarray:
        self.seen.append((int(serving[0, 0]), int(began[0, 0])))
        return np.full((1, 1), self.told.get(period, -1))


def outcome(scene: ns3_uma.Scene, script: Script) -> tuple[int, int, int, int]:
    counts = walk(radio_of(scene), script)
    each = (counts.handovers, counts.radio_link_failures, counts.handover_failures, counts.ping_pongs)
    return tuple(int(count.sum()) for count in each)


def jammed(begin_s: float, end_s: float, steps: int = 100) -> ns3_uma.Scene:
    """Radio cell 0 serves at -90 dBm, number 1 drowns it by 20 dB in between; number 2 is as good as 0."""
    loud = np.full(steps, -110.0)
    loud[round(10 * begin_s) : round(10 * end_s)] = -70.0
    return scene_of({0: np.full(steps, GOOD_DBM), 1: loud, 2: np.full(steps, GOOD_DBM)})


def test_a_link_that_is_lost_for_a_second_fails_and_one_that_comes_back_does_not():
    assert outcome(jammed(2.0, 2.9), Script({})) == (0, 0, 0, 0)
    script = Script({}, after_failure=2)
    assert outcome(jammed(2.0, 3.6), script)[:2] == (0, 1)
    moved = next(began for serving, began in script.seen if serving == 2)
    assert 310 <= moved <= 320  # T310 began between 1.9 and 2.0 s, and an outage of 200 ms follows its end


def test_a_command_fails_while_t310_runs_and_then_only():
    assert outcome(jammed(2.0, 2.5), Script({11: 1}))[2] == 1  # at 2.2 s
    assert outcome(jammed(2.0, 2.5), Script({8: 2}))[2] == 0  # at 1.6 s
    assert outcome(jammed(2.0, 2.5), Script({14: 2}))[2] == 0  # at 2.8 s: in sync again


def test_a_target_out_of_sync_refuses():
    assert outcome(jammed(2.0, 2.6), Script({2: 1})) == (0, 0, 1, 0)
    assert outcome(jammed(2.0, 2.6), Script({2: 2})) == (1, 0, 0, 0)


def test_back_within_a_second_is_a_ping_pong():
    quiet = jammed(9.0, 9.1)
    assert outcome(quiet, Script({5: 2, 9: 0})) == (2, 0, 0, 1)
    assert outcome(quiet, Script({5: 2, 10: 0})) == (2, 0, 0, 0)  # 1.0 s
    assert outcome(quiet, Script({5: 2, 7: 1, 9: 0}))[3] == 0


def test_a3_waits_for_its_time_to_trigger_between_two_measurements():
    steps = 60
    rising = np.where(np.arange(steps) < 20, -95.0, -80.0)
    scene = scene_of({0: np.full(steps, GOOD_DBM), 1: rising})
    measured = ns3_uma.measure(scene, sigma_db=0.0)
    rule = PlainA3(measured, [0], [3.0], [0, 160, 480])
    assert rule.wait.ravel().tolist() == [0, 16, 8]
    serving, began = np.zeros((3, 1), np.int64), np.zeros((3, 1), np.int64)
    fired = [[], [], []]
    for period in range(30):
        target = rule.decide(period, serving, began)
        for setting in np.flatnonzero(target[:, 0] >= 0):
            fired[setting].append(period)
    assert [each[0] for each in fired] == [fired[0][0], fired[0][0], fired[0][0] + 2]
