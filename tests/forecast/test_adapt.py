"""What is learnt of one series while it runs: it helps where a median is wrong for it, and harms nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from netpredict.errors import ConfigError, DataError
from netpredict.forecast.adapt import Adapted, adapted
from netpredict.forecast.options import RecurrentOptions
from netpredict.plugins import load
from netpredict.testing import LeakyMean, MemoryStore, check_predictor
from netpredict.traces.datasets import DATASETS
from netpredict.types import FeatureSpec, OutputSpec, TrainingReport
from tests.pipeline_world import World, filled, static_shelf, traffic_rows

FEATURES = FeatureSpec(("a", "b"), 1_000_000)
LEVELS = (0.1, 0.5, 0.9)
OUTPUT = OutputSpec(("b", "a"), 5, LEVELS)


class Inner(LeakyMean):
    """A leaky mean that can be asked for weights; memory 0 is the last value. ``off`` is added to its median."""

    def __init__(self, features: FeatureSpec, output: OutputSpec, memory: float = 0.0, off: float = 0.0) -> None:
        super().__init__(features, output, memory)
        self.off = np.float32(off)

    def advance(self, features: Any, hidden: Any) -> Any:
        outputs, after = super().advance(features, hidden)
        return {kpi: values + self.off for kpi, values in outputs.items()}, after

    def fit(self, dataset: Any, progress: Any = None) -> TrainingReport:
        return TrainingReport(1, 0.0, [0.0], [0.0])

    def weights(self) -> Mapping[str, Any]:
        return {"off": np.array(self.off)}

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        self.off = weights["off"]


def one_kpi(steps: int = 4) -> tuple[FeatureSpec, OutputSpec]:
    return FeatureSpec(("a",), 1_000_000), OutputSpec(("a",), steps, LEVELS)


def cold(predictor: Any, rows: int) -> dict[str, Any]:
    return {name: np.full((rows, *spec.shape), spec.fill, spec.dtype) for name, spec in predictor.state_spec().items()}


def medians(predictor: Any, values: Any) -> Any:
    """Median at each step of (S, T) values of one KPI: (S, T, horizon)."""
    hidden, found = cold(predictor, len(values)), []
    for value in values.T.astype(np.float32):
        features = np.zeros((len(values), 4), np.float32)
        features[:, 0] = value
        outputs, hidden = predictor.advance(features, hidden)
        found.append(outputs["a"][:, :, 1])
    return np.stack(found, axis=1)


def errors(predictor: Any, values: Any, since: int = 0) -> Any:
    """Mean absolute error of each series, over all leads and issues from ``since`` on."""
    found = medians(predictor, values)
    leads, steps = found.shape[2], values.shape[1]
    misses = [np.abs(values[:, lead:] - found[:, : steps - lead, lead - 1])[:, since:] for lead in range(1, leads + 1)]
    return np.nanmean(np.concatenate(misses, axis=1), axis=1)


def walk(rows: int = 8, steps: int = 1500, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, steps)).cumsum(axis=1)


# -- the contract --------------------------------------------------------------------------------------------------


def test_it_keeps_the_contract_of_a_predictor() -> None:
    check_predictor(Adapted(Inner(FEATURES, OUTPUT, 0.7), FEATURES, 50), FEATURES)


def test_rows_are_the_same_bits_in_any_batch_after_many_steps() -> None:
    predictor = Adapted(Inner(*one_kpi()), one_kpi()[0], 50)
    values = walk(37, 300)
    together = medians(predictor, values)
    for rows in (slice(0, 1), slice(5, 12)):
        np.testing.assert_array_equal(medians(predictor, values[rows]), together[rows])


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_whatever_comes_the_state_stays_finite_and_the_correction_within_the_mean_error(memory: float) -> None:
    rng = np.random.default_rng(2)
    wild = np.stack(
        [
            np.zeros(600),
            np.full(600, 1e-30),
            np.where(rng.random(600) < 0.02, 1e29, 1.0),
            np.where(rng.random(600) < 0.5, np.nan, rng.normal(size=600)),
            np.full(600, np.nan),
            np.exp(np.linspace(0, 60, 600)),
            np.repeat(rng.normal(size=6) * 1e6, 100),
            np.where(np.arange(600) == 300, np.inf, 5.0),
        ]
    ).astype(np.float32)
    features, output = one_kpi()
    inner, plain = Inner(features, output, memory), Inner(features, output, memory)
    predictor = Adapted(inner, features, 20)
    hidden, without = cold(predictor, len(wild)), cold(plain, len(wild))
    for value in wild.T:
        row = np.zeros((len(wild), 4), np.float32)
        row[:, 0] = value
        with np.errstate(all="ignore"):
            outputs, hidden = predictor.advance(row, hidden)
            expected, without = plain.advance(row, without)
        own = {name: array for name, array in hidden.items() if name.startswith("adapt.")}
        assert all(np.isfinite(array).all() for array in own.values())
        fine = np.isfinite(expected["a"])
        moved = np.abs(np.where(fine, outputs["a"], 0) - np.where(fine, expected["a"], 0)).max(axis=(1, 2))
        assert (moved <= own["adapt.error"].max(axis=(1, 2)) * 1.001 + np.abs(value) * 1e-5).all() | ~np.isfinite(
            value
        ).all()


def test_missing_steps_do_not_shift_what_is_paired() -> None:
    """On y = t the last value errs by exactly k at lead k, whatever steps are missing."""
    values = np.tile(np.arange(800.0), (2, 1))
    values[1, 600:][np.random.default_rng(3).random(200) < 0.3] = np.nan
    found = medians(Adapted(Inner(*one_kpi()), one_kpi()[0], 50), values)
    learnt = (found - values[:, :, None]) / np.arange(1, 5)
    assert np.ptp(learnt[0, 500:], axis=1).max() < 0.01
    assert np.abs(learnt[0, 500:] - 0.9).max() < 0.1
    after_gaps = learnt[1, 600:][np.isfinite(values[1, 600:])]
    assert np.abs(after_gaps.mean(axis=0) - 0.95).max() < 0.15


# -- what it is for ------------------------------------------------------------------------------------------------


def test_a_series_of_which_the_median_is_off_is_put_right() -> None:
    features, output = one_kpi()
    noise = 50 + np.random.default_rng(4).normal(size=(4, 900))
    plain = errors(Inner(features, output, 0.95, off=5.0), noise, since=300)
    better = errors(Adapted(Inner(features, output, 0.95, off=5.0), features, 200), noise, since=300)
    assert (better < 0.45 * plain).all()


def test_an_overshoot_is_learnt_from_the_move_that_the_median_foretells() -> None:
    """The leaky mean of a slow sine lags: the error is explained by where the median lies from the last value."""
    values = 10 * np.sin(np.arange(2000) / 9)[None] + walk(3, 2000, 5) * 0.05
    features, output = one_kpi()
    plain = errors(Inner(features, output, 0.8), values, since=500)
    better = errors(Adapted(Inner(features, output, 0.8), features, 200), values, since=500)
    assert (better < 0.5 * plain).all()


def test_where_nothing_is_to_be_learnt_nothing_is_lost() -> None:
    features, output = one_kpi()
    values = walk()
    ratio = errors(Adapted(Inner(features, output), features, 200), values) / errors(Inner(features, output), values)
    assert ratio.max() < 1.02
    assert ratio.mean() < 1.005


def test_all_levels_of_a_lead_move_together() -> None:
    features, output = one_kpi()
    predictor = Adapted(Inner(features, output, 0.9, off=3.0), features, 50)
    plain = Inner(features, output, 0.9, off=3.0)
    hidden, without = cold(predictor, 2), cold(plain, 2)
    for value in np.random.default_rng(6).normal(size=200).astype(np.float32):
        row = np.full((2, 4), value, np.float32)
        (outputs, hidden), (expected, without) = predictor.advance(row, hidden), plain.advance(row, without)
    shift = outputs["a"] - expected["a"]
    assert (np.abs(shift) > 1).all()
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :, :1], shift.shape), rtol=1e-5)


def test_a_pipeline_with_it_ends_in_the_same_store_whatever_dies() -> None:
    world = World(filled({"ran.traffic": traffic_rows(3, cells=4, minutes=50)}))
    world.config = {**world.config, "streams": {"traffic": world.config["streams"]["traffic"]}, "hooks": {}}

    def shelf(streams: Any, _: Any) -> Any:
        made = static_shelf(streams)
        (stream,) = streams
        build = lambda: Adapted(Inner(stream.features, stream.output, 0.7), stream.features, 50)  # noqa: E731
        made.put("traffic", "leaky", "rls", build)
        return made

    world.shelf = shelf
    dumps = []
    for poll, stops in ((5000, ()), (7, (3, 11, 2))):
        store = MemoryStore()
        world.offsets = {}
        for stop in (*stops, None):
            world.run(store, poll, commit_every=2, stop_after=stop)
        dumps.append(store.dump())
    for table in dumps[0]:
        assert dumps[0][table] == dumps[1][table], f"{table} differs"
    assert any("adapt.readout" in layout for layout, *_ in dumps[0]["states"].values())


# -- how it is chosen ------------------------------------------------------------------------------------------------


def test_by_default_there_is_none() -> None:
    inner = Inner(FEATURES, OUTPUT)
    assert adapted(inner, RecurrentOptions(), FEATURES) is inner


def test_a_categorical_forecast_cannot_be_corrected() -> None:
    classes = OutputSpec(("a",), 2, (1.0, 2.0), kind="categorical")
    with pytest.raises(ConfigError, match="adapt = 'none'"):
        Adapted(Inner(FEATURES, classes), FEATURES, 50)


def test_a_gru_with_it_keeps_the_contract_and_its_weights_fit_one_without() -> None:
    plugin = load("predictors", "gru")
    options = {"units": 4, "seed": 3}
    plain = plugin.build(plugin.options(**options), FEATURES, OUTPUT)
    wrapped = plugin.build(plugin.options(**options, adapt="rls", adapt_steps=50), FEATURES, OUTPUT)
    check_predictor(wrapped, FEATURES)
    plain.load_weights(wrapped.weights())
    wrapped.load_weights(plain.weights())


# -- real traces ---------------------------------------------------------------------------------------------------


def real(name: str, column: str, steps: int, limit: int | None = None) -> Any:
    """Values (S, T) of one KPI on the grid of a public data set."""
    dataset = DATASETS[name]
    try:
        traces = list(dataset.read(limit_traces=limit))
    except DataError as error:
        pytest.skip(str(error))
    values = np.full((len(traces), steps), np.nan)
    for row, trace in enumerate(traces):
        slot = np.rint((trace.frame["event_time_us"] - trace.start_us) / 1e6 / dataset.period_s).to_numpy(int)
        mine = (slot >= 0) & (slot < steps)
        values[row, slot[mine]] = trace.frame[column].to_numpy(float)[mine]
    return values


@pytest.mark.parametrize(
    ("name", "column", "steps", "limit", "memory", "least"),
    [
        ("nist-prosas", "prb_use_dl_percent", 3000, None, 0.0, 0.04),
        ("milan", "activity_count", 1200, 10, 0.75, 0.04),
        ("ucc5g", "rsrp_dbm", 800, 8, 0.0, -0.002),  # the last value is hard to beat: nothing may be lost
    ],
)
def test_on_real_traces_it_gains_and_no_series_loses(
    name: str, column: str, steps: int, limit: int | None, memory: float, least: float
) -> None:
    values = real(name, column, steps, limit)
    features, output = one_kpi(10)
    plain = errors(Inner(features, output, memory), values)
    better = errors(Adapted(Inner(features, output, memory), features, 100), values)
    assert 1 - better.sum() / plain.sum() > least
    assert (better / plain).max() < 1.005
