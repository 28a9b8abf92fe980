"""The held-out slice: what is counted there is what a predictor would have said step by step."""

import math

import numpy as np
import pytest

from netpredict.learn.dataset import build
from netpredict.learn.evaluate import LEAD_IN_STEPS, held_out, loss_ratio
from netpredict.plugins import load
from netpredict.testing import LeakyMean
from netpredict.types import FeatureSpec, OutputSpec

FEATURES = FeatureSpec(("b", "a"), 60_000_000)
OUTPUT = OutputSpec(("a", "b"), 3, (0.1, 0.5, 0.9))


def of(values, ratio=0.25):
    values = np.asarray(values, np.float32)
    return build(
        FEATURES,
        OUTPUT,
        series_names=[str(number) for number in range(len(values))],
        first_slot=np.zeros(len(values), np.int64),
        values=values,
        columns=("a", "b"),
        validation_ratio=ratio,
    )


def naive():
    plugin = load("predictors", "naive")
    return plugin.build(plugin.options(), FEATURES, OUTPUT)


def test_on_a_ramp_naive_errs_by_the_lead_and_has_no_skill():
    ramp = np.stack([np.arange(40.0), 2 * np.arange(40.0)], axis=1)[None]
    scores = held_out(naive(), of(ramp))
    leads = [lead for step in range(30, 39) for lead in (1, 2, 3) if step + lead < 40]
    assert scores["n.a"] == scores["n.b"] == len(leads)
    assert scores["mae.a"] == scores["naive_mae.a"] == pytest.approx(np.mean(leads))
    assert scores["mae.b"] == pytest.approx(2 * np.mean(leads))
    assert scores["skill"] == scores["skill.a"] == 0.0


def test_what_is_missing_is_not_counted_and_a_column_that_never_was_has_no_score():
    values = np.stack([np.arange(40.0) % 5, np.full(40, np.nan)], axis=1)[None]
    values[0, 35, 0] = np.nan
    whole, scores = held_out(naive(), of(np.nan_to_num(values))), held_out(naive(), of(values))
    assert scores["n.a"] == whole["n.a"] - 3 - 3
    assert "mae.b" not in scores
    assert held_out(naive(), of(np.full((1, 40, 2), np.nan))) == {}


def test_the_state_runs_into_the_slice_and_both_are_measured_alike():
    """A leaky mean that had to begin cold at the slice would err less on its first step: it would be naive."""
    rng = np.random.default_rng(1)
    dataset = of(rng.normal(50, 5, (7, 80, 2)))
    slow, quick = (held_out(LeakyMean(FEATURES, OUTPUT, memory), dataset) for memory in (0.95, 0.5))
    assert slow["n.a"] == quick["n.a"] > 100
    assert slow["naive_mae.a"] == quick["naive_mae.a"]
    assert slow["skill"] > quick["skill"] > 0, "on noise the longer memory wins"
    assert loss_ratio(slow, quick) < 1 < loss_ratio(quick, slow)
    assert loss_ratio(slow, quick) * loss_ratio(quick, slow) == pytest.approx(1.0)
    assert math.isnan(loss_ratio({}, quick))
    assert LEAD_IN_STEPS > 100
