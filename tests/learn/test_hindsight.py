"""What links cost is found from reports as from the radio itself, and nothing that is held out teaches it."""

from dataclasses import replace

import numpy as np
import pytest

from netpredict.errors import ConfigError, DataError
from netpredict.forecast.options import RecurrentOptions, check_options
from netpredict.learn import hindsight
from netpredict.learn.dataset import build
from netpredict.learn.evaluate import held_out
from netpredict.learn.hindsight import Links, Past, costs, labelled, pieces, taught, walked, with_truth
from netpredict.learn.train import train
from netpredict.plugins import Plugin, load, options_of
from netpredict.radio import handover_cost
from netpredict.radio.link_failure import fates, filtered, radio_of_sinr, sinr_db
from netpredict.testing import LeakyMean
from netpredict.types import FeatureSpec, Hindsight, OutputSpec, TrainingReport, TrainingSet

PERIOD_MS = 200
KPIS = ("rsrp_dbm", *handover_cost.KPIS)
FEATURES = FeatureSpec((*KPIS, "sinr_db"), PERIOD_MS * 1000)
OUTPUT = OutputSpec(KPIS, 2, (0.1, 0.5, 0.9))
SETTINGS = Hindsight(handover_cost=0.05, load_ratio=0.3, rounds=2, piece_steps=20, max_gap_steps=5, warm_steps=3)
STEPS, CELLS = 300, 5


