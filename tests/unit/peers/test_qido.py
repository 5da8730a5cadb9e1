"""Asking for a Study by QIDO-RS: once, bounded in time and size, and no half answer is taken."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pacs_ai.errors import TransientError
from pacs_ai.http import AnswerError
from pacs_ai.peers import qido
from pacs_ai.peers.identity import IDENTITY, MOST_ANSWERS
from pacs_ai.settings import DicomDestination

STUDY = "1.2.826.0.1.3680043.10.1.98"


def _match(study: str = STUDY, patient: str = "P1") -> dict[str, Any]:
    return {
        "0020000D": {"vr": "UI", "Value": [study]},
        "00100020": {"vr": "LO", "Value": [patient]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jürgen"}]},
    }


class Played:
    """A DICOMweb server that answers as a test wishes, and keeps what it was asked."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str], drip: float) -> None:
        self.status, self.body, self.headers, self.drip = status, body, headers, drip
        self.asked: list[tuple[str, dict[str, str]]] = []


@contextmanager
def server(
    body: object = b"",
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    drip: float = 0,
) -> Iterator[tuple[Played, DicomDestination]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    played = Played(status, data, headers or {}, drip)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            played.asked.append((self.path, dict(self.headers)))
            self.send_response(played.status)
            self.send_header("Content-Length", str(len(played.body)))
            for name, value in played.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if not played.drip:
                self.wfile.write(played.body)
                return
            try:
                for place in range(len(played.body)):
                    self.wfile.write(played.body[place : place + 1])
                    time.sleep(played.drip)
            except OSError:
                pass

        def log_message(self, format: str, *args: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    Thread(target=running.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{running.server_address[1]}/dicom-web"
        yield (
            played,
            DicomDestination(host="127.0.0.1", port=104, ae_title="PACS", qido_url=url),
        )
    finally:
        running.shutdown()
        running.server_close()


def test_it_asks_once_for_the_identity_of_one_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_QIDO_KEY", "t0ken")
    with server([_match()]) as (played, target):
        keyed = DicomDestination.model_validate(
            {**target.model_dump(exclude={"qido_key"}), "qido_key": "env:A_QIDO_KEY"}
        )
        (found,) = qido.find_study(STUDY, keyed)
    assert (found.PatientID, str(found.PatientName)) == ("P1", "Müller^Jürgen")
    ((path, headers),) = played.asked
    assert headers["Authorization"] == "Bearer t0ken"
    asked = parse_qs(urlsplit(path).query)
    assert asked["StudyInstanceUID"] == [STUDY]
    assert set(asked["includefield"]) == {*IDENTITY}


@pytest.mark.parametrize(("body", "status"), [([], 200), (b"", 204), ([_match("1.2.3")], 200)])
def test_a_study_that_is_not_there_is_no_match(body: object, status: int) -> None:
    with server(body, status=status) as (_, target):
        assert qido.find_study(STUDY, target) == ()


@pytest.mark.parametrize("status", [301, 400, 401, 404, 429, 500, 503])
def test_a_status_that_is_no_success_is_no_answer_and_not_asked_again(status: int) -> None:
    with server([_match()], status=status, headers={"Location": "/elsewhere"}) as (played, target):
        with pytest.raises(TransientError, match=f"HTTP status {status}"):
            qido.find_study(STUDY, target)
        assert len(played.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"\xff\xfe",
        [1],
        "text",
        [{"0020000D": 7}],
        [{"no tag": {"vr": "UI"}}],
        b"[" * 100_000,
        b'[{"00201208": {"vr": "IS", "Value": [Infinity]}}]',
        b'[{"00201208": {"vr": "IS", "Value": [NaN]}}]',
    ],
)
def test_what_is_no_list_of_studies_is_no_answer_and_is_not_quoted(body: object) -> None:
    with server(body) as (_, target), pytest.raises(TransientError, match="cannot be read") as told:
        qido.find_study(STUDY, target)
    assert "html" not in str(told.value)


def test_a_server_that_does_not_filter_is_no_answer() -> None:
    many = [_match(f"1.2.{number}") for number in range(MOST_ANSWERS + 1)]
    with server(many) as (_, target), pytest.raises(TransientError, match="with many"):
        qido.find_study(STUDY, target)


def test_an_answer_without_end_is_cut_off() -> None:
    with server([_match()], drip=0.02) as (_, target):
        began = time.monotonic()
        with pytest.raises(TransientError, match="no whole answer within"):
            qido.find_study(STUDY, target, deadline=timedelta(seconds=1))
        assert time.monotonic() - began < 3


def test_an_answer_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qido, "BODY_LIMIT", 1000)
    with server([_match()] * 20) as (_, target), pytest.raises(AnswerError, match="more than 1000"):
        qido.find_study(STUDY, target)


def test_nobody_is_there() -> None:
    with server() as (_, target):
        pass
    with pytest.raises(TransientError, match=r"no answer from 127\.0\.0\.1"):
        qido.find_study(STUDY, target)
