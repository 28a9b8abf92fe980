"""Who we are to Kafka, and whom we take for Kafka: the one place that turns ``[kafka]`` into settings of a client.

TLS is 1.2 or newer, the certificate of a broker must be of a known authority, in date, and bear the name we called.
"""

from __future__ import annotations

import ssl
from typing import Any

from netpredict.config import KafkaConfig
from netpredict.credentials import client_tls, private_path, read_secret, readable_path


def client_access(config: KafkaConfig) -> dict[str, Any]:
    """Settings of kafka-python. Files are read now; ConfigError when one cannot be used."""
    settings: dict[str, Any] = {"security_protocol": config.security_protocol}
    if config.uses_tls:
        settings["ssl_context"] = tls_context(config)
    if config.uses_sasl:
        settings |= {
            "sasl_mechanism": config.sasl_mechanism,
            "sasl_plain_username": config.sasl_username,
            "sasl_plain_password": read_secret(config.sasl_password_file, "kafka.sasl_password_file").reveal(),
        }
    return settings


def librdkafka_access(config: KafkaConfig) -> dict[str, Any]:
    """The same for confluent-kafka, whose OpenSSL speaks no TLS below 1.2 by itself."""
    settings: dict[str, Any] = {"security.protocol": config.security_protocol}
    if config.uses_tls:
        tls_context(config)  # tells what is wrong with a file in our words
        settings["ssl.endpoint.identification.algorithm"] = "https"
        if config.ssl_ca_file:
            settings["ssl.ca.location"] = str(readable_path(config.ssl_ca_file, "kafka.ssl_ca_file"))
        if config.ssl_cert_file:
            settings["ssl.certificate.location"] = str(readable_path(config.ssl_cert_file, "kafka.ssl_cert_file"))
            settings["ssl.key.location"] = str(private_path(config.ssl_key_file, "kafka.ssl_key_file"))
        if config.ssl_key_password_file:
            key_password = read_secret(config.ssl_key_password_file, "kafka.ssl_key_password_file")
            settings["ssl.key.password"] = key_password.reveal()
    if config.uses_sasl:
        settings |= {
            "sasl.mechanisms": config.sasl_mechanism,
            "sasl.username": config.sasl_username,
            "sasl.password": read_secret(config.sasl_password_file, "kafka.sasl_password_file").reveal(),
        }
    return settings


def tls_context(config: KafkaConfig) -> ssl.SSLContext:
    """What both sides of a TLS connection must show. ConfigError names the file that is wrong."""
    return client_tls(
        "kafka.ssl_", config.ssl_ca_file, config.ssl_cert_file, config.ssl_key_file, config.ssl_key_password_file
    )
