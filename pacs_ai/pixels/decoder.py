"""The decoder child seen from the gateway: started when it is needed, replaced when it is lost."""

from __future__ import annotations

import atexit
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import PixelError

_KINDS = frozenset({"|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<f8"})
_HEAD_LIMIT = 4096
_REASON_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Limits:
    """What one decoder child may use.

    Attributes
    ----------
    memory : int
        Bytes of address space.
    seconds : int
        Processor time for one Instance, and time by the clock for one frame.
    frames : int
        After so many a fresh child takes over.
    """

    memory: int = 2 * 1024**3
    seconds: int = 120
    frames: int = 20_000


class LostError(Exception):
    """The child ended or was ended while it decoded; the text says by what."""


class Decoder:
    """One child process that decodes frames; the next request after a loss starts another.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._served = 0

    @property
    def pid(self) -> int | None:
        """The child's process id, None when there is none."""
        return self._process.pid if self._process is not None else None

    def frame(self, path: Path, number: int, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return one decoded frame of a stored Instance.

        Parameters
        ----------
        path : Path
            A DICOM file (PS3.10).
        number : int
            From 0.
        shape : tuple of int
            What the header says; another shape is not accepted.

        Raises
        ------
        PixelError
            As the child refuses it.
        LostError
            When the child crashed or ran over a limit; it is gone then.
        """
        with self._lock:
            try:
                return self._asked(path, number, shape)
            except PixelError:
                raise
            except BaseException:
                # Whatever is still in the pipe belongs to no later request.
                self._end()
                raise

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _asked(self, path: Path, number: int, shape: tuple[int, ...]) -> NDArray[Any]:
        process = self._running()
        deadline = time.monotonic() + self._limits.seconds
        request = json.dumps({"path": str(path), "frame": number}).encode() + b"\n"
        try:
            os.write(_pipe(process.stdin), request)
        except BrokenPipeError:
            raise LostError(self._how_it_ended(process)) from None
        head = self._received(process, 4, deadline)
        length = int.from_bytes(head, "big")
        if length > _HEAD_LIMIT:
            raise LostError("wrote something that is no answer")
        said = json.loads(bytes(self._received(process, length, deadline)))
        self._served += 1
        if "refused" in said:
            raise PixelError("".join(filter(str.isprintable, str(said["refused"])))[:_REASON_LIMIT])
        if "exceeded" in said:
            raise LostError(f"needed more than {self._limits.memory} bytes of memory")
        if said["dtype"] not in _KINDS or tuple(said["shape"]) != shape:
            raise LostError("wrote something that is no answer")
        kind = np.dtype(said["dtype"])
        data = self._received(process, math.prod(shape) * kind.itemsize, deadline)
        return np.frombuffer(data, kind).reshape(shape)

    def _running(self) -> subprocess.Popen[bytes]:
        """Return a living child of this very process."""
        if self._process is not None and self._owner != os.getpid():
            self._process = None  # forked away from it: it belongs to the parent
        if self._served >= self._limits.frames:
            self._end()
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            limits = self._limits
            # Isolated and without our environment: secrets stand in it.
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [
                    *(sys.executable, "-I", "-m", "pacs_ai.pixels.child"),
                    *(str(limits.memory), str(limits.seconds)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"OPENBLAS_NUM_THREADS": "1"},
                bufsize=0,
            )
            self._owner, self._served = os.getpid(), 0
        return self._process

    def _received(
        self, process: subprocess.Popen[bytes], length: int, deadline: float
    ) -> bytearray:
        pipe, data = _pipe(process.stdout), bytearray(length)
        waiting, view, got = select.poll(), memoryview(data), 0
        waiting.register(pipe, select.POLLIN)
        while got < length:
            if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise LostError(f"needed more than {self._limits.seconds} s")
            count = os.readv(pipe, [view[got:]])
            if count == 0:
                raise LostError(self._how_it_ended(process))
            got += count
        return data

    def _how_it_ended(self, process: subprocess.Popen[bytes]) -> str:
        code = process.wait(timeout=10)
        if code == -signal.SIGXCPU:
            return f"needed more than {self._limits.seconds} s of processor time"
        if code < 0:
            return f"was ended by signal {-code}"
        return f"ended with code {code}"

    def _end(self) -> None:
        process, self._process, self._served = self._process, None, 0
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _pipe(stream: Any) -> int:
    return int(stream.fileno())


DECODER = Decoder()
"""The decoder of this process."""

atexit.register(DECODER.close)


@contextmanager
def one_job() -> Iterator[None]:
    """Have the child that is started inside serve one Job only: it ends with the block."""
    try:
        yield
    finally:
        DECODER.close()
