"""Drives made for the tests: levels by hand, or a street with two masts that a phone goes to and fro between."""

import numpy as np

from netpredict.evaluate.handover_real_drives import EVENTS, LEVELS, LTE_RSRP, Drive


def drive(levels, events=None, start_s=0, name="drive"):
    """``levels`` (T, 3) dBm of serving and its two neighbours; ``events`` {name: seconds}."""
    lte = np.asarray(levels, np.float32)
    whole = np.full((len(lte), len(LEVELS)), np.nan, np.float32)
    whole[:, LTE_RSRP] = lte
    counted = np.zeros((len(lte), len(EVENTS)), np.int64)
    for event, seconds in (events or {}).items():
        counted[list(seconds), EVENTS.index(event)] = 1
    return Drive(name, start_s, whole, counted, np.ones(len(lte), np.bool_))


def street(number, steps=120):
    """Two masts whose levels rise and fall in turn under noise; the network hands over 4 dB after they cross, or
    the link fails there.
    """
    rng = np.random.default_rng(number)
    wave = 15 * np.sin(np.arange(steps) / 9 + number) + rng.normal(0, 1.5, steps)
    masts = np.stack([-90 + wave, -90 - wave], axis=1) + rng.normal(0, 1, (steps, 2))
    third = np.full(steps, -118.0) + rng.normal(0, 0.5, steps)
    serving, rows, handovers, failures = 0, [], [], []
    for second in range(steps):
        rows.append((masts[second, serving], masts[second, 1 - serving], third[second]))
        if masts[second, 1 - serving] > masts[second, serving] + 4 and second + 1 < steps:
            serving = 1 - serving
            (failures if rng.random() < 0.3 else handovers).append(second)
    run = number // 2
    return drive(
        rows, {"lte_handovers": handovers, "rlf": failures}, start_s=1_000 * run + number % 2, name=f"{number}"
    )
