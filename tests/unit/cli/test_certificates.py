"""Certificates that cannot be served are told before anybody connects."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from pacs_ai.certificates import ends, held, is_shown_at, server_context
from pacs_ai.errors import ConfigError
from pacs_ai.settings import Reading, Web, loads
from pacs_ai.web.app import create_app, run
from pacs_ai.web.guard import Guard
from pacs_ai.web.store import Store
from tests.authority import Authority
from tests.peers import free_port, require
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
    ("days", "said"),
    [
        ("40", ""),
        ("20", "within 30 days"),
        ("5", "within 7 days"),
        ("1", "within 1 day"),
        ("-1", "is not valid today"),
    ],
)
def test_check_tells_when_a_certificate_ends(
    pacs_ai: Command, tmp_path: Path, days: str, said: str
) -> None:
    certificate, key = make(tmp_path, "-days", days)
    web = {"port": free_port(), "certificate": str(certificate), "key": str(key)}
    ended = pacs_ai("check", "--config", write_config(tmp_path, web=web))
    assert ended.code == (1 if said else 0), ended.err
    assert said in ended.err


def test_one_between_a_certificate_and_its_authority_that_ends_first_is_told_of(
    pacs_ai: Command, tmp_path: Path
) -> None:
    root = Authority(tmp_path / "root")
    between = Authority(tmp_path / "between", name="between", days=5, above=root)
    own = between.issue("gateway", days=300)
    own.file.write_text(own.file.read_text() + between.file.read_text())
    own.key.chmod(0o600)
    web = {"port": free_port(), "certificate": str(own.file), "key": str(own.key)}
    ended = pacs_ai("check", "--config", write_config(tmp_path, web=web))
    assert ended.code == 1
    assert "web.certificate: it ends on" in ended.err
    assert "within 7 days" in ended.err


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({}, "within 7 days"),
        ({"another": 3000}, "within 7 days"),
        ({"ending": 3000}, ""),  # its successor
        ({"another": -1, "ending": 3000}, "is not valid today: put its new certificate beside it"),
    ],
)
def test_each_authority_counts_until_its_successor_is_there(
    pacs_ai: Command, tmp_path: Path, others: dict[str, int], said: str
) -> None:
    root = Authority(tmp_path / "own")
    own = root.issue("gateway")
    own.key.chmod(0o600)
    every = [("ending", 5), *others.items()]
    made = [
        Authority(tmp_path / f"{number}", name=name, days=days, above=root).file.read_text()
        for number, (name, days) in enumerate(every)
    ]
    (tmp_path / "authorities.pem").write_text("".join(made))
    tls = {"certificate": str(own.file), "key": str(own.key)}
    listener = {**tls, "client_authorities": str(tmp_path / "authorities.pem")}
    listener |= {"port": free_port(), "minimum_free": 1, "processes": 1}
    peers = {"demo": {"ae_titles": ["DEMO"], "quiet": "0s", "certificates": []}}
    config = write_config(tmp_path, listener=listener, peers=peers)
    ended = pacs_ai("check", "--config", config)
    assert ("listener.client_authorities" in ended.err) is bool(said), ended.err
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
    web = {"port": free_port(), "certificate": str(certificate), "key": str(wrong)}
    ended = pacs_ai("check", "--config", write_config(tmp_path, web=web))
    assert ended.code == 1
    assert "cannot be used" in ended.err


_OPENED = """
import sys
from pathlib import Path
from pacs_ai.certificates import server_context
from pacs_ai.errors import ConfigError
try:
    server_context(Path(sys.argv[1]), Path(sys.argv[2]))
except ConfigError as error:
    print(error)
