"""The same broker with listeners that ask for passwords and certificates, and access rules that are enforced.

Users and certificates are made for one run, in its folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ResourcePattern,
    ResourceType,
    UserScramCredentialUpsertion,
)

from tests.services.certificates import EXPIRED, Authority
from tests.services.kafka_broker import KafkaBroker
from tests.services.process import ServiceFailed, free_ports

USER, PASSWORD = "netpredict", "correct-horse-battery-staple"

SECURE = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port},SCRAM://127.0.0.1:{scram},\
MTLS://127.0.0.1:{mtls},EXPIRED://127.0.0.1:{expired},MISNAMED://127.0.0.1:{misnamed}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SCRAM://localhost:{scram},MTLS://localhost:{mtls},\
EXPIRED://localhost:{expired},MISNAMED://localhost:{misnamed}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MTLS:SSL,EXPIRED:SSL,MISNAMED:SSL
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
ssl.keystore.type=PEM
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
ssl.keystore.location={folder}/broker.pem
listener.name.mtls.ssl.client.auth=required
listener.name.expired.ssl.keystore.location={folder}/expired.pem
listener.name.misnamed.ssl.keystore.location={folder}/misnamed.pem
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.scram.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.scram.scram-sha-512.connections.max.reauth.ms=4000
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


class SecureBroker(KafkaBroker):
    """Users: ``USER`` with ``PASSWORD`` (SCRAM-SHA-512, PLAIN), and the common name of a certificate on ``mtls``.

    They may do nothing before ``allow``. The plain listener is that of the administrator.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.scram, self.mtls, self.expired, self.misnamed = (f"localhost:{port}" for port in free_ports(4))
        self.authority = Authority(folder)
        self.authority.issue("broker", "broker")
        self.authority.issue("expired", "broker", validity=EXPIRED)
        self.authority.issue("misnamed", "broker", "subjectAltName=DNS:kafka.example")
        self.authority.issue("client", USER)
        self.authority.issue("client-expired", USER, validity=EXPIRED)

    def _properties(self, controller_port: int) -> str:
        plain = super()._properties(controller_port).splitlines()
        kept = [line for line in plain if not line.startswith(("listeners=", "advertised.listeners="))]
        ports = {name: getattr(self, name).rpartition(":")[2] for name in ("scram", "mtls", "expired", "misnamed")}
        secure = SECURE.format(
            port=self.port,
            controller_port=controller_port,
            folder=self.folder,
            user=USER,
            password=PASSWORD,
            **ports,
        )
        mapped = "ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT\n"
        return "\n".join([*kept, secure + mapped])

    def _format_words(self) -> list[str]:
        return ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]

    def set_password(self, password: str) -> None:
        """Give the user another password for SCRAM; sessions end at their next re-authentication, in 4 s at most."""
        admin = self.admin()
        try:
            admin.alter_user_scram_credentials(upsertions(password))
        finally:
            admin.close()

    def allow(self, reads: Sequence[str] = (), writes: Sequence[str] = (), groups: Sequence[str] = ()) -> None:
        """Exactly the rules that deploy/kafka names."""
        wanted = [
            *((ResourceType.TOPIC, topic, ACLOperation.READ) for topic in reads),
            *((ResourceType.TOPIC, topic, ACLOperation.WRITE) for topic in writes),
            *((ResourceType.GROUP, group, ACLOperation.READ) for group in groups),
        ]
        acls = [
            ACL(f"User:{USER}", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))
            for kind, name, operation in wanted
        ]
        admin = self.admin()
        try:
            answer = admin.create_acls(acls)
            if answer["failed"]:
                raise ServiceFailed(f"no access rules: {answer['failed']}")
        finally:
            admin.close()


def upsertions(password: str) -> list[Any]:
    """What alter_user_scram_credentials takes."""
    return [UserScramCredentialUpsertion(USER, "SCRAM-SHA-512", password)]
