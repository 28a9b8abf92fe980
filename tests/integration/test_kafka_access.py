"""Passwords and certificates against a real broker: what lets us in, and what is said where it does not."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netpredict.config import KafkaConfig
from netpredict.errors import ActuatorError, ConfigError, SourceRefused, SourceUnavailable
from netpredict.ingest.kafka import KafkaSource
from netpredict.ingest.kafka_access import client_access, tls_context
from netpredict.ingest.kafka_probe import why_refused
from netpredict.operate.publisher import FastSink, KafkaSink
from netpredict.operate.sink import Message, Sink
from netpredict.types import Firing, Mode
from netpredict_plugins.actuators.kafka import KafkaActuator, KafkaOptions
from tests.faults.rig import end_offsets_of
from tests.integration.daemon_process import DaemonProcess, cli
from tests.integration.secure_world import World, mtls, private, scram
from tests.services.certificates import Authority
from tests.services.kafka_secure import PASSWORD, USER, SecureBroker
from tests.services.process import ServiceMissing

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture(scope="module")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    try:
        server = SecureBroker(tmp_path_factory.mktemp("secure-kafka"))
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


Kafka = dict[str, Any]
Make = Callable[[SecureBroker, Path], Kafka]


def foreign_authority(broker: SecureBroker, folder: Path) -> Kafka:
    return scram(broker, folder) | {"ssl_ca_file": str(Authority(folder / "other", "other").ca_file)}


def foreign_client(broker: SecureBroker, folder: Path) -> Kafka:
    other = Authority(folder / "other", "other")
    other.issue("client", USER)
    files = {"ssl_cert_file": str(other.folder / "client.crt"), "ssl_key_file": str(other.folder / "client.key")}
    return mtls(broker) | files


REFUSED: dict[str, tuple[Make, str]] = {
    "wrong password": (lambda b, f: scram(b, f, "wrong"), "refuses user 'netpredict' with the password in .*password:"),
    "unknown user": (lambda b, f: scram(b, f) | {"sasl_username": "nobody"}, "refuses user 'nobody'"),
    "mechanism": (lambda b, f: scram(b, f) | {"sasl_mechanism": "SCRAM-SHA-256"}, "offers SCRAM-SHA-512, PLAIN, not"),
    "unknown authority": (foreign_authority, "certificate of localhost is refused: .*issuer"),
    "expired": (lambda b, f: scram(b, f) | {"bootstrap_servers": [b.expired]}, "is refused: certificate has expired"),
    "other name": (lambda b, f: scram(b, f) | {"bootstrap_servers": [b.misnamed]}, "is refused: Hostname mismatch"),
    "no certificate": (
        lambda b, f: mtls(b) | {"ssl_cert_file": "", "ssl_key_file": ""},
        r"alert bad certificate \(our certificate: none",
    ),
    "our certificate expired": (lambda b, f: mtls(b, "client-expired"), "alert certificate unknown .*client-expired"),
    "our certificate of another authority": (foreign_client, "alert .*other/client.crt"),
}
"""What is wrong, and what an operator reads."""


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_the_reason_of_a_refusal_is_named(secure_broker: SecureBroker, tmp_path: Path, make: Make, said: str) -> None:
    config = KafkaConfig(**make(secure_broker, tmp_path))
    found = why_refused(config, config.bootstrap_servers)
    assert re.search(said, found), found
    assert PASSWORD not in found


def clients() -> dict[str, Callable[[KafkaConfig], Any]]:
    return {
        "consumer": lambda config: KafkaSource(config, ["t"]),
        "producer": lambda config: KafkaSink(config.bootstrap_servers, access=config),
        "fast producer": lambda config: FastSink(config.bootstrap_servers, access=config),
    }


@pytest.mark.parametrize("client", clients().values(), ids=clients().keys())
@pytest.mark.parametrize("case", ["wrong password", "other name"])
def test_every_client_raises_it_typed_and_retriable(
    secure_broker: SecureBroker, tmp_path: Path, client: Callable[[KafkaConfig], Any], case: str
) -> None:
    make, said = REFUSED[case]
    built = client(KafkaConfig(**make(secure_broker, tmp_path)))
    with pytest.raises(SourceRefused, match=said) as caught:
        built.start()
    assert (caught.value.retriable, caught.value.exit_code) == (True, 77)
    built.close()


@pytest.mark.parametrize("client", clients().values(), ids=clients().keys())
@pytest.mark.parametrize("way", ["scram", "plain", "mtls", "encrypted key"])
def test_every_client_comes_in(
    secure_broker: SecureBroker, tmp_path: Path, client: Callable[[KafkaConfig], Any], way: str
) -> None:
    kafka = {
        "scram": lambda: scram(secure_broker, tmp_path),
        "plain": lambda: scram(secure_broker, tmp_path) | {"sasl_mechanism": "PLAIN"},
        "mtls": lambda: mtls(secure_broker),
        "encrypted key": lambda: (
            mtls(secure_broker, key=secure_broker.authority.encrypt_key("client", "lock"))
            | {"ssl_key_password_file": str(private(tmp_path / "key-password", "lock"))}
        ),
    }[way]()
    config = KafkaConfig(**kafka)
    assert why_refused(config, config.bootstrap_servers) == ""
    built = client(config)
    built.start()
    built.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["scram", "mtls"])
def test_the_daemon_runs_end_to_end_with_the_least_rules(secure_broker: SecureBroker, tmp_path: Path, way: str) -> None:
    kafka = scram(secure_broker, tmp_path) if way == "scram" else mtls(secure_broker)
    world = World(secure_broker, tmp_path / "world", kafka)
    world.allow()
    sent = world.send(range(20))
    with DaemonProcess(world.path) as daemon:
        daemon.wait_until(lambda: world.accepted() == sent, 90)
        daemon.wait_until(lambda: world.published() == sent, 60)
        # sessions of SCRAM have ended and begun anew meanwhile: they last 4 s
        sent += world.send(range(20, 40))
        daemon.wait_until(lambda: world.accepted() == sent, 60)
        assert world.readiness()[0] == 200
        assert daemon.terminate() == 0
        log = daemon.log.read_text()
    assert PASSWORD not in log
    assert world.counted() == {"accepted": sent, "duplicate": 0, "late": 0, "dead": 0, "control": 0}


@pytest.mark.timeout(200)
def test_a_missing_rule_is_named_and_the_daemon_serves_once_it_is_there(
    secure_broker: SecureBroker, tmp_path: Path
) -> None:
    world = World(secure_broker, tmp_path / "world", mtls(secure_broker))
    sent = world.send(range(5))
    with DaemonProcess(world.path) as daemon:
        daemon.wait_until(lambda: "access rules do not allow us" in world.readiness()[1], 90)
        world.allow()
        daemon.wait_until(lambda: world.accepted() == sent, 90)
        daemon.wait_until(lambda: world.readiness()[0] == 200, 30)
        assert daemon.terminate() == 0


def test_the_actuator_gives_orders_with_the_same_credentials(secure_broker: SecureBroker, tmp_path: Path) -> None:
    topic = secure_broker.new_topic("orders")
    order = Firing("f1", "mcs", "s", "cell-1", "a", {"a": 1}, {}, Mode.AUTO, 1, 2, 3)
    for case in ("wrong password", "other name"):
        make, said = REFUSED[case]
        refused = KafkaActuator(KafkaOptions(topic=topic), KafkaConfig(**make(secure_broker, tmp_path)))
        with pytest.raises(ActuatorError, match=said) as caught:
            refused.apply(order)
        assert caught.value.retriable
        assert PASSWORD not in str(caught.value)
    actuator = KafkaActuator(KafkaOptions(topic=topic), KafkaConfig(**scram(secure_broker, tmp_path)))
    with pytest.raises(ActuatorError, match="Authorization") as forbidden:
        actuator.apply(order)
    assert forbidden.value.retriable, "a rule is mended without us"
    secure_broker.allow(writes=[topic])
    assert actuator.apply(order).reason == "acknowledged"
    actuator.close()


def send_until_refused(sink: Sink, topic: str, messages: list[Message]) -> None:
    """A session lasts 4 s."""
    for _ in range(100):
        sink.send_all(topic, messages)
        sink.flush(40.0)
        time.sleep(0.2)


def test_a_sink_that_is_trusted_no_more_says_so_and_does_not_wait_in_vain(
    secure_broker: SecureBroker, tmp_path: Path
) -> None:
    """kafka-python's producer is told nothing: it tries until its delivery timeout."""
    config = KafkaConfig(**scram(secure_broker, tmp_path))
    topic = secure_broker.new_topic("out")
    secure_broker.allow(writes=[topic])
    messages = [Message(b"k", b"v", [])]
    built = FastSink(config.bootstrap_servers, access=config)
    built.start()
    built.send_all(topic, messages)
    built.flush(10.0)
    secure_broker.set_password("another")
    try:
        with pytest.raises(SourceUnavailable, match=r"(?i)authentication"):
            send_until_refused(built, topic, messages)
    finally:
        secure_broker.set_password(PASSWORD)
        built.close(1.0)


