"""Runs, links by level continuity, and what is weak where nothing was measured."""

import numpy as np
import pytest

from netpredict.errors import DataError
from netpredict.evaluate.handover_real_drives import drives_of, folds_of, runs_of
from netpredict.evaluate.handover_real_field import BELOW_LISTED_DB, WEAK_DBM, field_of
from netpredict.evaluate.handover_real_links import CONSERVATIVE, LIBERAL, stretches_of
from netpredict.evaluate.handover_real_replay import A3Setting, PlainA3, replay
from netpredict.traces import wmnlab
from tests.evaluate.wmnlab_drives import drive, street

NAN = np.nan


def test_phones_that_drove_together_share_a_run_and_so_a_fold():
    levels = np.full((60, 3), -90.0)
    drives = [drive(levels, start_s=start_s) for start_s in (0, 50, 100, 1_000, 1_030, 5_000)]
    assert runs_of(drives).tolist() == [0, 0, 0, 1, 1, 2]

    run = np.repeat(np.arange(20), 3)
    fold = folds_of(run)
    assert all(len(set(fold[run == each])) == 1 for each in range(20))
    assert set(fold) == {0, 1, 2, 3, 4}
    with pytest.raises(DataError, match="take more traces"):
        folds_of(np.arange(9))


def test_a_radio_cell_stays_itself_when_its_rank_changes():
    near, far = np.full(12, -84.0), np.linspace(-95, -93, 12)
    gone = np.arange(12) >= 6  # the stronger one is not listed any more, and the other moves up
    levels = np.column_stack([np.full(12, -70.0), np.where(gone, far, near), np.where(gone, NAN, far)])
    (found,) = stretches_of([drive(levels)], CONSERVATIVE)
    assert found.levels.shape == (12, 3)
    assert any(np.allclose(found.levels[:, cell], far, atol=1e-4) for cell in range(3))


def test_after_a_handover_the_serving_radio_cell_is_the_neighbour_of_before():
    before, after = [-95.0, -90.0, -105.0], [-90.5, -95.5, -105.0]
    levels = [before] * 10 + [[-92.0, -93.0, -104.0]] + [after] * 10
    (found,) = stretches_of([drive(levels, {"mn_handovers": [10]})], CONSERVATIVE)
    assert found.serving[9] == 0
    assert found.serving[10] == -1  # its row mixes both
    assert found.skipped.tolist() == [second == 10 for second in range(21)]
    np.testing.assert_allclose(found.levels[11, found.serving[11]], -90.5)
    np.testing.assert_allclose(found.levels[9, found.serving[11]], -90.0)  # it was measured before, as a neighbour
    assert np.isnan(found.levels[10]).all()


def test_another_carrier_ends_the_stretch():
    levels = [[-95.0, -100.0, -105.0]] * 12 + [[-93.0] * 3] + [[-70.0, -82.0, -88.0]] * 12
    found = stretches_of([drive(levels, {"lte_handovers": [12]})], LIBERAL)
    assert [(each.first, len(each.serving)) for each in found] == [(0, 13), (13, 12)]


def test_a_radio_cell_out_of_sight_too_long_is_another_one():
    hidden = [[-80.0, -95.0, NAN]] * 5 + [[-80.0, NAN, NAN]] * 6 + [[-80.0, -95.0, NAN]] * 5
    assert stretches_of([drive(hidden)], LIBERAL)[0].levels.shape[1] == 2
    assert stretches_of([drive(hidden)], CONSERVATIVE)[0].levels.shape[1] == 3


def test_what_is_not_measured_is_weak_and_not_absent():
    levels = [[-80.0, -90.0, -95.0]] * 6 + [[-80.0, -90.0, NAN]] * 2 + [[-80.0, -74.0, -90.0]] * 2
    (stretch,) = stretches_of([drive(levels)], LIBERAL)
    field = field_of([stretch], LIBERAL)
    lost = int(np.flatnonzero(np.isclose(stretch.levels[0], -95.0))[0])
    assert field.levels[0, 5, lost] == pytest.approx(-95.0)
    assert field.levels[0, 6, lost] == WEAK_DBM  # one neighbour listed: it could not be heard
    assert field.levels[0, 8, lost] == pytest.approx(-90.0 - BELOW_LISTED_DB)  # two listed: weaker than both
    assert np.isfinite(field.levels[0, :, lost]).all()


@pytest.mark.data
def test_real_drives_replayed_by_plain_a3_hand_over_the_less_the_greater_the_offset(data_folder):
    drives = drives_of(wmnlab.read(data_folder / "wmnlab", 24))
    assert runs_of(drives).max() + 1 == 13  # of three and of two phones
    settings = [A3Setting(offset_db, 0, 0) for offset_db in (1.0, 3.0, 6.0)]
    cells = []
    for linking in (LIBERAL, CONSERVATIVE):
        stretches = stretches_of(drives, linking)
        field = field_of(stretches, linking)
        tally = replay(field, PlainA3(field, settings))
        outage = tally.outages.sum(axis=0) / field.counted().sum()
        handovers, ping_pongs = tally.handovers.sum(axis=0), tally.ping_pongs.sum(axis=0)
        assert (np.diff(handovers) < 0).all()
        assert (np.diff(ping_pongs) < 0).all()
        assert ((outage > 0.005) & (outage < 0.08)).all()
        cells.append(sum(each.levels.shape[1] for each in stretches))
    assert cells[1] > 2 * cells[0]


def test_a_street_with_two_masts_is_two_masts():
    found = stretches_of([street(1)], LIBERAL)
    assert max(each.levels.shape[1] for each in found) <= 4
