"""B1, B3 to B8, B10, B11 and B14 of the catalogue of bad input: through the pipeline into a real store."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.bad_input.harness import BAD_FROM, GOOD, Bad, message, raw, suffer
from tests.pipeline_world import INGEST_MS, MINUTE_US, START_US

TIME_US = START_US + BAD_FROM * MINUTE_US


def test_b01_what_is_no_json_truncated_empty_or_a_tombstone(tmp_path: Path) -> None:
    values = [b"\xff\xfe{", b"not json", message()[:-7], b"", None, b"null", b"[]", b"{}", b'"text"', b"\x00" * 9]
    suffered = suffer(tmp_path, *map(Bad, values))
    assert suffered.reasons() == [
        *("undecodable",) * 4,
        "tombstone",
        *("invalid",) * 4,
        "undecodable",
    ]


def test_b03_oversize_deep_nesting_many_and_repeated_keys(tmp_path: Path) -> None:
    many = b"{" + b",".join(b'"k%d":1' % number for number in range(20_000)) + b"}"
    values = [
        b'{"pad":"' + b"x" * 70_000 + b'"}',
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"[" * 60_000,
        many,
        raw('"radio_cell_id":"bad"', '"radio_cell_id":"bad","radio_cell_id":"worse"'),
        raw('"prb_use_dl_percent":40.0', '"prb_use_dl_percent":40.0,"prb_use_dl_percent":1e999'),
    ]
    suffered = suffer(tmp_path, *map(Bad, values), shared=False)
    reasons = suffered.reasons()
    assert reasons[0] == reasons[3] == "oversize"
    assert {reasons[1], reasons[2]} <= {"undecodable", "invalid"}
    assert reasons[4] == "", "of repeated keys the last one counts"
    assert reasons[5] != ""


NUMBERS = ["NaN", "Infinity", "-Infinity", "1e308", "-1e308", "1e400", "9223372036854775808", "true", '"40"', "-0.0"]


@pytest.mark.parametrize("number", NUMBERS)
def test_b04_numbers_that_are_none_or_none_of_ours(tmp_path: Path, number: str) -> None:
    suffered = suffer(tmp_path, Bad(raw("40.0", number)), shared=number != "-0.0")
    refused = {"NaN", "Infinity", "-Infinity", "true", '"40"', "1e400"}
    (reason,) = suffered.reasons()
    if number == "-0.0":
        assert reason == ""
    elif number in refused:
        assert reason in {"undecodable", "invalid", "no_value"}
    else:
        assert reason == "no_value"


@pytest.mark.parametrize(
    "stamp", ["9223372036854775808", "-9223372036854775809", "1e30", "1.5", "true", '"now"', "NaN"]
)
def test_b04_stamps_that_are_no_whole_number_of_64_bits(tmp_path: Path, stamp: str) -> None:
    (reason,) = suffer(tmp_path, Bad(raw(str(TIME_US), stamp))).reasons()
    assert reason in {"time_unit", "invalid", "undecodable"}


def test_b05_fields_that_lack_are_too_many_null_or_of_another_type(tmp_path: Path) -> None:
    values = [
        message(radio_cell_id=...),
        message(event_time_us=...),
        message(schema=...),
        message(radio_cell_id=None),
        message(radio_cell_id=7),
        message(prb_use_dl_percent=[1, 2]),
        message(prb_use_dl_percent={}),
        message(suspect="no"),
        message(schema="netpredict.traffic/2"),
        message(schema="netpredict.rsrp/1"),
        message(schema="traffic"),
        b"\x00\x00\x00\x00\x2a" + message(),  # framed as by a schema registry, id 42
        message(prb_use_dl_percent=None),
        message(prb_use_dl_percent=...),
    ]
    suffered = suffer(tmp_path, *map(Bad, values))
    assert suffered.reasons() == [
        *("invalid",) * 8,
        *("schema",) * 3,
        "undecodable",
        *("no_value",) * 2,
    ]


def test_b05_a_minor_version_and_fields_of_tomorrow_are_read(tmp_path: Path) -> None:
    sound = Bad(message(schema="netpredict.traffic/1.7", new_field={"a": [1, None]}))
    assert suffer(tmp_path, sound, shared=False).reasons() == [""]


IDENTITIES = {
    "newline": "a\nb",
    "nul": "a\x00b",
    "escape": "\x1b]0;owned\x07",
    "quotes": "'; DROP TABLE series; --",
    "path": "../../etc/passwd",
    "shell": "$(touch owned) `id` && :",
    "ten_kb": "x" * 10_240,
    "separator": "a|b",
    "empty": "",
    "right_to_left": "cell\u202e0-doog",
    "invisible": "good-0\u200b",
    "lookalike": "g\u043e\u043ed-0",
    "lone_surrogate": None,
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_b06_identities_that_mean_harm(tmp_path: Path, name: str) -> None:
    identity = IDENTITIES[name]
    value = raw('"bad"', '"\\ud800"') if identity is None else message(radio_cell_id=identity)
    suffered = suffer(tmp_path, Bad(value), shared=False)
    (reason,) = suffered.reasons()
    keys = {row[4] for row in suffered.store["series"]}
    if name in ("quotes", "path", "shell", "lookalike"):  # text like any other: kept as it is, and alone
        assert reason == ""
        assert keys == {*GOOD, identity}
    else:
        assert reason in {"identity", "undecodable", "invalid"}
        assert keys == set(GOOD)
    assert not list(Path().glob("owned*"))


def test_b07_times_that_are_not_those_of_the_radio(tmp_path: Path) -> None:
    day_us = 86_400_000_000
    times = {
        0: "clock_unset",
        -1: "time_unit",
        TIME_US // 1000: "time_unit",  # ms
        TIME_US // 1_000_000: "time_unit",  # s
        TIME_US * 1000: "time_unit",  # ns
        253_402_300_799_000_000: "time_unit",  # 9999-12-31
        INGEST_MS * 1000 + day_us: "future",
        INGEST_MS * 1000 + 61_000_000: "future",
        TIME_US - 30 * day_us: "late",
    }
    values = [Bad(message(event_time_us=time_us)) for time_us in times]
    suffered = suffer(tmp_path, *values, series_ttl_s=1200.0)
    assert suffered.reasons() == list(times.values())


def test_b07_a_time_as_text_without_a_zone_is_refused(tmp_path: Path) -> None:
    texts = ["2023-11-14T22:26:00", "2023-10-29T02:30:00+02:00", "2023-10-29T02:30:00+01:00"]
    suffered = suffer(tmp_path, *(Bad(message(event_time_us=text)) for text in texts))
    assert suffered.reasons() == ["invalid"] * 3


def test_b07_duplicates_and_late_ones_of_a_series_are_counted_and_move_nothing(tmp_path: Path) -> None:
    """Of a good cell itself: the first row of a slot wins, and what is behind is late."""
    again = Bad(message(radio_cell_id="good-0", event_time_us=TIME_US, prb_use_dl_percent=99.0))
    late = Bad(message(radio_cell_id="good-0", event_time_us=TIME_US - 3 * MINUTE_US, prb_use_dl_percent=99.0))
    suffered = suffer(tmp_path, again, late)
    assert suffered.reasons() == ["", "late"]
    assert (suffered.counts["duplicate"], suffered.counts["late"]) == (1, 1)


def test_b08_gaps_constants_and_changes_of_unit_stay_with_their_series(tmp_path: Path) -> None:
    """A cell that leaves out an hour, stands still, and then sends permille for percent."""
    minutes = [0, 1, *range(62, 72), *range(72, 80)]
    values = [10.0, 11.0, *[50.0] * 10, *[500.0 + n for n in range(8)]]
    bad = [
        Bad(message(event_time_us=TIME_US + minute * MINUTE_US, prb_use_dl_percent=value))
        for minute, value in zip(minutes, values, strict=True)
    ]
    suffered = suffer(tmp_path, *bad, shared=False)
    assert suffered.reasons()[:2] == ["", ""]
    assert suffered.reasons()[12:] == ["no_value"] * 8, "a value outside every range of its KPI is none"


def test_b09_a_wrong_or_null_key_changes_nothing_on_the_same_partition(tmp_path: Path) -> None:
    """The key chooses the topic partition; what a record is about, it says itself."""
    bad = [
        Bad(message(event_time_us=TIME_US + n * MINUTE_US), key) for n, key in enumerate((None, b"", b"\xff" * 70_000))
    ]
    suffered = suffer(tmp_path, *bad, shared=False)
    assert suffered.reasons() == [""] * 3
    assert [row[4] for row in suffered.store["series"] if row[4] not in GOOD] == ["bad"]


def test_b10_more_cells_than_the_cap_are_refused_and_the_others_live(tmp_path: Path) -> None:
    bad = [Bad(message(radio_cell_id=f"flood-{number}")) for number in range(200)]
    suffered = suffer(tmp_path, *bad, shared=False, series_max=10)
    assert suffered.reasons() == [""] * 7 + ["series_cap"] * 193
    assert len(suffered.store["series"]) == 10


def test_b11_headers_that_are_huge_or_no_text(tmp_path: Path) -> None:
    headers = [("x", b"\xff" * 100_000), ("\udcff\udcfe", b""), ("gzip", b"1"), ("", b""), ("h" * 50_000, b"v")]
    suffered = suffer(tmp_path, Bad(b"{rubbish", headers=headers), Bad(message(), headers=headers), shared=False)
    assert suffered.reasons() == ["undecodable", ""]


def test_b14_two_senders_of_one_cell_are_told_apart_by_the_slot_alone(tmp_path: Path) -> None:
    """The second one's rows are duplicates when they come together, and late when they lag."""
    bad = [
        Bad(message(radio_cell_id="good-1", event_time_us=TIME_US + (n - lag) * MINUTE_US, prb_use_dl_percent=90.0))
        for n in range(10)
        for lag in (0, 2)
    ]
    suffered = suffer(tmp_path, *bad)
    assert suffered.counts["duplicate"] + suffered.counts["late"] == 20
    assert suffered.counts["accepted"] == 135


def test_letters_of_bad_input_keep_stamp_and_place(tmp_path: Path) -> None:
    suffered = suffer(tmp_path, Bad(b"x", b"k", 5), Bad(b"y", None, -1), Bad(b"z", b"", 2**62))
    rows = {row[2]: row for row in suffered.store["dead_letter"]}
    assert [rows[offset][:3] for offset in suffered.offsets] == [("ran.traffic", 0, o) for o in suffered.offsets]
    assert [rows[offset][5] for offset in suffered.offsets] == [5000, 0, 2**53 * 1000]


def test_the_harness_would_notice_harm(tmp_path: Path) -> None:
    """A record of a good cell that is accepted does change it."""
    newer = msgspec.json.decode(message(radio_cell_id="good-0", event_time_us=TIME_US + 1 * MINUTE_US))
    with pytest.raises(AssertionError):
        suffer(tmp_path, Bad(msgspec.json.encode(newer)))
