"""How the bandwidth hook is judged on each data set: costs, leads, plain rules, predictor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netpredict.evaluate.provision import Family
from netpredict.radio.policy import cost_quantile

COSTS = (1.0, 4.0, 10.0)
LEVELS = tuple(sorted({0.1, 0.9, *(cost_quantile(c_under, 1.0) for c_under in COSTS)}))
DAEMON_DELAY_MS = 1_100
"""From the end of a period to a firing that is durable: the default commit interval, and 100 ms at the 99th percentile.

A plain rule in the radio network needs none: the delay is laid on ours alone.
"""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a data set is judged: leads in steps by name, steps of a day, plain rules, predictor and its options.

    ``usual`` are bases of ``family`` that with a factor stand in many a network today.
    ``bucket_steps`` is after how many steps the calibration takes effect (``bucket_s`` of a stream), ``percent`` of the
    resource blocks is one unit of the KPI, ``shown_steps`` the length of the example.
    """

    leads: Mapping[str, int]
    day_steps: int
    family: Family
    usual: tuple[str, ...]
    predictor: str
    options: Mapping[str, Any]
    bucket_steps: int
    percent: float
    shown_steps: int


SETUPS = {
    "milan-hourly": Setup(
        leads={"1 h": 1, "6 h": 6, "24 h": 24},
        day_steps=24,
        family=Family(
            windows=(2, 3, 6, 12, 24),
            shares=(0.5, 0.7, 0.9, 1.0),
            alphas=(0.05, 0.1, 0.2, 0.3, 0.5, 0.7),
            seasons={
                "same hour yesterday": (24, 1),
                "same hour, mean of 3 days": (24, 3),
                "same hour, mean of 7 days": (24, 7),
                "same hour last week": (168, 1),
                "same hour, mean of 2 weeks": (168, 2),
                "same hour, mean of 3 weeks": (168, 3),
            },
        ),
        usual=("same hour yesterday", "same hour last week", "last value", "maximum of 3", "maximum of 6"),
        predictor="gru",
        options={"units": 64, "dropout": 0.2, "adapt": "rls"},
        bucket_steps=168,  # days of a week differ in what they hold: a single day would throw the next one off
        percent=1.0,  # a count stands for a percent: it has no unit of its own, and 84 is the largest
        shown_steps=72,
    ),
    "nist-prosas": Setup(
        leads={"1 min": 1, "5 min": 5, "15 min": 15},
        day_steps=1440,
        family=Family(
            windows=(2, 3, 5, 7, 10, 15, 20, 30, 45, 60),
            shares=(0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
            alphas=(0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7),
            seasons={"same minute yesterday": (1440, 1)},
        ),
        usual=tuple(f"{what} of {steps}" for steps in (5, 7, 10, 15) for what in ("median", "0.9 quantile", "maximum")),
        predictor="gru",
        options={
            "units": 64,
            "head_units": 64,
            "dropout": 0.1,
            "ensemble": 4,
            "scaler_steps": 200,
            "minibatch_size": 8,
            "train_epochs": 12,
            "adapt": "rls",
        },
        bucket_steps=60,
        percent=2.0,
        shown_steps=180,
    ),
}
