"""A certificate authority of a test, made with OpenSSL's own program."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.peers import require

_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, as PEM files."""

    file: Path
    key: Path

    @property
    def encoded(self) -> bytes:
        """Its DER."""
        return ssl.PEM_cert_to_DER_cert(self.file.read_text())

    @property
    def fingerprint(self) -> str:
        """As the settings write it."""
        return f"sha256:{hashlib.sha256(self.encoded).hexdigest()}"


class Authority:
    """Issues certificates, as a hospital's authority does.

    Parameters
    ----------
    folder : Path
        For its files; made when it does not exist.
    name : str, optional
        Its common name.
    days : int, optional
        How long it is good.
    above : Authority, optional
        Who vouches for it; itself when left out.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "authority",
        days: int = 3650,
        above: Authority | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = folder / "authority.pem"
        self._key = folder / "authority.key"
        made, lasting = ("-subj", f"/CN={name}"), ("-days", str(days))
        if above is None:
            _openssl(
                "req", "-x509", *_NEW, *made, *lasting, "-out", self.file, "-keyout", self._key
            )
            return
        request, extensions = folder / "authority.csr", folder / "authority.ext"
        _openssl("req", *_NEW, *made, "-out", request, "-keyout", self._key)
        extensions.write_text("basicConstraints=critical,CA:TRUE\n")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", above.file, "-CAkey", above._key),
            *("-CAcreateserial", *lasting, "-extfile", extensions, "-out", self.file),
        )

    def issue(
        self, name: str, *, names: str = "IP:127.0.0.1", days: int = 40, usage: str = ""
    ) -> Certificate:
        """Return a new certificate.

        Parameters
        ----------
        name : str
            Of its files, and its common name.
        names : str, optional
            Its Subject Alternative Name, as OpenSSL writes it.
        days : int, optional
            How long it is good; negative when it has ended.
        usage : str, optional
            Its Extended Key Usage, as OpenSSL writes it.
        """
        path = self.folder / name
        made = Certificate(path.with_suffix(".pem"), path.with_suffix(".key"))
        request, extensions = path.with_suffix(".csr"), path.with_suffix(".ext")
        _openssl("req", *_NEW, "-subj", f"/CN={name}", "-out", request, "-keyout", made.key)
        extensions.write_text(
            f"subjectAltName={names}\n" + (f"extendedKeyUsage={usage}\n" if usage else "")
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key),
            *("-CAcreateserial", "-days", str(days), "-extfile", extensions, "-out", made.file),
        )
        return made


def _openssl(*words: str | Path) -> None:
    subprocess.run([require("openssl"), *words], check=True, capture_output=True)
