"""A very large Instance, many peers at once, slow peers: what honest senders ask of the listener."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from benchmarks.memory import Memory
from pacs_ai.cli.files import data_set_bytes
from tests.integration import wire
from tests.integration.listening import CALLED, CALLING, CT, encoded, image
from tests.integration.test_listener_abuse import CONTEXTS, Victim, victim

MIB = 2**20
EXTRA = 40 * MIB
PARALLEL = 24
EACH = 10
SELECT = 1024
"""Descriptors that select() can watch (select(2))."""
_HOLDING = f"""
import os, resource, sys
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (4 * {SELECT}, most))
for _ in range({SELECT}):
    os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with victim(tmp_path_factory.mktemp("load")) as started:
        yield started


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """Processes on one port: the kernel spreads connections over them by chance, not evenly."""
    with victim(tmp_path_factory.mktemp("two"), processes=2) as started:
        yield started


def _command(uid: str) -> bytes:
    start = wire.command(0x0001, data_set=True, sop_class=CT, sop_instance=uid)
    return wire.values(3, wire.COMMAND | wire.LAST, start)


def _kept(listener: Victim, digest: str) -> Path:
    (path,) = (listener.spool / "instances" / digest[:2]).glob(f"{digest}.*")
    return path


def _large(listener: Victim, mebibytes: int) -> None:
    """Send a multi-frame Instance that is never whole in any memory; compare what is kept."""
    made = image(NumberOfFrames=mebibytes)
    head = encoded(made) + b"\xe0\x7f\x10\x00OW\x00\x00" + (mebibytes * MIB).to_bytes(4, "little")
    hashed, frame = hashlib.sha256(head), bytes(range(256)) * 256
    with (
        wire.associated(listener.port, CALLING, CALLED, CONTEXTS) as sock,
        Memory({"listener": listener.process.pid}) as memory,
    ):
        before = listener.process.memory_info().rss
        sock.settimeout(120)
        sock.sendall(_command(str(made.SOPInstanceUID)) + wire.values(3, 0, head))
        for number in range(mebibytes * 16):
            piece = number.to_bytes(4, "little") + frame[4:]
            hashed.update(piece)
            last = wire.LAST if number == mebibytes * 16 - 1 else 0
            sock.sendall(wire.values(3, last, piece))
        assert wire.status(wire.read(sock)[1]) == 0x0000
    assert memory.peaks["listener"] - before < EXTRA
    path = _kept(listener, hashed.hexdigest())
    assert path.stat().st_size > mebibytes * MIB
    path.unlink()


def test_a_large_instance_is_never_whole_in_memory(listener: Victim) -> None:
    _large(listener, 200)


@pytest.mark.soak
def test_an_instance_of_a_gigabyte_is_never_whole_in_memory(listener: Victim) -> None:
    _large(listener, 1024)


@pytest.mark.parametrize("processes", ["listener", "two"])
def test_many_associations_of_one_address_at_once_lose_nothing(
    processes: str, request: pytest.FixtureRequest
) -> None:
    """With the limits that it is shipped with; each is open before the first of them sends."""
    listener: Victim = request.getfixturevalue(processes)
    together = threading.Barrier(PARALLEL, timeout=60)

    def send(number: int) -> list[bytes]:
        sent = []
        with wire.associated(listener.port, CALLING, CALLED, CONTEXTS) as sock:
            sock.settimeout(60)
            together.wait()
            for _ in range(EACH):
                uid = str(generate_uid())
                data = encoded(image(SOPInstanceUID=uid, InstanceNumber=number))
                sock.sendall(_command(uid) + wire.values(3, wire.LAST, data))
                assert wire.status(wire.read(sock)[1]) == 0x0000
                sent.append(data)
        return sent

    with ThreadPoolExecutor(PARALLEL) as pool:
        sent = [data for each in pool.map(send, range(PARALLEL)) for data in each]
    assert len(sent) == PARALLEL * EACH
    for data in sent:
        kept = _kept(listener, hashlib.sha256(data).hexdigest())
        assert data_set_bytes(kept.read_bytes()) == data


def test_descriptors_above_those_of_select_are_as_good_as_others(tmp_path: Path) -> None:
    with victim(tmp_path, by=[sys.executable, "-c", _HOLDING]) as crowded:
        assert crowded.process.num_fds() > SELECT
        crowded.echo()
        uid = str(generate_uid())
        data = encoded(image(SOPInstanceUID=uid))
        with wire.associated(crowded.port, CALLING, CALLED, CONTEXTS) as sock:
            sock.sendall(_command(uid) + wire.values(3, wire.LAST, data))
            assert wire.status(wire.read(sock)[1]) == 0x0000
        _kept(crowded, hashlib.sha256(data).hexdigest())


def test_a_slow_sender_succeeds_while_others_are_answered(listener: Victim) -> None:
    """Bytes that drip, but within the deadlines; those that are over them: ``test_transport``."""
    made = image()
    data = encoded(made)
    stream = _command(str(made.SOPInstanceUID)) + wire.values(3, wire.LAST, data)
    with wire.associated(listener.port, CALLING, CALLED, CONTEXTS) as sock:
        for place in range(0, len(stream), 16):
            sock.sendall(stream[place : place + 16])
            time.sleep(0.03)
            if place % 128 == 0:
                wire.echo(listener.port, CALLING, CALLED)
        assert wire.status(wire.read(sock)[1]) == 0x0000
    _kept(listener, hashlib.sha256(data).hexdigest())
