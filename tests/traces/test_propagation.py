"""Median levels against figures worked out by hand from the tables that they come from."""

import numpy as np
import pytest

from netpredict.traces.layout import BORESIGHT_RAD
from netpredict.traces.propagation import NEAREST_M, gain_db, median_dbm, path_loss_db


def test_path_loss_is_that_of_uma_without_line_of_sight():
    # TR 38.901 Table 7.4.1-1: 13.54 + 39.08 log10(d3D) + 20 log10(2), d3D = |(250, 23.5)| = 251.10 m
    assert path_loss_db(np.float32(250.0)) == pytest.approx(13.54 + 39.08 * 2.39985 + 6.0206, abs=0.01)
    assert path_loss_db(np.float32(1.0)) == path_loss_db(np.float32(NEAREST_M))


@pytest.mark.parametrize(
    ("away_deg", "distance_m", "gain"),
    [
        (0.0, 23.5 / np.tan(np.deg2rad(12.0)), 14.0),  # into the main beam
        (35.0, 23.5 / np.tan(np.deg2rad(12.0)), 14.0 - 3.0),  # half a beam width aside
        (0.0, 23.5 / np.tan(np.deg2rad(7.0)), 14.0 - 3.0),  # half a beam height above
        (180.0, 200.0, 14.0 - 25.0),  # behind
        (
            0.0,
            36.0,
            14.0 - 12 * 2.111**2 + (12 * 2.111**2 - 20.0),
        ),  # below: 33 degrees down, no less than the side lobe
    ],
)
def test_the_antenna_has_the_beams_of_36_814_and_a_tilt_of_12_degrees(away_deg, distance_m, gain):
    angle = BORESIGHT_RAD[0] + np.deg2rad(away_deg)
    first = gain_db(np.float32(distance_m * np.cos(angle)), np.float32(distance_m * np.sin(angle)))[0]
    assert first == pytest.approx(gain, abs=0.02)


def test_every_sector_has_its_level():
    level_dbm = median_dbm(np.float32([[100.0, -300.0]]), np.float32([[57.7, 0.0]]))
    assert level_dbm.shape == (1, 2, 3)
    assert level_dbm.argmax(axis=-1).tolist() == [[0, 1]]
    loss_db = path_loss_db(np.hypot(np.float32(100.0), np.float32(57.7)))
    assert level_dbm[0, 0, 0] == pytest.approx(18.2 - loss_db + 14.0, abs=0.2)
