import gzip

import msgspec
import pandas as pd
import pytest

from netpredict.errors import DataError
from netpredict.traces import milan


@pytest.fixture
def write(tmp_path):
    def files(*lines: str, labels="1.0e+00\n1.0e+01\n1.249000000000000000e+03\n"):
        (tmp_path / milan.FILE).write_bytes(gzip.compress("\n".join(lines).encode()))
        (tmp_path / milan.LABELS).write_text(labels)
        return tmp_path

    return files


def test_an_hour_is_a_count_at_local_midnight_and_on(write):
    trace = next(milan.read(write("13,11", "8,7", "1,0")))

    rows = [msgspec.json.decode(message.value) for message in milan.messages(trace)]

    assert rows[0] == {
        "schema": "netpredict.traffic/1",
        "radio_cell_id": "milan-1",
        "event_time_us": pd.Timestamp("2013-10-31 23:00", tz="UTC").value // 1000,
        "connected_ues": 13.0,
    }
    assert rows[1]["event_time_us"] - rows[0]["event_time_us"] == 3_600_000_000


def test_the_square_is_the_label_of_the_line(write):
    names = [trace.name for trace in milan.read(write("1", "2", "3"))]

    assert names == ["milan-1", "milan-10", "milan-1249"]


def test_series_cut_short_keep_what_they_have(write):
    traces = list(milan.read(write("1,2,3", "4,5,", "6")))

    assert [len(trace.frame) for trace in traces] == [3, 2, 1]
    assert [trace.noted["missing_hours"] for trace in traces] == [1485, 1486, 1487]


def test_exact_copies_are_kept_and_noted(write):
    traces = list(milan.read(write("1,2", "1,3", "1,2")))

    assert [trace.noted.get("exact_copy", 0) for trace in traces] == [0, 0, 1]
    assert traces[2].frame["activity_count"].tolist() == [1.0, 2.0]


def test_an_unreadable_count_is_missing_and_gives_no_message(write):
    trace = next(milan.read(write("1,x,,4", "2", "3")))

    assert len(list(milan.messages(trace))) == 2
    assert trace.repairs == {"unreadable_value:count": 1}


def test_other_labels_than_series_are_a_data_error(write):
    with pytest.raises(DataError, match="2 series in"):
        list(milan.read(write("1", "2")))


def test_a_label_that_is_no_number_is_a_data_error(write):
    with pytest.raises(DataError, match="'north' is no square id"):
        list(milan.read(write("1", labels="north\n")))


def test_absent_files_are_a_data_error(tmp_path):
    with pytest.raises(DataError, match=milan.FILE):
        list(milan.read(tmp_path))


def test_a_shift_by_weeks_keeps_hour_and_weekday(write):
    trace = next(milan.read(write("1,2", "3", "4")))

    moved = trace.shifted(weeks=620)

    before, after = (pd.to_datetime(t.frame["event_time_us"].iloc[0], unit="us") for t in (trace, moved))
    assert (after.year, after.hour, after.weekday()) == (2025, before.hour, before.weekday())
    assert moved.noted == trace.noted


def test_the_published_squares_have_the_known_counts(data_root):
    published = list(milan.read(data_root / "milan-hourly"))
    full = [trace for trace in published if "missing_hours" not in trace.noted]

    assert len(published) == len({trace.name for trace in published}) == 281
    assert {len(trace.frame) for trace in full} == {1488}
    assert len(full) == 211
    assert sum("exact_copy" not in trace.noted for trace in full) == 147
    assert max(len(trace.frame) for trace in published) == 1488


def test_squares_of_a_pair_of_rows_stand_side_by_side_without_the_empty_columns():
    # 1 and 3 in row 0; 102 in row 1; 1001, 1002 and 1102 in rows 10 and 11
    assert milan.places([1, 3, 102, 1001, 1002, 1102]) == {
        1: (0, 0),
        102: (1, 1),
        3: (0, 2),
        1001: (0, 3),
        1002: (0, 4),
        1102: (1, 4),
    }


def test_frames_hold_the_distinct_full_squares_at_their_places(write, monkeypatch):
    monkeypatch.setattr(milan, "HOURS", 3)
    folder = write("1,2,3", "4,5", "1,2,3", "7,x,9", labels="1.0e+00\n2.0e+00\n3.0e+00\n1.02e+02\n")

    frames = [msgspec.json.decode(message.value) for message in milan.frames(milan.read(folder))]

    assert [frame["activity_count"] for frame in frames] == [
        [[1, None], [None, 7]],
        [[2, None], [None, None]],
        [[3, None], [None, 9]],
    ]
    assert frames[0]["event_time_us"] == pd.Timestamp("2013-10-31 23:00", tz="UTC").value // 1000
    assert {frame["grid_id"] for frame in frames} == {"milan"}


def test_the_published_squares_make_a_grid_of_two_rows(data_root):
    full = [trace for trace in milan.read(data_root / "milan-hourly") if not trace.noted]
    squares = [int(trace.name.removeprefix("milan-")) for trace in full]
    place_of = milan.places(squares)

    first, *rest = milan.frames(full)
    plane = msgspec.json.decode(first.value)["activity_count"]

    assert len(rest) == milan.HOURS - 1
    assert (len(plane), {len(row) for row in plane}) == (2, {96})
    assert len(set(place_of.values())) == 147 == sum(value is not None for row in plane for value in row)
    assert place_of[1059][0] == 0
    assert place_of[1159] == (1, place_of[1059][1]), "the square to the north"
