import pandas as pd
import pytest

from netpredict.traces.trace import Cleaner, Trace

FORM = "%Y-%m-%d %H:%M:%S"


def utc_us(text: str) -> int:
    return int(pd.Timestamp(text, tz="UTC").value // 1000)


def local_us(stamps: list[str], zone: str) -> tuple[list[int], dict[str, int]]:
    cleaner = Cleaner()
    times = cleaner.local_times_us(pd.Series(stamps, dtype="str", name="t"), FORM, zone)
    return [None if pd.isna(time) else int(time) for time in times], cleaner.repairs


def test_a_byte_order_mark_and_blanks_around_names_and_values_are_stripped():
    table = Cleaner().table(["\ufeffa , b\n", " 1 ,2\n"])

    assert table.to_dict("list") == {"a": ["1"], "b": ["2"]}


def test_rows_of_another_width_are_dropped_and_counted():
    cleaner = Cleaner()

    table = cleaner.table(["a,b\n", "1,2\n", "1,2,3\n", "4\n", "\n", "5,6\n"])

    assert table["a"].tolist() == ["1", "5"]
    assert cleaner.repairs == {"unreadable_row": 2}


def test_unnamed_columns_are_left_out():
    assert list(Cleaner().table(["a,,b,\n", "1,,2,\n"]).columns) == ["a", "b"]


def test_an_empty_file_gives_an_empty_table():
    assert Cleaner().table([]).empty


def test_a_missing_mark_is_missing_and_no_repair():
    cleaner = Cleaner()

    numbers = cleaner.numbers(pd.Series(["-", "", "-3.5"], name="x", dtype="str"))

    assert numbers.isna().tolist() == [True, True, False]
    assert cleaner.repairs == {}


@pytest.mark.parametrize("text", ["n/a", "inf", "-inf", "1,5", "--"])
def test_text_that_is_no_finite_number_is_missing_and_counted(text: str):
    cleaner = Cleaner()

    assert cleaner.numbers(pd.Series([text], name="x", dtype="str")).isna().all()
    assert cleaner.repairs == {"unreadable_value:x": 1}


def test_a_sentinel_is_missing_and_counted_unless_it_shall_be_kept():
    column = pd.Series(["-200", "-90"], name="x", dtype="str")
    cleaner = Cleaner()

    assert cleaner.numbers(column, (-200.0,)).isna().tolist() == [True, False]
    assert cleaner.repairs == {"sentinel:x": 1}
    assert Cleaner(keep_sentinels=True).numbers(column, (-200.0,)).tolist() == [-200.0, -90.0]


def test_local_time_becomes_utc():
    times, repairs = local_us(["2023-03-26 08:00:00"], "Asia/Taipei")

    assert times == [utc_us("2023-03-26 00:00")]
    assert repairs == {}


def test_an_hour_that_exists_twice_is_the_first_pass_until_the_clock_jumps_back():
    stamps = ["2019-10-27 01:59:59", "2019-10-27 01:00:00", "2019-10-27 01:00:01", "2019-10-27 02:00:00"]

    times, repairs = local_us(stamps, "Europe/Dublin")

    assert times == [utc_us(f"2019-10-27 {t}") for t in ("00:59:59", "01:00:00", "01:00:01", "02:00:00")]
    assert repairs == {"ambiguous_local_time": 3}


def test_a_small_step_back_inside_the_double_hour_is_not_taken_for_the_second_pass():
    times, _ = local_us(["2019-10-27 01:30:01", "2019-10-27 01:30:00"], "Europe/Dublin")

    assert times == [utc_us("2019-10-27 00:30:01"), utc_us("2019-10-27 00:30:00")]


def test_an_hour_that_never_existed_moves_to_the_next_that_did():
    times, repairs = local_us(["2020-03-29 01:30:00"], "Europe/Dublin")

    assert times == [utc_us("2020-03-29 01:00")]
    assert repairs == {"nonexistent_local_time": 1}


def test_a_row_without_a_readable_stamp_is_dropped_and_counted():
    cleaner = Cleaner()
    times = cleaner.local_times_us(pd.Series(["soon", "2020-01-01 00:00:00"], dtype="str"), FORM, "UTC")

    kept = cleaner.keep_stamped(pd.DataFrame({"event_time_us": times, "x": [1, 2]}))

    assert kept["x"].tolist() == [2]
    assert kept["event_time_us"].dtype == "int64"
    assert cleaner.repairs == {"unreadable_stamp": 1}


def test_a_trace_counts_its_duplicate_stamps_and_gaps():
    trace = Trace("t", pd.DataFrame({"event_time_us": [0, 0, 1_000_000, 3_000_000, 2_000_000]}))

    assert trace.duplicate_stamps() == 1
    assert trace.gaps(1.0) == 1


def test_a_note_of_zero_leaves_no_entry():
    trace = Trace("t", pd.DataFrame({"event_time_us": []}))

    trace.note("odd", 0)
    trace.note("strange", 2)

    assert trace.noted == {"strange": 2}
