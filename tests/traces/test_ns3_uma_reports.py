from pathlib import Path

import msgspec
import numpy as np
import pytest

from netpredict.errors import DataError
from netpredict.evaluate.handover_labels import REPORTED, REPORTED_DB, reports
from netpredict.ingest.messages import Rsrp
from netpredict.ingest.source import MemoryRecord
from netpredict.traces import ns3_uma, ns3_uma_reports
from netpredict.traces.trace import Trace
from netpredict_plugins.decoders.json import JsonDecoder, JsonOptions

SITE_PATTERN = r"(.+)-\d+"


def decoded(trace: Trace) -> list[Rsrp]:
    return [msgspec.json.decode(message.value, type=Rsrp) for message in ns3_uma_reports.messages(trace)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All files, each with two UEs for a second: radio cells 5 … 16 are the strongest, at -90 … -101 dBm."""
    levels = np.broadcast_to(-900 - 10 * np.arange(12), (2, 10, 12)).astype(np.int16)
    arrays = {
        "cell": np.tile(np.arange(5, 17, dtype=np.uint8), (2, 10, 1)),
        "drsrp": np.diff(levels, axis=1, prepend=np.int16(0)),
        "drest": np.diff(np.full((2, 10), -1300, np.int16), axis=1, prepend=np.int16(0)),
        "dt_s": np.array(0.1),
        "dxy": np.zeros((2, 10, 2), np.int16),
        "site_xy": np.zeros((19, 2), np.float32),
    }
    for scene in ns3_uma.SCENES:
        for seed in (1, 2):
            np.savez(tmp_path / f"{scene}_s{seed}.npz", speed_kmh=np.array(60.0), **arrays)
    return tmp_path


def test_there_is_a_trace_of_each_ue_and_scene_and_those_of_seed_2_come_later(folder: Path):
    traces = list(ns3_uma_reports.read(folder))

    assert [trace.name for trace in traces] == [
        f"{scene}_s{seed}_ue{ue:02d}" for seed in (1, 2) for scene in ns3_uma.SCENES for ue in (0, 1)
    ]
    assert [trace.name for trace in ns3_uma_reports.read(folder, 3)] == [trace.name for trace in traces[:3]]
    assert {trace.group for trace in traces} == set(ns3_uma.SCENES)
    first, last = ([trace.frame["event_time_us"].tolist() for trace in part] for part in (traces[:10], traces[10:]))
    start_us = traces[0].start_us
    assert first == [[start_us + 200_000 * period for period in range(5)]] * 10
    assert last == [[3_600_000_000 + time_us for time_us in first[0]]] * 10


def test_a_ue_is_another_one_in_every_scene(folder: Path):
    ue_ids = [trace.frame["ue_id"].unique().tolist() for trace in ns3_uma_reports.read(folder)]

    assert ue_ids[0] == ["ns3-v003-s1-ue00"]
    assert len({ue_id for (ue_id,) in ue_ids}) == 20


def test_a_report_names_the_serving_radio_cell_then_the_strongest_others_within_16_db(folder: Path):
    trace = next(ns3_uma_reports.read(folder))

    for report in decoded(trace):
        others = [neighbour.rsrp_dbm for neighbour in report.neighbours]
        assert report.radio_cell_id == "ns3-01-2"  # radio cell 5
        assert len(others) == 8  # of eleven within 16 dB
        assert others == sorted(others, reverse=True)
        assert not any(neighbour.approximate for neighbour in report.neighbours)
        assert report.rsrp_dbm == pytest.approx(-90, abs=2)


def test_what_is_too_weak_is_not_reported_unless_it_serves():
    measured_dbm = np.full((1, 6, 57), -120, np.float32)
    measured_dbm[..., [0, 3, 7]] = -100, -105, -115.9
    measured_dbm[:, 1:, 1] = -80  # too soon for a handover
    scene = ns3_uma.Scene("made up", 1, 60.0, np.zeros((1, 11, 57), np.float32))

    (trace,) = ns3_uma_reports.traces(scene, measured_dbm)

    before, after = decoded(trace)[:2]
    assert [neighbour.radio_cell_id for neighbour in before.neighbours] == ["ns3-01-0", "ns3-02-1"]
    assert (after.radio_cell_id, after.rsrp_dbm) == ("ns3-00-0", -100.0)
    assert [neighbour.radio_cell_id for neighbour in after.neighbours] == ["ns3-00-1"]


def test_the_serving_radio_cell_changes_by_a3_on_filtered_levels_after_480_ms():
    """Half of each measurement enters the filter: what rises from -90 to -70 dBm passes -77 with the second of them."""
    measured_dbm = np.full((1, 20, 3), -90, np.float32)
    measured_dbm[..., 0] = -80
    measured_dbm[:, 5:, 2] = -70
    measured_dbm[:, 15:, 1] = -76.9  # never 3 dB better than -70

    serving = ns3_uma_reports.serving_by_a3(measured_dbm)

    assert serving.tolist() == [[0] * 9 + [2] * 11]


def test_a_radio_cell_that_was_better_for_less_is_not_gone_to():
    measured_dbm = np.full((2, 30, 3), -90, np.float32)
    measured_dbm[..., 0] = -80
    measured_dbm[0, 5:9, 1] = -70  # filtered above -77 in three measurements, which take 400 ms
    measured_dbm[1, 5:, 1] = -70  # gone to at 9, after which the timers begin anew
    measured_dbm[1, 7:, 2] = -62

    serving = ns3_uma_reports.serving_by_a3(measured_dbm)

    assert serving[0].tolist() == [0] * 30
    assert serving[1].tolist() == [0] * 9 + [1] * 4 + [2] * 17


def test_a_file_that_is_not_there_is_a_data_error(folder: Path):
    (folder / "v030_s1.npz").unlink()
    traces = ns3_uma_reports.read(folder)
    assert [next(traces).group for _ in range(2)] == ["v003"] * 2
    with pytest.raises(DataError, match="v030_s1"):
        next(traces)


def test_levels_are_those_of_the_evaluation():
    """Radio cells of one site, so that all of them are near and each is in a report."""
    measured_dbm = np.full((1, 20, 57), -120, np.float32)
    measured_dbm[..., 3:6] = np.random.default_rng(3).uniform(-95, -80, (1, 20, 3))
    taught = reports(measured_dbm)[0, :, 3:6]
    scene = ns3_uma.Scene("made up", 1, 60.0, np.zeros((1, 39, 57), np.float32))

    (trace,) = ns3_uma_reports.traces(scene, measured_dbm)

    assert REPORTED_DB == ns3_uma_reports.REPORTED_DB
    for report, known in zip(decoded(trace), taught, strict=True):
        told = {each.radio_cell_id: (each.rsrp_dbm, each.sinr_db) for each in (report, *report.neighbours)}
        np.testing.assert_allclose([told[f"ns3-01-{sector}"] for sector in range(3)], known[:, :2], rtol=1e-6)


@pytest.mark.parametrize("name", ["v060", "los_v060"])
def test_what_the_daemon_reads_of_the_recording_is_what_the_evaluation_is_taught_by(data_root: Path, name: str):
    """Levels to the bit; what they are set beside to the last digit, where a report has all of it.

    It has not where it names only one radio cell (the evaluation knows a weaker one), or more than nine are near.
    """
    scene = ns3_uma.read(data_root / "ns3-uma", name, 1).first(4)
    measured_dbm = ns3_uma.measure(scene)
    taught = reports(measured_dbm)
    near = measured_dbm > measured_dbm.max(axis=-1, keepdims=True) - REPORTED_DB
    options = JsonOptions(site_pattern=SITE_PATTERN, reported_db=REPORTED_DB)
    decoder = JsonDecoder(options, "rsrp", ["ue_id", "radio_cell_id"], REPORTED)

    compared = []
    for ue, trace in enumerate(ns3_uma_reports.traces(scene, measured_dbm)):
        sent = [MemoryRecord(0, 0, message.key, message.value) for message in ns3_uma_reports.messages(trace)]
        read = decoder.decode(sent)
        assert len(sent) == measured_dbm.shape[1]
        cell = np.array([3 * int(site) + int(sector) for _, site, sector in (k.rsplit("-", 2) for k in read.keys)])
        reported = near[ue][read.record, cell]  # the serving radio cell may be too weak, and is in the report
        read_values, known = read.values[reported], taught[ue][read.record, cell][reported]
        np.testing.assert_array_equal(read_values[:, :2], known[:, :2])
        named, there = np.bincount(read.record), near[ue].sum(axis=1)
        whole = ((named == there) & (there > 1))[read.record][reported]
        np.testing.assert_allclose(read_values[whole], known[whole], atol=0.011)
        compared.append(whole.mean())
    assert np.mean(compared) > 0.7


def test_a_recorded_drive_is_served_as_plain_a3_serves_it(data_root: Path):
    """4.6 handovers in a UE-minute are done or fail at 3 dB and 480 ms on the files of 60 km/h (data README)."""
    scenes = [ns3_uma.read(data_root / "ns3-uma", "v060", seed) for seed in (1, 2)]

    serving = [ns3_uma_reports.serving_by_a3(ns3_uma.measure(scene)) for scene in scenes]

    changes = np.mean([(np.diff(each, axis=1) != 0).sum(axis=1) for each in serving]) / (400 / 60)
    assert changes == pytest.approx(4.56 / (1 - 0.225), rel=0.15)
