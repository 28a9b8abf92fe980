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
from netpredict_plugins.decoders.perf3gpp import PLUGIN, Perf3gppDecoder

BEGIN_US = 1_772_452_800_000_000
END_US = 1_772_453_700_000_000
MEASUREMENTS: list[dict[str, Any]] = [
    {"column": "prb_use_dl_percent", "counter": "RRU.PrbTotDl", "unit": "%"},
    {"column": "dl_throughput_kbps", "counter": "DRB.UEThpDl", "unit": "kbit/s"},
    {"column": "bler_ratio", "counter": "TB.IntialErrNbrDl", "over": ["TB.TotNbrDlInitial"], "unit": "1"},
    {"column": "connected_ues", "counter": "RRC.ConnMean", "unit": "1"},
]
COLUMNS = [str(measurement["column"]) for measurement in MEASUREMENTS]


class Record(msgspec.Struct):
    value: bytes | None
    offset: int = 0
    timestamp: int = END_US // 1000
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def event() -> dict[str, Any]:
    """The example of the radio reference: two NRCellDU of one node, and the NRCellCU of the first."""
    types = ["RRU.PrbTotDl", "DRB.UEThpDl", "TB.TotNbrDlInitial", "TB.IntialErrNbrDl"]
    first = [{"p": 1, "sValue": "37"}, {"p": 2, "sValue": "48211.5"}]
    first += [{"p": 3, "sValue": "913350"}, {"p": 4, "sValue": "86012"}]
    second = [{"p": 2, "sValue": "0"}, {"p": 1, "sValue": ""}]
    du = {
        "measInfoId": {"sMeasInfoId": "PM=1,PmGroup=NRCellDU"},
        "measTypes": {"sMeasTypesList": types},
        "measValuesList": [
            {"measObjInstId": "GNBDUFunction=1,NRCellDU=1", "suspectFlag": "false", "measResults": first},
            {"measObjInstId": "GNBDUFunction=1,NRCellDU=2", "suspectFlag": "true", "measResults": second},
        ],
    }
    cu = {
        "measInfoId": "PM=1,PmGroup=NRCellCU",
        "measTypes": {"sMeasTypesList": ["RRC.ConnMean"]},
        "measValuesList": [
            {
                "measObjInstId": "GNBCUCPFunction=1,NRCellCU=1",
                "suspectFlag": "false",
                "measResults": [{"p": 1, "sValue": "64"}],
            }
        ],
    }
    return {
        "event": {
            "commonEventHeader": {
                "domain": "perf3gpp",
                "eventName": "perf3gpp_gnb-Acme_pmMeasResult",
                "startEpochMicrosec": BEGIN_US,
                "lastEpochMicrosec": END_US,
                "timeZoneOffset": "UTC+01:00",
            },
            "perf3gppFields": {
                "perf3gppFieldsVersion": "1.0",
                "measDataCollection": {
                    "granularityPeriod": 900,
                    "measuredEntityDn": "SubNetwork=North,ManagedElement=gnb-0042",
                    "measInfoList": [du, cu],
                },
            },
        }
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """The example with one value set (or deleted: value is ...)."""
    made = event()
    at: Any = made["event"]
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in way:
        at = at[part]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return made


def decoder(columns: Any = COLUMNS, **options: Any) -> Perf3gppDecoder:
    made = options_of(PLUGIN, {"measurements": MEASUREMENTS, **options}, "test")
    built: Perf3gppDecoder = PLUGIN.build(made, "perf3gpp", ["radio_cell_id"], columns)
    return built


def bytes_of(document: Any) -> bytes:
    return msgspec.json.encode(document)


def rows(document: Any, **options: Any) -> Any:
    return decoder(**options).decode([Record(bytes_of(document))])


EXPECTED = [[37, 48211.5, 86012 / 913350, 64], [math.nan, 0, math.nan, math.nan]]
FIELDS = "perf3gppFields.measDataCollection"
RESULTS = f"{FIELDS}.measInfoList.0.measValuesList.0.measResults"


def test_one_row_per_radio_cell_joins_its_objects() -> None:
    decoded = rows(event())
    assert decoded.keys == ["gnb-0042/1", "gnb-0042/2"]
    assert decoded.event_time_us.tolist() == [BEGIN_US] * 2
    assert decoded.flags.tolist() == [0, Quality.SUSPECT]
    assert not decoded.rejects
    np.testing.assert_allclose(decoded.values, np.array(EXPECTED, np.float32), rtol=1e-6)


def envelope(kind: str) -> Record:
    whole = event()
    inner = whole["event"]
    standard = {
        "event": {
            "commonEventHeader": inner["commonEventHeader"] | {"domain": "stndDefined"},
            "stndDefinedFields": {"data": {"perf3gppFields": inner["perf3gppFields"]}},
        }
    }
    packed = gzip.compress(bytes_of(whole))
    return {
        "plain": Record(bytes_of(whole)),
        "bare": Record(bytes_of(inner)),
        "array": Record(bytes_of([whole])),
        "eventList": Record(bytes_of({"eventList": [inner]})),
        "stndDefined": Record(bytes_of(standard)),
        "gzip by its bytes": Record(packed),
        "gzip by its header": Record(packed, headers=(("type-id", b"x"), ("gzip", b"true"))),
        "domain absent": Record(bytes_of(changed("commonEventHeader.domain", ...))),
        "period as duration": Record(bytes_of(changed(f"{FIELDS}.granularityPeriod", "PT15M"))),
    }[kind]


KINDS = ["plain", "bare", "array", "eventList", "stndDefined", "gzip by its bytes", "gzip by its header"]
KINDS += ["domain absent", "period as duration"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_envelope_gives_the_same_rows(kind: str) -> None:
    decoded = decoder().decode([envelope(kind)])
    assert decoded.keys == ["gnb-0042/1", "gnb-0042/2"], decoded.rejects
    np.testing.assert_allclose(decoded.values, np.array(EXPECTED, np.float32), rtol=1e-6)


def test_indices_count_from_one_and_their_lack_is_the_position() -> None:
    results = [{"sValue": "37"}, {"p": 0, "sValue": "48211.5"}, {"p": 9, "sValue": "1"}, {"p": 3, "iValue": 5}]
    made = decoder()
    decoded = made.decode([Record(bytes_of(changed(RESULTS, results)))])
    assert decoded.values[0, :2].tolist() == [37, 48211.5]
    assert made.deviations["index_out_of_range"] == 1


@pytest.mark.parametrize("value", ["", "  ", "n/a", "NaN", "inf", "1e999", None, True, [], {}])
def test_what_is_no_number_is_missing_and_never_zero(value: Any) -> None:
    decoded = rows(changed(f"{RESULTS}.0.sValue", value))
    assert np.isnan(decoded.values[0, 0])
    assert decoded.values[0, 1] == 48211.5


@pytest.mark.parametrize(("flag", "suspect"), [("false", 0), ("true", 32), (True, 32), (False, 0), (None, 0), ("", 0)])
def test_the_suspect_flag_is_a_string(flag: Any, suspect: int) -> None:
    assert rows(changed(f"{FIELDS}.measInfoList.0.measValuesList.0.suspectFlag", flag)).flags[0] == suspect


@pytest.mark.parametrize(("stamp", "begin_us"), [("both", None), ("begin", BEGIN_US), ("end", BEGIN_US - 900_000_000)])
def test_stamps_that_do_not_span_the_period_are_refused_unless_one_is_trusted(stamp: str, begin_us: int | None) -> None:
    decoded = rows(changed("commonEventHeader.lastEpochMicrosec", BEGIN_US), stamp=stamp)
    if begin_us is None:
        assert decoded.rejects[0].reason == "period"
    else:
        assert decoded.event_time_us[0] == begin_us


def test_a_volume_becomes_a_rate_in_its_declared_unit() -> None:
    for unit in ("kbit", "Mbit"):
        volume = {"column": "dl_throughput_kbps", "counter": "DRB.PdcpSduVolumeDL", "unit": unit, "per_s": 900.0}
        document = changed(f"{FIELDS}.measInfoList.0.measTypes.sMeasTypesList.0", "DRB.PdcpSduVolumeDL")
        document["event"]["perf3gppFields"]["measDataCollection"]["measInfoList"][0]["measValuesList"][0][
            "measResults"
        ] = [{"p": 1, "sValue": "900"}]
        made = decoder(columns=["dl_throughput_kbps"], measurements=[volume])
        assert made.decode([Record(bytes_of(document))]).values[0, 0] == pytest.approx(1.0)
        assert made.units == {"dl_throughput_kbps": f"{unit}/s"}


def test_a_share_of_nothing_has_no_value() -> None:
    decoded = rows(changed(f"{RESULTS}.2.sValue", "0"))
    assert np.isnan(decoded.values[0, 2])


BAD = {
    "tombstone": ("tombstone", None),
    "empty": ("undecodable", b""),
    "cut short": ("undecodable", bytes_of(event())[:-9]),
    "gzip cut short": ("undecodable", gzip.compress(bytes_of(event()))[:-12]),
    "gzip of rubbish": ("undecodable", gzip.compress(b"rubbish")),
    "no gzip behind the magic": ("undecodable", b"\x1f\x8brubbish"),
    "gzip bomb": ("oversize", gzip.compress(b"[" + b" " * 20_000_000)),
    "oversize": ("oversize", b"[" + b" " * 2_000_000),
    "deep": ("undecodable", b"[" * 20_000),
    "number": ("invalid", b"7"),
    "another domain": ("schema", bytes_of(changed("commonEventHeader.domain", "fault"))),
    "no fields": ("schema", bytes_of(changed("perf3gppFields", ...))),
    "no wanted counter": ("invalid", bytes_of(changed(f"{FIELDS}.measInfoList", []))),
    "no node": ("invalid", bytes_of(changed(f"{FIELDS}.measuredEntityDn", "SubNetwork=North"))),
    "many radio cells": (
        "oversize",
        bytes_of([changed(f"{FIELDS}.measuredEntityDn", f"ManagedElement={n}") for n in range(700)]),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_refused_with_its_reason_and_the_others_are_read(name: str) -> None:
    reason, value = BAD[name]
    decoded = decoder(max_rows=1000).decode([Record(bytes_of(event())), Record(value), Record(bytes_of(event()))])
    assert [reject.reason for reject in decoded.rejects] == [reason]
    assert decoded.record.tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("options", "columns", "message"),
    [
        ({"measurements": []}, COLUMNS, "no counter is given for prb_use_dl_percent"),
        ({"measurements": [MEASUREMENTS[0]] * 2}, COLUMNS[:1], "stands twice"),
        ({"measurements": [MEASUREMENTS[0] | {"counter": "RRU.Prb"}]}, COLUMNS[:1], "no counter of TS 28.552"),
        ({"measurements": [MEASUREMENTS[0] | {"unit": "1"}]}, COLUMNS[:1], "prb_use_dl_percent is in %"),
        ({"measurements": [MEASUREMENTS[0] | {"unit": "%", "per_s": 5.0}]}, COLUMNS[:1], "per_s makes kbit/s"),
        ({"stamp": "middle"}, COLUMNS, "use both, begin or end"),
        ({"objects": []}, COLUMNS, "names no class"),
    ],
)
def test_a_wrong_mapping_is_a_config_error_that_names_it(options: Any, columns: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decoder(columns=columns, **options)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("1e400")
junk = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def paths(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(path for key, part in inside for path in paths(part, (*way, key)))]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_mutation_raises_or_touches_the_next_record(data: st.DataObject) -> None:
    document = copy.deepcopy(event())
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
    decoded = decoder().decode([Record(mutated), Record(bytes_of(event()))])
    assert {*decoded.record.tolist(), *(reject.record for reject in decoded.rejects)} == {0, 1}
    np.testing.assert_allclose(decoded.values[-2:], np.array(EXPECTED, np.float32), rtol=1e-6)


def test_the_commented_defaults_are_the_real_ones() -> None:
    sample = (Path(__file__).parent / "sample.toml").read_text()
    defaults = tomllib.loads("\n".join(line[2:] for line in sample.splitlines() if line.startswith("# ")))
    assert defaults == msgspec.to_builtins(PLUGIN.options())
    assert load("decoders", "perf3gpp").name == "perf3gpp"
