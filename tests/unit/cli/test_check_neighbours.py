"""``pacs-ai check`` asks the neighbours: what destinations take, broker, ledger, clocks; and the sheet."""

from __future__ import annotations

import socket
import sqlite3
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE

from listener.ae import TRANSFER_SYNTAXES, storage_classes
from tests.authority import Authority, Certificate
from tests.peers import free_port, require
from tests.unit.cli.conftest import Command, begun, write_config

VERIFICATION = "1.2.840.10008.1.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"


@contextmanager
def storage_scp(*contexts: tuple[str, str]) -> Iterator[int]:
    """Run a peer that answers C-ECHO and takes these contexts."""
    entity = AE("PACS")
    entity.add_supported_context(VERIFICATION, ImplicitVRLittleEndian)
    for sop_class, syntax in contexts:
        entity.add_supported_context(sop_class, syntax)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


def _pacs(port: int, **values: Any) -> dict[str, Any]:
    pacs = {"kind": "dicom", "host": "127.0.0.1", "port": port, "ae_title": "PACS", **values}
    return {"destinations": {"pacs": pacs}, "delivery": ["pacs"]}


# ---------------------------------------------------------------------- destinations


def test_a_destination_that_takes_everything_has_no_problem(
    pacs_ai: Command, tmp_path: Path
) -> None:
    taken = [(one, ExplicitVRLittleEndian) for one in (CAPTURE, SEGMENTATION)]
    with storage_scp(*taken) as port:
        ended = pacs_ai("check", "--config", write_config(tmp_path, **_pacs(port)))
    assert (ended.code, ended.err) == (0, "")


def test_every_sop_class_that_a_destination_would_refuse_is_named(
    pacs_ai: Command, tmp_path: Path
) -> None:
    with storage_scp(
        (CAPTURE, ExplicitVRLittleEndian), (SEGMENTATION, ImplicitVRLittleEndian)
    ) as port:
        config = write_config(tmp_path, **_pacs(port, profile="all"))
        ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    lines = ended.err.splitlines()
    assert len(lines) == 2, ended.err
    for line, sop_class in zip(lines, (SEGMENTATION, COMPREHENSIVE_3D), strict=True):
        assert f"pacs: it does not take {storage_classes()[sop_class]} ({sop_class})" in line
        assert "enable that SOP Class there, or choose another profile" in line


def test_a_destination_that_cannot_be_asked_for_a_study_is_reported(
    pacs_ai: Command, tmp_path: Path
) -> None:
    with storage_scp(
        (CAPTURE, ExplicitVRLittleEndian), (SEGMENTATION, ExplicitVRLittleEndian)
    ) as port:
        config = write_config(tmp_path, **_pacs(port, confirm="c-find"))
        by_find = pacs_ai("check", "--config", config)
        url = f"http://127.0.0.1:{free_port()}/dicom-web"
        values = _pacs(port, confirm="qido", qido_url=url, qido_key="env:PACS_AI_NO_SUCH_KEY")
        without_key = pacs_ai("check", "--config", write_config(tmp_path, **values))
        del values["destinations"]["pacs"]["qido_key"]
        by_qido = pacs_ai("check", "--config", write_config(tmp_path, **values))
    assert "does not take C-FIND (Study Root): enable it there" in by_find.err
    assert "pacs.qido_key:" in without_key.err
    assert "pacs.confirm: no answer from 127.0.0.1" in by_qido.err
    assert {by_find.code, without_key.code, by_qido.code} == {1}


def test_a_destination_that_is_not_asked_before_sending_is_noted_and_is_no_fault(
    pacs_ai: Command, tmp_path: Path
) -> None:
    note = "note: pacs: not confirmed before sending: set confirm: c-find"
    taken = [(one, ExplicitVRLittleEndian) for one in (CAPTURE, SEGMENTATION)]
    with storage_scp(*taken) as port:
        ended = pacs_ai("check", "--config", write_config(tmp_path, **_pacs(port)))
        asked = pacs_ai(
            "check", "--config", write_config(tmp_path, **_pacs(port, confirm="c-find"))
        )
    assert ended.code == 0
    assert note in ended.out.splitlines()
    assert "not confirmed" not in asked.out


# ---------------------------------------------------------------------- endpoints


