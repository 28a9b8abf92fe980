import builtins
import gzip
import sys
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from netpredict.errors import DataError
from netpredict.traces.table import KpiColumn, TableMapping, read_mapping, read_table, table_messages, units_of

TRAFFIC = TableMapping(
    stream="traffic",
    time_column="when",
    radio_cell_column="cell",
    kpis={
        "dl_throughput_kbps": KpiColumn("dl", "Mbps"),
        "prb_use_dl_percent": KpiColumn("prb", "ratio"),
        "connected_ues": KpiColumn("ues", "1"),
    },
)
TEXT = (
    "when,cell,dl,prb,ues\n2026-01-05T00:00:00Z,a,1.5,0.25,7\n2026-01-05T01:00:00Z,b,-,0.5,8\n"
    "2026-01-05T01:00:00Z,a,2,NaN,9\n"
)
MIDNIGHT_US = 1_767_571_200_000_000


def write(folder: Path, text: str, name: str = "own.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def decoded(trace, stream: str) -> list[dict]:
    return [msgspec.json.decode(message.value) for message in table_messages(trace, stream)]


def changed(**changes) -> TableMapping:
    return TableMapping(**({name: getattr(TRAFFIC, name) for name in TableMapping.__slots__} | changes))


def test_each_series_is_a_trace_with_our_names_and_units(tmp_path: Path):
    a, b = read_table(write(tmp_path, TEXT), TRAFFIC)

    assert (a.name, b.name) == ("a", "b")
    assert decoded(a, "traffic") == [
        {
            "schema": "netpredict.traffic/1",
            "radio_cell_id": "a",
            "event_time_us": MIDNIGHT_US,
            "dl_throughput_kbps": 1500.0,
            "prb_use_dl_percent": 25.0,
            "connected_ues": 7.0,
        },
        {
            "schema": "netpredict.traffic/1",
            "radio_cell_id": "a",
            "event_time_us": MIDNIGHT_US + 3_600_000_000,
            "dl_throughput_kbps": 2000.0,
            "connected_ues": 9.0,
        },
    ]
    assert "dl_throughput_kbps" not in decoded(b, "traffic")[0]


def test_gzip_and_byte_order_mark_read_alike(tmp_path: Path):
    plain = [decoded(t, "traffic") for t in read_table(write(tmp_path, TEXT), TRAFFIC)]

    zipped = [decoded(t, "traffic") for t in read_table(write(tmp_path, "\ufeff" + TEXT, "own.csv.gz"), TRAFFIC)]

    assert zipped == plain


CLOCK_UNITS = [("unix_s", "1767571200"), ("unix_ms", "1767571200000"), ("unix_us", "1767571200000000")]


@pytest.mark.parametrize(("form", "stamp"), CLOCK_UNITS)
def test_numbers_of_every_clock_unit_become_microseconds(tmp_path: Path, form: str, stamp: str):
    path = write(tmp_path, f"when,cell,dl,prb,ues\n{stamp},a,1,1,1\n")

    (trace,) = read_table(path, changed(time_format=form))

    assert trace.frame["event_time_us"].tolist() == [MIDNIGHT_US]


def test_local_text_is_read_in_its_zone_and_a_zone_in_the_text_wins(tmp_path: Path):
    local = write(tmp_path, "when,cell,dl,prb,ues\n2026-01-05 01:00,a,1,1,1\n")
    (trace,) = read_table(local, changed(time_zone="Europe/Berlin"))
    assert trace.frame["event_time_us"].tolist() == [MIDNIGHT_US]

    zoned = ("2026-01-05T02:00:00+02:00", "2026-01-05 00:00Z", "2026-01-04T19:00-05", "2026-01-05")
    text = "when,cell,dl,prb,ues\n" + "".join(f"{stamp},a,1,1,1\n" for stamp in zoned)
    (trace,) = read_table(write(tmp_path, text), changed(time_zone="Europe/Berlin"))
    assert trace.frame["event_time_us"].tolist() == [MIDNIGHT_US] * 3 + [MIDNIGHT_US - 3_600_000_000]


def test_a_ue_stream_is_a_series_of_ue_and_radio_cell(tmp_path: Path):
    mapping = TableMapping(
        "rsrp", "t", "cell", {"rsrp_dbm": KpiColumn("p", "dBm")}, ue_column="ue", time_format="unix_s"
    )
    path = write(tmp_path, "t,ue,cell,p\n1767571200,u,a,-90\n1767571201,u,b,-91\n1767571202,v,a,-200\n")

    traces = list(read_table(path, mapping))

    assert [trace.name for trace in traces] == ["u/a", "u/b", "v/a"]
    assert decoded(traces[0], "rsrp")[0]["ue_id"] == "u"
    assert next(table_messages(traces[0], "rsrp")).key == b"u"


def test_sentinels_and_unreadable_rows_are_counted_once_for_the_file(tmp_path: Path):
    text = TEXT + "2026-01-05T02:00:00Z,b,-1,x,1\nsoon,b,1,1,1\n2026-01-05T02:00:00Z,b\n"

    traces = list(read_table(write(tmp_path, text), changed(sentinels={"dl": (-1.0,)})))

    assert [trace.repairs for trace in traces] == [
        {"unreadable_row": 1, "sentinel:dl": 1, "unreadable_value:prb": 1, "unreadable_stamp": 1},
        {},
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kpis": {"cqi": KpiColumn("dl", "1")}}, "traffic has no KPI 'cqi'; it has dl_throughput_kbps"),
        ({"kpis": {"dl_throughput_kbps": KpiColumn("dl", "furlong")}}, "allowed: kbps, bps, Mbps, Gbps"),
        ({"kpis": {}}, "no KPI is mapped"),
        ({"time_column": "then"}, "no column then; it has when, cell"),
    ],
)
def test_a_wrong_mapping_is_a_data_error_that_names_the_choices(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(DataError, match=message):
        list(read_table(write(tmp_path, TEXT), changed(**changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_format": "%d.%m.%Y"}, r"column when: no stamp of the format %d\.%m\.%Y in it; it has '2026-01-05T00"),
        ({"time_format": "unix_s"}, "column when: no stamp of the format unix_s"),
        ({"kpis": {"connected_ues": KpiColumn("cell", "1")}}, "column cell: no number in it; it has 'a', 'b'"),
    ],
)
def test_a_column_of_which_nothing_can_be_read_is_named(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(DataError, match=message):
        list(read_table(write(tmp_path, TEXT), changed(**changes)))


PAIRS = ("time_column=when", "radio_cell_column=cell", "kpis.connected_ues=ues")


def test_a_kpi_without_a_unit_is_in_its_own_and_tells_the_stream(tmp_path: Path):
    mapping = read_mapping(None, PAIRS)
    assert mapping.stream == "traffic"
    (a, _) = read_table(write(tmp_path, TEXT), mapping)
    assert a.frame["connected_ues"].tolist() == [7.0, 9.0]


def test_pairs_override_the_file(tmp_path: Path):
    file = write(tmp_path, 'time_column = "then"\nradio_cell_column = "cell"\n[kpis]\ncqi = { column = "q" }', "m.toml")
    mapping = read_mapping(file, ("time_column=when", "ue_column=ue", "kpis.sinr_db=s:dB"))
    assert (mapping.time_column, mapping.ue_column, mapping.stream) == ("when", "ue", "channel-state")
    assert mapping.kpis == {"cqi": KpiColumn("q"), "sinr_db": KpiColumn("s", "dB")}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("when",), "--map when: write KEY=VALUE"),
        (("time_column=",), "write KEY=VALUE"),
        (("kpis=ues",), "write KEY=VALUE"),
        (("time.column=when",), "write KEY=VALUE"),
        ((*PAIRS, "time_colum=when"), "^--map: a mapping has no key time_colum; it has stream"),
        ((*PAIRS, "sentinels.ues=none"), r"mapping\.sentinels"),
        (("time_column=when", "kpis.connected_ues=ues"), "missing required field `radio_cell_column`"),
        (("time_column=when", "radio_cell_column=cell", "kpis.sinr_db=s"), "say the stream"),
        ((*PAIRS, "kpis.load=ues"), "say the stream.*traffic has dl_throughput_kbps"),
        ((*PAIRS, "stream=traffic", "kpis.load=ues"), "traffic has no KPI 'load'"),
    ],
)
def test_a_wrong_pair_is_told(tmp_path: Path, pairs: tuple[str, ...], message: str):
    with pytest.raises(DataError, match=message):
        list(read_table(write(tmp_path, TEXT), read_mapping(None, pairs, None)))


