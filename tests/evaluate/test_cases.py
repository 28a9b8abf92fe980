"""A case is one KPI on one grid, split in time."""

from pathlib import Path

import numpy as np
import pytest

from netpredict.errors import DataError
from netpredict.evaluate.cases import SineConfig, known_case, sine_case, table_case
from netpredict.traces.table import read_mapping

PAIRS = (
    "time_column=t",
    "time_format=unix_s",
    "radio_cell_column=c",
    "kpis.connected_ues=n",
    "kpis.prb_use_dl_percent=p",
)
START_S = 1_772_452_800


def export(folder: Path, rows) -> Path:
    path = folder / "export.csv"
    path.write_text("\n".join(["t,c,n,p", *(",".join(map(str, row)) for row in rows)]))
    return path


def test_the_sine_is_split_into_three_parts_in_time():
    case = sine_case(SineConfig(steps=500), horizon_steps=10)
    assert (case.training.validation_from, case.training.values.shape[1], case.scored_from) == (300, 400, 400)
    assert case.whole.values.shape == (8, 500, 1)
    assert case.whole.validation_from == case.scored_from
    assert "period of 40 steps" in case.about


def test_a_table_gives_its_first_kpi_on_the_grid_of_its_spacing(tmp_path: Path):
    rows = [(START_S + 300 * step, cell, step, 50) for step in range(80) for cell in "ab" if (step, cell) != (7, "b")]
    mapping = read_mapping(None, PAIRS)
    case = table_case(export(tmp_path, rows), mapping, horizon_steps=4)
    assert (case.kpi, case.unit, case.training.features.period_us) == ("connected_ues", "UEs", 300_000_000)
    assert case.whole.series_names == ("a", "b")
    np.testing.assert_array_equal(case.values[0, :, 0], np.arange(80))
    assert np.isnan(case.values[1, 7, 0])
    other = table_case(export(tmp_path, rows), mapping, horizon_steps=4, kpi="prb_use_dl_percent", period_s=600)
    assert (other.kpi, other.values.shape[1]) == ("prb_use_dl_percent", 41)
    with pytest.raises(DataError, match=r"no KPI 'cqi'; it has connected_ues, prb_use_dl_percent"):
        table_case(export(tmp_path, rows), mapping, kpi="cqi")


def test_a_table_that_is_too_short_or_has_no_spacing_is_told(tmp_path: Path):
    mapping = read_mapping(None, PAIRS)
    with pytest.raises(DataError, match="20 steps are too few"):
        table_case(export(tmp_path, [(START_S + step, "a", 1, 1) for step in range(20)]), mapping)
    with pytest.raises(DataError, match="--period-s"):
        table_case(export(tmp_path, [(START_S, "a", 1, 1)]), mapping)


def test_a_case_that_is_not_known_is_told_with_those_that_are():
    with pytest.raises(DataError, match="known: sine, ucc5g, milan-hourly, nist-prosas, tractor"):
        known_case("ucc")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "kpi", "series", "horizon_steps"),
    [
        ("ucc5g", "rsrp_dbm", 12, 10),
        ("milan-hourly", "activity_count", 12, 24),
        ("nist-prosas", "allocated_prbs", 1, 60),
        ("tractor", "cqi", 12, 8),
    ],
)
def test_a_real_set_is_a_case(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, kpi: str, series: int, horizon_steps: int
):
    monkeypatch.setenv("NETPREDICT_DATA", str(data_folder))
    case = known_case(name, quick=True)
    assert (case.kpi, len(case.values), case.whole.output.horizon_steps) == (kpi, series, horizon_steps)
    scored = case.values[:, case.scored_from :]
    assert np.isfinite(scored).mean() > 0.5
    with pytest.raises(DataError, match=f"no KPI 'nothing'; it has .*{kpi}"):
        known_case(name, quick=True, kpi="nothing")
