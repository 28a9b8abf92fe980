"""The short version of ``make fuzz``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.live import through_daemon
from tests.fuzz.run import fuzz
from tests.services.kafka_broker import KafkaBroker


def test_thousands_of_mutated_records_harm_nobody_and_are_all_accounted_for() -> None:
    figures = fuzz(3000, seed=1, mutants=12)
    assert figures["records"].total() >= 3000
    assert min(figures["outcomes"][name] for name in ("accepted", "late", "dead", "duplicate")) > 0
    assert len(figures["kinds"]) > 15
    assert {"undecodable", "invalid", "schema", "tombstone", "identity", "future", "time_unit"} <= set(
        figures["reasons"]
    )
    assert {"accepted", "late", "refused"} & set(figures["replays"])


@pytest.mark.slow
def test_a_daemon_lives_through_mutated_records_in_compressed_batches(broker: KafkaBroker, tmp_path: Path) -> None:
    figures = through_daemon(broker, tmp_path, 1800, seed=1)
    assert figures["mutants"] > 1000
    assert min(figures["codecs"].values()) > 100
