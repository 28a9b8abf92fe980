"""F11: Kafka stops to trust us, and trusts us again. Nothing is lost, nothing comes twice, and the reason is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netpredict.store import compare
from tests.integration.daemon_process import DaemonProcess
from tests.integration.secure_world import World, mtls, private, scram
from tests.services.certificates import EXPIRED
from tests.services.kafka_secure import PASSWORD, USER, SecureBroker
from tests.services.process import ServiceMissing

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(300)]
WRONG = "refuses user 'netpredict' with the password in"


@pytest.fixture(scope="module")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    try:
        server = SecureBroker(tmp_path_factory.mktemp("secure-kafka"))
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


def assert_equal_to_an_unfaulted_run(world: World, folder: Path) -> None:
    """The store of another daemon that read the same log, by the administrator's way in."""
    calm = World(world.broker, folder, {"bootstrap_servers": [world.broker.bootstrap]}, world.topic)
    with DaemonProcess(calm.path) as daemon:
        daemon.wait_until(lambda: calm.counted() == world.counted(), 90)
        assert daemon.terminate() == 0
    assert compare.difference(compare.dump(world.url), compare.dump(calm.url)) == []


def test_a_password_that_is_wrong_at_the_start_and_changes_while_it_runs(
    secure_broker: SecureBroker, tmp_path: Path
) -> None:
    world = World(secure_broker, tmp_path / "world", scram(secure_broker, tmp_path, "wrong"))
    world.allow()
    sent = world.send(range(10))
    with DaemonProcess(world.path) as daemon:
        daemon.wait_until(lambda: WRONG in world.readiness()[1], 60)
        assert world.readiness()[0] == 503
        private(tmp_path / "password", PASSWORD)
        daemon.wait_until(lambda: world.accepted() == sent, 60)
        daemon.wait_until(lambda: world.readiness() == (200, ""), 30)

        secure_broker.set_password("another")  # sessions last 4 s; the consumer and the publisher lose theirs
        daemon.wait_until(lambda: WRONG in world.readiness()[1], 90)
        sent += world.send(range(10, 30))
        private(tmp_path / "password", "another")
        daemon.wait_until(lambda: world.accepted() == sent, 60)
        daemon.wait_until(lambda: world.readiness() == (200, ""), 30)
        daemon.wait_until(lambda: world.published() >= sent, 60)
        assert daemon.terminate() == 0
        log = daemon.log.read_text()
    secure_broker.set_password(PASSWORD)
    assert "another" not in log.replace("another member", "")
    assert PASSWORD not in log
    assert len(log.splitlines()) < 1000
    assert_equal_to_an_unfaulted_run(world, tmp_path / "calm")


def test_a_certificate_of_ours_that_expired_until_a_new_one_lies_in_its_place(
    secure_broker: SecureBroker, tmp_path: Path
) -> None:
    secure_broker.authority.issue("rotated", USER, validity=EXPIRED)
    world = World(secure_broker, tmp_path / "world", mtls(secure_broker, "rotated"))
    world.allow()
    sent = world.send(range(10))
    with DaemonProcess(world.path) as daemon:
        daemon.wait_until(lambda: "rotated.crt" in world.readiness()[1], 60)
        secure_broker.authority.issue("rotated", USER)
        daemon.wait_until(lambda: world.accepted() == sent, 60)
        daemon.wait_until(lambda: world.published() >= sent, 60)
        assert daemon.terminate() == 0
    assert_equal_to_an_unfaulted_run(world, tmp_path / "calm")


def test_a_certificate_of_the_broker_that_expired_is_not_accepted_and_named(
    secure_broker: SecureBroker, tmp_path: Path
) -> None:
    kafka = scram(secure_broker, tmp_path) | {"bootstrap_servers": [secure_broker.expired]}
    world = World(secure_broker, tmp_path / "world", kafka)
    world.send(range(2))
    with DaemonProcess(world.path) as daemon:
        daemon.wait_until(lambda: "certificate has expired" in world.readiness()[1], 60)
        assert world.accepted() == 0
        assert daemon.terminate() == 0
