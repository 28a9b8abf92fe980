import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.ingest.messages import SCHEMAS, ChannelState, Grid, Neighbour, Rsrp, Traffic
from netpredict.plugins import load, options_of
from netpredict.radio import handover_cost
from netpredict.types import Quality, place_columns
from netpredict_plugins.decoders.json import PLUGIN, JsonDecoder, JsonOptions

NOW_US = 1_700_000_000_000_000
COLUMNS = ["prb_use_dl_percent", "connected_ues"]


class Record(msgspec.Struct):
    value: bytes | None
    offset: int = 0
    timestamp: int = NOW_US // 1000
    key: bytes | None = None
    headers: tuple[Any, ...] = ()


def traffic(columns: Any = COLUMNS, **options: Any) -> JsonDecoder:
    return JsonDecoder(JsonOptions(**options), "traffic", ["radio_cell_id"], columns)


def rsrp(series_by: Any = ("ue_id", "radio_cell_id"), columns: Any = ("rsrp_dbm", "serving"), **options: Any) -> Any:
    return JsonDecoder(JsonOptions(**options), "rsrp", list(series_by), list(columns))


def good(cell: str = "cell-1", prb: float | None = 30.0) -> bytes:
    return msgspec.json.encode(Traffic("netpredict.traffic/1", cell, NOW_US, prb_use_dl_percent=prb))


def with_value(text: str) -> bytes:
    head = f'{{"schema":"netpredict.traffic/1","radio_cell_id":"c","event_time_us":{NOW_US}'
    return f'{head},"prb_use_dl_percent":{text}}}'.encode()


def with_fields(text: str) -> bytes:
    return f'{{"schema":"netpredict.traffic/1","radio_cell_id":"c","event_time_us":{NOW_US},{text}}}'.encode()


