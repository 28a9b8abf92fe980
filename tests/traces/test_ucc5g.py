from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from netpredict.errors import DataError
from netpredict.traces import ucc5g
from netpredict.traces.message import merge

HEADER = (
    "Timestamp,Longitude,Latitude,Speed,Operatorname,CellID,NetworkMode,RSRP,RSRQ,SNR,CQI,RSSI,DL_bitrate,UL_bitrate,"
    "State,PINGAVG,PINGMIN,PINGMAX,PINGSTDEV,PINGLOSS,CELLHEX,NODEHEX,LACHEX,RAWCELLID,NRxRSRP,NRxRSRQ"
)
FOLDER = "5G-production-dataset/"
MEMBER = FOLDER + "Netflix/Driving/Season3/B_2019.12.16_13.40.04.csv"


def row(second="04", rsrp="-103", rsrq="-15", snr="1.0", cqi="15", dl="72", nbr="-106.0,-11.0", mode="5G") -> str:
    radio = f"11,{mode},{rsrp},{rsrq},{snr},{cqi},-90,{dl},20"
    return f"2019.12.16_13.40.{second},-8.39,51.88,0,B,{radio},D,-,-,-,-,-,B,A4DF,9CBA,10805003,{nbr}"


@pytest.fixture
def one_trace(write_zip):
    def read(*rows: str):
        folder = write_zip(ucc5g.ARCHIVE, {MEMBER: "\n".join((HEADER, *rows)) + "\n"})
        (trace,) = ucc5g.read(folder)
        return trace

    return read


def by_stream(trace) -> dict[str, list[dict]]:
    streams: dict[str, list[dict]] = {}
    for message in ucc5g.messages(trace):
        streams.setdefault(message.stream, []).append(msgspec.json.decode(message.value))
    return streams


def test_a_row_becomes_a_message_of_each_stream(one_trace):
    trace = one_trace(row())

    streams = by_stream(trace)

    name, time_us = "Netflix/Driving/Season3/B_2019.12.16_13.40.04", 1576503604000000
    assert trace.name == name
    assert streams["traffic"] == [
        {
            "schema": "netpredict.traffic/1",
            "radio_cell_id": "ucc-11",
            "event_time_us": time_us,
            "dl_throughput_kbps": 72.0,
            "ul_throughput_kbps": 20.0,
        }
    ]
    assert streams["rsrp"] == [
        {
            "schema": "netpredict.rsrp/1",
            "radio_cell_id": "ucc-11",
            "event_time_us": time_us,
            "ue_id": name,
            "rsrp_dbm": -103.0,
            "rsrq_db": -15.0,
            "sinr_db": 1.0,
            "neighbours": [{"radio_cell_id": "ucc-11-nbr1", "rsrp_dbm": -106.0, "rsrq_db": -11.0, "approximate": True}],
        }
    ]
    assert streams["channel-state"] == [
        {
            "schema": "netpredict.channel-state/1",
            "radio_cell_id": "ucc-11",
            "event_time_us": time_us,
            "ue_id": name,
            "cqi": 15.0,
            "sinr_db": 1.0,
        }
    ]


def test_a_dash_is_missing_and_a_row_without_channel_state_gives_no_such_message(one_trace):
    trace = one_trace(row(snr="-", cqi="-", rsrq="-", nbr="-,-", mode="HSPA+"))

    streams = by_stream(trace)

    assert "channel-state" not in streams
    assert set(streams["rsrp"][0]) == {"schema", "radio_cell_id", "event_time_us", "ue_id", "rsrp_dbm"}
    assert trace.repairs == {}


def test_sentinels_are_missing_and_counted(one_trace):
    trace = one_trace(row(rsrp="-200"), row(second="05", nbr="-205.0,2147483647"), row(second="06", nbr="-90,-204.0"))

    assert trace.frame["rsrp_dbm"].isna().tolist() == [True, False, False]
    assert trace.frame["nbr1_rsrp_dbm"].isna().tolist() == [False, True, False]
    assert trace.frame["nbr1_rsrq_db"].isna().tolist() == [False, True, True]
    assert trace.repairs == {"sentinel:RSRP": 1, "sentinel:NRxRSRP": 1, "sentinel:NRxRSRQ": 2}


def test_duplicate_stamps_stay_on_the_wire(one_trace):
    trace = one_trace(row(dl="72"), row(dl="0"), row(second="09"))

    assert trace.duplicate_stamps() == 1
    assert trace.gaps(ucc5g.PERIOD_S) == 1
    assert [r["dl_throughput_kbps"] for r in by_stream(trace)["traffic"]] == [72.0, 0.0, 72.0]


def test_rows_cut_short_are_dropped_and_counted(one_trace):
    trace = one_trace(row(), "2019.12.16_13.40.05,-8.39,51", row(second="06"))

    assert len(trace.frame) == 2
    assert trace.repairs == {"unreadable_row": 1}


def test_finder_files_are_no_traces(write_zip):
    folder = write_zip(ucc5g.ARCHIVE, {f"__MACOSX/{MEMBER}": "\0", FOLDER + ".DS_Store": "", MEMBER: HEADER + "\n"})

    assert [trace.name for trace in ucc5g.read(folder)] == ["Netflix/Driving/Season3/B_2019.12.16_13.40.04"]


