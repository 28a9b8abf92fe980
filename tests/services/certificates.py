"""Certificates for tests: an authority of one's own, and what it signs. Made by the openssl command."""

import shutil
import subprocess
from pathlib import Path

from tests.services.process import ServiceMissing


class Authority:
    """A certificate authority in a folder; ``certificate`` is the file that clients trust."""

    def __init__(self, folder: Path) -> None:
        if not shutil.which("openssl"):
            raise ServiceMissing("no openssl command")
        folder.mkdir()
        self.certificate = folder / "authority.crt"
        self._folder, self._key = folder, folder / "authority.key"
        self._openssl(
            "req", "-x509", *_NEW, "-keyout", self._key, "-out", self.certificate, "-subj", "/CN=test authority"
        )

    def sign(self, name: str, alternative: str = "") -> tuple[Path, Path]:
        """Certificate and key of a name; ``alternative`` as openssl has it, IP:127.0.0.1 or DNS:localhost."""
        certificate, key, request = (self._folder / f"{name}.{kind}" for kind in ("crt", "key", "csr"))
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternative}\n" if alternative else "")
        self._openssl("req", *_NEW, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", "2")
        self._openssl("x509", "-req", "-in", request, *signer, "-extfile", extensions, "-out", certificate)
        key.chmod(0o600)
        return certificate, key

    def _openssl(self, *words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