BAD = {
    "tombstone": ("tombstone", None),
    "empty": ("undecodable", b""),
    "rubbish": ("undecodable", b"{rubbish"),
    "truncated": ("undecodable", good()[:-3]),
    "two values": ("undecodable", good() + good()),
    "NaN": ("undecodable", with_value("NaN")),
    "Infinity": ("undecodable", with_value("-Infinity")),
    "invalid UTF-8": ("undecodable", good().replace(b"cell-1", b"\xff\xfe")),
    "lone surrogate": ("undecodable", good().replace(b"cell-1", b"\\ud800")),
    "deep": ("undecodable", with_fields('"x":' + "[" * 20_000 + "]" * 20_000)),
    "no object": ("invalid", b"[1, 2]"),
    "null": ("invalid", b"null"),
    "boolean as number": ("invalid", with_value("true")),
    "number as string": ("invalid", with_value('"30"')),
    "float as time": ("invalid", good().replace(str(NOW_US).encode(), b"1.5")),
    "number as identity": ("invalid", good().replace(b'"cell-1"', b"7")),
    "identity absent": ("invalid", b'{"schema":"netpredict.traffic/1","event_time_us":1}'),
    "schema absent": ("invalid", b'{"radio_cell_id":"c","event_time_us":1}'),
    "other schema": ("schema", good().replace(b"traffic", b"rsrp")),
    "other major": ("schema", good().replace(b"traffic/1", b"traffic/2")),
    "minor is no number": ("schema", good().replace(b"traffic/1", b"traffic/1.x")),
    "major prefix": ("schema", good().replace(b"traffic/1", b"traffic/11")),
    "oversize": ("oversize", with_fields('"x":"' + "y" * 70_000 + '"')),
    "a million keys": ("oversize", with_fields(",".join(f'"k{i}":0' for i in range(1_000_000)))),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_refused_with_its_reason_and_harms_no_other(name: str) -> None:
    reason, value = BAD[name]
    alone = traffic().decode([Record(good("a")), Record(good("b", 7.5))])
    found = traffic().decode([Record(good("a")), Record(value), Record(good("b", 7.5))])
    assert [(reject.record, reject.reason) for reject in found.rejects] == [(1, reason)]
    assert len(found.rejects[0].detail) < 500
    assert found.keys == alone.keys == ["a", "b"]
    assert found.record.tolist() == [0, 2]
    np.testing.assert_array_equal(found.values, alone.values)
    np.testing.assert_array_equal(found.event_time_us, alone.event_time_us)


@pytest.mark.parametrize("name", BAD)
def test_nothing_but_bad_records_gives_no_rows(name: str) -> None:
    found = traffic().decode([Record(BAD[name][1])] * 2)
    assert (found.keys, found.values.shape, len(found.rejects)) == ([], (0, 2), 2)


def test_an_empty_poll() -> None:
    assert traffic().decode([]).values.shape == (0, 2)
    assert rsrp().decode([]).values.shape == (0, 2)


@pytest.mark.parametrize("version", ["1", "1.0", "1.7", "1.9999"])
def test_any_minor_version_is_read_and_its_new_fields_are_left_out(version: str) -> None:
    value = good().replace(b"traffic/1", f"traffic/{version}".encode()).replace(b"{", b'{"news":[{"a":null}],', 1)
    decoder = traffic()
    for _ in range(2):  # the second time the version is known
        found = decoder.decode([Record(value), Record(good("b"))])
        assert (found.keys, found.rejects) == (["cell-1", "b"], [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e308", np.inf),
        ("-1e308", -np.inf),
        ("-0", 0.0),
        ("30", 30.0),
        ("9223372036854775808", 2.0**63),
        ("null", None),
    ],
)
def test_numbers_are_taken_as_they_are_for_the_firewall_to_judge(text: str, expected: float | None) -> None:
    found = traffic().decode([Record(with_value(text))])
    assert found.rejects == []
    assert found.values[0, 0] == expected or (expected is None and np.isnan(found.values[0, 0]))


@pytest.mark.parametrize("text", ["1e999", "1" + "0" * 400])
def test_numbers_beyond_any_float_cost_at_most_their_record(text: str) -> None:
    found = traffic().decode([Record(good("a")), Record(with_value(text))])
    assert found.keys[0] == "a"
    assert found.rejects or not np.isfinite(found.values[1, 0])


@pytest.mark.parametrize("time_us", [2**63, 2**64 - 1, -(2**63), -1, 0])
def test_absurd_times_stay_absurd_and_leave_the_others_alone(time_us: int) -> None:
    found = traffic().decode(
        [Record(good("a")), Record(good("b").replace(str(NOW_US).encode(), str(time_us).encode()))]
    )
    assert found.event_time_us[0] == NOW_US
    assert found.rejects or not 0 < found.event_time_us[1] < 2**61


def test_the_last_of_duplicate_keys_counts() -> None:
    found = traffic().decode([Record(with_fields('"prb_use_dl_percent":1.0,"prb_use_dl_percent":2.0'))])
    assert found.values[0, 0] == 2.0


def test_a_declared_unit_is_that_of_the_field_wherever_it_was_measured() -> None:
    made = rsrp(columns=("rsrp_dbm", "nbr1_rsrp_dbm", "sinr_db", "serving"), units={"rsrp_dbm": "NR code"})
    assert made.units == {"rsrp_dbm": "NR code", "nbr1_rsrp_dbm": "NR code"}
    assert traffic().units == {}
    with pytest.raises(ConfigError, match="no field 'rsrq'"):
        rsrp(units={"rsrq": "dB"})


def test_a_suspect_message_is_flagged() -> None:
    found = traffic().decode([Record(with_fields('"suspect":true')), Record(good())])
    assert found.flags.tolist() == [Quality.SUSPECT, 0]


def report(serving: str = "A", ue: str | None = "ue-1", neighbours: Any = (), **fields: Any) -> Record:
    return Record(
        msgspec.json.encode(
            Rsrp("netpredict.rsrp/1", serving, NOW_US, ue, -90.0, neighbours=list(neighbours), **fields)
        )
    )


def test_a_report_becomes_one_row_per_radio_cell() -> None:
    records = [
        report("A", neighbours=[Neighbour("B", -95.0), Neighbour("C", approximate=True)]),
        report("D", "ue-2", suspect=True),
    ]
    found = rsrp().decode(records)
    assert found.keys == ["ue-1|A", "ue-1|B", "ue-1|C", "ue-2|D"]
    assert found.record.tolist() == [0, 0, 0, 1]
    np.testing.assert_array_equal(found.values, [[-90, 1], [-95, 0], [np.nan, 0], [-90, 1]])
    assert found.flags.tolist() == [0, 0, Quality.APPROXIMATE, Quality.SUSPECT]


def test_the_order_of_series_by_is_the_order_of_the_key() -> None:
    neighbours = [Neighbour("B", -95.0)]
    assert rsrp(("radio_cell_id", "ue_id")).decode([report(neighbours=neighbours)]).keys == ["A|ue-1", "B|ue-1"]
    assert rsrp(("radio_cell_id",)).decode([report(ue=None, neighbours=neighbours)]).keys == ["A", "B"]


def test_a_report_without_its_ue_or_with_too_many_neighbours_is_refused() -> None:
    crowd = [Neighbour(f"n{i}") for i in range(65)]
    found = rsrp().decode([report(ue=None), report(neighbours=crowd), report(neighbours=crowd[:64])])
    assert [(reject.record, reject.reason) for reject in found.rejects] == [(0, "invalid"), (1, "oversize")]
    assert set(found.record.tolist()) == {2}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["good", *BAD]), max_size=8))
