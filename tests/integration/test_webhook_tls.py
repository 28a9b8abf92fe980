"""The webhook and a receiver that speaks TLS: whom it trusts, and what it shows of itself."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from netpredict.errors import ActuatorError, ConfigError
from netpredict.types import Firing, Mode, OutcomeKind
from netpredict_plugins.actuators.webhook import WebhookActuator, WebhookOptions
from tests.services.certificates import EXPIRED, Authority

FIRING = Firing("f-1", "mcs", "s", "cell", "mcs", {"mcs": 3}, {}, Mode.AUTO, 1, 2, 3)


class Receiver:
    """Takes actions over TLS; with ``client_ca`` only from those who show a certificate of it."""

    def __init__(self, authority: Authority, stem: str, client_ca: Path | None = None) -> None:
        self.subjects: list[str] = []
        self.tokens: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                shown = self.connection.getpeercert() or {}
                receiver.subjects.append(str(shown.get("subject", "")))
                receiver.tokens.append(self.headers.get("authorization", ""))
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(HTTPServer):
            def handle_error(self, *_: object) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.folder / f"{stem}.crt", authority.folder / f"{stem}.key")
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"https://localhost:{self._server.server_port}/actions"

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("webhook-tls"))
    made.issue("server", "receiver")
    made.issue("expired", "receiver", validity=EXPIRED)
    made.issue("misnamed", "receiver", "subjectAltName=DNS:other.example")
    made.issue("client", "netpredict")
    return made


def test_a_token_goes_to_a_receiver_of_the_known_authority_only(authority: Authority, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    options = {"token_file": str(token)}
    with Receiver(authority, "server") as receiver:
        trusted = WebhookActuator(WebhookOptions(url=receiver.url, ca_file=str(authority.ca_file), **options))
        assert trusted.apply(FIRING).kind is OutcomeKind.APPLIED
        with pytest.raises(ActuatorError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            WebhookActuator(WebhookOptions(url=receiver.url, **options)).apply(FIRING)
        assert caught.value.retriable
        assert receiver.tokens == ["Bearer secret"]


@pytest.mark.parametrize(("stem", "said"), [("expired", "certificate has expired"), ("misnamed", "Hostname mismatch")])
def test_a_certificate_out_of_date_or_of_another_name_is_refused(authority: Authority, stem: str, said: str) -> None:
    with Receiver(authority, stem) as receiver:
        actuator = WebhookActuator(WebhookOptions(url=receiver.url, ca_file=str(authority.ca_file)))
        with pytest.raises(ActuatorError, match=said):
            actuator.apply(FIRING)
        assert receiver.subjects == []


def test_a_receiver_that_asks_for_a_certificate_gets_ours(authority: Authority, tmp_path: Path) -> None:
    locked, password = authority.encrypt_key("client", "lock"), tmp_path / "password"
    password.write_text("lock\n")
    password.chmod(0o600)
    mine = {"cert_file": str(authority.folder / "client.crt"), "ca_file": str(authority.ca_file)}
    with Receiver(authority, "server", client_ca=authority.ca_file) as receiver:
        for more in (
            {"key_file": str(authority.folder / "client.key")},
            {"key_file": str(locked), "key_password_file": str(password)},
        ):
            actuator = WebhookActuator(WebhookOptions(url=receiver.url, **mine, **more))
            assert actuator.apply(FIRING).kind is OutcomeKind.APPLIED
        assert all("netpredict" in subject for subject in receiver.subjects)
        with pytest.raises(ActuatorError):
            WebhookActuator(WebhookOptions(url=receiver.url, ca_file=str(authority.ca_file))).apply(FIRING)


def test_a_key_that_everybody_can_read_is_refused(authority: Authority, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    key.write_bytes((authority.folder / "client.key").read_bytes())
    key.chmod(0o644)
    options = WebhookOptions(url="https://x/", cert_file=str(authority.folder / "client.crt"), key_file=str(key))
    with pytest.raises(ConfigError, match=r"key_file: .* is open to every user of this machine: chmod o="):
        WebhookActuator(options)