"""


def test_nobody_is_asked_for_the_pass_phrase_of_a_key(tmp_path: Path) -> None:
    certificate, key = make(tmp_path, "-days", "40")
    locked = tmp_path / "locked.key"
    openssl("pkey", "-in", str(key), "-aes256", "-passout", "pass:sesame", "-out", str(locked))
    # Without a terminal OpenSSL asks standard input, and would take this for an answer.
    ended = subprocess.run(
        [sys.executable, "-c", _OPENED, certificate, locked],
        input="sesame\n",
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=True,
    )
    assert "cannot be used" in ended.stdout
    assert "the key has no pass phrase" in ended.stdout
    assert "Enter" not in ended.stdout + ended.stderr


def test_a_key_that_everyone_can_read_is_refused(tmp_path: Path) -> None:
    certificate, key = make(tmp_path, "-days", "40")
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        server_context(certificate, key)


@pytest.mark.parametrize("usage", ["serverAuth", "clientAuth"])
def test_the_end_is_read_whatever_the_certificate_is_for(tmp_path: Path, usage: str) -> None:
    made = Authority(tmp_path).issue("one", days=12, usage=usage)
    until = ends(made.file, made.key)
    assert until is not None
    assert abs(until - datetime.now(UTC) - timedelta(days=12)) < timedelta(minutes=5)


def test_check_tells_of_every_certificate_that_the_settings_name(
    pacs_ai: Command, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")
    soon, ended = authority.issue("soon", days=5), authority.issue("ended", days=-1)
    (tmp_path / "empty.pem").write_text("")
    sections: dict[str, Any] = {
        "listener": {
            "port": free_port(),
            "certificate": str(ended.file),
            "key": str(ended.key),
            "client_authorities": str(tmp_path / "empty.pem"),
        },
        "web": {"port": free_port(), "certificate": str(soon.file), "key": str(soon.key)},
        "peers": {
            "pacs": {
                "ae_titles": ["PACS"],
                "certificates": [soon.fingerprint],
                "tls": {"authorities": str(tmp_path / "none.pem")},
            }
        },
        "destinations": {
            "archive": {
                **{"kind": "dicom", "host": "127.0.0.1", "port": free_port(), "ae_title": "A"},
                "tls": {"certificate": str(soon.file), "key": str(soon.key)},
            }
        },
    }
    sections["delivery"] = "hold"
    ended_run = pacs_ai("check", "--config", write_config(tmp_path, **sections))
    for setting, words in (
        ("listener.certificate", "is not valid today"),
        ("listener.client_authorities", "cannot be used"),
        ("web.certificate", "within 7 days"),
        ("peers.pacs.tls.authorities", "cannot be used"),
        ("destinations.archive.tls.certificate", "within 7 days"),
    ):
        assert any(
            f" {setting}: " in line and words in line for line in ended_run.err.splitlines()
        ), (setting, ended_run.err)


def test_a_running_listener_with_tls_is_no_stranger_on_its_port(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own, other = authority.issue("own", days=-1), authority.issue("other")
    server = server_context(own.file, own.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def answer() -> None:
            for _ in range(2):
                accepted, _ = listening.accept()
                with suppress(OSError), server.wrap_socket(accepted, server_side=True) as sock:
                    sock.recv(1)

        answering = threading.Thread(target=answer)
        answering.start()
        assert is_shown_at("127.0.0.1", port, own.file)
        assert not is_shown_at("127.0.0.1", port, other.file)
        answering.join()
    assert not is_shown_at("127.0.0.1", port, own.file)


@pytest.mark.parametrize(("days", "status", "alarm"), [(40, 200, None), (5, 200, 7), (-1, 503, 1)])
def test_health_says_until_when(tmp_path: Path, days: int, status: int, alarm: int | None) -> None:
    made = Authority(tmp_path).issue("web", days=days)
    values = {"certificate": str(made.file), "key": str(made.key)}
    settings = loads(write_config(tmp_path, web=values).read_text())
    guard, nothing = Guard(cast("Any", None), Reading.OPEN), cast("Any", None)
    views = SimpleNamespace(health=dict)
    app = create_app(
        cast("Any", views),
        guard,
        Store(nothing, guard, nothing),
        certificates=lambda: held(settings),
    )
    answer = TestClient(app, base_url="http://localhost").get("/health")
    assert answer.status_code == status
    told = answer.json()["certificates"]["web.certificate"]
    assert told["alarm"] == alarm
    assert (told["ends"] is None) == (days < 0)