def test_any_mixture_gives_each_record_rows_or_a_reason(names: list[str]) -> None:
    records = [Record(good() if name == "good" else BAD[name][1]) for name in names if name != "a million keys"]
    found = traffic().decode(records)
    assert sorted({*found.record.tolist(), *(reject.record for reject in found.rejects)}) == [*range(len(records))]
    assert len(found.keys) == sum(record.value == good() for record in records)


@pytest.mark.parametrize(
    ("schema", "series_by", "columns", "message"),
    [
        ("trafic", ["radio_cell_id"], ["prb_use_dl_percent"], "reads .*traffic"),
        ("traffic", ["ue_id"], ["prb_use_dl_percent"], "named by radio_cell_id"),
        ("traffic", ["event_time_us"], ["prb_use_dl_percent"], "named by radio_cell_id"),
        ("traffic", ["radio_cell_id", "radio_cell_id"], ["prb_use_dl_percent"], "once"),
        ("traffic", ["radio_cell_id"], ["rsrp_dbm"], "no field 'rsrp_dbm'.*prb_use_dl_percent"),
        ("traffic", ["radio_cell_id"], ["serving"], "no field 'serving'"),
        ("rsrp", ["ue_id"], ["rsrp_dbm"], "needs radio_cell_id"),
    ],
)
def test_a_wrong_setup_is_named(schema: str, series_by: list[str], columns: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JsonDecoder(JsonOptions(), schema, series_by, columns)


def test_channel_state_is_read() -> None:
    message = ChannelState("netpredict.channel-state/1", "A", NOW_US, "ue", cqi=9.5, rank=2)
    decoder = JsonDecoder(JsonOptions(), "channel-state", ["ue_id", "radio_cell_id"], ["cqi", "rank", "mcs"])
    found = decoder.decode([Record(msgspec.json.encode(message))])
    assert found.keys == ["ue|A"]
    np.testing.assert_array_equal(found.values, [[9.5, 2.0, np.nan]])


def test_every_message_has_a_json_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for struct in SCHEMAS.values():
        schema = msgspec.json.schema(struct)
        jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(msgspec.json.decode(good()), msgspec.json.schema(Traffic))


def test_the_plugin_is_found_and_its_sample_shows_the_defaults() -> None:
    assert load("decoders", "json") is PLUGIN
    text = Path(__file__).with_name("sample.toml").read_text()
    shown = "\n".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    assert options_of(PLUGIN, tomllib.loads(shown), "sample") == JsonOptions()


def test_a_row_of_a_report_can_carry_the_strongest_other_radio_cell() -> None:
    def report(ue: str, serving: float | None, *neighbours: float | None) -> Record:
        near = [Neighbour(f"n{number}", rsrp_dbm=rsrp, rsrq_db=-number) for number, rsrp in enumerate(neighbours)]
        made = Rsrp("netpredict.rsrp/1", "s", NOW_US, ue, rsrp_dbm=serving, rsrq_db=-9.0, neighbours=near)
        return Record(msgspec.json.encode(made))

    decoder = rsrp(columns=("nbr1_rsrp_dbm", "rsrp_dbm", "nbr1_rsrq_db"))
    decoded = decoder.decode([report("a", -80.0, -90.0, -85.0), report("b", -80.0), report("c", None, -70.0, None)])
    nan = np.nan
    expected = [[-85, -80, -1], [-80, -90, -9], [-80, -85, -9], [nan, -80, nan], [-70, nan, 0]]
    expected += [[nan, -70, nan], [-70, nan, 0]]
    np.testing.assert_array_equal(decoded.values, np.array(expected, np.float32))


def seen(levels: dict[str, float | None]) -> Record:
    """A report; the first radio cell serves."""
    (serving, rsrp_dbm), *near = levels.items()
    neighbours = [Neighbour(cell, rsrp_dbm=level) for cell, level in near]
    return Record(
        msgspec.json.encode(Rsrp("netpredict.rsrp/1", serving, NOW_US, "u", rsrp_dbm=rsrp_dbm, neighbours=neighbours))
    )


def test_a_row_of_a_report_can_carry_what_a_report_tells_of_hindsight() -> None:
    near = [Neighbour("B", -96.0, sinr_db=-8.0), Neighbour("C", -150.0, sinr_db=40.0), Neighbour("D", sinr_db=1.0)]
    reports = [report("A", neighbours=near, sinr_db=12.0), report("A", sinr_db=12.0)]
    decoded = rsrp(columns=handover_cost.KPIS).decode(reports).values
    lost = 1 / (1 + np.exp(np.array([20, 0, 48, 9, 20]) / 4))
    np.testing.assert_allclose(decoded[:, 1:], np.stack([lost, lost], axis=1), rtol=1e-5)
    np.testing.assert_allclose(decoded[:, 0], [-0.1, 0.1, 1.0, np.nan, np.nan], rtol=1e-5)
    alone = rsrp(columns=handover_cost.KPIS, reported_db=15.0).decode(reports).values
    np.testing.assert_allclose(alone[:, 0], [-0.1, 0.1, 1.0, np.nan, -0.25], rtol=1e-5)


def test_what_is_impossible_tells_nothing_of_hindsight() -> None:
    decoder, nan = rsrp(columns=handover_cost.KPIS), np.nan
    decoded = decoder.decode([report("A", neighbours=[Neighbour("B", 40.0, sinr_db=5.0)], sinr_db=120.0)]).values
    np.testing.assert_allclose(decoded, [[nan, nan, nan], [nan, *2 * [1 / (1 + np.exp(13 / 4))]]], rtol=1e-5)


def test_rules_of_thumb_need_levels_and_ratios_not_their_codes() -> None:
    columns = ("rsrp_dbm", *handover_cost.KPIS, "sinr_db")
    rsrp(columns=columns, units={"sinr_db": "dB"})
    rsrp(columns=("rsrp_dbm", "sinr_db"), units={"sinr_db": "NR code"})
    for seen in (columns, columns[:-1]):
        with pytest.raises(ConfigError, match="stay_cost needs reports in dBm and dB, not sinr_db in NR code"):
            rsrp(columns=seen, units={"sinr_db": "NR code"})


def test_a_radio_cell_that_stands_twice_in_a_report_is_not_its_own_neighbour() -> None:
    near = [Neighbour("A", -80.0), Neighbour("B", -93.0), Neighbour("B", -70.0)]
    told = rsrp(columns=("nbr1_rsrp_dbm",)).decode([report("A", neighbours=near), report("A", neighbours=near[:1])])
    assert told.values[[0, 2], 0].tolist() == [-93.0, -90.0], "the first of two counts, as on the grid"
    assert np.isnan(told.values[4, 0])


OTHERS = ("nbr1_rsrp_dbm", "nbr2_rsrp_dbm", "onsite_rsrp_dbm", "offsite_rsrp_dbm")


def test_a_row_of_a_report_can_carry_the_second_strongest_and_the_strongest_by_site() -> None:
    reports = [
        seen({"s1-0": -80, "s1-1": -84, "s2-0": -90, "s2-1": -93}),
        seen({"s1-0": -80, "s1-1": -84}),
        seen({"x": -70}),
    ]
    nan = np.nan
    as_reported = [[-84, -90, -84, -90], [-80, -90, -80, -90], [-80, -84, -93, -80], [-80, -84, -90, -80]]
    as_reported += [[-84, nan, -84, nan], [-80, nan, -80, nan], [nan, nan, nan, nan]]
    down_to_8_db = [[-84, -88, -84, -88], [-80, -88, -80, -88], [-80, -84, -88, -80], [-80, -84, -88, -80]]
    down_to_8_db += [[-84, -88, -84, -88], [-80, -88, -80, -88], [-78, -78, -78, -78]]
    for reported_db, values in ((0.0, as_reported), (8.0, down_to_8_db)):
        decoder = rsrp(columns=OTHERS, site_pattern="(.*)-[0-9]+", reported_db=reported_db)
        np.testing.assert_array_equal(decoder.decode(reports).values, np.array(values, np.float32))


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([f"{site}-{n}" for site in "abc" for n in range(3)]),
            st.none() | st.integers(-120, -118),
            min_size=1,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_other_radio_cells_are_those_that_a_search_through_each_report_finds(
    reports: list[dict[str, float | None]],
) -> None:
    found = rsrp(columns=OTHERS, site_pattern="(.)-.").decode([seen(levels) for levels in reports]).values.tolist()
    expected = []
    for levels in reports:
        for cell in levels:
            others = {name: level for name, level in levels.items() if name != cell and level is not None}
            strongest = [*sorted(others.values(), reverse=True), np.nan, np.nan]
            by_site = [
                [level for name, level in others.items() if (name[0] == cell[0]) == same] for same in (True, False)
            ]
            expected.append([*strongest[:2], *(max(levels, default=np.nan) for levels in by_site)])
    np.testing.assert_array_equal(found, expected)


def test_columns_by_site_need_to_know_the_sites() -> None:
    with pytest.raises(ConfigError, match="onsite_rsrp_dbm needs decoder_options"):
        rsrp(columns=("onsite_rsrp_dbm",))
    with pytest.raises(ConfigError, match="2 groups"):
        rsrp(columns=("onsite_rsrp_dbm",), site_pattern="(.)(.)")
    with pytest.raises(ConfigError, match="site_pattern: "):
        rsrp(columns=("onsite_rsrp_dbm",), site_pattern="(")


GRID_COLUMNS = place_columns(["activity_count", "connected_ues"], 2, 3)


def grid(columns: Any = GRID_COLUMNS, **options: Any) -> JsonDecoder:
    return JsonDecoder(JsonOptions(**options), "grid", ["grid_id"], columns)


def frame(**planes: Any) -> Record:
    return Record(msgspec.json.encode(Grid("netpredict.grid/1", "milan", NOW_US, **planes)))


def test_a_frame_is_one_row_with_a_column_for_each_place():
    decoded = grid().decode([frame(activity_count=[[1, 2, None], [4, 5, 6]], connected_ues=[[7, 8, 9], [0, 1, 2]])])
    assert (decoded.keys, decoded.record.tolist(), decoded.rejects) == (["milan"], [0], [])
    np.testing.assert_array_equal(decoded.values, [[1, 2, np.nan, 4, 5, 6, 7, 8, 9, 0, 1, 2]])


def test_a_kpi_that_a_frame_leaves_out_is_missing_at_every_place():
    decoded = grid().decode([frame(connected_ues=[[7, 8, 9], [0, 1, 2]], suspect=True)])
    np.testing.assert_array_equal(decoded.values, [[*[np.nan] * 6, 7, 8, 9, 0, 1, 2]])
    assert decoded.flags.tolist() == [Quality.SUSPECT]


def test_a_grid_without_a_record_has_no_rows():
    assert grid().decode([]).values.shape == (0, 12)


MISFITS = {
    "3 x 2": [[1, 2], [3, 4], [5, 6]],
    "2 x 3 or 4": [[1, 2, 3], [4, 5, 6, 7]],
    "1 x 6": [[1, 2, 3, 4, 5, 6]],
    "0 x 0": [],
    "2 x 0": [[], []],
}


@pytest.mark.parametrize("found", MISFITS)
def test_a_frame_of_another_shape_is_refused_alone(found):
    good = frame(activity_count=[[1, 2, 3], [4, 5, 6]])
    decoded = grid().decode([good, frame(activity_count=MISFITS[found]), good])
    (reject,) = decoded.rejects
    assert (reject.record, reject.reason) == (1, "shape")
    assert reject.detail.startswith(f"activity_count is {found}, expected 2 x 3")
    assert decoded.record.tolist() == [0, 2]


def test_a_plane_that_is_not_rows_of_numbers_is_invalid():
    for plane in ("7", '[[1,2,"3"],[4,5,6]]', "[1,2,3]"):
        value = f'{{"schema":"netpredict.grid/1","grid_id":"g","event_time_us":{NOW_US},"activity_count":{plane}}}'
        (reject,) = grid().decode([Record(value.encode())]).rejects
        assert reject.reason == "invalid"


def test_a_large_frame_may_be_longer_than_other_records():
    columns = place_columns(["activity_count"], 64, 64)
    whole = frame(activity_count=[[123456.78125] * 64] * 64)
    assert len(whole.value or b"") < 65_536
    assert grid(columns, max_bytes=10).decode([whole]).rejects == []
    (reject,) = grid(columns, max_bytes=10).decode([frame(activity_count=[[0.123456789] * 64] * 256)]).rejects
    assert reject.reason == "oversize"


def test_only_a_grid_stream_reads_frames():
    with pytest.raises(ConfigError, match="if, and only if, its schema is grid"):
        grid(["activity_count"])
    with pytest.raises(ConfigError, match="if, and only if, its schema is grid"):
        traffic(place_columns(COLUMNS, 2, 2))
    with pytest.raises(ConfigError, match="no field 'cqi'"):
        grid(place_columns(["cqi"], 2, 2))
    with pytest.raises(ConfigError, match="named by grid_id"):
        JsonDecoder(JsonOptions(), "grid", ["radio_cell_id"], GRID_COLUMNS)
