"""The evaluation of the mcs hook: nothing sees what it is scored on, and what is scored is what the hook decides."""

import numpy as np
import pytest

from netpredict import plugins
from netpredict.errors import DataError
from netpredict.evaluate import mcs
from netpredict.evaluate.goodput import Panel, walk
from netpredict.evaluate.mcs_forecasts import DELAYS_S, OUTPUT, forecast_by_folds, in_time, training_set
from netpredict.evaluate.mcs_report import write_report
from netpredict.evaluate.priced import Priced
from netpredict.evaluate.published import Recording
from netpredict.radio.link import Price
from netpredict.radio.tables import cqi_efficiency
from netpredict.types import HookBatch, SeriesKey


def recordings(count: int = 10, steps: int = 160) -> list[Recording]:
    """CQI that stays for some seconds; the level tells the trace."""
    found = []
    for number in range(count):
        rng = np.random.default_rng(number)
        jumps = np.where(rng.random(steps) < 0.2, rng.integers(-3, 4, steps), 0)
        cqi = np.clip(8 + np.cumsum(jumps), 1, 15).astype(np.float32)
        cqi[rng.random(steps) < 0.1] = np.nan
        group = ("static_strm", "driving_strm")[number % 2]
        found.append(Recording(f"trace {number}", group, np.stack([cqi, 2 * cqi - 5, 3 * cqi - 120], axis=1)))
    return found


def ewma(training, name):
    """A predictor with nothing to train, and without TensorFlow."""
    plugin = plugins.load("predictors", "ewma")
    return plugin.build(plugins.options_of(plugin, {}, "ewma"), training.features, training.output)


def test_no_weights_see_the_traces_that_they_forecast():
    every, learnt = recordings(), []

    def fit(training, name):
        learnt.append({each.split("@")[0] for each in training.series_names})
        return ewma(training, name)

    world = forecast_by_folds(every, fit, 5)

    for number, train, test in world.parts():
        scored, by = {every[i].name for i in test}, learnt[2 * number]
        assert by == {every[i].name for i in train}
        assert not scored & by
        tuned = {every[i].name for i in train if world.forecasts[number][i] is not None}
        assert len(tuned) == 4
        assert learnt[2 * number + 1] == by - tuned  # nor do those that the price is tuned on
    assert len(learnt) == 10


def test_a_fold_without_a_trace_is_refused():
    with pytest.raises(DataError, match="take more"):
        forecast_by_folds(recordings(3), ewma, 5)


def test_what_was_not_measured_is_no_target():
    training = training_set(recordings(2, 700))
    assert training.values.shape == (4, 480, 3)
    assert training.truth is None
    assert np.isnan(training.values[1, 220:]).all()


def certain(cqi: float) -> np.ndarray:
    """Quantiles of a forecast that is sure, at every lead."""
    return np.tile(np.linspace(cqi - 0.4, cqi + 0.4, len(OUTPUT.levels), dtype=np.float32), (OUTPUT.horizon_steps, 1))


def test_a_second_is_acted_on_by_the_forecast_issued_so_long_before():
    answers = np.stack([certain(cqi) for cqi in (3, 5, 7, 9, 11)])
    values = np.array([[3, 1], [5, 1], [np.nan, np.nan], [np.nan, 1], [11, 1]], np.float32)
    at_least = in_time(answers, values, 1)
    assert np.isnan(at_least[0]).all()
    # the third second brought no message, and so no forecast
    assert (at_least[1:] > 0.5).sum(axis=1).tolist() == [4, 6, 6, 10]


