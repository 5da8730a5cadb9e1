"""Damaged data sets by C-STORE, damaged files by STOW-RS, and what a worker makes of those that are kept."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from random import Random
from unittest import mock

import psutil
import pytest

from pacs_ai.cli.files import data_set_bytes
from pacs_ai.gateway import Gateway
from pacs_ai.ledger import work
from pacs_ai.pixels import decoder
from pacs_ai.settings import loads
from pacs_ai.study import read_head
from pacs_ai.web.multipart import Multipart, MultipartError
from pacs_ai.web.storing import Storing
from tests.fuzz import corpus, mutation
from tests.fuzz.findings import FIXTURES, Fuzz, watched
from tests.integration import wire
from tests.integration.listening import (
    CALLED,
    CALLING,
    CT,
    listening,
    make_settings,
    write_settings,
)
from tests.integration.test_stow import BOUNDARY, body_of
from tests.unfinished import unfinished

MEMORY = 64 * 2**20
STORED, MISMATCH, UNREADABLE = 0x0000, 0xA900, 0xC000


def data_set(seed: int, number: int) -> tuple[corpus.Encoded, bytes]:
    """Return what a data set was, and its damaged bytes."""
    rng = Random(f"data-set {seed} {number}")
    one = corpus.of_study(rng.choice(corpus.DATA_SETS), number)
    others = [each.data for each in corpus.DATA_SETS]
    return one, mutation.damaged(rng, one.data, one.layout, others)


def body(seed: int, number: int) -> bytes:
    """Return the body of a STOW-RS request: damaged itself, or with a damaged file in it."""
    rng = Random(f"body {seed} {number}")
    if rng.random() < 0.4:
        return mutation.damaged(rng, rng.choice(corpus.BODIES), corpus.parts, corpus.BODIES)
    file = mutation.damaged(rng, rng.choice(corpus.FILES), mutation.file, corpus.FILES)
    return body_of(file)


# ---------------------------------------------------------------------- C-STORE


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _stored(sock: socket.socket, one: corpus.Encoded, data: bytes) -> int:
    sock.sendall(corpus.store(data, one.context, one.uid))
    kind, answer = wire.read(sock)
    assert kind == 0x04
    return wire.status(answer)


def run_data_sets(folder: Path, seed: int, numbers: range) -> None:
    """Send damaged data sets over one association, which outlives them all; assemble what is kept.

    Every eighth follows what it was made from, so that a worker has to compare the two.
    """
    contexts = [(number, CT, syntax) for number, syntax in corpus.CONTEXTS.items()]
    settings = loads(write_settings(folder).replace("quiet: 1h", "quiet: 0s"))
    with (
        watched() as findings,
        listening(settings) as listener,
        wire.associated(listener.port, CALLING, CALLED, contexts) as sock,
        # One child decodes for all: to start one for each comparison would be most of the time.
        mock.patch.object(decoder, "one_job", nullcontext),
    ):
        kept: set[str] = set()
        memory = psutil.Process().memory_info().rss
        for number in numbers:
            one, damaged = data_set(seed, number)
            findings.name_of_input = f"data-set {seed} {number}"
            for data in (one.data, damaged) if number % 8 == 0 else (damaged,):
                status = _stored(sock, one, data)
                if status == STORED:
                    kept.add(_digest(data))
                elif data is one.data or status not in (MISMATCH, UNREADABLE):
                    findings.add(f"status 0x{status:04X}")
            if number % 4 == 0:
                while listener.gateway.carry_out(work.ASSEMBLE):
                    pass
            if listener.left():
                findings.add("a temporary file is left")
        assert {_digest(data_set_bytes(one.read_bytes())) for one in listener.files()} == kept
        assert {one["digest"] for one in listener.instances()} == kept
        assert psutil.Process().memory_info().rss - memory < MEMORY
    assert not findings.found, "\n".join(findings.found)


def _fixtures() -> list[Path]:
    return sorted(FIXTURES.glob("*.data-set"))


def test_a_worker_refuses_by_name_what_cannot_be_read_whole(tmp_path: Path) -> None:
    """Each was kept as it came: its head is sound. Its Study fails at once, and says which it is."""
    contexts = [(number, CT, syntax) for number, syntax in corpus.CONTEXTS.items()]
    settings = loads(write_settings(tmp_path).replace("quiet: 1h", "quiet: 0s"))
    with (
        watched() as findings,
        listening(settings) as listener,
        wire.associated(listener.port, CALLING, CALLED, contexts) as sock,
    ):
        for path in _fixtures():
            findings.name_of_input, data = path.name, path.read_bytes()
            context = int(path.name.split(".")[1])
            head = read_head(data, corpus.CONTEXTS[context])
            one = corpus.Encoded(data, context, head.SOPInstanceUID)
            assert _stored(sock, one, data) == STORED
            assert listener.gateway.carry_out(work.ASSEMBLE)
            (row,) = [
                one for one in listener.work(head.StudyInstanceUID) if one["kind"] == "assemble"
            ]
            if path.name.startswith("vr-"):  # a value that is no value is as good as missing
                assert row["state"] == "done"
            else:
                assert row["state"] == "failed"
                assert f"Instance {head.SOPInstanceUID} cannot be read" in row["reason"]
    assert not findings.found, "\n".join(findings.found)


# ---------------------------------------------------------------------- STOW-RS


def take(gateway: Gateway, data: bytes, rng: Random) -> Storing:
    """Take a body in pieces, as the face does; return what became of its parts."""
    storing = Storing(gateway, peer="fuzz", study=None)
    multipart = Multipart(BOUNDARY.encode(), storing)
    try:
        place, size = 0, rng.choice((97, 1000, 50_000))
        while place < len(data):
            multipart.feed(data[place : place + size])
            place += size
        multipart.close()
    except MultipartError:
        storing.cut_off()
    finally:
        storing.discard()
    return storing


def _data_sets(data: bytes) -> Iterator[bytes]:
    """Yield the data set of every part, read as RFC 2046 and PS3.10 say.

    What follows a boundary's characters decides whether it is one: a part ends at a whole line.
    """
    for part in re.split(rb"\r\n--" + BOUNDARY.encode() + rb"(?=\r\n|--)", b"\r\n" + data):
        file = part.partition(b"\r\n\r\n")[2]
        with suppress(IndexError):
            yield file[144 + int.from_bytes(file[140:144], "little") :]


def run_bodies(folder: Path, seed: int, numbers: range) -> None:
    """Take damaged bodies."""
    gateway = Gateway(make_settings(folder))
    with watched() as findings:
        sent: set[str] = set()
        memory = psutil.Process().memory_info().rss
        for number in numbers:
            damaged = body(seed, number)
            findings.name_of_input = f"body {seed} {number}"
            sent.update(map(_digest, _data_sets(damaged)))
            try:
                storing = take(gateway, damaged, Random(number))
            except Exception as error:
                findings.add(f"the body was not refused by name: {error!r}")
                continue
            reasons = {reason for _, reason in storing.failed}
            if not reasons <= {MISMATCH, UNREADABLE, 0x0122, 0xC122}:
                findings.add(f"reasons {reasons}")
            if unfinished(gateway.spool.temporary):
                findings.add("a temporary file is left")
            storing.response().to_json()
        for path in (gateway.spool.path / "instances").rglob("*.dcm"):
            digest = _digest(data_set_bytes(path.read_bytes()))
            assert path.name.startswith(digest)
            assert digest in sent, "what is kept was never sent"
        whole = take(gateway, corpus.BODIES[0], Random(0))
        assert (len(whole.stored), whole.failed) == (len(corpus.FILES), [])
        assert psutil.Process().memory_info().rss - memory < MEMORY
    gateway.close()
    assert not findings.found, "\n".join(findings.found)


# ---------------------------------------------------------------------- so many


def test_damaged_data_sets_are_kept_as_they_came_or_refused(tmp_path: Path) -> None:
    run_data_sets(tmp_path, 0, range(800))


def test_damaged_bodies_are_taken_part_by_part(tmp_path: Path) -> None:
    run_bodies(tmp_path, 0, range(1000))


@pytest.mark.soak
def test_many_damaged_data_sets(tmp_path: Path, fuzz: Fuzz) -> None:
    run_data_sets(tmp_path, fuzz.seed, range(fuzz.count * 4 // 10))


@pytest.mark.soak
def test_many_damaged_bodies(tmp_path: Path, fuzz: Fuzz) -> None:
    run_bodies(tmp_path, fuzz.seed, range(fuzz.count * 5 // 10))