def level_dbm(ues: int = 3, steps: int = STEPS, seed: int = 1) -> np.ndarray:
    """(UEs, steps, radio cells) that wander by some dB a second; all of them near one another."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 5, (ues, steps, CELLS))
    for step in range(1, steps):
        level[:, step] = 0.95 * level[:, step - 1] + 0.3 * level[:, step]
    return np.round(level - 90, 2).astype(np.float32)


def history(level: np.ndarray, reported: np.ndarray | None = None, validation_ratio: float = 0.25) -> TrainingSet:
    """As the decoder would give it: every link a series, with the rules of thumb beside the RSRP."""
    sinr = sinr_db(level)
    other = np.array([np.delete(level, cell, axis=-1).max(axis=-1) for cell in range(CELLS)]).transpose(1, 2, 0)
    columns = np.stack([level, *handover_cost.rules_of_thumb(level, sinr, other), sinr], axis=-1)
    if reported is not None:
        columns[~reported] = np.nan
    names = [f"ue-{ue}|cell-{cell}" for ue in range(len(level)) for cell in range(CELLS)]
    values = np.moveaxis(columns, 2, 1).reshape(len(names), level.shape[1], len(FEATURES.observed))
    return build(
        FEATURES,
        OUTPUT,
        series_names=names,
        first_slot=np.full(len(names), 70),
        values=values,
        columns=FEATURES.observed,
        validation_ratio=validation_ratio,
        hindsight=SETTINGS,
    )


def of_radio(
    level: np.ndarray, ratio: np.ndarray, guess: np.ndarray | None = None, period_ms: int = PERIOD_MS
) -> np.ndarray:
    """(UEs, radio cells, steps, 3) by the radio itself, decided at a step by a guess, or by plain A3."""
    radio = radio_of_sinr(ratio, period_ms)
    best, strongest = (filtered(level, k).argmax(axis=-1).T for k in (4, 2))
    guess = hindsight.first_guess(np.moveaxis(level, 0, 1)) if guess is None else guess
    known = costs(Past(fates(radio), best, strongest), guess[: radio.periods], SETTINGS.handover_cost, period_ms)
    return known.transpose(1, 2, 0, 3)


def test_costs_from_reports_are_those_of_the_radio_and_the_truth_of_the_next_slot():
    level = level_dbm()
    found = Links(history(level), SETTINGS).costs(None)
    known = of_radio(level, sinr_db(level)).reshape(-1, STEPS - 2, 3)
    np.testing.assert_array_equal(found[:, 1:-1], known)
    assert np.isnan(found[:, 0]).all()
    assert np.isnan(found[:, -1]).all()
    assert 0.01 < known[..., 1].mean() < 0.9  # some commands fail, some do not


def test_links_are_found_by_name_in_any_order_and_ues_have_nothing_to_do_with_each_other(monkeypatch):
    monkeypatch.setattr(hindsight, "TICKS_AT_ONCE", 3 * CELLS * STEPS * 20)  # three UEs at a time
    level = level_dbm(ues=11)
    whole = history(level)
    found = Links(whole, SETTINGS).costs(None)
    order = np.random.default_rng(2).permutation(len(whole.values))
    mixed = replace(whole, values=whole.values[order], series_names=[whole.series_names[i] for i in order])
    np.testing.assert_array_equal(Links(mixed, SETTINGS).costs(None), found[order])
    first = replace(
        whole, values=whole.values[:CELLS], series_names=whole.series_names[:CELLS], first_slot=whole.first_slot[:CELLS]
    )
    np.testing.assert_array_equal(Links(first, SETTINGS).costs(None), found[:CELLS])


def test_a_radio_cell_that_is_not_reported_is_no_target_and_counts_as_weak():
    level = level_dbm()
    weak = level < level.max(axis=-1, keepdims=True) - 9
    found = Links(history(level, ~weak), SETTINGS).costs(None).reshape(3, CELLS, STEPS, 3)[:, :, 1:-1]
    unknown = np.isnan(found).all(axis=-1)
    np.testing.assert_array_equal(unknown, weak.transpose(0, 2, 1)[:, :, : STEPS - 2])
    counted = np.where(weak, level.max(axis=-1, keepdims=True) - hindsight.REPORTED_DB, level)
    known = of_radio(counted, np.where(weak, sinr_db(counted), sinr_db(level)))
    np.testing.assert_array_equal(found[~unknown][:, 1:], known[~unknown][:, 1:])


def test_the_reported_sinr_tells_whether_a_link_is_lost_and_levels_do_where_there_is_none():
    dataset = history(level_dbm())
    quiet, loud = dataset.values.copy(), dataset.values.copy()
    quiet[..., -1], loud[..., -1] = 20.0, -20.0
    none, all_ = (Links(replace(dataset, values=each), SETTINGS).costs(None)[:, 1:-1] for each in (quiet, loud))
    assert (none[..., 1:] == 0).all()
    assert (all_[..., 1:] == 1).all()
    untold = dataset.values.copy()
    untold[..., -1] = np.nan
    by_levels = Links(replace(dataset, values=untold), SETTINGS).costs(None)
    np.testing.assert_array_equal(by_levels, Links(dataset, SETTINGS).costs(None))
    fewer = replace(dataset, features=FeatureSpec(KPIS, PERIOD_MS * 1000), values=dataset.values[..., :-1])
    np.testing.assert_array_equal(by_levels, Links(fewer, SETTINGS).costs(None))


@pytest.mark.parametrize("period_ms", [400, 1000])
def test_costs_are_of_the_period_of_the_stream(period_ms: int):
    level = level_dbm()
    dataset = replace(history(level), features=replace(FEATURES, period_us=period_ms * 1000))
    known = of_radio(level, sinr_db(level), period_ms=period_ms)
    np.testing.assert_array_equal(Links(dataset, SETTINGS).costs(None)[:, 1:-1], known.reshape(-1, STEPS - 2, 3))
    assert not np.array_equal(known, of_radio(level, sinr_db(level)))


def test_where_no_sinr_is_reported_the_others_load_is_as_told():
    dataset = history(level := level_dbm())
    dataset.values[..., -1] = np.nan
    found = Links(dataset, replace(SETTINGS, load_ratio=0.9)).costs(None)
    known = of_radio(level, sinr_db(level, 0.9))
    np.testing.assert_array_equal(found[:, 1:-1], known.reshape(-1, STEPS - 2, 3))
    assert not np.array_equal(known, of_radio(level, sinr_db(level)))


def test_a_level_holds_where_reports_of_a_ue_are_lost():
    level = level_dbm()
    there = np.ones(level.shape, bool)
    there[:, 100:103] = False
    held = level.copy()
    held[:, 100:103] = level[:, 99:100]
    guess = hindsight.first_guess(np.moveaxis(held, 0, 1))
    guess[100:103] = hindsight.UNKNOWN
    found = Links(history(level, there), SETTINGS).costs(None).reshape(3, CELLS, STEPS, 3)[:, :, 1:-1]
    known = of_radio(held, sinr_db(held), guess)
    known[~there.transpose(0, 2, 1)[:, :, : STEPS - 2]] = np.nan
    np.testing.assert_array_equal(found, known)


def test_a_link_that_no_model_serves_is_left_alone_by_the_policy_too():
    dataset = history(level_dbm())
    shape = (STEPS, len(dataset.values), 3)
    unserved = Links(dataset, SETTINGS).costs(np.full(shape, np.nan, np.float32))
    np.testing.assert_array_equal(unserved, Links(dataset, SETTINGS).costs(np.zeros(shape, np.float32)))
    assert not np.array_equal(unserved, Links(dataset, SETTINGS).costs(None), equal_nan=True)


def test_what_comes_after_a_ue_was_gone_was_no_consequence():
    level = level_dbm()
    there = np.ones(level.shape, bool)
    there[:, 100:130] = False
    found = Links(history(level, there), SETTINGS).costs(None)
    other = level.copy()
    other[:, 130:] = level_dbm(seed=9)[:, 130:]
    again = Links(history(other, there), SETTINGS).costs(None)
    np.testing.assert_array_equal(found[:, :90], again[:, :90])
    assert not np.array_equal(found[:, 131:], again[:, 131:], equal_nan=True)
    short = np.ones(level.shape, bool)
    short[:, 100:103] = False  # a few reports that are lost end nothing
    one, two = (Links(history(each, short), SETTINGS).costs(None)[:, :98] for each in (level, other))
    assert not np.array_equal(one, two, equal_nan=True)


class Noted:
    """Trains a predictor that has nothing to train, and keeps what it was given."""

    def __init__(self, share: float = 0.5) -> None:
        self.lessons: list[TrainingSet] = []
        self._share = share

    def __call__(self, lesson: TrainingSet):
        self.lessons.append(lesson)
        return LeakyMean(lesson.features, lesson.output, self._share), TrainingReport(1, 0.0, [0.0], [np.nan])


def test_every_round_follows_the_policy_of_the_one_before_and_nothing_held_out_teaches():
    level = level_dbm()
    whole, noted = history(level), Noted()
    taught(whole, SETTINGS, noted)
    first, second = (lesson.truth for lesson in noted.lessons)
    assert not np.array_equal(first, second, equal_nan=True)
    part = replace(whole, values=whole.values[:, : whole.validation_from])
    acted_on = walked(LeakyMean(FEATURES, OUTPUT, 0.5), part, SETTINGS)
    by_policy = pieces(with_truth(part, Links(part, SETTINGS).costs(acted_on)), SETTINGS.piece_steps)
    np.testing.assert_array_equal(second, by_policy.truth)

    changed, again = level.copy(), Noted()
    changed[:, whole.validation_from :] = level_dbm(seed=5)[:, whole.validation_from :]
    taught(history(changed), SETTINGS, again)
    for one, other in zip(noted.lessons, again.lessons, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.truth, other.truth)


def test_pieces_are_of_links_that_are_reported_and_begin_cold():
    level = level_dbm()
    reported = np.ones(level.shape, bool)
    reported[0, :, 3] = False
    reported[0, :3, 3] = True
    whole = history(level, reported, validation_ratio=0.0)
    lesson = pieces(with_truth(whole, Links(whole, SETTINGS).costs(None)), 20)
    assert lesson.values.shape[1:] == (20, len(FEATURES.observed))
    assert lesson.validation_from == 20
    assert np.isnan(lesson.truth[:, 0]).all()
    each = (STEPS - 20) // 16 + 1
    assert len(lesson.values) == each * (3 * CELLS - 1)  # but the link that is hardly reported
    assert set(lesson.first_slot.tolist()) == {70 + 16 * number for number in range(each)}


def test_forecasts_in_hindsight_are_those_of_the_daemon_a_link_that_was_silent_for_long_begins_cold():
    level = level_dbm(ues=1)
    reported = np.ones(level.shape, bool)
    reported[0, 50:54, 0], reported[0, 50:60, 1] = False, False
    dataset = history(level, reported)
    found = walked(LeakyMean(FEATURES, OUTPUT, 0.5), dataset, SETTINGS)
    assert np.isnan(found[50:54, 0]).all()
    assert np.isnan(found[60:62, 1]).all()  # not warm yet
    assert np.isfinite(found[62, 1]).all()
    fresh = walked(LeakyMean(FEATURES, OUTPUT, 0.5), replace(dataset, values=dataset.values[:, 60:]), SETTINGS)
    np.testing.assert_array_equal(found[60:, 1], fresh[:, 1])
    assert not np.array_equal(found[60:, 0], fresh[:, 0])


def test_what_is_held_out_is_judged_by_hindsight_and_costs_by_their_mean():
    dataset = history(level_dbm())
    predictor = LeakyMean(FEATURES, OUTPUT, 0.5)
    scores = held_out(predictor, labelled(dataset, predictor))
    assert {"mae.rsrp_dbm", "pinball.rsrp_dbm", "mse.stay_cost", "naive_mse.stay_cost", "skill.stay_cost"} <= set(
        scores
    )
    assert "pinball.stay_cost" not in scores
    truth = Links(dataset, SETTINGS).costs(walked(predictor, dataset, SETTINGS))[:, dataset.validation_from + 1 :]
    thumb = dataset.values[:, dataset.validation_from : -1, 1:4]
    ahead = [(truth[:, lead:] - thumb[:, : thumb.shape[1] - lead])[..., 0] for lead in (0, 1)]
    squares = np.concatenate([each[~np.isnan(each)] for each in ahead]) ** 2
    assert scores["naive_mse.stay_cost"] == pytest.approx(squares.mean(), rel=1e-5)
    same = history(level_dbm())
    assert labelled(replace(same, hindsight=None), predictor).truth is None


@pytest.mark.slow
def test_a_network_learns_what_links_cost(tmp_path):
    options = {"loss": "mse", "inputs": "history", "calendar": False, "lags": 2, "units": 16, "bptt_steps": 20}
    options |= {"train_epochs": 4, "learning_rate": 0.01}
    dataset = replace(history(level_dbm(ues=24)), hindsight=replace(SETTINGS, rounds=1))
    artefact, report = train(dataset, "gru", options, tmp_path / "one", now_us=1)
    assert report.scores["skill.stay_cost"] > 0.2
    assert report.scores["skill.command_failure_ratio"] > 0.2
    assert report.scores["skill.access_failure_ratio"] > 0.2
    again, _ = train(dataset, "gru", options, tmp_path / "two", now_us=2)
    assert again.version == artefact.version
    assert not [name for name in report.scores if name.startswith("mase_scale.") and "rsrp" not in name]


def test_options_that_do_not_fit_are_refused_before_anything_is_labelled(tmp_path, monkeypatch):
    monkeypatch.setattr(hindsight, "taught", lambda *_: pytest.fail("labelled"))
    with pytest.raises(ConfigError, match='loss = "mse" or "bce"'):
        train(history(level_dbm()), "gru", {}, tmp_path / "one", now_us=1)


def test_costs_are_means_which_a_loss_of_quantiles_does_not_teach():
    plugin = load("predictors", "gru")
    with pytest.raises(ConfigError, match='loss = "mse" or "bce"'):
        plugin.build(options_of(plugin, {}, "gru"), FEATURES, OUTPUT)


def test_what_is_observed_of_costs_corrects_no_forecast():
    output = OutputSpec(KPIS, 2, (0.5,))
    check_options(RecurrentOptions(loss="mse"), output)
    with pytest.raises(ConfigError, match='a rule of thumb: set adapt = "none"'):
        check_options(RecurrentOptions(loss="mse", adapt="rls"), output)


def test_a_training_in_rounds_tells_of_them_as_of_one(tmp_path, monkeypatch):
    class Slow(LeakyMean):
        def fit(self, dataset, progress):
            for done in (1, 2):
                progress(done, 2, 0.5, np.nan, 3.0 * (2 - done))
            return TrainingReport(2, 7.0, [0.5, 0.5], [np.nan, np.nan])

        def weights(self):
            return {}

    plugin = Plugin("slow", RecurrentOptions, lambda _, features, output: Slow(features, output, 0.5), trainable=True)
    monkeypatch.setattr("netpredict.plugins.load", lambda *_: plugin)
    told: list[tuple[int, int, float]] = []
    _, report = train(history(level_dbm()), "slow", {}, tmp_path / "one", now_us=1,
                      progress=lambda done, total, _, __, left_s: told.append((done, total, left_s)))  # fmt: skip
    assert told == [(1, 4, 9.0), (2, 4, 0.0), (3, 4, 3.0), (4, 4, 0.0)]
    assert report.training_s == 14.0


def test_hindsight_needs_one_grid_and_links_that_last():
    dataset = history(level_dbm())
    shifted = replace(dataset, first_slot=dataset.first_slot + np.arange(len(dataset.values)))
    with pytest.raises(DataError, match="links of a UE on one grid"):
        Links(shifted, SETTINGS)
    later = replace(dataset, first_slot=dataset.first_slot + np.arange(len(dataset.values)) // CELLS * 9000)
    np.testing.assert_array_equal(Links(later, SETTINGS).costs(None), Links(dataset, SETTINGS).costs(None))
    with pytest.raises(DataError, match="names of the series"):
        Links(replace(dataset, series_names=()), SETTINGS)
    with pytest.raises(DataError, match="longer history"):
        pieces(with_truth(dataset, Links(dataset, SETTINGS).costs(None)), 301)
