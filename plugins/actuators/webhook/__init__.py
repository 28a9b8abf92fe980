"""Actuator ``webhook``: POSTs each firing as JSON; reads back and reverts where the receiver offers URLs for it."""

from __future__ import annotations

import hashlib
import hmac
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from string import Formatter
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from netpredict.credentials import client_tls, read_secret
from netpredict.errors import ActuatorError, ConfigError
from netpredict.plugins import Plugin
from netpredict.types import Firing, Outcome, OutcomeKind

_PLACEHOLDERS = frozenset({"firing_id", "object_id", "attribute"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class WebhookOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the webhook actuator. ``url`` has no default that works: ``build`` refuses an empty one."""

    url: str = ""
    verify_url: str = ""
    revert_url: str = ""
    timeout_s: float = 5.0
    token_file: str = ""
    hmac_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    key_password_file: str = ""
    in_clear: bool = False
    max_reply_bytes: int = 65536

    def __post_init__(self) -> None:
        for key in ("url", "verify_url", "revert_url"):
            _check_url(key, getattr(self, key), secret=bool(self.token_file), in_clear=self.in_clear)
        if bool(self.cert_file) != bool(self.key_file):
            raise ConfigError("cert_file is given together with key_file, or not at all")
        if not 0 < self.timeout_s <= 60:
            raise ConfigError(f"timeout_s = {self.timeout_s!r} is not allowed: use above 0, up to 60 s")
        if not 0 < self.max_reply_bytes <= 16 * 1024 * 1024:
            raise ConfigError(f"max_reply_bytes = {self.max_reply_bytes!r} is not allowed: use 1..16777216")


class _Reply(NamedTuple):
    status: int
    headers: httpx.Headers
    body: bytes
    whole: bool


class WebhookActuator:
    """One connection at a time, to the configured hosts only: no redirects, no proxy from the environment."""

    api_version = 1

    def __init__(self, options: WebhookOptions) -> None:
        if not options.url:
            raise ConfigError("url is missing: use an http:// or https:// address")
        self._options = options
        headers = {"accept-encoding": "identity", "user-agent": "netpredict"}
        if options.token_file:
            headers["authorization"] = f"Bearer {_token(options.token_file)}"
        self._hmac_key = _token(options.hmac_file, "hmac_file").encode() if options.hmac_file else b""
        self._client = httpx.Client(
            headers=headers,
            timeout=options.timeout_s,
            follow_redirects=False,
            trust_env=False,
            verify=client_tls("", options.ca_file, options.cert_file, options.key_file, options.key_password_file),
            limits=httpx.Limits(max_connections=1),
        )
        self._deadline = _Deadline(options.timeout_s)

    def apply(self, firing: Firing) -> Outcome:
        """POST the firing. The status alone decides: the body of the reply is read for error texts only."""
        self._post(self._options.url, firing, key=firing.firing_id)
        return Outcome(OutcomeKind.APPLIED, "accepted")

    def verify(self, firing: Firing) -> Outcome:
        """GET ``verify_url`` and compare its ``value``; without the URL the answer is only "not_verified"."""
        if not self._options.verify_url:
            return Outcome(OutcomeKind.APPLIED, "not_verified")
        reply = self._send("GET", _filled(self._options.verify_url, firing))
        found = _value_of(reply)
        different = {name: found.get(name) for name, wanted in firing.value.items() if found.get(name) != wanted}
        if different:
            return Outcome(OutcomeKind.FAILED, "mismatch", f"read back {different!r}, set {dict(firing.value)!r}")
        return Outcome(OutcomeKind.APPLIED, "verified")

    def revert(self, firing: Firing) -> Outcome:
        """POST the same firing to ``revert_url``; ActuatorError without that URL."""
        if not self._options.revert_url:
            raise ActuatorError("revert_url is not configured: the action cannot be taken back")
        self._post(self._options.revert_url, firing, key=f"{firing.firing_id}/revert")
        return Outcome(OutcomeKind.APPLIED, "reverted")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _post(self, template: str, firing: Firing, key: str) -> None:
        headers, body = {"content-type": "application/json", "idempotency-key": key}, msgspec.json.encode(firing)
        if self._hmac_key:
            headers |= signed(self._hmac_key, key, body, int(time.time()))
        self._send("POST", _filled(template, firing), headers=headers, content=body)

    def _send(self, method: str, url: str, **request: Any) -> _Reply:
        shown = f"{method} {url.partition('?')[0]}"  # a query may hold a key of the receiver
        try:
            with self._deadline.watch() as extensions:
                reply = self._exchange(method, url, extensions=extensions, **request)
        except httpx.TransportError as error:
            if self._deadline.over:
                why = f"no whole reply within {self._options.timeout_s:g} s"
                raise ActuatorError(f"{shown}: {why}", retriable=True) from error
            raise ActuatorError(f"{shown}: {type(error).__name__}: {error}", retriable=True) from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ActuatorError(f"{shown}: {type(error).__name__}: {error}") from error
        if not 200 <= reply.status < 300:
            raise _error_of(reply, shown)
        return reply

    def _exchange(self, method: str, url: str, **request: Any) -> _Reply:
        body, limit = b"", self._options.max_reply_bytes
        with self._client.stream(method, url, **request) as response:
            # leaving the block with the body unread closes the connection instead of draining it
            for chunk in response.iter_raw():
                body += chunk[: limit + 1 - len(body)]
                if len(body) > limit:
                    break
        return _Reply(response.status_code, response.headers, body[:limit], whole=len(body) <= limit)


def signed(secret: bytes, key: str, body: bytes, unix_s: int) -> dict[str, str]:
    """Headers that prove who sent a body, for which action and when: HMAC-SHA-256 (RFC 2104) of ``unix_s.key.body``."""
    digest = hmac.new(secret, b".".join([str(unix_s).encode(), key.encode(), body]), hashlib.sha256).hexdigest()
    return {"x-netpredict-timestamp": str(unix_s), "x-netpredict-signature": f"sha256={digest}"}


class _Deadline:
    """Bounds a whole exchange: httpx's own timeouts start anew with every byte, so a dripping reply never ends.

    At the deadline the socket is shut down, and the read that waits on it ends with an error. DNS lies outside.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.over = False

    @contextmanager
    def watch(self) -> Iterator[dict[str, Any]]:
        """Gives the request extensions through which the socket becomes known."""
        self.over = False
        timer = threading.Timer(self._timeout_s, self._end)
        timer.daemon = True
        timer.start()
        try:
            yield {"trace": self._note}
        finally:
            timer.cancel()
            timer.join()

    def _note(self, event: str, info: Mapping[str, Any]) -> None:
        get_extra_info = getattr(info.get("return_value"), "get_extra_info", None)
        if get_extra_info is None:
            return
        with self._lock:
            self._socket = get_extra_info("socket")
            if self.over:
                _shut_down(self._socket)

    def _end(self) -> None:
        with self._lock:
            self.over = True
            _shut_down(self._socket)


def _shut_down(opened: socket.socket | None) -> None:
    if opened is not None:
        try:
            # past the override of SSLSocket, which is not made for another thread
            socket.socket.shutdown(opened, socket.SHUT_RDWR)
        except OSError:
            return  # closed by itself


def _error_of(reply: _Reply, what: str) -> ActuatorError:
    text = reply.body[:200].decode("utf-8", "replace")
    message = f"{what}: HTTP {reply.status}: {text!r}"
    if reply.status != 429 and reply.status < 500:
        return ActuatorError(message)
    retry_after_s = _retry_after_s(reply.headers.get("retry-after", ""), time.time())
    return ActuatorError(message, retriable=True, retry_after_s=retry_after_s)


def _retry_after_s(text: str, now_unix_s: float) -> float | None:
    """Seconds from the header, given as a number or a date; None when it is neither."""
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), 86400))
    try:
        due = parsedate_to_datetime(text)
    except ValueError:
        return None
    return min(max(due.timestamp() - now_unix_s, 0.0), 86400.0)


