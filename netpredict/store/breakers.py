"""What the circuit breakers are judged by, summed over all topic partitions, and how they stand."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from netpredict.store.encode import bucket_of
from netpredict.store.sql import SqlStore
from netpredict.types import ArmState, Breaker, Evidence


class SqlBreakers:
    """Scores and states of circuit breakers; its writes go through the store's one connection."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def evidence(
        self,
        stream: str,
        predictors: Sequence[str],
        kpis: Sequence[str],
        lead_steps: int,
        buckets: int,
        reached: int | None,
    ) -> list[Evidence]:
        """By KPI, what these predictors served in the newest score buckets, up to ``reached``, that hold any scores.

        At leads up to ``lead_steps``, of all rungs of the ladder, over topic partitions. What own actions changed has
        never entered the scores.
        """
        sums: dict[str, list[int]] = {}
        newest_of: dict[str, int] = {}
        with self._store.database.reader() as connection:
            (newest,) = connection.execute(_NEWEST, {"stream": stream, "reached": reached}).fetchone()
            known = {
                "stream": stream,
                "from_bucket": 0 if newest is None else newest - buckets + 1,
                "newest": newest,
                "predictors": list(predictors),
                "kpis": list(kpis),
                "lead_steps": lead_steps,
            }
            for bucket, kpi, n, flat, *errors, below in connection.execute(_SCORES, known).fetchall():
                under = msgspec.json.decode(below)
                part = [n, *errors, n - flat, under[-1] - under[0]]
                newest_of[kpi] = max(newest_of.get(kpi, bucket), bucket)
                sums[kpi] = [a + b for a, b in zip(sums.get(kpi, [0] * len(part)), part, strict=True)]
        return [Evidence(kpi, *sums[kpi])._replace(bucket=newest_of[kpi]) for kpi in sorted(sums)]

    def reached(self, stream: str) -> int | None:
        """The score bucket that the stream's most advanced topic partition is in; None before the first."""
        with self._store.database.reader() as connection:
            rows = connection.execute(_LANE_STATES, {"stream": stream}).fetchall()
        return max((bucket for (state,) in rows if (bucket := bucket_of(state)) is not None), default=None)

    def states(self) -> list[Breaker]:
        """All that were ever judged."""
        with self._store.database.reader() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM breaker ORDER BY hook, group_name").fetchall()
        return [Breaker(hook, group, ArmState(state), *rest) for hook, group, state, *rest in rows]

    def put(self, breaker: Breaker) -> None:
        """Store how a breaker stands now, durable on return."""
        with self._store.database.transaction() as connection:
            connection.execute(_PUT, {**breaker._asdict(), "state": str(breaker.state)})


_COLUMNS = "hook, group_name, state, said, n, skill, coverage, since_us, at_us, heard_bucket"
_LANE_STATES = "SELECT state FROM topic_progress WHERE stream = :stream"
_NEWEST = """
SELECT max((SELECT max(c.bucket) FROM score AS c WHERE c.lane_id = p.lane_id
  AND (:reached IS NULL OR c.bucket <= :reached))) FROM topic_progress AS p
WHERE p.stream = :stream
"""
_SCORES = """
SELECT c.bucket, c.kpi, c.n, c.flat, c.abs_ticks, c.naive_abs_ticks, c.seasonal_abs_ticks, c.below
FROM topic_progress AS p CROSS JOIN score AS c CROSS JOIN model_version AS m
WHERE p.stream = :stream AND c.lane_id = p.lane_id AND m.model_id = c.model_id
  AND c.bucket >= :from_bucket AND c.bucket <= :newest AND c.lead_steps <= :lead_steps
  AND m.predictor IN (SELECT value FROM each_text(:predictors) AS i)
  AND c.kpi IN (SELECT value FROM each_text(:kpis) AS k) AND m.stage NOT IN ('challenger', 'refused')
"""
_PUT = f"""
INSERT INTO breaker({_COLUMNS}) VALUES (:hook, :group, :state, :said, :n, :skill, :coverage, :since_us, :at_us,
  :heard_bucket)
ON CONFLICT (hook, group_name) DO UPDATE SET state = excluded.state, said = excluded.said, n = excluded.n,
  skill = excluded.skill, coverage = excluded.coverage, since_us = excluded.since_us, at_us = excluded.at_us,
  heard_bucket = excluded.heard_bucket
"""