def test_the_group_is_that_of_the_published_protocol(write_zip):
    names = ["Amazon_Prime/Static/x/a", "Netflix/Driving/x/b", "Download/Static/c", "Download/Driving/d"]
    folder = write_zip(ucc5g.ARCHIVE, {f"{FOLDER}{name}.csv": HEADER + "\n" for name in names})

    groups = dict(ucc5g.list_traces(folder))

    assert [groups[name] for name in names] == ["static_strm", "driving_strm", "static_down", "driving_down"]


def test_an_absent_or_damaged_archive_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match=ucc5g.ARCHIVE):
        list(ucc5g.read(tmp_path))
    (tmp_path / ucc5g.ARCHIVE).write_text("no archive")
    with pytest.raises(DataError, match="not a zip file"):
        list(ucc5g.read(tmp_path))


def test_damage_in_the_middle_of_the_archive_is_a_data_error(write_zip):
    path = write_zip(ucc5g.ARCHIVE, {MEMBER: HEADER + "\n" + row() + "\n"}) / ucc5g.ARCHIVE
    path.write_bytes(path.read_bytes().replace(b"10805003", b"10805004"))

    with pytest.raises(DataError, match="Bad CRC-32"):
        list(ucc5g.read(path.parent))


def test_a_file_without_a_needed_column_is_a_data_error(write_zip):
    folder = write_zip(ucc5g.ARCHIVE, {MEMBER: HEADER.replace(",SNR", "") + "\n"})

    with pytest.raises(DataError, match=r"B_2019.12.16_13.40.04: no column SNR; it has Timestamp"):
        list(ucc5g.read(folder))


@pytest.fixture(scope="module")
def published(data_root: Path):
    return list(ucc5g.read(data_root / "ucc5g"))


def test_the_published_traces_have_the_known_counts(published, data_root: Path):
    assert len(published) == 83
    assert sum(len(trace.frame) for trace in published) == 188_711
    assert sum(trace.duplicate_stamps() for trace in published) == 7_966
    assert sum(trace.gaps(ucc5g.PERIOD_S) for trace in published) == 19_366
    assert len({cell for trace in published for cell in trace.frame["radio_cell_id"]}) == 190
    assert len({cell for trace in published for cell in trace.frame["raw_cell_id"]}) == 296
    assert [(trace.name, trace.group) for trace in published] == ucc5g.list_traces(data_root / "ucc5g")
    counts = Counter(trace.group for trace in published)
    assert counts == {"static_strm": 18, "driving_strm": 44, "static_down": 5, "driving_down": 16}


def test_the_published_repairs_are_known(published):
    repairs = Counter()
    for trace in published:
        repairs.update(trace.repairs)

    assert repairs == {"sentinel:RSRP": 73, "sentinel:NRxRSRP": 91, "sentinel:NRxRSRQ": 5448}


def test_every_row_with_a_measured_value_is_on_the_wire(published):
    streams = Counter(message.stream for trace in published for message in ucc5g.messages(trace))

    assert streams == {"traffic": 188_711, "rsrp": 188_643, "channel-state": 171_615}


def test_merged_traces_come_by_event_time_but_for_the_one_stamp_that_goes_back(published):
    times_us = np.array([message.event_time_us for message in merge(map(ucc5g.messages, published))])

    assert len(times_us) == 188_711 + 188_643 + 171_615
    assert set(np.diff(times_us)[np.diff(times_us) < 0]) == {-1_000_000}


def last_value_errors(trace, kpi: str) -> np.ndarray:
    """Errors of the published protocol: 1 s grid, linear fill, 50 in, 10 out, every 60 s."""
    frame = trace.frame.drop_duplicates("event_time_us").sort_values("event_time_us")
    series = pd.Series(frame[kpi].to_numpy(), index=frame["event_time_us"].to_numpy() // 1_000_000)
    grid = series.reindex(range(series.index[0], series.index[-1] + 1)).interpolate(limit_direction="both").to_numpy()
    return np.concatenate([grid[i : i + 10] - grid[i - 1] for i in range(50, len(grid) - 9, 60)])


@pytest.mark.parametrize(
    ("kpi", "group", "mae"),
    [
        ("rsrp_dbm", "driving_strm", 3.3319),
        ("rsrp_dbm", "static_down", 0.6256),
        ("rsrp_dbm", "driving_down", 3.3768),
        ("cqi", "static_strm", 0.9186),
        ("cqi", "driving_down", 1.6808),
        ("sinr_db", "static_strm", 2.7956),
        ("sinr_db", "driving_strm", 4.4746),
    ],
)
def test_the_published_error_of_the_last_value_is_reproduced(published, kpi: str, group: str, mae: float):
    # One driving download was made on an older network throughout and has no CQI and no SNR.
    measured = [trace for trace in published if trace.group == group and trace.frame[kpi].notna().any()]

    errors = [np.nanmean(np.abs(last_value_errors(trace, kpi))) for trace in measured]

    assert np.mean(errors) == pytest.approx(mae, abs=6e-5)


def test_one_published_row_counts_the_sentinel_as_a_value(published, data_root: Path):
    raw = [t for t in ucc5g.read(data_root / "ucc5g", keep_sentinels=True) if t.group == "static_strm"]
    cleaned = [trace for trace in published if trace.group == "static_strm"]

    assert np.mean([np.abs(last_value_errors(t, "rsrp_dbm")).mean() for t in raw]) == pytest.approx(0.8443, abs=6e-5)
    assert np.mean([np.nanmean(np.abs(last_value_errors(t, "rsrp_dbm"))) for t in cleaned]) < 0.66
