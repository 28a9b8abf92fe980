"""All Prometheus series of the daemon, in one place and in a registry of their own.

No label takes a radio cell or a UE: those are unbounded. ``stream``, ``topic``, ``partition``, ``predictor``, ``kpi``,
``hook``, ``group`` and ``job`` are bounded by the config; ``reason``, ``outcome``, ``source``, ``kind`` and ``phase``
are closed.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector

from netpredict.types import TopicPartition

LOG = structlog.get_logger(__name__)
CONTENT_TYPE = CONTENT_TYPE_LATEST

COMMIT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STEP_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
ROW_BUCKETS = (1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0)


class Metrics:
    """One attribute per series. Callers count once per poll batch, never per record."""

    def __init__(self) -> None:
        self.prom_registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"netpredict_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"netpredict_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
            return Histogram(f"netpredict_{name}", text, labels, buckets=tuple(buckets), registry=registry)

        # ingest
        self.records = counter("records_total", "Records by what came of them.", "stream", "outcome")
        self.dead_letters = counter("dead_letters_total", "Records and rows not used.", "stream", "reason")
        self.replayed_letters = counter(
            "replayed_letters_total", "Dead letters that entered again, or were refused once more.", "stream", "outcome"
        )
        self.firewall_findings = counter(
            "firewall_findings_total", "Values made missing, rows doubted and notices.", "stream", "reason", "kpi"
        )
        self.gap_offsets = counter("gap_offsets_total", "Offsets never delivered.", "topic", "reason")
        self.consumer_lag_records = gauge(
            "consumer_lag_records", "Records behind the end of the log.", "topic", "partition"
        )
        self.behind_seconds = gauge(
            "behind_seconds", "Age of the newest record processed while more wait, else 0.", "topic", "partition"
        )
        self.rebalances = counter("rebalances_total", "Changes of the assignment.")
        self.client_rebuilds = counter("client_rebuilds_total", "Kafka clients made anew.")
        self.assigned_partitions = gauge("assigned_partitions", "Topic partitions of this instance.", "topic")
        # forecast
        self.series = gauge("series", "Series in memory.", "stream")
        self.series_moved = counter(
            "series_moved_total", "New series that live on another topic partition too.", "stream"
        )
        self.forecasts = counter("forecasts_total", "Forecasts by rung of the ladder.", "stream", "predictor", "source")
        self.step_seconds = histogram("step_seconds", "Time of one poll batch, by phase.", STEP_BUCKETS_S, "phase")
        self.score_skill_ratio = gauge(
            "score_skill_ratio",
            "1 - MAE / MAE of naive at leads 1, 2, 4 … and the last.",
            "stream",
            "predictor",
            "kpi",
            "lead_steps",
        )
        self.coverage_ratio = gauge(
            "coverage_ratio", "Share of truths inside the outer quantiles.", "stream", "predictor", "kpi", "lead_steps"
        )
        # store
        self.commit_seconds = histogram("commit_seconds", "Time of one SQL commit.", COMMIT_BUCKETS_S)
        self.commit_rows = histogram("commit_rows", "Rows of one SQL commit.", ROW_BUCKETS)
        self.commit_retries = counter("commit_retries_total", "Attempts at a commit that failed and are repeated.")
        self.damaged_states = gauge(
            "damaged_states", "Series that began without their stored state: it failed its checksum."
        )
        self.fenced = counter("fenced_total", "Topic partitions that another writer has taken.")
        self.pruned_rows = counter("pruned_rows_total", "Rows deleted by retention.", "table")
        # act
        self.firings = counter("firings_total", "Actions that hooks decided.", "hook", "mode")
        self.outcomes = counter("outcomes_total", "What came of firings.", "hook", "kind", "reason")
        self.outbox_depth = gauge("outbox_depth", "Outcomes of firings that are awaited.", "hook")
        self.hook_disarmed = gauge(
            "hook_disarmed", "1 where a hook may not act, by group of radio cells.", "hook", "group"
        )
        # publish
        self.published = counter("published_total", "Messages sent to Kafka.", "topic")
        self.publish_failures = counter("publish_failures_total", "Failed turns of the publisher, to be repeated.")
        self.publish_too_large = counter("publish_too_large_total", "Messages left out: no broker would take them.")
        self.publish_overflows = counter("publish_overflows_total", "Commits to be read back: the queue was full.")
        self.publish_queue_windows = gauge("publish_queue_windows", "Shares of commits waiting in memory.")
        self.unpublished_windows = gauge("unpublished_windows", "Shares of commits that Kafka has not acknowledged.")
        # learn and jobs
        self.job_last_run_timestamp_seconds = gauge("job_last_run_timestamp_seconds", "Start of the last run.", "job")
        self.job_last_duration_seconds = gauge("job_last_duration_seconds", "Time of the last run.", "job")
        self.job_runs = counter("job_runs_total", "Runs of jobs.", "job", "outcome")
        self.retrainings = counter(
            "retrainings_total", "Trainings and trials by what came of them.", "stream", "predictor", "outcome"
        )
        self.trial_buckets = gauge("trial_buckets", "Score buckets of the trial under way.", "stream", "predictor")
        self.late_loops = gauge("late_loops", "Loops that stand still.")
        self.log_lines_held_back = gauge("log_lines_held_back", "Lines kept from the log by its rate limits.")
        # what runs
        self.phase = gauge("phase", "1 for the phase that the daemon is in.", "phase")
        self._build = Info("netpredict_build", "What is installed.", registry=registry)
        self._model = _Named(
            gauge("model_info", "1 for each model version that serves.", "stream", "predictor", "version")
        )
        self._challenger = _Named(
            gauge("challenger_info", "1 for each model version on trial.", "stream", "predictor", "version")
        )
        self._before_render: list[Callable[[], None]] = []

    def build_info(self, version: str) -> None:
        """Say what is installed."""
        self._build.info({"version": version, "python": platform.python_version()})

    def model_info(self, versions: Mapping[tuple[str, str], str]) -> None:
        """Versions that serve by (stream, predictor), all of them: what is not named any more leaves."""
        self._model.name(versions)

    def challenger_info(self, versions: Mapping[tuple[str, str], str]) -> None:
        """Versions on trial, likewise."""
        self._challenger.name(versions)

    def enter_phase(self, phase: str, phases: Iterable[str] = ("starting", "running", "draining")) -> None:
        """Say which phase the daemon is in."""
        for name in phases:
            self.phase.labels(name).set(name == phase)

    def forget_partition(self, topic_partition: TopicPartition) -> None:
        """Drop the series of a topic partition that went to another instance."""
        labels = (topic_partition.topic, str(topic_partition.partition))
        for metric in (self.consumer_lag_records, self.behind_seconds):
            try:
                metric.remove(*labels)
            except KeyError:
                continue

    def before_render(self, call: Callable[[], None]) -> None:
        """Have a gauge brought up to date when it is read; an error there costs that gauge only."""
        self._before_render.append(call)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        for call in self._before_render:
            try:
                call()
            except Exception as error:  # a scrape must answer while a part of the daemon is down
                LOG.warning("metric_not_read", error=str(error)[:500])
        return generate_latest(self.prom_registry)


class _Named:
    """A gauge that is 1 for each version that is named, and nothing for the others."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._named: set[tuple[str, str, str]] = set()

    def name(self, versions: Mapping[tuple[str, str], str]) -> None:
        """All of them, by (stream, predictor)."""
        now = {(stream, predictor, version) for (stream, predictor), version in versions.items()}
        for gone in self._named - now:
            self._gauge.remove(*gone)
        for labels in now:
            self._gauge.labels(*labels).set(1)
        self._named = now
