"""The RAN controller of the demo, asked over HTTP by the webhook actuator itself."""

from __future__ import annotations

import dataclasses
import http.client
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from netpredict.cli import demo_controller
from netpredict.cli.demo_controller import ControllerServer, RanController
from netpredict.cli.demo_loop import shared_secret
from netpredict.errors import ActuatorError
from netpredict.types import Firing, Mode, OutcomeKind
from netpredict_plugins.actuators.webhook import WebhookActuator, WebhookOptions, signed

CELL, OTHER, UE = "sim-00000-0", "sim-00000-1", "sim-ue-00000"
BEGIN_US, END_US = 1_000_000, 61_000_000


class Network:
    """A controller on a port, its clock, and the actuator that calls it."""

    def __init__(self, folder: Path) -> None:
        self.time_us = BEGIN_US
        secret = shared_secret(folder / "secret")
        self.controller = RanController({CELL, OTHER}, {f"{CELL}-b"}, {UE}, secret, lambda: self.time_us)
        self.server = ControllerServer(self.controller)
        with_urls = {
            "url": f"{self.server.url}/actions",
            "verify_url": f"{self.server.url}/objects/{{object_id}}/{{attribute}}",
            "revert_url": f"{self.server.url}/reverts",
            "hmac_file": str(folder / "secret"),
        }
        self.actuator = WebhookActuator(WebhookOptions(**with_urls))

    def signed(self, body: bytes, ago_s: int = 0) -> dict[str, str]:
        return signed(self.controller.secret, "1", body, int(time.time()) - ago_s) | {"idempotency-key": "1"}

    def status(self, method: str, path: str, body: bytes = b"", **headers: str) -> int:
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=5)
        connection.request(method, path, body, headers)
        status = connection.getresponse().status
        connection.close()
        return status


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    made = Network(tmp_path)
    with made.server:
        yield made
    made.actuator.close()


def firing(number: int, object_id: str, attribute: str, value: dict[str, Any], **more: Any) -> Firing:
    whole = Firing(str(number), "h", "s", object_id, attribute, value, {}, Mode.AUTO, BEGIN_US, END_US, END_US)
    return dataclasses.replace(whole, **more)


def quota(number: int, percent: int, cell: str = CELL, **more: Any) -> Firing:
    shares = {f"rRMPolicy{which}Ratio": percent for which in ("Min", "Max", "Dedicated")}
    return firing(number, f"NRCellDU={cell},RRMPolicyRatio=1", "rRMPolicyRatio", shares, **more)


def handover(number: int = 1, **more: Any) -> Firing:
    return firing(number, f"UE={UE}", "servingCell", {"source": CELL, "target": OTHER}, **more)


def test_what_every_hook_sets_becomes_an_order_and_can_be_read_back(network: Network) -> None:
    sleep = {"energySavingControl": "TO_BE_ENERGY_SAVING"}
    mcs = {"mcs_index": 7, "mcs_table": 1, "bler_target_ratio": 0.1}
    for action in (
        quota(1, 30),
        firing(2, f"NRCellDU={CELL}-b,CESManagementFunction=1", "energySavingControl", sleep),
        firing(3, f"UE={UE}", "mcsIndex", mcs),
        handover(4),
    ):
        assert network.actuator.apply(action).kind is OutcomeKind.APPLIED
        assert network.actuator.verify(action).reason == "verified"
    orders = network.controller.take_orders()
    assert orders == ({CELL: 30.0}, {f"{CELL}-b": True}, {UE: 7}, {UE: (CELL, OTHER)})


def test_an_id_counts_once(network: Network) -> None:
    network.actuator.apply(quota(1, 30))
    network.actuator.apply(quota(2, 50, slot_time_us=BEGIN_US + 1))
    network.actuator.apply(quota(1, 30))  # its reply was lost, say: it comes again behind a younger one
    assert network.controller.take_orders().quota_percent == {CELL: 50.0}
    network.actuator.apply(handover(3))
    network.controller.take_orders()
    network.actuator.apply(handover(3))
    assert network.controller.take_orders().handovers == {}


