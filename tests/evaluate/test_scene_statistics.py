"""What is told of a radio network, and that the simulator's is like the one that ns-3 made."""

from pathlib import Path

import numpy as np
import pytest

from netpredict.evaluate.radio_likeness import likeness
from netpredict.evaluate.scene_statistics import STATISTICS, statistics
from netpredict.traces import fleet, ns3_uma, simulated_scenes

SEEDS = 4


def told(scenes) -> dict[str, float]:
    return dict(zip([each.name for each in STATISTICS], statistics(scenes), strict=True))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", simulated_scenes.SCENES)
def test_the_simulated_radio_is_like_the_recorded_one(name: str, data_folder: Path):
    rows = list(likeness(data_folder / ns3_uma.NAME, [name], SEEDS, print))
    assert len(rows) == len(STATISTICS)
    unlike = [
        f"{row.statistic}: {row.simulated} beside {row.recorded} ± {row.allowed}" for row in rows if not row.within
    ]
    assert not unlike


@pytest.mark.data
@pytest.mark.slow
def test_weaker_shadowing_would_be_noticed(data_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """As weak as what a correlation of 0.5 between sites (TR 36.814) leaves between two radio cells."""
    monkeypatch.setattr(fleet, "SHADOW_DB", 6.0 * 0.5**0.5)
    rows = likeness(data_folder / ns3_uma.NAME, ["v060"], 1, print)
    unlike = {row.statistic for row in rows if not row.within}
    assert {"shadowing, standard deviation", "A3 3 dB, 480 ms: failures"} <= unlike


def test_shadowing_is_found_as_it_was_made(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fleet, "SHADOW_DB", 4.0)
    monkeypatch.setattr(fleet, "SHADOW_M", 25.0)
    monkeypatch.setattr(simulated_scenes, "STEPS", 1500)
    found = told([simulated_scenes.with_places(Path(), "v060", seed) for seed in (1, 2)])
    assert found["shadowing, standard deviation"] == pytest.approx(4.0, abs=0.2)
    assert found["its decorrelation distance"] == pytest.approx(25.0, abs=4.0)


def test_levels_gaps_and_handovers_of_a_made_up_scene():
    """Two UEs stand still, the best radio cell 6 dB above the next; then the next becomes 10 dB the better for one."""
    rsrp_dbm = np.full((2, 201, 57), -120.0, np.float32)
    rsrp_dbm[:, :, 0], rsrp_dbm[:, :, 1] = -80.0, -86.0
    rsrp_dbm[1, 100:, 1] = -70.0
    places = ns3_uma.Places(np.full((2, 201, 2), 150.0, np.float32), np.zeros((19, 2), np.float32))
    found = told([(ns3_uma.Scene("made up", 1, 60.0, rsrp_dbm), places)])
    assert found["serving RSRP, 5% quantile"] == found["serving RSRP, 50% quantile"] == -80.0
    assert found["serving RSRP, 95% quantile"] == -70.0
    assert found["best over second best, 50% quantile"] == 6.0
    assert found["best over second best, 95% quantile"] == 10.0
    minutes = 2 * 99 * 0.2 / 60
    assert found["A3 3 dB, 480 ms: handovers"] == pytest.approx(1 / minutes)
    assert found["changes of the best radio cell"] == pytest.approx(1 / minutes)
    assert found["time out of sync"] == 0


def test_without_a_recording_the_simulated_statistics_stand_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(simulated_scenes, "STEPS", 300)
    rows = list(likeness(None, ["v030"], 1, print))
    assert [row.statistic for row in rows] == [each.name for each in STATISTICS]
    assert {(row.recorded, row.within) for row in rows} == {(None, None)}
