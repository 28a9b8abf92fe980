"""A version that serves is scored by what the daemon would have had: reports, its decoder, its own steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netpredict.build import build_streams
from netpredict.config import parse_config
from netpredict.errors import ArtefactError, DataError
from netpredict.evaluate.handover_policy import CostRule, Prices
from netpredict.evaluate.handover_served import ServedModel
from netpredict.learn.hindsight import NOT_SERVED
from netpredict.learn.registry import save_artefact
from netpredict.learn.shelf import predictor_for
from netpredict.radio.handover_cost import rules_of_thumb
from netpredict.radio.link_failure import sinr_db
from netpredict.stream import Stream
from netpredict.testing import LeakyMean
from netpredict.traces.ns3_uma import RADIO_CELLS, Scene
from netpredict.types import FloatArray, Hidden, Outputs
from tests.learn.test_registry import trained
from tests.test_pipeline_hindsight import config

PERIODS, UES = 40, 2


def stream_of(**changes: Any) -> Stream:
    (stream,) = build_streams(parse_config(config(**changes) | {"hooks": {}}))
    return stream


def measured() -> np.ndarray:
    """(UEs, periods, radio cells): three that are heard, one of them not always; the serving one is the first."""
    level = np.full((UES, PERIODS, RADIO_CELLS), -140.0)
    level[..., 4], level[..., 9] = -80.0, -84.0
    level[..., 20] = np.where(np.arange(PERIODS) % 20 < 10, -90.0, -99.0)
    return (level + np.random.default_rng(1).normal(0, 0.3, level.shape)).astype(np.float32)


class Halved(LeakyMean):
    """The second lead is half of the first."""

    def advance(self, features: FloatArray, hidden: Hidden) -> tuple[Outputs, Hidden]:
        outputs, hidden = super().advance(features, hidden)
        share = np.array([1.0, 0.5], np.float32)[:, None]
        return {kpi: values * share for kpi, values in outputs.items()}, hidden


@pytest.mark.parametrize("lead_steps", [1, 2])
def test_forecasts_are_those_of_the_reports(lead_steps: int) -> None:
    stream, level = stream_of(warm_steps=1), measured()
    memory = 0.5
    model = ServedModel(stream, Halved(stream.features, stream.output, memory), "links@1", {})
    found = model.forecasts(Scene("v060", 1, 60.0, np.zeros((UES, 2, RADIO_CELLS), np.float32)), level, lead_steps)
    assert found.shape == (PERIODS, UES, RADIO_CELLS, 3)
    reported = level > level.max(axis=-1, keepdims=True) - 16
    np.testing.assert_array_equal((found != np.array(NOT_SERVED)).any(axis=-1), np.moveaxis(reported, 0, 1))
    best = level[1, :, 4].round(2)
    expected = np.array(rules_of_thumb(level[1, :, 9].round(2), sinr_db(level[1])[:, 9].round(2), best))
    mean = expected[:, 0]
    for period in range(PERIODS):
        mean = memory * mean + (1 - memory) * expected[:, period]
        np.testing.assert_allclose(found[period, 1, 9], mean / lead_steps, atol=1e-3)


def test_a_link_that_comes_back_is_cold() -> None:
    stream, level = stream_of(warm_steps=4, max_gap_steps=5), measured()
    model = ServedModel(stream, LeakyMean(stream.features, stream.output, 0.5), "links@1", {})
    found = model.forecasts(Scene("v060", 1, 60.0, np.zeros((UES, 2, RADIO_CELLS), np.float32)), level, 1)
    known = (found[:, 0, 20] != np.array(NOT_SERVED)).any(axis=-1)
    assert np.flatnonzero(known).tolist() == [*range(3, 10), *range(23, 30)]


def test_a_link_that_the_model_does_not_serve_is_left_alone_and_is_no_target() -> None:
    stream, level = stream_of(warm_steps=4, max_gap_steps=5), measured()
    model = ServedModel(stream, LeakyMean(stream.features, stream.output, 0.5), "links@1", {})
    found = model.forecasts(Scene("v060", 1, 60.0, np.zeros((UES, 2, RADIO_CELLS), np.float32)), level, 1)
    rule = CostRule(found, np.full((PERIODS, UES), 20), [Prices(0.0, 0.0)])
    began = np.zeros((1, UES), np.int64)

    def decided(period: int, serving: int) -> list[int]:
        return rule.decide(period, np.full((1, UES), serving), began)[0].tolist()

    assert decided(1, 4) == [-1, -1], "nothing is warm"
    assert decided(15, 20) == [-1, -1], "its own link is not reported"
    costly = np.array(found)
    costly[15, :, 4] = (1.5, 0.0, 0.5)
    costly[15, :, 9] = NOT_SERVED
    rule = CostRule(costly, np.full((PERIODS, UES), 4), [Prices(0.0, 0.0)])
    assert decided(15, 4) == [-1, -1], "there is no other that is known"


def test_a_version_that_was_trained_for_another_stream_is_not_scored(tmp_path: Path) -> None:
    stream = stream_of()
    artefact = save_artefact(tmp_path / "one", trained(features=stream.features, output=stream.output))
    reordered = stream_of(features=["sinr_db", "serving", "nbr1_rsrp_dbm"])
    with pytest.raises(ArtefactError, match="was trained for other columns"):
        predictor_for(reordered, "links", artefact)


def test_a_stream_that_the_scenes_do_not_fit_is_refused() -> None:
    stream = stream_of(period_s=0.4)
    with pytest.raises(DataError, match=r"period_s = 0\.2"):
        ServedModel(stream, LeakyMean(stream.features, stream.output), "links@1", {})
    plain = config(kpis=["rsrp_dbm"]) | {"hooks": {}}
    (stream,) = build_streams(parse_config(plain))
    with pytest.raises(DataError, match="does not forecast what links cost"):
        ServedModel(stream, LeakyMean(stream.features, stream.output), "links@1", {})
