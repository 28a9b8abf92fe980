"""Certificates for the servers and clients of one test run, made with openssl."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.services.process import ServiceFailed

SAN = "subjectAltName=DNS:localhost"
CA_CONFIG = """\
[ca]
default_ca = default
[default]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = names
unique_subject = no
[names]
commonName = supplied
"""
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
VALID = ("-days", "7")
EXPIRED = ("-startdate", "20240101000000Z", "-enddate", "20240201000000Z")


class Authority:
    """A certificate authority of one run, made with openssl; every file lies in its folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self.ca_file = folder / f"{name}.pem"
        (folder / "ca.cnf").write_text(CA_CONFIG)
        (folder / "index.txt").touch()
        own = ("-subj", f"/CN=test {name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        self._run("req", "-x509", *NEW_KEY, "-days", "30", *own)

    def issue(self, stem: str, common_name: str, extension: str = SAN, validity: Sequence[str] = VALID) -> None:
        """``stem.crt`` and ``stem.key`` for a client, and ``stem.pem`` with both for the broker."""
        self._run(
            *(
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-subj",
                f"/CN={common_name}",
            ),
            *("-keyout", f"{stem}.key", "-out", f"{stem}.csr"),
        )
        (self.folder / f"{stem}.ext").write_text(extension + "\n")
        # "ca" and not "x509 -req": only that can date a certificate back
        self._run(
            *(
                "ca",
                "-batch",
                "-notext",
                "-config",
                "ca.cnf",
                "-cert",
                f"{self.name}.pem",
                "-keyfile",
                f"{self.name}.key",
            ),
            *("-in", f"{stem}.csr", "-extfile", f"{stem}.ext", "-out", f"{stem}.crt", *validity),
        )
        key, certificate = (self.folder / f"{stem}.{end}" for end in ("key", "crt"))
        key.chmod(0o600)
        (self.folder / f"{stem}.pem").write_text(key.read_text() + certificate.read_text())

    def encrypt_key(self, stem: str, password: str) -> Path:
        """A copy of a key under a password."""
        locked = self.folder / f"{stem}.locked.key"
        self._run("pkcs8", "-topk8", "-in", f"{stem}.key", "-out", locked.name, "-passout", f"pass:{password}")
        locked.chmod(0o600)
        return locked

    def _run(self, *words: str) -> None:
        done = subprocess.run(["openssl", *words], cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceFailed(f"openssl {words[0]}: {done.stderr}")
