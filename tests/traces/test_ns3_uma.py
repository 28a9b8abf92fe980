import numpy as np
import pytest

from netpredict.errors import DataError
from netpredict.traces import ns3_uma


def packed(steps: int = 9) -> dict[str, np.ndarray]:
    """One UE: radio cells 5 … 16 are the strongest, number 5 rises by 1 dB a step."""
    rsrp = np.full((1, steps, 12), -900, np.int16)
    rsrp[0, :, 0] = -900 + 10 * np.arange(steps)
    rest = np.full((1, steps), -1000, np.int16)
    return {
        "cell": np.tile(np.arange(5, 17, dtype=np.uint8), (1, steps, 1)),
        "drsrp": np.diff(rsrp, axis=1, prepend=np.int16(0)),
        "drest": np.diff(rest, axis=1, prepend=np.int16(0)),
        "speed_kmh": np.array(60.0),
        "dt_s": np.array(0.1),
        "dxy": np.tile(np.array([10, -5], np.int16), (1, steps, 1)),
        "site_xy": np.array([[0, 0], [500, 0]], np.float32),
    }


def written(folder, **changed) -> None:
    arrays = {name: array for name, array in {**packed(), **changed}.items() if array is not None}
    np.savez(folder / "v060_s1.npz", **arrays)


def test_the_radio_cells_outside_the_strongest_share_the_rest(tmp_path):
    written(tmp_path)
    scene = ns3_uma.read(tmp_path, "v060", 1)
    assert scene.rsrp_dbm.shape == (1, 9, 57)
    np.testing.assert_allclose(scene.rsrp_dbm[0, :, 5], -90 + np.arange(9), atol=1e-4)
    others = np.delete(scene.rsrp_dbm, np.arange(5, 17), axis=2)
    np.testing.assert_allclose(10 * np.log10((10 ** (others.astype(float) / 10)).sum(axis=2)), -100, atol=1e-4)


def test_a_measurement_is_the_mean_of_five_samples_of_the_last_160_ms(tmp_path):
    written(tmp_path)
    measured = ns3_uma.measure(ns3_uma.read(tmp_path, "v060", 1), sigma_db=0.0)
    assert measured.shape == (1, 5, 57)
    # 1 dB in 100 ms: samples 0, 40, 80, 120 and 160 ms ago lie 0.8 dB below the newest in the mean
    np.testing.assert_allclose(measured[0, 1:, 5], -90 + 2 * np.arange(1, 5) - 0.8, atol=1e-4)


def test_the_noise_is_that_of_five_samples_and_comes_from_the_seed(tmp_path):
    scene = ns3_uma.Scene("v060", 1, 60.0, np.zeros((4, 4001, 57), np.float32))
    measured = ns3_uma.measure(scene)
    assert measured.std() == pytest.approx(1 / 5**0.5, rel=0.01)
    assert np.array_equal(measured, ns3_uma.measure(scene))
    expected = np.random.default_rng(101).normal(0, 1 / 5**0.5, measured.shape)
    np.testing.assert_allclose(measured, expected, atol=1e-6)


def test_places_are_in_metres(tmp_path):
    written(tmp_path)
    scene, places = ns3_uma.with_places(tmp_path, "v060", 1)
    assert places.ue_xy_m.shape == (*scene.rsrp_dbm.shape[:2], 2)
    np.testing.assert_allclose(places.ue_xy_m[0, 3], (4.0, -2.0))
    assert places.site_xy_m.tolist() == [[0, 0], [500, 0]]


@pytest.mark.parametrize(
    ("changed", "told"), [({"drest": None}, "lacks drest"), ({"dt_s": np.array(0.2)}, "steps of 0.2 s")]
)
def test_another_file_is_refused(tmp_path, changed, told):
    written(tmp_path, **changed)
    with pytest.raises(DataError, match=told):
        ns3_uma.read(tmp_path, "v060", 1)


def test_a_missing_file_and_one_that_is_no_npz_are_refused(tmp_path):
    with pytest.raises(DataError, match="v060_s1"):
        ns3_uma.read(tmp_path, "v060", 1)
    (tmp_path / "v060_s1.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="v060_s1"):
        ns3_uma.read(tmp_path, "v060", 1)
