import gzip

import msgspec
import pytest

from netpredict.errors import DataError
from netpredict.traces import nist_prosas

LINES = "\ufeffTime\tNRB\r\n2023-01-19 23:59:00\t16.5\r\n2023-01-19 23:59:00\t17.5\r\n2023-01-20 00:00:00\t60\r\n"


def one_trace(folder, text: str):
    (folder / nist_prosas.FILE).write_bytes(gzip.compress(text.encode()))
    (trace,) = nist_prosas.read(folder)
    return trace


def decoded(trace) -> list[dict]:
    return [msgspec.json.decode(message.value) for message in nist_prosas.messages(trace)]


def test_a_byte_order_mark_does_not_hide_the_first_column(tmp_path):
    rows = decoded(one_trace(tmp_path, LINES))

    assert rows[0] == {
        "schema": "netpredict.traffic/1",
        "radio_cell_id": "nist-lte",
        "event_time_us": 1674172740000000,
        "prb_use_dl_percent": 33.0,
    }


def test_duplicate_stamps_at_the_day_boundary_stay_on_the_wire(tmp_path):
    trace = one_trace(tmp_path, LINES)

    assert trace.duplicate_stamps() == 1
    assert [row["prb_use_dl_percent"] for row in decoded(trace)][:2] == [33.0, 35.0]


def test_more_than_the_assumed_bandwidth_is_noted_and_not_clamped(tmp_path):
    trace = one_trace(tmp_path, LINES)

    assert decoded(trace)[2]["prb_use_dl_percent"] == 120.0
    assert trace.frame["allocated_prbs"].tolist() == [16.5, 17.5, 60.0]
    assert trace.noted == {"prb_use_over_100_percent": 1}


def test_a_file_cut_short_is_a_data_error(tmp_path):
    (tmp_path / nist_prosas.FILE).write_bytes(gzip.compress(LINES.encode())[:-9])

    with pytest.raises(DataError, match=nist_prosas.FILE):
        list(nist_prosas.read(tmp_path))


def test_a_file_without_the_column_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="no column NRB"):
        one_trace(tmp_path, "Time\tPRB\n")


def test_the_published_minutes_have_the_known_counts(data_root):
    (trace,) = nist_prosas.read(data_root / "nist-prosas")

    assert len(trace.frame) == 49_554
    assert trace.duplicate_stamps() == 34
    assert trace.gaps(nist_prosas.PERIOD_S) == 0
    assert (trace.repairs, trace.noted) == ({}, {})
    assert trace.frame["prb_use_dl_percent"].between(0, 100).all()
    assert list(nist_prosas.read(data_root / "nist-prosas", limit_traces=0)) == []
