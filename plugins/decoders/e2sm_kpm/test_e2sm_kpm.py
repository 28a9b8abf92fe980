import copy
import gzip
import math
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpredict.errors import ConfigError
from netpredict.plugins import load, options_of
from netpredict.types import Quality
from netpredict_plugins.decoders.e2sm_kpm import PLUGIN, E2smKpmDecoder

BEGIN_US = 1_772_452_800_000_000
MEASUREMENTS: list[dict[str, Any]] = [
    {"column": "prb_use_dl_percent", "counter": "RRU.PrbTotDl", "unit": "%"},
    {"column": "dl_throughput_kbps", "counter": "DRB.UEThpDl", "unit": "kbit/s"},
    {"column": "bler_ratio", "counter": "TB.IntialErrNbrDl", "over": ["TB.TotNbrDlInitial"], "unit": "1"},
]
COLUMNS = [str(measurement["column"]) for measurement in MEASUREMENTS]
NAMES = ["RRU.PrbTotDl", "DRB.UEThpDl", "TB.TotNbrDlInitial", "TB.IntialErrNbrDl"]
FIRST: list[Any] = [{"integer": 37}, {"real": 48211.5}, {"integer": 913350}, {"integer": 86012}]
SECOND: list[Any] = [{"integer": 41}, {"noValue": None}, {"integer": 0}, {"integer": 0}]
EXPECTED = [[37, 48211.5, 86012 / 913350], [41, math.nan, math.nan]]
BY_UE = ["ue_id", "radio_cell_id"]


class Record(msgspec.Struct):
    value: bytes | None
    offset: int = 0
    timestamp: int = BEGIN_US // 1000
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def report() -> dict[str, Any]:
    label = {"measLabel": {"noLabel": "true"}}
    return {
        "measData": [{"measRecord": FIRST}, {"measRecord": SECOND, "incompleteFlag": "true"}],
        "measInfoList": [{"measType": {"measName": name}, "labelInfoList": [label]} for name in NAMES],
        "granulPeriod": 1000,
    }


def envelope(kind: int, message: Any, stamp: Any = "ed4ffa4000000000") -> dict[str, Any]:
    return {
        "e2NodeId": "gnb-0042",
        "cellObjectID": "NRCellDU=1",
        "indicationHeader": {
            "indicationHeader-formats": {
                "indicationHeader-Format1": {"colletStartTime": stamp, "senderName": "gnb-0042", "vendorName": "Acme"}
            }
        },
        "indicationMessage": {"indicationMessage-formats": {f"indicationMessage-Format{kind}": message}},
    }


def of_cell() -> dict[str, Any]:
    return envelope(1, copy.deepcopy(report()))


def of_ues() -> dict[str, Any]:
    ues = [{"gNB-DU-UEID": {"gNB-CU-UE-F1AP-ID": 17}}, {"gNB-UEID": {"amf-UE-NGAP-ID": 4, "guami": {}}}]
    return envelope(3, {"ueMeasReportList": [{"ueID": ue, "measReport": report()} for ue in ues]})


def by_condition() -> dict[str, Any]:
    """Format 2: two measurements, of which one holds for both UEs and the other for one."""
    ues = [{"ueID": {"gNB-DU-UEID": {"gNB-CU-UE-F1AP-ID": number}}} for number in (17, 18)]
    conditions = [
        {"measType": {"measName": "DRB.UEThpDl"}, "matchingCond": [], "matchingUEidList": ues},
        {"measType": {"measName": "RRU.PrbTotDl"}, "matchingCond": [], "matchingUEidList": ues[:1]},
    ]
    record = [{"integer": 100}, {"integer": 200}, {"integer": 7}]
    return envelope(2, {"measData": [{"measRecord": record}], "measCondUEidList": conditions, "granulPeriod": 1000})


def decoder(series_by: Any = ("radio_cell_id",), columns: Any = COLUMNS, **options: Any) -> E2smKpmDecoder:
    made = options_of(PLUGIN, {"measurements": MEASUREMENTS, **options}, "test")
    built: E2smKpmDecoder = PLUGIN.build(made, "e2sm_kpm", list(series_by), columns)
    return built


def rows(document: Any, series_by: Any = ("radio_cell_id",), **options: Any) -> Any:
    return decoder(series_by, **options).decode([Record(msgspec.json.encode(document))])


def message_of(document: dict[str, Any]) -> Any:
    (message,) = document["indicationMessage"]["indicationMessage-formats"].values()
    return message


def test_a_report_of_a_radio_cell_is_one_row_for_each_granularity_period() -> None:
    found = rows(of_cell())
    assert found.keys == ["gnb-0042/NRCellDU=1"] * 2
    assert found.event_time_us.tolist() == [BEGIN_US, BEGIN_US + 1_000_000]
    assert found.flags.tolist() == [0, Quality.SUSPECT]
    np.testing.assert_allclose(found.values, np.array(EXPECTED, np.float32), rtol=1e-6)
    assert decoder().units["bler_ratio"] == "ratio"


