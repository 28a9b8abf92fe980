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
