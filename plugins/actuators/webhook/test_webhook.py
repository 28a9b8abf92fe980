from __future__ import annotations

import hmac
import json
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from netpredict.errors import ActuatorError, ConfigError
from netpredict.plugins import options_of
from netpredict.types import Firing, Mode, Outcome, OutcomeKind
from netpredict_plugins.actuators.webhook import (
    PLUGIN,
    WebhookActuator,
    WebhookOptions,
    _Deadline,
    _retry_after_s,
)

SAMPLE = Path(__file__).with_name("sample.toml")
FIRING = Firing(
    firing_id="f/1",
    hook="bandwidth",
    stream="traffic",
    object_id="NRCellDU=a b/../c?x",
    attribute="rRMPolicyRatio",
    value={"rRMPolicyMinRatio": 40, "rRMPolicyMaxRatio": 100},
    why={"demand_percent": 33.5, "missing": float("nan")},
    mode=Mode.AUTO,
    slot_time_us=1,
    expires_at_us=2,
    effect_until_us=3,
)


class Receiver:
    """A real HTTP server on loopback whose behaviour a test gives; it keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.behave: Callable[[BaseHTTPRequestHandler], None] = answer(200)
        self.hold = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.asked.append((self.command, self.path, headers, body))
                receiver.behave(self)

            do_GET = do_POST  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


def answer(status: int, body: bytes = b"{}", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def behave(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return behave


def until_the_end(receiver: Receiver) -> Callable[[BaseHTTPRequestHandler], None]:
    def behave(request: BaseHTTPRequestHandler) -> None:
        receiver.hold.wait(20)

    return behave


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def webhook(receiver: Receiver, **options: Any) -> WebhookActuator:
    settings: dict[str, Any] = {"url": f"{receiver.url}/actions", "timeout_s": 5.0} | options
    return WebhookActuator(WebhookOptions(**settings))


def refusal(call: Callable[[Firing], Outcome]) -> ActuatorError:
    with pytest.raises(ActuatorError) as raised:
        call(FIRING)
    return raised.value


def test_a_firing_is_posted_as_json_under_its_id(receiver: Receiver) -> None:
    assert webhook(receiver).apply(FIRING) == Outcome(OutcomeKind.APPLIED, "accepted")
    ((method, path, headers, body),) = receiver.asked
    assert (method, path) == ("POST", "/actions")
    assert headers["idempotency-key"] == "f/1"
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers
    sent = json.loads(body)
    assert sent["value"] == {"rRMPolicyMinRatio": 40, "rRMPolicyMaxRatio": 100}
    assert sent["why"] == {"demand_percent": 33.5, "missing": None}
    assert (sent["mode"], sent["slot_time_us"], sent["expires_at_us"]) == ("auto", 1, 2)


def test_identities_are_quoted_into_the_path(receiver: Receiver) -> None:
    webhook(receiver, url=f"{receiver.url}/o/{{object_id}}/{{attribute}}?id={{firing_id}}").apply(FIRING)
    assert receiver.asked[0][1] == "/o/NRCellDU%3Da%20b%2F..%2Fc%3Fx/rRMPolicyRatio?id=f%2F1"


def test_an_identity_cannot_climb_out_of_the_path(receiver: Receiver) -> None:
    actuator = webhook(receiver, url=f"{receiver.url}/o/{{object_id}}")
    climbing = Firing(**{name: getattr(FIRING, name) for name in FIRING.__slots__} | {"object_id": ".."})
    with pytest.raises(ActuatorError) as raised:
        actuator.apply(climbing)
    assert not raised.value.retriable
    assert receiver.asked == []


def test_the_token_comes_from_its_file(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    (tmp_path / "token").chmod(0o600)
    webhook(receiver, token_file=str(tmp_path / "token")).apply(FIRING)
    assert receiver.asked[0][2]["authorization"] == "Bearer s3cret"


def test_a_post_is_signed_with_its_time_and_key(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    (tmp_path / "secret").chmod(0o600)
    actuator = webhook(receiver, hmac_file=str(tmp_path / "secret"), revert_url=f"{receiver.url}/revert")
    actuator.apply(FIRING)
    actuator.revert(FIRING)
    for _, _, headers, body in receiver.asked:
        stamp = headers["x-netpredict-timestamp"]
        assert abs(int(stamp) - time.time()) < 60
        text = f"{stamp}.{headers['idempotency-key']}.".encode() + body
        assert headers["x-netpredict-signature"] == "sha256=" + hmac.new(b"s3cret", text, "sha256").hexdigest()
    one, other = (headers["x-netpredict-signature"] for _, _, headers, _ in receiver.asked)
    assert one != other


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_busy_receiver_may_be_asked_again(receiver: Receiver, status: int) -> None:
    receiver.behave = answer(status)
    actuator = webhook(receiver)
    error = refusal(actuator.apply)
    assert error.retriable
    assert error.retry_after_s is None
    receiver.behave = answer(200)
    assert actuator.apply(FIRING).kind is OutcomeKind.APPLIED


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
def test_a_refusal_is_final_and_quotes_the_receiver(receiver: Receiver, status: int) -> None:
    receiver.behave = answer(status, b"no such object")
    error = refusal(webhook(receiver).apply)
    assert not error.retriable
    assert str(status) in str(error)
    assert "no such object" in str(error)


def test_retry_after_is_handed_to_the_runner(receiver: Receiver) -> None:
    receiver.behave = answer(503, Retry_After="7")
    error = refusal(webhook(receiver).apply)
    assert error.retry_after_s == 7.0
    assert error.retriable


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("9" * 400, 86400.0),
        (format_datetime(datetime.fromtimestamp(1030, UTC), usegmt=True), 30.0),
        (format_datetime(datetime.fromtimestamp(10, UTC), usegmt=True), 0.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("Mon, 99 Foo 2026 25:61:61 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nothing_else(text: str, wait_s: float | None) -> None:
    assert _retry_after_s(text, now_unix_s=1000.0) == wait_s


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    receiver.behave = answer(status, Location=f"{receiver.url}/elsewhere")
    assert not refusal(webhook(receiver).apply).retriable
    assert [path for _, path, _, _ in receiver.asked] == ["/actions"]


def test_a_slow_receiver_within_the_timeout_is_waited_for(receiver: Receiver) -> None:
    def behave(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.2)
        answer(200)(request)

    receiver.behave = behave
    assert webhook(receiver).apply(FIRING).kind is OutcomeKind.APPLIED


def test_a_hanging_receiver_costs_the_timeout_and_may_be_asked_again(receiver: Receiver) -> None:
    receiver.behave = until_the_end(receiver)
    began_s = time.monotonic()
    assert refusal(webhook(receiver, timeout_s=0.3).apply).retriable
    assert time.monotonic() - began_s < 20


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"])
def test_a_reply_that_drips_for_ever_costs_the_timeout_too(receiver: Receiver, start: bytes) -> None:
    def behave(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(start)
        while not receiver.hold.wait(0.05):
            request.wfile.write(b"x")
            request.wfile.flush()

    receiver.behave = behave
    actuator = webhook(receiver, timeout_s=0.5)
    began_s = time.monotonic()
    error = refusal(actuator.apply)
    assert error.retriable
    assert "within 0.5 s" in str(error)
    assert time.monotonic() - began_s < 20
    receiver.behave = answer(200)
    assert actuator.apply(FIRING).kind is OutcomeKind.APPLIED


def test_a_connection_that_comes_about_after_the_deadline_is_cut_at_once() -> None:
    class Stream:
        def __init__(self, opened: socket.socket) -> None:
            self.opened = opened

        def get_extra_info(self, info: str) -> object:
            return {"socket": self.opened}[info]

    ours, theirs = socket.socketpair()
    deadline = _Deadline(0.01)
    with ours, theirs, deadline.watch() as extensions:
        theirs.settimeout(5.0)
        while not deadline.over:
            time.sleep(0.001)
        extensions["trace"]("connection.connect_tcp.complete", {"return_value": Stream(ours)})
        assert theirs.recv(1) == b""


def test_of_a_huge_reply_only_the_head_is_read_and_the_status_decides(receiver: Receiver) -> None:
    sent_bytes = 0

    def behave(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent_bytes
        request.send_response(200)
        request.send_header("content-length", str(2**40))
        request.end_headers()
        while not receiver.hold.is_set():
            request.wfile.write(b"x" * 65536)
            sent_bytes += 65536

    receiver.behave = behave
    actuator = webhook(receiver, max_reply_bytes=1000)
    assert actuator.apply(FIRING).kind is OutcomeKind.APPLIED
    assert sent_bytes < 64 * 1024 * 1024
    receiver.behave = answer(200)
    assert actuator.apply(FIRING).kind is OutcomeKind.APPLIED


def test_a_refused_connection_may_be_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    actuator = WebhookActuator(WebhookOptions(url=f"http://127.0.0.1:{port}/"))
    assert refusal(actuator.apply).retriable


def test_an_unknown_host_may_be_tried_again() -> None:
    actuator = WebhookActuator(WebhookOptions(url="https://nobody.invalid/"))
    assert refusal(actuator.apply).retriable


def test_a_receiver_that_speaks_no_http_may_be_tried_again(receiver: Receiver) -> None:
    receiver.behave = lambda request: (request.wfile.write(b"SSH-2.0-OpenSSH\r\n"), None)[1]
    assert refusal(webhook(receiver, timeout_s=0.3).apply).retriable


def test_without_a_verify_url_nothing_is_read_back(receiver: Receiver) -> None:
    assert webhook(receiver).verify(FIRING) == Outcome(OutcomeKind.APPLIED, "not_verified")
    assert receiver.asked == []


def test_what_is_read_back_is_compared_with_what_was_set(receiver: Receiver) -> None:
    actuator = webhook(receiver, verify_url=f"{receiver.url}/now/{{firing_id}}")
    receiver.behave = answer(200, json.dumps({"value": {**FIRING.value, "other": 1}}).encode())
    assert actuator.verify(FIRING) == Outcome(OutcomeKind.APPLIED, "verified")
    assert receiver.asked[0][:2] == ("GET", "/now/f%2F1")
    receiver.behave = answer(200, json.dumps({"value": {**FIRING.value, "rRMPolicyMinRatio": 20}}).encode())
    differing = actuator.verify(FIRING)
    assert (differing.kind, differing.reason) == (OutcomeKind.FAILED, "mismatch")
    assert "'rRMPolicyMinRatio': 20" in differing.detail


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"value": 3}', b"\xff", b"not json", b"[" * 50_000, b'{"value": {"x": "' + b"y" * 99999],
)
def test_a_read_back_that_makes_no_sense_is_an_error(receiver: Receiver, body: bytes) -> None:
    receiver.behave = answer(200, body)
    assert not refusal(webhook(receiver, verify_url=f"{receiver.url}/now").verify).retriable


def test_a_revert_has_a_key_of_its_own(receiver: Receiver) -> None:
    actuator = webhook(receiver, revert_url=f"{receiver.url}/revert")
    assert actuator.revert(FIRING) == Outcome(OutcomeKind.APPLIED, "reverted")
    assert receiver.asked[0][1] == "/revert"
    assert receiver.asked[0][2]["idempotency-key"] == "f/1/revert"


def test_a_revert_without_an_address_says_so(receiver: Receiver) -> None:
    assert "revert_url" in str(refusal(webhook(receiver).revert))


def test_a_proxy_of_the_environment_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert webhook(receiver).apply(FIRING).kind is OutcomeKind.APPLIED


def test_close_ends_the_connection(receiver: Receiver) -> None:
    actuator = webhook(receiver)
    actuator.apply(FIRING)
    actuator.close()
    with pytest.raises(RuntimeError, match="closed"):
        actuator.apply(FIRING)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://host/"},
        {"url": "host/path"},
        {"url": "http://"},
        {"url": "http://host:port/"},
        {"url": "http://[::1/"},
        {"url": "http://user:pw@host/"},
        {"url": "http://{object_id}/"},
        {"url": "http://host/{secret}"},
        {"url": "http://host/{}"},
        {"url": "http://host/{object_id.__class__}"},
        {"url": "http://host/{object_id!r}"},
        {"url": "http://host/{object_id:>99999999}"},
        {"url": "http://host/{object_id"},
        {"verify_url": "file:///etc/passwd"},
        {"revert_url": "http://host/#x"},
        {"timeout_s": 0},
        {"timeout_s": 61.0},
        {"max_reply_bytes": 0},
        {"url": "http://host/", "token_file": "/x"},
        {"url": "http://host/", "token_file": "/x", "in_clear": True},
        {"url": "http://host/"},
        {"url": "https://host/", "cert_file": "/x"},
        {"proxy": "x"},
        {"timeout_s": "5"},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        options_of(PLUGIN, wrong, "actuators.webhook.options")


def test_a_webhook_without_an_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="url is missing"):
        PLUGIN.build(WebhookOptions())


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff\xfe"])
def test_a_token_file_must_hold_one_printable_line(receiver: Receiver, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    (tmp_path / "token").chmod(0o600)
    with pytest.raises(ConfigError, match="token_file"):
        webhook(receiver, token_file=str(tmp_path / "token"))
    with pytest.raises(ConfigError, match="token_file"):
        webhook(receiver, token_file=str(tmp_path / "absent"))


def test_the_commented_defaults_are_the_real_ones() -> None:
    uncommented = "\n".join(
        line[1:] if line[:1] == "#" != line[1:2] else line for line in SAMPLE.read_text().split("\n")
    )
    section = tomllib.loads(uncommented)["actuators"]["webhook"]
    assert options_of(PLUGIN, section["options"], "actuators.webhook") == WebhookOptions()
    assert set(section["options"]) == set(WebhookOptions.__struct_fields__)
    assert PLUGIN.name == section["plugin"]


def test_every_option_is_in_the_readme() -> None:
    readme = SAMPLE.with_name("README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in WebhookOptions.__struct_fields__)
