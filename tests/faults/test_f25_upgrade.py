"""F25: another release wrote the store. It is refused or converted, never guessed at."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alembic import command
from netpredict.errors import SchemaError
from netpredict.forecast.series import unpacked
from netpredict.store import migrate
from netpredict.store.compare import dump
from netpredict.store.database import database_of
from netpredict.store.encode import layout_id
from tests.faults.conftest import MakeWorld, Recorder
from tests.faults.oracle import assert_holds
from tests.faults.supervisor import Supervisor
from tests.faults.world import World


def run_netpredict(world: World) -> subprocess.CompletedProcess[str]:
    """``netpredict run`` over the store, to its end."""
    words = [sys.executable, "-m", "netpredict", "run", "--config", str(world.config())]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def drained_once(world: World, daemons: Supervisor) -> None:
    """One daemon to the end of the log."""
    daemon = daemons.start(world.config())
    daemon.drain(world)
    assert daemon.terminate() == 0, daemon.tail()


def execute(world: World, sql: str, rows: Sequence[Mapping[str, Any]] = ({},)) -> None:
    """Change the store by hand, while no daemon runs."""
    database = database_of(world.url)
    database.start()
    try:
        with database.transaction() as connection:
            for row in rows:
                connection.execute(sql, row)
    finally:
        database.close()


def rows_of(world: World, sql: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with database_of(world.url).reader() as connection:
        return connection.execute(sql).fetchall()


def downgrade(world: World, revision: str) -> None:
    """Take the store back to the schema of an older release."""
    with database_of(world.url).migrating() as connection:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def relaid(world: World) -> None:
    """Pack each state anew: its fields in the opposite order, behind one that this release does not know."""
    new = {}
    for number, layout in rows_of(world, "SELECT layout_id, layout FROM state_layout"):
        fields = [["retired", "<f8", [2]], *reversed(json.loads(layout))]
        new[number] = (
            layout,
            json.dumps(fields),
            np.dtype([(name, kind, tuple(shape)) for name, kind, shape in fields]),
        )
    layouts = [{"id": layout_id(text), "layout": text} for _, text, _ in new.values()]
    execute(world, "INSERT INTO state_layout(layout_id, layout) VALUES (:id, :layout)", layouts)
    states = []
    for series_id, number, state in rows_of(world, "SELECT series_id, layout_id, state FROM series_state"):
        old, text, dtype = new[number]
        packed = np.zeros(1, dtype)
        for name, values in unpacked(old, bytes(state)).items():
            packed[name] = values
        blob = packed.tobytes()
        states.append({"series_id": series_id, "id": layout_id(text), "checksum": zlib.crc32(blob), "state": blob})
    assert states
    execute(
        world,
        "UPDATE series_state SET layout_id = :id, checksum = :checksum, state = :state WHERE series_id = :series_id",
        states,
    )


def test_f25_the_schema_of_a_newer_release_is_refused(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder
) -> None:
    world = make_world(2501)
    record.about("F25", 2501)
    world.feed(8)
    drained_once(world, daemons)
    head = migrate.head()
    execute(world, "UPDATE alembic_version SET version_num = '9999'")
    world.feed(8)
    before = world.covered()
    refused = run_netpredict(world)
    assert refused.returncode == SchemaError.exit_code == 78, refused.stderr
    assert "9999" in refused.stderr
    assert "newer" in refused.stderr
    assert world.covered() == before
    execute(world, f"UPDATE alembic_version SET version_num = '{head}'")
    drained_once(world, daemons)
    assert_holds(world, world.ends())
    record("F25", [2501], "1 unknown schema", world.records, f"exit {refused.returncode}, untouched, O holds")


def test_f25_the_schema_of_an_older_release_is_upgraded_and_nothing_is_lost(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder
) -> None:
    """Only what the older release did not keep yet begins with the upgrade: anchors, marks, the series of a firing."""
    world = make_world(2502)
    record.about("F25", 2502)
    world.feed(8)
    drained_once(world, daemons)
    downgrade(world, "0002")
    assert migrate.current(world.url) == "0002"
    world.feed(8)
    drained_once(world, daemons)
    assert migrate.current(world.url) == migrate.head()
    assert_holds(world, world.ends(), but=("state_anchor", "bucket_mark", "firing"))
    unfaulted, mine = (
        {row[4] for row in dump(url, ["firing"])["firing"]}
        for url in (f"sqlite:///{world.folder}/unfaulted.db", world.url)
    )
    assert mine == unfaulted
    record("F25", [2502], "down to 0002 and up", world.records, "converted, O holds")


def test_f25_states_of_another_layout_are_read_by_name(
    make_world: MakeWorld, daemons: Supervisor, record: Recorder
) -> None:
    """An older release kept the fields of a state in another order, and one that is gone: each is found by its name."""
    world = make_world(2503)
    record.about("F25", 2503)
    world.feed(16)
    drained_once(world, daemons)
    relaid(world)
    world.feed(16)
    drained_once(world, daemons)
    # a series that was silent since keeps its state as it lies
    assert_holds(world, world.ends(), but=("series_state", "state_layout"))
    record("F25", [2503], "1 other state layout", world.records, "read by name, O holds")