def test_a_file_that_is_no_mapping_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"cannot read .*none\.toml"):
        read_mapping(tmp_path / "none.toml")
    with pytest.raises(DataError, match=r"m\.toml is no TOML"):
        read_mapping(write(tmp_path, "[", "m.toml"))
    with pytest.raises(DataError, match=r"m\.toml: mapping"):
        read_mapping(write(tmp_path, "stream = 3", "m.toml"))


def test_an_absent_file_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match=r"own\.csv"):
        list(read_table(tmp_path / "own.csv", TRAFFIC))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch):
    real = builtins.__import__

    def without_engines(name, *args, **kwargs):
        if name.split(".")[0] in ("pyarrow", "fastparquet"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [n for n in sys.modules if n.split(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_engines)
    with pytest.raises(DataError, match="pip install pyarrow"):
        list(read_table(write(tmp_path, "", "own.parquet"), TRAFFIC))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", None])
def test_parquet_numbers_and_times_need_no_text(tmp_path: Path, monkeypatch, zone: str | None):
    stamp = pd.Timestamp("2026-01-05", tz="UTC").tz_convert(zone)
    columns = {"when": [stamp, stamp], "cell": [1, 1], "dl": [1.5, None], "prb": [0.25, 0.5], "ues": [7, 8]}
    monkeypatch.setattr(pd, "read_parquet", lambda path: pd.DataFrame(columns))

    (trace,) = read_table(tmp_path / "own.parquet", TRAFFIC)

    assert decoded(trace, "traffic")[0]["dl_throughput_kbps"] == 1500.0
    assert trace.frame["event_time_us"].tolist() == [MIDNIGHT_US] * 2
    assert trace.repairs == {}


def test_every_kpi_knows_its_own_unit():
    assert units_of("dl_throughput_kbps")["kbps"] == units_of("prb_use_dl_percent")["percent"] == 1.0
    assert units_of("bler_ratio")["percent"] == 0.01
    assert list(units_of("cqi")) == ["1"]
