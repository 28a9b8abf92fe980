import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

import netpredict
from netpredict.operate.metrics import Metrics
from netpredict.types import TopicPartition

LABELS = {
    "stream",
    "topic",
    "partition",
    "predictor",
    "kpi",
    "lead_steps",
    "reason",
    "outcome",
    "source",
    "phase",
    "hook",
    "group",
    "mode",
    "kind",
    "job",
    "table",
    "version",
    "python",
    "le",
}


def test_two_daemons_in_one_process_do_not_share_a_count() -> None:
    first, second = Metrics(), Metrics()
    first.records.labels("traffic", "accepted").inc(3)
    assert (
        first.prom_registry.get_sample_value("netpredict_records_total", {"stream": "traffic", "outcome": "accepted"})
        == 3.0
    )
    assert b"netpredict_records_total{" not in second.render()


def test_names_and_labels_follow_the_rules() -> None:
    metrics = Metrics()
    for found in vars(metrics).values():
        if getattr(found, "_labelnames", ()):
            found.labels(*["x"] * len(found._labelnames))
    metrics.build_info("1.0")
    names = set()
    for family in text_string_to_metric_families(metrics.render().decode()):
        if family.name.startswith("process_"):
            continue
        names.add(family.name)
        assert re.fullmatch(r"netpredict_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|minutes|milliseconds|kb|mb)$", family.name), "base units"
        for sample in family.samples:
            assert sample.labels.keys() <= LABELS, family.name
            if family.type == "counter":
                assert sample.name.endswith(("_total", "_created"))
    assert len(names) > 30


def test_a_model_that_no_longer_serves_leaves() -> None:
    metrics = Metrics()
    metrics.model_info({("traffic", "gru"): "3", ("traffic", "naive"): "0"})
    metrics.model_info({("traffic", "gru"): "4"})
    text = metrics.render().decode()
    assert 'version="4"' in text
    assert 'version="3"' not in text
    assert 'predictor="naive"' not in text


def test_a_topic_partition_that_left_leaves_no_lag_behind() -> None:
    metrics = Metrics()
    metrics.consumer_lag_records.labels("traffic", "0").set(5)
    metrics.consumer_lag_records.labels("traffic", "1").set(6)
    metrics.forget_partition(TopicPartition("traffic", 0))
    metrics.forget_partition(TopicPartition("traffic", 7))
    text = metrics.render().decode()
    assert 'lag_records{partition="1",topic="traffic"} 6.0' in text
    assert 'partition="0"' not in text


def test_gauges_are_brought_up_to_date_when_read_and_may_fail() -> None:
    metrics = Metrics()
    metrics.before_render(lambda: 1 / 0)
    metrics.before_render(lambda: metrics.outbox_depth.labels("handover").set(4))
    with capture_logs() as logged:
        assert 'netpredict_outbox_depth{hook="handover"} 4.0' in metrics.render().decode()
    assert [(line["event"], line["error"]) for line in logged] == [("metric_not_read", "division by zero")]


def test_one_phase_at_a_time() -> None:
    metrics = Metrics()
    metrics.enter_phase("starting")
    metrics.enter_phase("running")
    text = metrics.render().decode()
    assert 'netpredict_phase{phase="running"} 1.0' in text
    assert 'netpredict_phase{phase="starting"} 0.0' in text


def test_every_metric_is_fed_by_somebody() -> None:
    package = Path(netpredict.__file__).parent
    code = "\n".join(path.read_text() for path in package.rglob("*.py") if path.name != "metrics.py")
    fed = set(re.findall(r"metrics\.(\w+)", code))
    declared = {name for name, found in vars(Metrics()).items() if isinstance(found, Counter | Gauge | Histogram)}
    assert declared - {"phase"} <= fed, "a metric that nobody feeds says 0 for ever"