def test_reports_of_ues_name_them_by_node_and_identity() -> None:
    found = rows(of_ues(), BY_UE)
    assert found.keys == [f"gnb-0042/{ue}|gnb-0042/NRCellDU=1" for ue in (17, 17, 4, 4)]
    np.testing.assert_allclose(found.values, np.array(EXPECTED * 2, np.float32), rtol=1e-6)
    assert rows(of_ues(), ["ue_id"]).keys == ["gnb-0042/17"] * 2 + ["gnb-0042/4"] * 2


def test_a_report_by_condition_gives_each_ue_what_it_matched() -> None:
    found = rows(by_condition(), ["ue_id"])
    assert found.keys == ["gnb-0042/17", "gnb-0042/18"]
    np.testing.assert_array_equal(found.values[:, :2], np.array([[7, 100], [math.nan, 200]], np.float32))


def test_ues_may_match_in_some_granularity_periods_only() -> None:
    document = by_condition()
    message = message_of(document)
    (condition, _) = message["measCondUEidList"]
    ues = condition.pop("matchingUEidList")
    per_period = [{"noUEmatched": "true"}, {"oneOrMoreUEmatched": ues}]
    condition["matchingUEidPerGP"] = [{"matchedPerGP": matched} for matched in per_period]
    message["measCondUEidList"] = [condition]
    message["measData"] = [{"measRecord": []}, {"measRecord": [{"integer": 5}, {"integer": 6}]}]
    found = rows(document, ["ue_id"])
    assert found.keys == ["gnb-0042/17", "gnb-0042/18"]
    assert found.event_time_us.tolist() == [BEGIN_US + 1_000_000] * 2
    assert found.values[:, 1].tolist() == [5, 6]


def pairs(value: Any) -> Any:
    """The same document with every CHOICE written as a pair."""
    choices = ("indicationHeader-formats", "indicationMessage-formats", "measType", "ueID")
    if isinstance(value, list):
        return [pairs(part) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)) in ("integer", "real", "noValue"):
        return list(*value.items())
    return {
        name: [next(iter(part)), pairs(next(iter(part.values())))] if name in choices else pairs(part)
        for name, part in value.items()
    }


@pytest.mark.parametrize(
    "value",
    [
        msgspec.json.encode(of_cell()),
        msgspec.json.encode([of_cell()]),
        msgspec.json.encode(pairs(of_cell())),
        gzip.compress(msgspec.json.encode(of_cell())),
    ],
    ids=["object", "list", "pairs", "gzip"],
)
def test_every_way_to_write_it_gives_the_same_rows(value: bytes) -> None:
    found = decoder().decode([Record(value)])
    assert not found.rejects
    np.testing.assert_allclose(found.values, np.array(EXPECTED, np.float32), rtol=1e-6)


def test_pairs_name_ues_too() -> None:
    assert rows(pairs(of_ues()), ["ue_id"]).keys == rows(of_ues(), ["ue_id"]).keys


