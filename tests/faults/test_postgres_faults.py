"""F14: what happens to a PostgreSQL store, seen by a daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from netpredict.config import parse_config
from netpredict.ingest.source import AssignmentChange, MemoryLog
from tests.faults import rig
from tests.faults.conftest import Recorder
from tests.faults.proxy import Proxy
from tests.faults.rig import InThread, raw_config
from tests.services.postgres import Postgres

FAIL_TWICE = """
CREATE SEQUENCE attempts;
CREATE FUNCTION fail_twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF nextval('attempts') <= 2 THEN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER fail_twice AFTER INSERT ON forecast FOR EACH STATEMENT EXECUTE FUNCTION fail_twice();
"""


class Faulted:
    """One store behind a proxy, and a session of its own for what other sessions do."""

    def __init__(self, postgres: Postgres, proxy: Proxy, database: str) -> None:
        self.postgres, self.proxy, self.database = postgres, proxy, database
        self.log, self._minute = MemoryLog({rig.TOPIC: 3}), 0

    def load(self) -> None:
        rig.fill(self.log, rig.rows(range(self._minute, self._minute + 8)))
        self._minute += 8

    def session(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.postgres.dsn(self.database), autocommit=True)

    def lost_commit_reply(self, running: InThread) -> None:
        before = self.proxy.lost_answers
        self.proxy.lose_answer_to = b"COMMIT"
        self.load()
        running.until(lambda: self.proxy.lost_answers > before)

    def failover(self, running: InThread) -> None:
        self.load()
        with self.session() as session:
            session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                [self.database],
            )

    def away(self, running: InThread) -> None:
        """A rebalance falls into that time, too."""
        self.load()
        self.postgres.stop()
        moved = (running.daemon.source._mine[0],)  # type: ignore[attr-defined]
        running.daemon.source._changes = AssignmentChange(revoked=moved, assigned=moved)  # type: ignore[attr-defined]
        before = running.daemon.writer.retries
        running.until(lambda: running.daemon.writer.retries > before + 2)
        time.sleep(1.0)
        self.postgres.start()

    def deadlock(self, running: InThread) -> None:
        """The other session takes the lanes in the wrong order."""
        with self.session() as session:
            lanes = [row[0] for row in session.execute("SELECT lane_id FROM topic_progress ORDER BY topic, partition")]
            touch = "UPDATE topic_progress SET owner = owner WHERE lane_id = %s"
            before = running.daemon.writer.retries
            session.execute("BEGIN")
            session.execute(touch, [lanes[-1]])
            self.load()
            time.sleep(0.5)
            try:
                session.execute(touch, [lanes[0]])
                running.until(lambda: running.daemon.writer.retries > before)
                session.execute("ROLLBACK")
            except psycopg.errors.DeadlockDetected:
                pass  # the server chose the other one

    def serialization(self, running: InThread) -> None:
        with self.session() as session:
            before = running.daemon.writer.retries
            session.execute(FAIL_TWICE)
            self.load()
            running.until(lambda: running.daemon.writer.retries >= before + 2)


def test_f14_no_fault_of_the_database_costs_or_doubles_a_row(
    postgres: Postgres, tmp_path: Path, record: Recorder
) -> None:
    record.about("F14")
    url = postgres.new_database("f14")
    with Proxy(postgres.port) as proxy:
        world = Faulted(postgres, proxy, url.rpartition("/")[2])
        raw = raw_config(tmp_path, kafka={"poll_records_max": 60})
        raw["store"]["url"] = url.replace(f":{postgres.port}/", f":{proxy.port}/")
        raw["store"]["prune_rows"] = 0  # so that each COMMIT is that of a commit
        faults: list[Callable[[InThread], None]] = [
            world.lost_commit_reply,
            world.failover,
            world.deadlock,
            world.serialization,
            world.away,
        ]
        took_s = {}
        world.load()
        with InThread(parse_config(raw), world.log) as running:
            running.until(running.drained)
            for fault in faults:
                fault(running)
                took_s[fault.__name__] = running.until(running.drained)
        assert proxy.lost_answers == 1
    assert max(took_s.values()) < rig.HEALED_S
    rig.assert_accounted_for(url)
    rig.assert_equal(url, rig.unfaulted(tmp_path, world.log))
    record(
        "F14", [], "COMMIT reply lost, failover, deadlock, 40001, away", sum(rig.ends_of(world.log).values()), "O holds"
    )
