"""Memory that the disk reads by itself, past the page cache, while the processor does something else.

Linux only (io_submit(2), and O_DIRECT of open(2)): the C library has no function for these calls, and the
library that has (libaio) is one more to install. Where they are not there, or the file system knows no other
way than the page cache, :meth:`Buffer.begin` says so, and nothing is done.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from contextlib import suppress
from fcntl import F_SETFL, fcntl
from functools import partial
from mmap import mmap
from struct import Struct
from typing import Any, cast

_SETUP, _GET_EVENTS, _SUBMIT = {
    "x86_64": (206, 208, 209),
    "aarch64": (0, 4, 2),
}.get(platform.machine(), (-1, -1, -1))
"""Numbers of the kernel's calls (syscalls(2)); -1 is none, and answered as one that is not there."""

_ORDER = Struct("<QIIHhIQQqQII")
"""``struct iocb``: what to do, of which file, from where in memory, how much, and to where in the file."""
_WRITE = 1
_OUTCOME = Struct("<QQqq")
"""``struct io_event``: in the third place the bytes that were written, or an error below zero."""

_LIBRARY = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: type[Any]) -> Any:
    """Return a call of the kernel that takes arguments of these types (syscall(2)); -1 is an error."""
    call = _LIBRARY["syscall"]
    call.argtypes, call.restype = (ctypes.c_long, *arguments), ctypes.c_long
    return partial(call, number)


_io_setup = _call(_SETUP, ctypes.c_uint, ctypes.c_void_p)
_io_submit = _call(_SUBMIT, ctypes.c_ulong, ctypes.c_long, ctypes.c_void_p)
_io_getevents = _call(
    _GET_EVENTS,
    *(ctypes.c_ulong, ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p),
)

_queues: list[int] = []
"""Queues of the kernel's that nothing is in. They stay: to give one back takes 30 ms (io_destroy(2))."""


def _queue() -> int | None:
    with suppress(IndexError):
        return _queues.pop()
    made = ctypes.c_ulong(0)
    return made.value if _io_setup(1, ctypes.addressof(made)) == 0 else None


class Buffer:
    """Memory on page boundaries, and a way from there to the disk.

    Parameters
    ----------
    size : int
        Bytes.

    Attributes
    ----------
    view : memoryview
        The memory. From :meth:`begin` to :meth:`finish` what is being written must stay as it is.
    """

    def __init__(self, size: int) -> None:
        memory = mmap(-1, size)  # shared: what is under way stays where it is, whatever forks
        self.view = memoryview(memory)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._order = ctypes.create_string_buffer(_ORDER.size)
        self._orders = (ctypes.c_void_p * 1)(ctypes.addressof(self._order))
        self._outcome = ctypes.create_string_buffer(_OUTCOME.size)
        self._order_at = ctypes.addressof(ctypes.c_void_p.from_buffer(self._orders))
        self._outcome_at = ctypes.addressof(self._outcome)
        self._queue: int | None = None
        self.under_way = 0
        """Bytes that are being written."""

    def begin(self, descriptor: int, size: int) -> bool:
        """Let the disk write the first bytes, whole pages, to the beginning of a file that is as long.

        False when that cannot be done here; then nothing is.
        """
        try:
            fcntl(descriptor, F_SETFL, os.O_DIRECT)
        except OSError:
            return False
        try:
            self._queue = _queue()
            if self._queue is None:
                return False
            _ORDER.pack_into(
                self._order, 0, *(0, 0, 0, _WRITE, 0, descriptor, self._start, size, 0, 0, 0, 0)
            )
            if _io_submit(self._queue, 1, self._order_at) != 1:
                _queues.append(self._queue)
                return False
            self.under_way = size
        finally:
            fcntl(descriptor, F_SETFL, 0)
        return True

    def finish(self) -> int:
        """Wait for what was begun; return how many bytes were written.

        0, where the file system has found only now that it knows no other way than the page cache.

        Raises
        ------
        OSError
            When the disk refused.
        """
        queue = cast("int", self._queue)
        while _io_getevents(queue, 1, 1, self._outcome_at, None) != 1:
            if ctypes.get_errno() != errno.EINTR:  # pragma: no cover - the queue would be none
                raise OSError(ctypes.get_errno(), "the kernel lost a write")
        _queues.append(queue)
        self.under_way = 0
        written: int = _OUTCOME.unpack(self._outcome)[2]
        if written < 0 and written != -errno.EINVAL:
            raise OSError(-written, os.strerror(-written))
        return max(written, 0)