@contextmanager
def tls_server(certificate: Certificate) -> Iterator[int]:
    """Run a server that makes TLS handshakes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.key)
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    accepted, _ = door.accept()
                    with (
                        suppress(OSError),
                        accepted,
                        context.wrap_socket(accepted, server_side=True),
                    ):
                        pass

        Thread(target=answer, daemon=True).start()
        yield int(door.getsockname()[1])
        door.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("names", "days", "known", "said"),
    [
        ("IP:127.0.0.1", 40, True, None),
        ("IP:127.0.0.1", -1, True, "its certificate has ended: its operator must renew it"),
        ("IP:192.0.2.1", 40, True, "its certificate is for another name: correct the host"),
        ("IP:127.0.0.1", 40, False, "is of an authority that is not known here: its operator must"),
    ],
    ids=["good", "ended", "another name", "unknown authority"],
)
def test_an_endpoints_certificate_is_verified_as_a_call_would(
    pacs_ai: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: str,
    days: int,
    *,
    known: bool,
    said: str | None,
) -> None:
    authority = Authority(tmp_path / "authority")
    if known:
        monkeypatch.setattr("pacs_ai.http.DEFAULT_CA_BUNDLE_PATH", str(authority.file))
    with tls_server(authority.issue("endpoint", names=names, days=days)) as port:
        config = _with_endpoint(tmp_path, f"https://127.0.0.1:{port}/score")
        ended = pacs_ai("check", "--config", config)
    assert ("endpoints.parse3d.url: 127.0.0.1: " in ended.err) is (said is not None)
    assert said is None or said in ended.err


def test_an_endpoint_without_tls_behind_https_is_reported(pacs_ai: Command, tmp_path: Path) -> None:
    with web_server(timedelta()) as port:
        config = _with_endpoint(tmp_path, f"https://127.0.0.1:{port}/score")
        ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert "endpoints.parse3d.url: 127.0.0.1: no TLS of version 1.2 or later there" in ended.err


def _with_endpoint(folder: Path, url: str) -> Path:
    key = folder / "key"
    key.write_text("k")
    key.chmod(0o600)
    endpoint = {"kind": "parse3d", "name": "P", "version": "1", "url": url, "key": f"file:{key}"}
    return write_config(folder, endpoints={"parse3d": endpoint}, rules=[])


# ---------------------------------------------------------------------- broker


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[int]:
    port = free_port()
    line = [require("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen([*line, "--requirepass", "hunter2"], stdout=subprocess.DEVNULL) as server:
        yield port
        server.terminate()


def test_a_broker_is_asked_and_its_password_is_never_shown(
    pacs_ai: Command, tmp_path: Path, redis: int
) -> None:
    good = write_config(tmp_path, broker=f"redis://:hunter2@127.0.0.1:{redis}/0")
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while pacs_ai("check", "--config", good).code and datetime.now(UTC) < deadline:
        pass
    ended = pacs_ai("check", "--config", good)
    assert (ended.code, ended.err) == (0, "")
    wrong = write_config(tmp_path, broker=f"redis://:s3cret@127.0.0.1:{redis}/0")
    ended = pacs_ai("check", "--config", wrong)
    assert ended.code == 1
    assert "broker: the broker refuses the password: correct the one in broker" in ended.err
    assert "s3cret" not in ended.err


def test_a_broker_that_is_away_or_none_is_reported(pacs_ai: Command, tmp_path: Path) -> None:
    away = write_config(tmp_path, broker=f"redis://:s3cret@127.0.0.1:{free_port()}/0")
    ended = pacs_ai("check", "--config", away)
    assert ended.code == 1
    assert "broker: the broker does not answer" in ended.err
    assert "s3cret" not in ended.err
    ended = pacs_ai("check", "--config", write_config(tmp_path, broker="http://broker/"))
    assert ended.code == 1
    assert "broker: broker is not a Redis URL" in ended.err


# ---------------------------------------------------------------------- ledger


@pytest.fixture
def ledger(pacs_ai: Command, tmp_path: Path) -> tuple[Path, Path]:
    """Settings, and the ledger that a first command made."""
    config = write_config(tmp_path)
    begun(config)
    assert pacs_ai("check", "--config", config).code == 0
    return config, tmp_path / "gateway" / "ledger.sqlite"


def test_a_ledger_whose_pages_are_damaged_is_reported(
    pacs_ai: Command, ledger: tuple[Path, Path]
) -> None:
    config, file = ledger
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = other.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_work_queue' OR type = 'index'"
            " ORDER BY rootpage DESC LIMIT 1"
        ).fetchone()
        (size,) = other.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as damaged:
        damaged.seek((root - 1) * size)
        damaged.write(b"\x0a\xff\xff\xff\xff" * 20)
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert "ledger:" in ended.err
    assert "damaged" in ended.err
    assert "backup" in ended.err


def test_a_ledger_of_an_earlier_version_is_reported(
    pacs_ai: Command, ledger: tuple[Path, Path]
) -> None:
    config, file = ledger
    with closing(sqlite3.connect(file)) as other:
        other.execute("DELETE FROM alembic_version")
        other.commit()
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert "ledger: its schema is of an earlier version: back it up" in ended.err


@pytest.mark.parametrize("command", ["status", "instances", "strays"])
def test_who_asks_brings_no_ledger_of_an_earlier_version_up(
    pacs_ai: Command, ledger: tuple[Path, Path], command: str
) -> None:
    config, file = ledger
    with closing(sqlite3.connect(file)) as other:
        other.execute("UPDATE alembic_version SET version_num = '0004'")
        other.commit()
    ended = pacs_ai(command, "--config", config)
    assert ended.code == 1
    assert "back it up, then start the gateway" in ended.err
    with closing(sqlite3.connect(file)) as other:
        assert other.execute("SELECT version_num FROM alembic_version").fetchall() == [("0004",)]


def test_a_clock_that_was_set_back_is_seen_in_the_ledger(
    pacs_ai: Command, ledger: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = ledger
    pacs_ai("pause", "routing", "--config", config)
    assert pacs_ai("check", "--config", config).code == 0
    earlier = datetime.now(UTC) - timedelta(hours=1)
    monkeypatch.setattr("pacs_ai.ledger.soundness.now", lambda: earlier)
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert "ledger: its newest event is dated ahead of this machine's clock" in ended.err


# ---------------------------------------------------------------------- clocks


def test_a_machine_that_thinks_it_is_another_year_is_told(
    pacs_ai: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_ai.cli.check._YEARS", range(1970, 1971))
    ended = pacs_ai("check", "--config", write_config(tmp_path))
    assert ended.code == 1
    assert "this machine's clock says" in ended.err


@contextmanager
def web_server(ahead: timedelta) -> Iterator[int]:
    """Run an HTTP server whose clock is ahead of ours."""

    class Handler(BaseHTTPRequestHandler):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) + ahead, usegmt=True)

        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (timedelta(seconds=150), "s ahead of this machine's: let the same time service keep both"),
        (timedelta(hours=-1), "s behind this machine's"),
        (timedelta(seconds=20), ""),
    ],
)
def test_a_server_with_another_time_is_named(
    pacs_ai: Command, tmp_path: Path, ahead: timedelta, said: str
) -> None:
    with web_server(ahead) as port:
        endpoint = {"kind": "parse3d", "name": "Parse", "version": "1"}
        endpoint["url"] = f"http://127.0.0.1:{port}/score"
        values = _one_endpoint(tmp_path, endpoint)
        ended = pacs_ai("check", "--config", values)
    assert ended.code == int(bool(said))
    assert said in ended.err
    assert ("endpoints.parse3d: its clock is" in ended.err) == bool(said)


def _one_endpoint(folder: Path, endpoint: dict[str, str]) -> Path:
    """Write settings whose only endpoint is this one."""
    rule = {
        "name": "ct",
        "when": {"Modality": "CT"},
        "select": {"slices": ">=40"},
        "run": [{"parse3d": ["liver"]}],
    }
    return write_config(
        folder,
        endpoints={"parse3d": endpoint},
        rules=[rule],
        worklist=[],
    )


# ---------------------------------------------------------------------- the sheet


def test_the_sheet_says_everything_a_vendor_must_set_up(pacs_ai: Command, tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        listener={"port": 11112, "ae_title": "PACSAI", "also_called": ["AI-CT"]},
        peers={
            "pacs": {
                "ae_titles": ["MYPACS", "MYPACS2"],
                "addresses": ["192.0.2.10", "192.0.2.64/26"],
                "host": "192.0.2.10",
                "port": 104,
                "profile": "all",
                "confirm": "c-find",
            },
            "web": {
                "ae_titles": ["WEB"],
                "host": "192.0.2.11",
                "port": 105,
                "confirm": "qido",
                "qido_url": "https://192.0.2.11/dicom-web",
            },
        },
        delivery="origin",
    )
    ended = pacs_ai("check", "--sheet", "--config", config)
    assert (ended.code, ended.err) == (0, "")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    for said in (
        "AE title PACSAI, AI-CT",
        "port 11112",
        "pacs MYPACS, MYPACS2 from 192.0.2.10, 192.0.2.64/26",
        "pacs: PACSAI calls MYPACS at 192.0.2.10:104",
        "pacs C-FIND, Study Root, level STUDY, PACSAI calls MYPACS at 192.0.2.10:104",
        "web QIDO-RS, search for Studies, at https://192.0.2.11/dicom-web",
        f"Comprehensive 3D SR Storage {COMPREHENSIVE_3D}",
    ):
        assert said in lines, said
    assert sum(f"Segmentation Storage {SEGMENTATION}" in line for line in lines) == 3
    spoken = set(ended.out.split())
    assert {*TRANSFER_SYNTAXES, *storage_classes()} <= spoken


def test_the_sheet_of_a_gateway_that_sends_nothing_says_so(
    pacs_ai: Command, tmp_path: Path
) -> None:
    ended = pacs_ai("check", "--sheet", "--config", write_config(tmp_path))
    assert "Nothing: no destination of results is a PACS." in ended.out


def test_the_sheet_asks_nothing_of_a_pacs_that_gets_nothing(
    pacs_ai: Command, tmp_path: Path
) -> None:
    peer = {"ae_titles": ["MYPACS"], "host": "192.0.2.10", "port": 104}
    config = write_config(tmp_path, peers={"pacs": peer}, delivery=["results"])
    ended = pacs_ai("check", "--sheet", "--config", config)
    assert "Nothing: no destination of results is a PACS." in ended.out
    assert "192.0.2.10:104" not in ended.out


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", "127.0.0.1 (this machine alone: for a PACS elsewhere set listener.host)"),
        ("0.0.0.0", f"of {socket.gethostname()}, in the network of the PACS"),  # noqa: S104
        ("192.0.2.20", "192.0.2.20"),
    ],
)
def test_the_sheet_says_where_the_gateway_is(
    pacs_ai: Command, tmp_path: Path, host: str, said: str
) -> None:
    listener = {"host": host, "unsafe_plain_network": True}
    ended = pacs_ai("check", "--sheet", "--config", write_config(tmp_path, listener=listener))
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert f"address {said}" in lines


def test_the_sheet_says_where_tls_is(pacs_ai: Command, tmp_path: Path) -> None:
    peer = {"ae_titles": ["MYPACS"], "host": "192.0.2.10", "port": 2762, "tls": {}}
    hospital = Authority(tmp_path / "authority")
    own = hospital.issue("gateway")
    listener = {
        "certificate": str(own.file),
        "key": str(own.key),
        "client_authorities": str(hospital.file),
    }
    bound = {"pacs": {**peer, "certificates": ["dns:pacs.test"]}}
    config = write_config(tmp_path, listener=listener, peers=bound, delivery="origin")
    ended = pacs_ai("check", "--sheet", "--config", config)
    assert "TLS 1.2 or 1.3 (BCP 195), no plain DICOM on this port; mutual" in ended.out
    assert "calls MYPACS at 192.0.2.10:2762, with TLS" in ended.out
    assert "MYPACS from 127.0.0.1, showing dns:pacs.test" in ended.out
    assert f"an authority in {hospital.file.name}" in ended.out
    openssl = [require("openssl"), "x509", "-in", own.file, "-noout", "-fingerprint", "-sha256"]
    shown = subprocess.run(openssl, check=True, capture_output=True, text=True).stdout
    digits = shown.strip().partition("=")[2].lower()
    assert f"SHA-256 {digits}, good until 20" in ended.out
