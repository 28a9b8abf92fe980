"""Why Kafka does not let us in, asked on a connection of our own.

Both clients know it and tell it to their log at best: kafka-python drops what a broker says right before it hangs up,
and waits for its timeout. An operator wants one sentence: password, mechanism, authority, date, name, certificate.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from kafka.errors import KafkaError, UnsupportedSaslMechanismError, for_code
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from netpredict.config import KafkaConfig
from netpredict.ingest.kafka_access import client_access

PROBE_S = 3.0
ALERT_S = 0.5
"""With TLS 1.3 a broker refuses our certificate only after its handshake is done."""
ROUNDS_MAX = 8


def why_refused(config: KafkaConfig, servers: Sequence[str]) -> str:
    """What the first of these servers that answers has against us, or we against it, in a sentence; else nothing.

    It takes a few seconds at most. ConfigError when a file of the config cannot be used.
    """
    if not config.uses_tls and not config.uses_sasl:
        return ""
    access = client_access(config)
    for server in servers:
        host, _, port = server.strip().rpartition(":")
        host = host.strip("[]")
        try:
            with socket.create_connection((host, int(port)), PROBE_S) as raw:
                return _greeted(raw, host, config, access)
        except OSError:
            continue
    return ""


def _greeted(raw: socket.socket, host: str, config: KafkaConfig, access: dict[str, Any]) -> str:
    try:
        with access["ssl_context"].wrap_socket(raw, server_hostname=host) if config.uses_tls else raw as spoken:
            if config.uses_sasl:
                return _logged_in(spoken, host, config, access)
            spoken.settimeout(ALERT_S)
            with suppress(TimeoutError):
                spoken.recv(1)
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of {host} is refused: {error.verify_message or error.reason}"
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        ours = config.ssl_cert_file or "none, set kafka.ssl_cert_file"
        whose = f" (our certificate: {ours})" if "alert" in reason else ""
        return f"the TLS handshake with {host} failed: {reason}{whose}"
    return ""


def _logged_in(spoken: socket.socket, host: str, config: KafkaConfig, access: dict[str, Any]) -> str:
    protocol = KafkaProtocol(client_id=config.client_id, receive_message_max_bytes=65_536)
    asked = SaslHandshakeRequest(mechanism=config.sasl_mechanism, version=1)
    offered = _exchanged(spoken, protocol, asked)
    if for_code(offered.error_code) is UnsupportedSaslMechanismError:
        return f"{host} offers {', '.join(offered.mechanisms)}, not kafka.sasl_mechanism {config.sasl_mechanism}"
    mechanism = get_sasl_mechanism(config.sasl_mechanism)(host=host, **access)
    try:
        for _ in range(ROUNDS_MAX):
            if mechanism.is_done():
                break
            answer = _exchanged(spoken, protocol, SaslAuthenticateRequest(mechanism.auth_bytes(), version=1))
            if answer.error_code:
                return (
                    f"{host} refuses user {config.sasl_username!r} with the password in {config.sasl_password_file}:"
                    f" {str(answer.error_message)[:200]}"
                )
            mechanism.receive(answer.auth_bytes)
    except (KafkaError, ValueError) as error:  # SCRAM: the broker does not know the password either
        return f"{host} does not prove that it knows user {config.sasl_username!r}: {error}"
    return ""


def _exchanged(spoken: socket.socket, protocol: Any, request: Any) -> Any:
    """Ask and await the answer; OSError when the server hangs up."""
    protocol.send_request(request)
    spoken.sendall(protocol.send_bytes())
    while data := spoken.recv(4096):
        for _, answer in protocol.receive_bytes(data):
            return answer
    raise ConnectionResetError("hung up")
