"""F17: power loss. What was written and not yet synced is gone, or torn, or there after all, in any mixture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults import rig
from tests.faults.conftest import Recorder, scales
from tests.faults.memory_daemon import log_of
from tests.faults.power_cuts import run_under_cuts
from tests.faults.process import needs_shims

MINUTES = 60


@scales("cuts", short=6, long=60)
@pytest.mark.timeout(1500)
@needs_shims
def test_f17_a_power_cut_loses_only_what_kafka_brings_again(tmp_path: Path, record: Recorder, cuts: int) -> None:
    seed = 1700
    record.about("F17", seed)
    place = tmp_path / "disk"
    place.mkdir()
    minutes = MINUTES * max(1, cuts // 10)
    raw = rig.raw_config(place, kafka={"poll_records_max": 60}, http={"enabled": False})
    config = place / "config.json"
    config.write_text(json.dumps(raw))
    figures = run_under_cuts(config, minutes, cuts, seed, tmp_path)
    assert figures["cuts"] >= cuts * 2 // 3, figures
    log = log_of(minutes)
    rig.assert_accounted_for(raw["store"]["url"])
    rig.assert_equal(raw["store"]["url"], rig.unfaulted(tmp_path, log))
    record("F17", [seed], f"{figures['cuts']} power cuts", sum(rig.ends_of(log).values()), "O holds")