def test_an_effect_ends_by_itself(network: Network) -> None:
    network.actuator.apply(quota(1, 30))
    network.time_us = END_US - 1
    assert network.controller.take_orders().quota_percent == {CELL: 30.0}
    network.time_us = END_US
    assert network.controller.take_orders().quota_percent == {}
    with pytest.raises(ActuatorError, match="404"):
        network.actuator.verify(quota(1, 30))


def test_a_read_back_shows_what_another_has_set(network: Network) -> None:
    network.actuator.apply(quota(1, 30))
    network.actuator.apply(quota(2, 50, slot_time_us=BEGIN_US + 1))
    assert network.actuator.verify(quota(1, 30)).reason == "mismatch"


def test_a_revert_ends_its_own_action_only(network: Network) -> None:
    network.actuator.apply(quota(1, 30))
    network.actuator.revert(quota(9, 30))
    assert network.controller.take_orders().quota_percent == {CELL: 30.0}
    network.actuator.revert(quota(1, 30))
    assert network.controller.take_orders().quota_percent == {}
    network.actuator.apply(handover(2))
    network.actuator.revert(handover(2))
    assert network.controller.take_orders().handovers == {}


@pytest.mark.parametrize(
    ("action", "status"),
    [
        (quota(1, 30, expires_at_us=BEGIN_US), "410"),
        (quota(1, 130), "422"),
        (quota(1, 30, cell="sim-00009-0"), "422"),
        (firing(1, f"UE={UE}", "mcsIndex", {"mcs_index": 29, "mcs_table": 1}), "422"),
        (firing(1, f"UE={UE}", "mcsIndex", {"mcs_index": 3, "mcs_table": 2}), "422"),
        (firing(1, f"UE={UE}", "servingCell", {"source": CELL, "target": "?"}), "422"),
        (firing(1, f"UE={UE}", "txPower", {"dbm": 3}), "422"),
    ],
)
def test_what_cannot_be_set_is_refused_for_good(network: Network, action: Firing, status: str) -> None:
    with pytest.raises(ActuatorError, match=status) as caught:
        network.actuator.apply(action)
    assert not caught.value.retriable
    assert network.controller.take_orders() == ({}, {}, {}, {})


def test_an_older_action_never_replaces_a_younger_one(network: Network) -> None:
    network.actuator.apply(quota(1, 30, slot_time_us=BEGIN_US + 1))
    with pytest.raises(ActuatorError, match="409"):
        network.actuator.apply(quota(2, 50))
    assert network.controller.take_orders().quota_percent == {CELL: 30.0}


def test_memory_is_bounded_and_frees_itself(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_controller, "IDS_MAX", 1)
    network.actuator.apply(quota(1, 30))
    with pytest.raises(ActuatorError, match="429") as caught:
        network.actuator.apply(quota(2, 50, slot_time_us=BEGIN_US + 1))
    assert caught.value.retriable
    network.time_us = END_US
    network.controller.take_orders()
    network.actuator.apply(quota(3, 50, expires_at_us=END_US + 1, effect_until_us=END_US + 1))
    assert network.controller.take_orders().quota_percent == {CELL: 50.0}


def test_requests_that_make_no_sense_are_told_so(network: Network) -> None:
    assert network.status("POST", "/actions", b"{", **network.signed(b"{")) == 400
    assert network.status("POST", "/actions", b"x", **{"content-length": "99999999"}) == 413
    assert network.status("POST", "/elsewhere", b"{}", **network.signed(b"{}")) == 404
    assert network.status("GET", "/objects/a/b") == 404
    assert sum(network.controller.answers.values()) == 3  # the one too long was never read


def test_only_what_is_signed_with_the_secret_and_lately_counts(network: Network) -> None:
    body = msgspec.json.encode(quota(1, 30))
    network.controller.secret, ours = b"another", network.controller.secret
    forged = network.signed(body)
    network.controller.secret = ours
    longer = network.signed(body + b" ")
    for headers in ({}, forged, longer, network.signed(body, ago_s=600), {"x-netpredict-timestamp": "soon"}):
        assert network.status("POST", "/actions", body, **headers) == 401
        assert network.status("POST", "/reverts", body, **headers) == 401
    assert network.controller.take_orders().quota_percent == {}
    assert network.status("POST", "/actions", body, **network.signed(body)) == 200
    assert network.controller.take_orders().quota_percent == {CELL: 30.0}
