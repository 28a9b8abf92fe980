"""Running totals of the daemon: what the terminal view and the metrics show, brought up to date once a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from netpredict.operate.metrics import Metrics
from netpredict.operate.writer import Written
from netpredict.pipeline import Pipeline
from netpredict.stream import CHALLENGER, Stream
from netpredict.types import Source, TopicPartition


class Tally:
    """Totals since the start. Counters of Prometheus are advanced by differences, so that hot paths only count ints."""

    def __init__(self, metrics: Metrics) -> None:
        self.records = 0
        self.commits = 0
        self.forecasts = 0
        self.firings = 0
        self.commit_seconds = 0.0
        self.pruned = 0
        self.lag = 0
        self._metrics = metrics
        self._told: Counter[tuple[str, ...]] = Counter()

    def committed(self, written: Written) -> None:
        """Count a commit that became durable."""
        self.commits += 1
        self.commit_seconds += written.seconds
        rows = 0
        for lane in written.commit.lanes:
            if lane.topic_partition in written.fenced:
                continue
            self.records += sum(lane.counts.values())
            self.firings += len(lane.firings)
            rows += sum(len(part.slot_time_us) for part in lane.forecasts)
            for firing, _ in lane.firings:
                self._metrics.firings.labels(firing.hook, firing.mode).inc()
            for gap in lane.gaps:
                missing = max(0, gap.to_offset - gap.from_offset)  # a truncated or recreated topic goes back
                self._metrics.gap_offsets.labels(lane.topic_partition.topic, gap.reason).inc(missing)
        self.forecasts += rows
        self._metrics.commit_seconds.observe(written.seconds)
        self._metrics.commit_rows.observe(rows)
        self._metrics.fenced.inc(len(written.fenced))

    def update(
        self,
        pipeline: Pipeline,
        streams: Mapping[str, Stream],
        lag: Mapping[TopicPartition, int],
        runner: Mapping[str, int],
    ) -> None:
        """Bring gauges and counters up to date."""
        metrics = self._metrics
        self.lag = sum(lag.values())
        for (name, outcome), n in pipeline.outcomes.items():
            metrics.records.labels(name, outcome).inc(self._new(n, "records", name, outcome))
        for (name, reason), n in pipeline.reasons.items():
            metrics.dead_letters.labels(name, reason).inc(self._new(n, "dead", name, reason))
        for (name, outcome), n in pipeline.replayed.items():
            metrics.replayed_letters.labels(name, outcome).inc(self._new(n, "replayed", name, outcome))
        for name, stream in streams.items():
            for (reason, kpi), n in (stream.firewall.found + stream.watch.found).items():
                metrics.firewall_findings.labels(name, reason, kpi).inc(self._new(n, "found", name, reason, kpi))
        for topic_partition, records in lag.items():
            metrics.consumer_lag_records.labels(topic_partition.topic, str(topic_partition.partition)).set(records)
        for name, stream in streams.items():
            metrics.series.labels(name).set(len(stream.table))
            metrics.series_moved.labels(name).inc(self._new(pipeline.moved[name], "moved", name))
            active = stream.config.routes[0].active
            for source, n in zip(Source, np.asarray(stream.forecasts_by_source).tolist(), strict=True):
                fresh = self._new(n, "forecasts", name, source.name)
                metrics.forecasts.labels(name, active, source.name.lower()).inc(fresh)
        self._ownership(pipeline)
        metrics.model_info(_versions(streams, 0))
        metrics.challenger_info(_versions(streams, CHALLENGER))
        metrics.pruned_rows.labels("all").inc(self._new(self.pruned, "pruned"))
        for kind, n in runner.items():
            metrics.outcomes.labels("all", kind, "").inc(self._new(n, "outcomes", kind))

    def _ownership(self, pipeline: Pipeline) -> None:
        owned = Counter(dict.fromkeys(pipeline.streams, 0))
        owned.update(topic_partition.topic for topic_partition in pipeline.lanes)
        for topic, n in owned.items():
            self._metrics.assigned_partitions.labels(topic).set(n)

    def behind(self, pipeline: Pipeline, lag: Mapping[TopicPartition, int], now_us: int) -> None:
        """Bring up to date how old what is processed is, by topic partition, where more waits."""
        for topic_partition, records in lag.items():
            lane = pipeline.lanes.get(topic_partition)
            if lane is not None:
                age_s = max(0.0, (now_us - lane.newest_ingest_us) / 1e6) if records and lane.newest_ingest_us else 0.0
                labels = (topic_partition.topic, str(topic_partition.partition))
                self._metrics.behind_seconds.labels(*labels).set(age_s)

    def clients(self, source: Mapping[str, int], commit_retries: int, damaged_states: int) -> None:
        """Bring what is told of the Kafka client, the writer and the store up to date."""
        self._metrics.damaged_states.set(damaged_states)
        self._metrics.rebalances.inc(self._new(source.get("rebalances", 0), "rebalances"))
        self._metrics.client_rebuilds.inc(self._new(source.get("rebuilds", 0), "rebuilds"))
        self._metrics.commit_retries.inc(self._new(commit_retries, "commit_retries"))

    def published(self, stats: Mapping[str, int], forecasts_topic: str, actions_topic: str) -> None:
        """Bring the metrics of the publisher up to date."""
        metrics = self._metrics
        for kind, topic in (("forecasts", forecasts_topic), ("actions", actions_topic)):
            metrics.published.labels(topic).inc(self._new(stats[kind], "published", topic))
        for kind, counter in (
            ("failures", metrics.publish_failures),
            ("too_large", metrics.publish_too_large),
            ("overflows", metrics.publish_overflows),
        ):
            counter.inc(self._new(stats[kind], "publish", kind))
        metrics.publish_queue_windows.set(stats["queued_windows"])

    def learned(self, results: Mapping[tuple[str, str, str], int], trials: Mapping[tuple[str, str], int]) -> None:
        """Bring the metrics of retraining up to date: runs by what came of them, buckets of the trials under way."""
        for (stream, predictor, result), n in dict(results).items():
            fresh = self._new(n, "learned", stream, predictor, result)
            self._metrics.retrainings.labels(stream, predictor, result).inc(fresh)
        self._metrics.trial_buckets.clear()
        for (stream, predictor), buckets in dict(trials).items():
            self._metrics.trial_buckets.labels(stream, predictor).set(buckets)

    def _new(self, total: int, *name: str) -> int:
        fresh = max(0, total - self._told[name])
        self._told[name] = total
        return fresh


def _versions(streams: Mapping[str, Stream], rank: int) -> dict[tuple[str, str], str]:
    """The version of this rank by (stream, predictor); while lanes differ, the one that was taken up last."""
    return {
        (name, predictor): version.running.version
        for name, stream in streams.items()
        for predictor, versions in stream.versions.items()
        for version in reversed(versions)
        if (version.rank == rank).any()
    }
