"""Damaged PDU streams against a listener: whatever comes, it answers or closes, and keeps what it said.

``make fuzz`` runs as many as it is told; each finding becomes a file of ``tests/data/fuzz``.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from struct import unpack_from

import psutil
import pytest

from pacs_ai.cli.files import data_set_bytes
from tests.fuzz import corpus, mutation
from tests.fuzz.findings import FIXTURES, Findings, Fuzz, watched
from tests.integration import wire
from tests.integration.listening import CALLED, CALLING, Listening, listening, make_settings

SECONDS = 9.0
"""In which the listener has answered and closed, well before any deadline of its own has to help."""
TOGETHER = 50
"""After so many streams everything must be as it was."""
MEMORY = 64 * 2**20
LEDGER = 15
"""Descriptors of the five connections that the ledger may keep open."""


def stream(seed: int, number: int) -> bytes:
    """Return one damaged stream: its PDUs, or only the data set that they carry."""
    rng = Random(f"stream {seed} {number}")
    if rng.random() < 0.5:
        return mutation.damaged(rng, rng.choice(corpus.STREAMS), mutation.pdus, corpus.STREAMS)
    one = rng.choice(corpus.DATA_SETS)
    others = [each.data for each in corpus.DATA_SETS]
    data = mutation.damaged(rng, one.data, one.layout, others)
    carried = corpus.store(data, one.context, one.uid, piece=rng.choice((100, 4000, 16_000)))
    return corpus.request() + carried + corpus.ECHO + corpus.RELEASE


# ---------------------------------------------------------------------- what must hold


def _data_sets(sent: bytes) -> Iterator[bytes]:
    """Yield every data set that a stream carries whole, read as the standard says (PS3.8 9.3.5)."""
    place, gathered = 0, b""
    while place + 6 <= len(sent):
        (length,) = unpack_from(">L", sent, place + 2)
        body = sent[place + 6 : place + 6 + length]
        while sent[place] == 0x04 and len(body) >= 6:
            (size,) = unpack_from(">L", body)
            if body[5] & 1:
                gathered = b""
            else:
                gathered += body[6 : 4 + size]
                if body[5] & 2:
                    yield gathered
                    gathered = b""
            body = body[4 + size :]
        place += 6 + length


def _answers(port: int, sent: bytes) -> list[tuple[int, bytes]]:
    """Send a stream, say that nothing more comes, and read PDUs until the listener closes.

    As a peer does, wait for the answer to the A-ASSOCIATE-RQ before the rest is sent.
    """
    first = 6 + int.from_bytes(sent[2:6], "big")
    answers = []
    with wire.connect(port, seconds=SECONDS) as sock, suppress(ConnectionError):
        sock.sendall(sent[:first])
        if len(sent) > first:
            answers.append(wire.read(sock))
            with suppress(ConnectionError):
                sock.sendall(sent[first:])
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        while True:
            answers.append(wire.read(sock))
    return answers


def _is_stored(answer: tuple[int, bytes]) -> bool:
    kind, body = answer
    return (
        kind == 0x04
        and b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x80" in body
        and (wire.status(body) == 0x0000)
    )


def play(listener: Listening, sent: bytes, findings: Findings) -> None:
    """Play one stream and note what is not as promised."""
    began = time.monotonic()
    try:
        answers = _answers(listener.port, sent)
    except TimeoutError:
        findings.add(f"neither an answer nor a close in {SECONDS:.0f} s")
        return
    if time.monotonic() - began > SECONDS:
        findings.add(f"more than {SECONDS:.0f} s")
    unknown = [kind for kind, _ in answers if kind not in range(1, 8)]
    if unknown:
        findings.add(f"answered with PDUs of type {unknown}")
    stored = sum(map(_is_stored, answers))
    if stored:
        whole = [hashlib.sha256(one).hexdigest() for one in _data_sets(sent)]
        held = {path.name.partition(".")[0] for path in listener.files()}
        if stored > sum(digest in held for digest in whole):
            findings.add("success was said, and the bytes are not kept")


def _assert_kept_is_what_was_sent(listener: Listening, sent: set[str]) -> None:
    for path in listener.files():
        digest = path.name.partition(".")[0]
        assert hashlib.sha256(data_set_bytes(path.read_bytes())).hexdigest() == digest
        assert digest in sent, "what is kept was never sent"
    assert {one["digest"] for one in listener.instances()} <= sent


def _assert_calm(listener: Listening, threads: int, descriptors: int) -> None:
    until = time.monotonic() + SECONDS
    process = psutil.Process()
    while (
        threading.active_count() > threads
        or process.num_fds() > descriptors + LEDGER
        or listener.temporary()
    ):
        assert time.monotonic() < until, (
            [one.name for one in threading.enumerate()],
            process.num_fds() - descriptors,
            listener.temporary(),
        )
        time.sleep(0.01)


def _good_peer(listener: Listening, number: int) -> str:
    """C-ECHO and C-STORE as they should be; return the digest of what was stored."""
    wire.echo(listener.port, CALLING, CALLED)
    one = corpus.DATA_SETS[number % len(corpus.DATA_SETS)]
    good = corpus.request() + corpus.store(one.data, one.context, one.uid) + corpus.RELEASE
    assert any(map(_is_stored, _answers(listener.port, good)))
    return hashlib.sha256(one.data).hexdigest()


def run(folder: Path, seed: int, numbers: range) -> None:
    """Play streams against a listener in this process."""
    with watched() as findings, listening(make_settings(folder)) as listener:
        sent = {_good_peer(listener, 0)}
        threads, descriptors = threading.active_count(), psutil.Process().num_fds()
        memory = psutil.Process().memory_info().rss
        for number in numbers:
            damaged = stream(seed, number)
            sent.update(hashlib.sha256(one).hexdigest() for one in _data_sets(damaged))
            findings.name_of_input = f"stream {seed} {number}"
            play(listener, damaged, findings)
            if number % TOGETHER == TOGETHER - 1:
                sent.add(_good_peer(listener, number // TOGETHER))
                _assert_calm(listener, threads, descriptors)
        _assert_kept_is_what_was_sent(listener, sent)
        assert psutil.Process().memory_info().rss - memory < MEMORY
    assert not findings.found, "\n".join(findings.found)


def test_damaged_streams_are_answered_or_closed_and_nothing_else_is_kept(tmp_path: Path) -> None:
    run(tmp_path, 0, range(200))


@pytest.mark.soak
def test_many_damaged_streams(tmp_path: Path, fuzz: Fuzz) -> None:
    run(tmp_path, fuzz.seed, range(fuzz.count // 10))


@pytest.mark.parametrize("name", sorted(one.stem for one in FIXTURES.glob("*.pdus")))
def test_a_stream_that_once_showed_a_fault(name: str, tmp_path: Path) -> None:
    with watched() as findings, listening(make_settings(tmp_path)) as listener:
        _good_peer(listener, 0)
        threads, descriptors = threading.active_count(), psutil.Process().num_fds()
        findings.name_of_input = name
        play(listener, (FIXTURES / f"{name}.pdus").read_bytes(), findings)
        _good_peer(listener, 0)
        _assert_calm(listener, threads, descriptors)
    assert not findings.found, "\n".join(findings.found)
