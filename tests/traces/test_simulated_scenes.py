"""Scenes made by the simulator: seeded, of one speed, within the disc."""

from pathlib import Path

import numpy as np
import pytest

from netpredict.traces import simulated_scenes as scenes


@pytest.fixture(scope="module")
def fast():
    return scenes.with_places(Path(), "v120", 1)


def test_a_scene_comes_of_its_name_and_seed_alone(fast, monkeypatch):
    monkeypatch.setattr(scenes, "STEPS", 50)
    again = scenes.read(Path(), "v120", 1)
    assert (again.name, again.seed, again.speed_kmh) == ("v120", 1, 120.0)
    assert again.rsrp_dbm.tobytes() == fast[0].rsrp_dbm[:, :50].tobytes()
    assert not np.array_equal(scenes.read(Path(), "v120", 2).rsrp_dbm, again.rsrp_dbm)
    assert not np.array_equal(scenes.read(Path(), "v060", 1).rsrp_dbm, again.rsrp_dbm)


def test_it_has_the_network_and_the_length_of_the_recording(fast):
    scene, places = fast
    assert scene.rsrp_dbm.shape == (20, 4000, 57)
    assert places.site_xy_m.shape == (19, 2)
    assert np.isfinite(scene.rsrp_dbm).all()


def test_ues_keep_their_speed_and_stay_in_the_disc(fast):
    xy_m = fast[1].ue_xy_m
    way_m = np.hypot(*np.moveaxis(np.diff(xy_m, axis=1), -1, 0))
    np.testing.assert_allclose(way_m, 120 / 3.6 / 10, rtol=1e-3)
    assert np.hypot(xy_m[..., 0], xy_m[..., 1]).max() < scenes.RADIUS_M + 20


def test_the_rim_sends_ues_back_in_all_directions_and_half_of_them_never_turn_before(fast):
    xy_m = fast[1].ue_xy_m
    heading = np.arctan2(*np.moveaxis(np.diff(xy_m, axis=1), -1, 0)[::-1])
    turn = np.abs((np.diff(heading, axis=1) + np.pi) % (2 * np.pi) - np.pi)
    inside = np.hypot(xy_m[:, 1:-1, 0], xy_m[:, 1:-1, 1]) < scenes.RADIUS_M - 10
    assert 5 <= ((turn > 0.3) & inside).any(axis=1).sum() <= 15
    ue, step = np.nonzero((turn > 0.3) & ~inside)
    middle = np.arctan2(-xy_m[ue, step + 1, 1], -xy_m[ue, step + 1, 0])
    away = np.abs((heading[ue, step + 1] - middle + np.pi) % (2 * np.pi) - np.pi)
    assert np.rad2deg(np.median(away)) == pytest.approx(40, abs=8)
