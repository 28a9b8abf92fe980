"""The streams that are fuzzed, each with good series and a victim whose messages are mutated."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.fuzz.mutate import Message, Mutant, mutant
from tests.pipeline_world import START_US

GOOD = "good-"
MEASUREMENTS = [
    {"column": "prb_use_dl_percent", "counter": "RRU.PrbTotDl", "unit": "%"},
    {"column": "dl_throughput_kbps", "counter": "DRB.UEThpDl", "unit": "kbit/s"},
]
_COMMON = {
    "horizon_steps": 4,
    "warm_steps": 2,
    "score_series_max": 0,  # a mutant that is accepted would be scored, and calibrate its neighbours
    "anchor_series_max": 0,
    "series_max": 1500,
    "dead_letters_max": 20,
    "dead_letters_offsets": 1000,
}


class Sender(NamedTuple):
    """A stream: its config, and the message of a series (by its name) at a step, which is ``period_us`` long."""

    config: dict[str, Any]
    period_us: int
    message: Callable[[str, int, float], Message]


def _traffic(name: str, time_us: int, level: float) -> Message:
    return {
        "schema": "netpredict.traffic/1",
        "radio_cell_id": name,
        "event_time_us": time_us,
        "prb_use_dl_percent": level,
        "dl_throughput_kbps": level * 900.5,
        "connected_ues": 7.0,
    }


def _rsrp(name: str, time_us: int, level: float) -> Message:
    cells = [{"radio_cell_id": f"{name}-c{n}", "rsrp_dbm": -120.0 + level / 3 + n} for n in range(3)]
    return {
        "schema": "netpredict.rsrp/1.1",
        "radio_cell_id": f"{name}-serving",
        "ue_id": name,
        "event_time_us": time_us,
        "rsrp_dbm": -120.0 + level / 2,
        "neighbours": cells,
    }


def _channel(name: str, time_us: int, level: float) -> Message:
    return {
        "schema": "netpredict.channel-state/1",
        "radio_cell_id": f"{name}-cell",
        "ue_id": name,
        "event_time_us": time_us,
        "cqi": float(int(level) % 16),
        "rank": 2.0,
    }


def _grid(name: str, time_us: int, level: float) -> Message:
    plane = [[level + row + column for column in range(3)] for row in range(2)]
    return {"schema": "netpredict.grid/1", "grid_id": name, "event_time_us": time_us, "activity_count": plane}


def _perf3gpp(name: str, time_us: int, level: float) -> Message:
    results = [{"p": 1, "sValue": str(level)}, {"p": 2, "sValue": str(level * 1000)}]
    info = {
        "measInfoId": {"sMeasInfoId": "PM=1,PmGroup=NRCellDU"},
        "measTypes": {"sMeasTypesList": ["RRU.PrbTotDl", "DRB.UEThpDl"]},
        "measValuesList": [{"measObjInstId": "NRCellDU=1", "suspectFlag": "false", "measResults": results}],
    }
    return {
        "event": {
            "commonEventHeader": {
                "domain": "perf3gpp",
                "eventName": "perf3gpp_gnb_pmMeasResult",
                "startEpochMicrosec": time_us,
                "lastEpochMicrosec": time_us + 900_000_000,
            },
            "perf3gppFields": {
                "perf3gppFieldsVersion": "1.0",
                "measDataCollection": {
                    "granularityPeriod": 900,
                    "measuredEntityDn": f"ManagedElement={name}",
                    "measInfoList": [info],
                },
            },
        }
    }


def _e2sm_kpm(name: str, time_us: int, level: float) -> Message:
    names = ("RRU.PrbTotDl", "DRB.UEThpDl")
    report = {
        "measData": [{"measRecord": [{"real": level}, {"integer": int(level * 1000)}]}],
        "measInfoList": [
            {"measType": {"measName": counter}, "labelInfoList": [{"measLabel": {"noLabel": "true"}}]}
            for counter in names
        ],
        "granulPeriod": 1000,
    }
    return {
        "e2NodeId": name,
        "cellObjectID": "NRCellDU=1",
        "indicationHeader": {
            "indicationHeader-formats": {"indicationHeader-Format1": {"colletStartTime": time_us, "senderName": name}}
        },
        "indicationMessage": {"indicationMessage-formats": {"indicationMessage-Format1": report}},
    }


SENDERS: dict[str, Sender] = {
    "traffic": Sender(
        {
            "schema": "traffic",
            "series_by": ["radio_cell_id"],
            "period_s": 60.0,
            "kpis": ["prb_use_dl_percent", "dl_throughput_kbps"],
            "features": ["connected_ues"],
        },
        60_000_000,
        _traffic,
    ),
    "rsrp": Sender(
        {
            "schema": "rsrp",
            "series_by": ["ue_id", "radio_cell_id"],
            "period_s": 0.2,
            "kpis": ["rsrp_dbm"],
            "features": ["serving"],
        },
        200_000,
        _rsrp,
    ),
    "channel": Sender(
        {
            "schema": "channel-state",
            "series_by": ["ue_id", "radio_cell_id"],
            "period_s": 1.0,
            "kpis": ["cqi"],
            "features": ["rank"],
        },
        1_000_000,
        _channel,
    ),
    "grid": Sender(
        {
            "schema": "grid",
            "series_by": ["grid_id"],
            "period_s": 60.0,
            "kpis": ["activity_count"],
            "grid": {"rows": 2, "columns": 3},
        },
        60_000_000,
        _grid,
    ),
    "perf3gpp": Sender(
        {
            "schema": "perf3gpp",
            "decoder": "perf3gpp",
            "decoder_options": {"measurements": MEASUREMENTS},
            "series_by": ["radio_cell_id"],
            "period_s": 900.0,
            "kpis": ["prb_use_dl_percent", "dl_throughput_kbps"],
        },
        900_000_000,
        _perf3gpp,
    ),
    "e2sm_kpm": Sender(
        {
            "schema": "e2sm_kpm",
            "decoder": "e2sm_kpm",
            "decoder_options": {"measurements": MEASUREMENTS, "stamp_unit": "us"},
            "series_by": ["radio_cell_id"],
            "period_s": 1.0,
            "kpis": ["prb_use_dl_percent", "dl_throughput_kbps"],
        },
        1_000_000,
        _e2sm_kpm,
    ),
}


def config_of(topics: dict[str, str], predictor: str) -> dict[str, Any]:
    """A config with a stream of each sender; ``topics`` by sender."""
    streams = {
        name: {"topic": topics[name], **_COMMON, **copy.deepcopy(sender.config), "routes": [{"active": predictor}]}
        for name, sender in SENDERS.items()
    }
    return {
        "streams": streams,
        "predictors": {predictor: {"plugin": "naive" if predictor == "leaky" else predictor}},
        "hooks": {
            "bandwidth": {"plugin": "bandwidth", "stream": "traffic"},
            "handover": {"plugin": "handover", "stream": "rsrp", "options": {"ttt_ms": 160}},
            "mcs": {"plugin": "mcs", "stream": "channel"},
        },
        "actuators": {"log": {"plugin": "log"}},
    }


def records(
    sender: str, seed: int, steps: range, mutants: int, *, stamps: bool = True
) -> Iterator[tuple[bool, Mutant]]:
    """(whether it is a good one, the record) of one stream; ``mutants`` of them at each step among three good ones."""
    made, rng = SENDERS[sender], random.Random(f"{sender}/{seed}/{steps.start}")
    for step in steps:
        time_us = START_US // 900_000_000 * 900_000_000 + step * made.period_us
        timestamp = (time_us + 2 * made.period_us) // 1000 + 1000
        for number in range(3):
            message = made.message(f"{GOOD}{number}", time_us, 20.0 + 9 * number + (step * 7) % 11)
            yield True, Mutant("good", json.dumps(message).encode(), b"good", timestamp, [])
            for _ in range(mutants // 3):
                name = f"bad-{rng.randrange(20)}"
                sound = made.message(name, time_us, round(rng.uniform(0, 100), 2))
                yield False, mutant(rng, sound, name.encode(), timestamp, stamps=stamps)
