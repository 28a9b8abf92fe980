"""Drives drawn anew: of the statistics of the recording, and nothing of its shadowing."""

from pathlib import Path

import numpy as np
import pytest

from netpredict.radio.link_failure import sinr_db
from netpredict.traces import ns3_uma, simulated_scenes
from netpredict.traces.ns3_uma import Places, Scene
from netpredict.traces.redrawn import Redrawn, sight_gain_db, sight_quantile, soft_sight


@pytest.fixture(scope="module")
def recorded(request) -> tuple[Scene, Places]:
    """A short simulated scene in place of a recording."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated_scenes, "STEPS", 400)
        return simulated_scenes.with_places(Path(), "v120", 1)


def test_a_draw_is_of_its_seed_alone_and_unlike_the_recording(recorded):
    scene, places = recorded
    drawn = Redrawn(scene, places, line_of_sight=False)
    first = drawn.scene(3)
    assert np.array_equal(first.rsrp_dbm, drawn.scene(3).rsrp_dbm)
    assert not np.array_equal(first.rsrp_dbm, drawn.scene(4).rsrp_dbm)
    assert (first.name, first.seed, first.speed_kmh) == (scene.name, 3, 120.0)
    known = scene.rsrp_dbm > -95
    apart = (first.rsrp_dbm - scene.rsrp_dbm)[known]
    assert 6 < apart.std() < 11  # two independent draws of 6 dB: 8.5


def test_the_way_back_begins_where_the_way_there_ends(recorded):
    scene, places = recorded
    drawn = Redrawn(scene, places, line_of_sight=False)
    assert np.array_equal(drawn.scene(3, backwards=True).rsrp_dbm, drawn.scene(3).rsrp_dbm[:, ::-1])


def test_line_of_sight_lifts_few_levels_by_much(recorded):
    scene, places = recorded
    without, within = (Redrawn(scene, places, sight).scene(3).rsrp_dbm for sight in (False, True))
    lifted = within - without
    assert 0.01 < (lifted > 10).mean() < 0.2
    assert abs(np.median(lifted)) < 1
    assert lifted.max() > 20


def test_line_of_sight_is_that_of_tr_38_901():
    # UMa, 2 GHz, 25 m and 1.5 m: 28 + 22 log d3 + 20 log 2 beside 13.54 + 39.08 log d3 + 20 log 2
    slant_m = np.hypot(200, 23.5)
    assert sight_gain_db(np.array([200.0]))[0] == pytest.approx(-14.46 + 17.08 * np.log10(slant_m), abs=0.01)
    near, far = sight_quantile(np.array([10.0, 500.0], np.float32))
    assert near > 4  # certain
    assert far == pytest.approx(-1.797, abs=0.01)  # 0.036 + 0.000 of the sites at 500 m
    assert soft_sight(np.array([-3.0, 0.0, 3.0], np.float32)) == pytest.approx([0.0092, 0.5, 0.9908], abs=1e-3)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["v120", "los_v060"])
def test_a_draw_is_like_the_recording(name: str, data_folder: Path):
    scene, places = ns3_uma.with_places(data_folder / ns3_uma.NAME, name, 1)
    drawn = Redrawn(scene, places, name in ns3_uma.LINE_OF_SIGHT).scene(3)
    found = np.array([_statistics(each.rsrp_dbm) for each in (scene, drawn)])
    # mean and deviation of the best level, quantiles of the best SINR, moves of the best radio cell in half a second
    np.testing.assert_allclose(found[1], found[0], rtol=0.05, atol=0.6)


def _statistics(rsrp_dbm: np.ndarray) -> list[float]:
    best = rsrp_dbm.max(axis=-1)
    later = np.take_along_axis(rsrp_dbm[:, 5:], rsrp_dbm[:, :-5].argmax(axis=-1)[..., None], axis=-1)[..., 0]
    moved = np.quantile(np.abs(later - best[:, :-5]), [0.5, 0.9])
    ratio = np.quantile(sinr_db(rsrp_dbm[:, ::5]).max(axis=-1), [0.05, 0.5, 0.95])
    return [best.mean(), best.std(), *ratio, *moved]
