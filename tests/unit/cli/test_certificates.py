"""Certificates that cannot be served are told before anybody connects."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pacs_ai.certificates import ends, server_context
from pacs_ai.errors import ConfigError
from pacs_ai.settings import Web
from pacs_ai.web.app import run
from tests.peers import require
from tests.unit.cli.conftest import Command, write_config


def make(folder: Path, *options: str) -> tuple[Path, Path]:
    """Make an authority and a certificate of it, as a hospital has them; return file and key."""
    authority, name = folder / "authority", folder / "web"
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-subj", "/CN=authority", *out(authority))
    request = ("req", *new, "-subj", "/CN=gateway.test", *out(name, ".csr"))
    openssl(*request)
    signer = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial")
    openssl("x509", "-req", "-in", f"{name}.csr", *signer, *options, "-out", f"{name}.pem")
    return name.with_suffix(".pem"), name.with_suffix(".key")


def openssl(*words: str) -> None:
    subprocess.run([require("openssl"), *words], check=True, capture_output=True)


def out(name: Path, suffix: str = ".pem") -> tuple[str, ...]:
    return ("-out", f"{name}{suffix}", "-keyout", f"{name}.key")


def test_the_end_of_a_certificate_is_read(tmp_path: Path) -> None:
    until = ends(*make(tmp_path, "-days", "40"))
    assert until is not None
    assert abs(until - datetime.now(UTC) - timedelta(days=40)) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("days", "said"), [("40", ""), ("20", "ends on"), ("-1", "is not valid today")]
)
def test_check_tells_when_a_certificate_ends(
    pacs_ai: Command, tmp_path: Path, days: str, said: str
) -> None:
    certificate, key = make(tmp_path, "-days", days)
    web = {"port": 1, "certificate": str(certificate), "key": str(key)}
    ended = pacs_ai("check", "--config", write_config(tmp_path, web=web))
    assert ended.code == (1 if said else 0), ended.err
    assert said in ended.err


def test_files_that_do_not_fit_are_told(pacs_ai: Command, tmp_path: Path) -> None:
    certificate, key = make(tmp_path, "-days", "40")
    other = tmp_path / "other"
    other.mkdir()
    _, wrong = make(other, "-days", "40")
    (tmp_path / "none.pem").write_text("nothing")
    for files in ((certificate, wrong), (tmp_path / "none.pem", key), (tmp_path / "x", key)):
        with pytest.raises(ConfigError, match="cannot be used"):
            server_context(*files)
        with pytest.raises(ConfigError, match="cannot be used"):
            run(lambda *_: None, Web(certificate=files[0], key=files[1]), ready=lambda: None)  # type: ignore[arg-type]
    web = {"port": 1, "certificate": str(certificate), "key": str(wrong)}
    ended = pacs_ai("check", "--config", write_config(tmp_path, web=web))
    assert ended.code == 1
    assert "cannot be used" in ended.err


def test_a_key_that_everyone_can_read_is_refused(tmp_path: Path) -> None:
    certificate, key = make(tmp_path, "-days", "40")
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        server_context(certificate, key)