def _value_of(reply: _Reply) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(reply.body) if reply.whole else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    value = found.get("value") if isinstance(found, dict) else None
    if not isinstance(value, dict):
        raise ActuatorError(f"the read-back is no JSON object with a member 'value': {reply.body[:200]!r}")
    return value


def _filled(template: str, firing: Firing) -> str:
    values = {name: getattr(firing, name) for name in _PLACEHOLDERS}
    for name, value in values.items():
        if value in (".", ".."):
            raise ActuatorError(f"{name} {value!r} would leave the path of {template}")
    return template.format_map({name: quote(value, safe="") for name, value in values.items()})


def _check_url(key: str, template: str, *, secret: bool, in_clear: bool) -> None:
    if not template:
        return
    try:
        parts = urlsplit(template)
        names = {name for _, name, spec, conversion in Formatter().parse(template) if name is not None}
        plain = not any(spec or conversion for _, _, spec, conversion in Formatter().parse(template))
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{key} = {template!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{key} = {template!r} is not allowed: use http://host/... or https://host/...")
    if "@" in parts.netloc or parts.fragment:
        raise ConfigError(f"{key} is not allowed: leave out user, password and fragment; a secret goes to token_file")
    if "{" in parts.netloc or not names <= _PLACEHOLDERS or not plain:
        allowed = ", ".join(f"{{{name}}}" for name in sorted(_PLACEHOLDERS))
        raise ConfigError(f"{key} = {template!r} is not allowed: only {allowed} may stand in its path or query")
    if parts.scheme == "http" and host not in _LOOPBACK and (secret or not in_clear):
        what = "the token" if secret else "actions that anybody may change"
        raise ConfigError(f"{key} = {template!r} would send {what} in clear: use https://, or http:// on loopback")


def _token(name: str, option: str = "token_file") -> str:
    token = read_secret(name, option).reveal().strip()
    if not token or not token.isascii():
        raise ConfigError(f"{option} {name}: must hold one line of printable ASCII")
    return token


PLUGIN = Plugin("webhook", options=WebhookOptions, build=WebhookActuator)