def test_the_hook_decides_what_was_evaluated():
    (trace,) = recordings(1, 400)
    cqi, delay = trace.values[:, 0], 2
    rng = np.random.default_rng(8)
    spread = np.sort(rng.normal(0, 2, (len(cqi), OUTPUT.horizon_steps, len(OUTPUT.levels))), axis=2)
    answers = np.round(np.clip(np.nan_to_num(cqi, nan=8.0)[:, None, None] + spread, 0, 15), 2).astype(np.float32)
    settings = Price(0.1, 4.0, 0.2, 0.05, 200.0)
    panel = Panel([cqi])
    rule = Priced(panel.flat([in_time(answers, trace.values, delay)]), cqi_efficiency(1), [settings], 1)
    evaluated = Noted(rule)
    walk(panel, evaluated, delay, (1,))

    plugin = plugins.load("hooks", "mcs")
    options = {"bler_target": 0.1, "price": 4.0, "price_rate": 0.2, "lead_steps": delay, "min_stay_slots": 0}
    hook = plugin.build(plugins.options_of(plugin, options, "hook"))
    state = {name: np.full((1, *a.shape), a.fill, a.dtype) for name, a in hook.state_spec().items()}
    live, in_force = [1] * delay, 1
    for slot in range(len(cqi) - delay):
        if np.isfinite(trace.values[slot]).any():
            bler = float(cqi[slot] < live[slot]) if np.isfinite(cqi[slot]) else np.nan
            fired, state = hook.decide(one_row(slot, answers[slot], bler), state)
            in_force = fired[0].why["cqi"] if fired else in_force
        live.append(in_force)

    assert len(set(live)) > 5
    assert mcs_of(live) == mcs_of(evaluated.chosen)


def mcs_of(cqis) -> list[int]:
    """CQI 1 and 2 of table 1 share an index, so that a change between them fires nothing."""
    return [max(2, cqi) for cqi in cqis]


class Noted:
    """Writes down what the one candidate chose."""

    def __init__(self, rule):
        self.rule, self.candidates, self.chosen = rule, 1, []

    def choose(self, rows):
        chosen = self.rule.choose(rows)
        self.chosen.append(int(chosen[0, 0]))
        return chosen

    def hear(self, nack, chosen, heard):
        self.rule.hear(nack, chosen, heard)


def one_row(slot: int, forecast: np.ndarray, bler: float) -> HookBatch:
    return HookBatch(
        stream="channel-state",
        period_us=1_000_000,
        slot=np.array([slot]),
        slot_time_us=np.array([slot * 1_000_000]),
        record=np.zeros(1, np.int32),
        columns=("cqi", "bler_ratio"),
        observed=np.array([[9.0, bler]], np.float32),
        levels=OUTPUT.levels,
        forecasts={"cqi": forecast[None]},
        source=np.zeros(1, np.uint8),
        flags=np.zeros(1, np.uint16),
        key_of=lambda row: SeriesKey(("ue",)),
    )


@pytest.fixture(scope="module")
def result():
    return mcs.run(recordings(), ewma, folds=2, decision_delay_ms=200)


def test_there_is_a_row_of_each_kind(result):
    kinds = {(row.delay_s, row.cqi_table, row.bler_limit, row.decision_delay_ms) for row in result.rows}
    assert kinds == {(s, t, limit, ms) for s in DELAYS_S for t in (1, 2) for limit in (0.1, None) for ms in (0, 200)}
    assert result.traces == 4
    for row in result.rows:
        assert row.gain == pytest.approx(row.ours.goodput / row.plain.goodput - 1)
        assert row.gain_low <= row.gain <= row.gain_high
        assert len(row.ours_bler_by_trace) == 4
        assert len(row.families) == 10


def test_a_late_decision_costs_goodput(result):
    free = [row for row in result.rows if row.bler_limit is None and row.delay_s == 1]
    for now, late in zip(free[::2], free[1::2], strict=True):
        assert late.ours.goodput < now.ours.goodput


def test_the_report_has_the_answer_and_draws_every_figure(result):
    text = write_report(result)
    assert "goodput over the best plain rule" in text
    assert text.count("class=plot") == 2 + len(DELAYS_S) + 1
    assert "minimum + OLLA" in text