@pytest.mark.parametrize(
    ("stamp", "unit", "expected"),
    [
        ("ed4ffa4080000000", "ntp", BEGIN_US + 500_000),
        ("ed4ffa40", "ntp", BEGIN_US),
        ("00000000", "ntp", 0),
        ("0000000100000000", "ntp", (2**32 + 1 - 2_208_988_800) * 1_000_000),  # NTP begins anew in 2036
        ("nonsense", "ntp", -1),
        (BEGIN_US, "us", BEGIN_US),
        (BEGIN_US // 1000, "ms", BEGIN_US),
        (str(BEGIN_US // 1_000_000), "s", BEGIN_US),
        (0, "ms", 0),
        (None, "ms", -1),
        (10**30, "s", 2**62),
    ],
)
def test_the_stamp_is_read_as_declared(stamp: Any, unit: str, expected: int) -> None:
    document = envelope(1, report(), stamp)
    del message_of(document)["measData"][1]
    assert rows(document, stamp_unit=unit).event_time_us.tolist() == [expected]


def test_the_end_of_the_last_period_may_be_the_stamp() -> None:
    found = rows(of_cell(), stamp="end")
    assert found.event_time_us.tolist() == [BEGIN_US - 2_000_000, BEGIN_US - 1_000_000]


@pytest.mark.parametrize(
    "item", [{"noValue": None}, {"real": "NaN"}, {"real": 1e999}, {"integer": None}, {"x": 1}, None]
)
def test_what_is_no_number_is_missing_and_never_zero(item: Any) -> None:
    document = of_cell()
    message_of(document)["measData"][0]["measRecord"] = [item, *FIRST[1:]]
    value = msgspec.json.encode(document)
    found = decoder().decode([Record(value)])
    assert np.isnan(found.values[0, 0])
    assert found.values[0, 1] == 48211.5


def test_each_label_has_an_item_and_those_of_a_part_are_left_out() -> None:
    document = of_cell()
    message = message_of(document)
    labels = [{"measLabel": {"sliceID": {"sST": "01"}}}, {"measLabel": {"noLabel": "true"}}]
    message["measInfoList"][0]["labelInfoList"] = labels
    message["measData"] = [{"measRecord": [{"integer": 99}, *FIRST]}]
    assert rows(document).values[0, 0] == 37


def test_a_record_of_another_length_is_left_out_and_counted() -> None:
    document = of_cell()
    message_of(document)["measData"][0]["measRecord"] = FIRST[:3]
    made = decoder()
    found = made.decode([Record(msgspec.json.encode(document))])
    assert found.event_time_us.tolist() == [BEGIN_US + 1_000_000]
    assert made.deviations["record_length"] == 1


def without(document: dict[str, Any], *way: str) -> dict[str, Any]:
    at: Any = document
    for part in way[:-1]:
        at = at[part]
    del at[way[-1]]
    return document


INNER = ("indicationMessage", "indicationMessage-formats", "indicationMessage-Format1")
BAD: dict[str, tuple[str, Any]] = {
    "tombstone": ("tombstone", None),
    "cut short": ("undecodable", msgspec.json.encode(of_cell())[:-9]),
    "deep": ("undecodable", b"[" * 20_000),
    "oversize": ("oversize", b"[" + b" " * 2_000_000),
    "gzip bomb": ("oversize", gzip.compress(b"[" + b" " * 20_000_000)),
    "number": ("schema", b"7"),
    "no header": ("schema", without(of_cell(), "indicationHeader")),
    "format 9": ("schema", envelope(9, report())),
    "of ues": ("invalid", of_ues()),
    "no node": ("invalid", without(without(of_cell(), "e2NodeId"), "indicationHeader", "indicationHeader-formats",
                                   "indicationHeader-Format1", "senderName")),
    "no radio cell": ("invalid", without(of_cell(), "cellObjectID")),
    "no data": ("invalid", without(of_cell(), *INNER, "measData")),
    "no period": ("period", without(of_cell(), *INNER, "granulPeriod")),
    "many periods": ("oversize", envelope(1, report() | {"measData": [{"measRecord": FIRST}] * 1001})),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_refused_with_its_reason_and_the_others_are_read(name: str) -> None:
    reason, document = BAD[name]
    bad = document if document is None or isinstance(document, bytes) else msgspec.json.encode(document)
    good = Record(msgspec.json.encode(of_cell()))
    found = decoder(max_rows=1000).decode([good, Record(bad), good])
    assert [reject.reason for reject in found.rejects] == [reason]
    assert found.record.tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("options", "series_by", "message"),
    [
        ({"measurements": []}, ["radio_cell_id"], "no counter is given for prb_use_dl_percent"),
        ({"stamp": "middle"}, ["radio_cell_id"], "use begin or end"),
        ({"stamp_unit": "ns"}, ["radio_cell_id"], "use one of ntp, us, ms, s"),
        ({}, ["grid_id"], "a series of schema 'e2sm_kpm' is named by"),
    ],
)
def test_a_wrong_setting_is_a_config_error_that_names_it(options: Any, series_by: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decoder(series_by, **options)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("1e400")
junk = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def paths(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(path for key, part in inside for path in paths(part, (*way, key)))]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([(of_cell, ("radio_cell_id",)), (of_ues, BY_UE), (by_condition, BY_UE)]))
def test_no_mutation_raises_or_touches_the_next_record(data: st.DataObject, form: Any) -> None:
    make, series_by = form
    document = copy.deepcopy(make())
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from([path for path in paths(document) if path]))
        at: Any = document
        for part in way:
            at = at[part]
        at[last] = data.draw(junk)
    try:
        mutated = msgspec.json.encode(document)
    except (msgspec.MsgspecError, OverflowError, ValueError, UnicodeEncodeError):
        return
    good = Record(msgspec.json.encode(make()))
    alone = decoder(series_by).decode([good])
    found = decoder(series_by).decode([Record(mutated), good])
    assert {*found.record.tolist(), *(reject.record for reject in found.rejects)} == {0, 1}
    assert found.keys[-len(alone.keys) :] == alone.keys
    np.testing.assert_array_equal(found.values[-len(alone.keys) :], alone.values)


def test_the_commented_defaults_are_the_real_ones() -> None:
    sample = (Path(__file__).parent / "sample.toml").read_text()
    defaults = tomllib.loads("\n".join(line[2:] for line in sample.splitlines() if line.startswith("# ")))
    assert defaults == msgspec.to_builtins(PLUGIN.options())
    assert load("decoders", "e2sm_kpm").name == "e2sm_kpm"


def test_the_example_of_the_readme_is_read() -> None:
    text = (Path(__file__).parent / "README.md").read_text()
    found = decoder(columns=COLUMNS[:2]).decode([Record(text.split("```json")[1].split("```")[0].encode())])
    assert found.keys == ["gnb-0042/NRCellDU=1"] * 2
    assert found.values[:, 0].tolist() == [37, 41]