def test_a_verb_that_sends_shows_the_same_password(secure_broker: SecureBroker, tmp_path: Path) -> None:
    world = World(secure_broker, tmp_path / "world", scram(secure_broker, tmp_path))
    secure_broker.allow(writes=[world.topic, "ran.rsrp", "ran.channel-state"])
    for topic in ("ran.rsrp", "ran.channel-state"):
        secure_broker.create_topic(topic)
    words = ("simulate", "--to", "kafka", "--seconds", "60", "--radio-cells", "2", "--ues", "1", "--speed", "1000000")
    cli(*words, "--config", str(world.path))
    assert sum(end_offsets_of(secure_broker, "ran.rsrp").values()) > 0


def test_tls_is_at_least_1_2_and_names_are_checked(secure_broker: SecureBroker) -> None:
    context = tls_context(KafkaConfig(**mtls(secure_broker)))
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_a_wrong_key_password_is_told_without_asking_the_terminal(secure_broker: SecureBroker, tmp_path: Path) -> None:
    locked = secure_broker.authority.encrypt_key("client", "lock")
    kafka = mtls(secure_broker, key=locked)
    for more in ({}, {"ssl_key_password_file": str(private(tmp_path / "key-password", "wrong"))}):
        with pytest.raises(ConfigError, match=r"kafka\.ssl_key_file: .* does not open"):
            client_access(KafkaConfig(**kafka, **more))
