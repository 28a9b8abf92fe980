"""A small history that a network can learn."""

import numpy as np

from netpredict.learn.dataset import build
from netpredict.types import FeatureSpec, OutputSpec

FEATURES = FeatureSpec(("load",), 3_600_000_000, 24, 86_400_000_000)
OUTPUT = OutputSpec(("load",), 3, (0.1, 0.5, 0.9))
OPTIONS = {"units": 8, "train_epochs": 2, "bptt_steps": 24, "learning_rate": 0.02}


def noisy_sines(series=16, steps=240):
    rng = np.random.default_rng(1)
    t = np.arange(steps) + rng.integers(0, 24, size=(series, 1))
    load = 5 + 3 * np.sin(2 * np.pi * t / 24) + 0.3 * rng.normal(size=(series, steps))
    return build(
        FEATURES,
        OUTPUT,
        series_names=[f"cell-{i}" for i in range(series)],
        first_slot=np.full(series, 1000),
        values=load[:, :, None],
        columns=["load"],
    )
