"""The decoder child: limits hold, a loss costs one refusal, and the next one starts fresh."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pacs_ai.errors import PixelError
from pacs_ai.pixels import decode
from pacs_ai.pixels.decode import same_frames, stored_frames, stored_values
from pacs_ai.pixels.decoder import Decoder, Limits, LostError, one_job
from pacs_ai.study import Instance, read_instance
from tests.unit.pixels.made import SHARED, grey, image, written

PIXELS = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    own = Decoder(Limits(seconds=20))
    yield own
    own.close()


def ask(decoder: Decoder, instance: Instance) -> np.ndarray:
    header = instance.header
    return decoder.frame(instance.path, 0, (int(header.Rows), int(header.Columns)))


def test_one_child_serves_many_instances(tmp_path: Path, decoder: Decoder) -> None:
    first = ask(decoder, image(tmp_path, PIXELS, uid="2.25.1"))
    pid = decoder.pid
    second = ask(decoder, image(tmp_path, PIXELS + 1, uid="2.25.2"))
    assert decoder.pid == pid
    np.testing.assert_array_equal(first + 1, second)


def test_a_child_is_replaced_after_its_number_of_frames(tmp_path: Path, decoder: Decoder) -> None:
    decoder._limits, instance = Limits(frames=2), image(tmp_path, PIXELS)
    pids = [(ask(decoder, instance), decoder.pid)[1] for _ in range(3)]
    assert pids[0] == pids[1] != pids[2]


def test_a_job_s_child_ends_with_the_job(tmp_path: Path) -> None:
    with one_job():
        stored_values(image(tmp_path, PIXELS))
        pid = decode.DECODER.pid
        assert pid is not None
    assert decode.DECODER.pid is None
    assert not psutil.pid_exists(pid)


def _end(pid: int, by: signal.Signals) -> None:
    os.kill(pid, by)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_costs_one_refusal_and_a_fresh_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: Decoder, by: signal.Signals
) -> None:
    monkeypatch.setattr(decode, "DECODER", decoder)
    instance = image(tmp_path, PIXELS)
    stored_values(instance)
    pid = decoder.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it holds still until it is killed in the middle of a request
    threading.Timer(0.3, _end, (pid, by)).start()
    with pytest.raises(PixelError, match=rf"Instance 2\.25\.10 .*ended by signal {by}"):
        stored_values(instance)
    np.testing.assert_array_equal(stored_values(instance), PIXELS)
    assert decoder.pid != pid


def test_a_child_that_died_between_two_requests_costs_nothing(
    tmp_path: Path, decoder: Decoder
) -> None:
    instance = image(tmp_path, PIXELS)
    ask(decoder, instance)
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGKILL)
    time.sleep(0.2)
    np.testing.assert_array_equal(ask(decoder, instance), PIXELS)


def test_a_child_that_does_not_answer_is_ended(tmp_path: Path, decoder: Decoder) -> None:
    instance = image(tmp_path, PIXELS)
    ask(decoder, instance)
    pid = decoder.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    decoder._limits = Limits(seconds=1)
    with pytest.raises(LostError, match="more than 1 s"):
        ask(decoder, instance)
    assert not psutil.pid_exists(pid)


def test_a_bomb_costs_one_refusal_and_the_next_instance_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: Decoder
) -> None:
    decoder._limits = Limits(memory=320 * 1024**2, seconds=30)
    monkeypatch.setattr(decode, "DECODER", decoder)
    zeros = np.broadcast_to(np.uint8(0), (10000, 10000))  # 95 MiB, 95 KiB in the file
    bomb = written(tmp_path, grey(zeros, uid="2.25.66"), syntax=DeflatedExplicitVRLittleEndian)
    assert bomb.path.stat().st_size < 1024**2
    with pytest.raises(PixelError, match=r"Instance 2\.25\.66 .*bytes of memory.*Have the sender"):
        stored_values(bomb)
    np.testing.assert_array_equal(stored_values(image(tmp_path, PIXELS)), PIXELS)


def test_the_child_knows_nothing_of_our_environment_and_may_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: Decoder
) -> None:
    monkeypatch.setenv("PACS_AI_SECRET", "hunter2")
    ask(decoder, image(tmp_path, PIXELS))
    child = psutil.Process(decoder.pid)
    assert "PACS_AI_SECRET" not in child.environ()
    assert child.rlimit(psutil.RLIMIT_AS) == (2 * 1024**3, 2 * 1024**3)
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_CPU)[0] <= 23


def test_the_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    instance = image(tmp_path, PIXELS)
    program = (
        "import pathlib, time\n"
        "from pacs_ai.pixels.decoder import Decoder\n"
        f"d = Decoder(); d.frame(pathlib.Path({str(instance.path)!r}), 0, (3, 4))\n"
        "print(d.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_that_forked_gets_a_child_of_its_own(tmp_path: Path, decoder: Decoder) -> None:
    instance = image(tmp_path, PIXELS)
    ask(decoder, instance)
    forked = os.fork()
    if forked == 0:  # pragma: no cover - another process
        before = decoder.pid
        right = np.array_equal(ask(decoder, instance), PIXELS) and decoder.pid != before
        decoder.close()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    np.testing.assert_array_equal(ask(decoder, instance), PIXELS)


def test_frames_come_in_any_order_and_only_those_that_are_there() -> None:
    cine = read_instance(SHARED / "us" / "us-8frame-mono2-j2k.dcm", digest="")
    everything = list(stored_frames(cine))
    assert len(everything) == 8
    for number, frame in zip((5, 0, 7), stored_frames(cine, (5, 0, 7)), strict=True):
        np.testing.assert_array_equal(frame, everything[number])
    with pytest.raises(PixelError, match="none of number 9"):
        list(stored_frames(cine, [8]))


@pytest.mark.parametrize(
    ("frames", "reason"), [(7, "more frames"), (9, "do not make up NumberOfFrames 9")]
)
def test_another_number_of_frames_than_the_header_says_is_refused(
    tmp_path: Path, frames: int, reason: str
) -> None:
    dataset = dcmread(SHARED / "us" / "us-8frame-mono2-j2k.dcm")
    dataset.NumberOfFrames = frames
    dataset.save_as(tmp_path / "other.dcm")
    with pytest.raises(PixelError, match=reason):
        list(stored_frames(read_instance(tmp_path / "other.dcm", digest="")))


def test_frames_of_the_same_values_are_the_same_whatever_their_encoding() -> None:
    syntaxes = {
        name: read_instance(next((SHARED / "syntaxes").glob(f"*{name}*")), digest="")
        for name in ("Process14SV1", "JPEGLSLossless", "JPEGLSLossyTransfer")
    }
    assert same_frames(syntaxes["Process14SV1"], syntaxes["JPEGLSLossless"])
    assert not same_frames(syntaxes["Process14SV1"], syntaxes["JPEGLSLossyTransfer"])
