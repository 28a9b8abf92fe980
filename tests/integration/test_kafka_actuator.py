"""The actuator ``kafka`` on a real broker: what a consumer of orders sees, also when the broker was away meanwhile."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from kafka import KafkaConsumer

from netpredict.act.guards import GuardSettings
from netpredict.act.runner import ActionRunner
from netpredict.config import KafkaConfig
from netpredict.errors import ActuatorError
from netpredict.ingest.messages import Action
from netpredict.operate.envelope import Envelope
from netpredict.operate.publisher import KafkaSink
from netpredict.types import OutcomeKind
from netpredict_plugins.actuators.kafka import KafkaActuator, KafkaOptions
from tests.act.memory_outbox import A_FIRING, FakeClock, MemoryOutbox, firing
from tests.services.kafka_broker import KafkaBroker

CELL = replace(A_FIRING, object_id="cell-1", series="cell-1")


def actuator_at(broker: KafkaBroker, topic: str, timeout_s: float = 10.0) -> KafkaActuator:
    kafka = KafkaConfig(bootstrap_servers=[broker.bootstrap], group="np")
    return KafkaActuator(KafkaOptions(topic=topic, timeout_s=timeout_s), kafka)


def records(broker: KafkaBroker, topic: str) -> list[Any]:
    consumer = KafkaConsumer(
        topic, bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=2000
    )
    try:
        return list(consumer)
    finally:
        consumer.close()


def test_an_order_is_a_cloud_event_under_the_actions_own_id(broker: KafkaBroker) -> None:
    topic = broker.new_topic("orders", 3)
    actuator = actuator_at(broker, topic)
    done, taken_back = actuator.apply(CELL), actuator.revert(CELL)
    actuator.close()
    apply, revert = sorted(records(broker, topic), key=lambda record: record.offset)
    assert done.detail == f"{topic}:{apply.partition}:{apply.offset}"
    assert (done.kind, taken_back.kind) == (OutcomeKind.APPLIED, OutcomeKind.APPLIED)
    assert apply.key == revert.key == b"cell-1", "one partition, so in order"
    assert dict(apply.headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"netpredict.action.apply.v1",
        "ce_source": b"/netpredict/np/traffic/orders",
        "ce_id": b"f1",
        "ce_time": b"2026-03-02T11:59:59Z",
        "content-type": b"application/json",
    }
    assert dict(revert.headers) == dict(apply.headers) | {
        "ce_type": b"netpredict.action.revert.v1",
        "ce_id": b"f1/revert",
    }
    order = msgspec.json.decode(apply.value, type=Action, strict=True)
    assert (order.id, order.value, order.expires_at_us) == ("f1", dict(CELL.value), CELL.expires_at_us)


def test_orders_and_decisions_on_one_topic_are_told_apart(broker: KafkaBroker) -> None:
    """The publisher tells what was decided under the same id: another event, of another source."""
    topic = broker.new_topic("netpredict.actions", 1)
    with KafkaSink(broker.bootstrap) as sink:
        sink.send_all(topic, [Envelope("np", {}, None).action(CELL)])  # type: ignore[arg-type]
        sink.flush()
    actuator = actuator_at(broker, topic)
    actuator.apply(CELL)
    actuator.close()
    decided, ordered = (dict(record.headers) for record in records(broker, topic))
    assert (decided["ce_type"], ordered["ce_type"]) == (b"netpredict.action.v1", b"netpredict.action.apply.v1")
    assert decided["ce_id"] == ordered["ce_id"]
    assert decided["ce_source"] != ordered["ce_source"]


def test_a_frozen_broker_is_tried_again_and_a_consumer_applies_the_order_once(broker: KafkaBroker) -> None:
    topic = broker.new_topic("orders", 1)
    outbox, clock = MemoryOutbox(), FakeClock()
    actuator = actuator_at(broker, topic, timeout_s=3.0)
    guards = {"bandwidth": GuardSettings(cooldown_s=0.0)}
    runner = ActionRunner(outbox, {"kafka": actuator}, clock, guards=guards)  # type: ignore[arg-type]
    outbox.add(firing("before"), "kafka")
    runner.run_pass()
    outbox.add(firing("during"), "kafka")
    broker.process.send(signal.SIGSTOP)
    try:
        wait_s = runner.run_pass()
    finally:
        broker.process.send(signal.SIGCONT)
    assert outbox.outcome("during", "kafka") is None, "to be tried again"
    assert (runner.stats["attempts"], runner.stats["retries"]) == (2, 1)
    for _ in range(5):
        clock.sleep(max(wait_s, 0.01))
        wait_s = runner.run_pass()
        if outbox.outcome("during", "kafka"):
            break
    runner.stop(5.0)
    outcome = outbox.outcome("during", "kafka")
    assert outcome is not None
    assert (outcome.kind, outcome.reason) == (OutcomeKind.APPLIED, "not_verified")
    orders: dict[bytes, set[bytes]] = {}
    for record in records(broker, topic):
        orders.setdefault(dict(record.headers)["ce_id"], set()).add(record.value)
    assert {name: len(values) for name, values in orders.items()} == {b"before": 1, b"during": 1}


@pytest.mark.parametrize(
    ("change", "retriable"),
    [({"why": {"text": "x" * 2_000_000}}, False), ({}, True)],
    ids=["larger than any record may be", "no such topic"],
)
def test_what_kafka_does_not_take_is_an_error_of_ours(
    broker: KafkaBroker, change: dict[str, Any], retriable: bool
) -> None:
    topic = broker.new_topic("orders", 1) if change else "orders.that.nobody.made"
    actuator = actuator_at(broker, topic, timeout_s=3.0)
    with pytest.raises(ActuatorError, match=topic) as refused:
        actuator.apply(replace(CELL, **change))
    assert refused.value.retriable is retriable
    actuator.close()
