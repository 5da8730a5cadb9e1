"""Calls to one endpoint side by side, and their answers in the order in which they were asked for.

How many calls may be under way is not known here: a Job begins with one of the endpoint's seats
(``concurrency``) and asks before each call whether it may hold another (:class:`Seats`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

MOST = 4
"""Most calls of one Job: each holds its pictures and its answer, up to 80 MB while it is read."""


class Seats(Protocol):
    """How many calls may be under way at once."""

    def __call__(self, *, wanted: int, busy: int) -> int:
        """Hold as many seats as are wanted and free, give back the rest; return how many are held.

        Parameters
        ----------
        wanted : int
        busy : int
            Calls that are under way: their seats stay.
        """


def alone(*, wanted: int, busy: int) -> int:
    """One call at a time, where no ledger shares the endpoint's seats out."""
    return 1


def side_by_side(
    asked: Iterable[Asked],
    call: Callable[[Asked], Answered],
    take: Callable[[Asked, Answered], None],
    seats: Seats,
) -> None:
    """Make a call for each of what is asked, several at once, and take the answers in order.

    Not more than :data:`MOST` are asked and not yet taken, whatever becomes of the first of them.

    Parameters
    ----------
    asked : iterable
        Gone through in this thread, one after another, as there is room.
    call : callable
        Runs in threads of their own.
    take : callable
        Runs in this thread, in the order of ``asked``.
    seats : Seats

    Raises
    ------
    Exception
        What the first call in order, ``take``, ``asked`` or ``seats`` raised; no call is under way then.
    """
    waiting: deque[tuple[Asked, Future[Answered]]] = deque()

    def busy() -> int:
        return sum(not future.done() for _, future in waiting)

    def take_first() -> None:
        one, future = waiting.popleft()
        take(one, future.result())

    with ThreadPoolExecutor(MOST, thread_name_prefix="call") as pool:
        for one in asked:
            while not _has_room(len(waiting), busy(), seats):
                take_first()
            waiting.append((one, pool.submit(call, one)))
        while waiting:
            seats(wanted=1, busy=busy())
            take_first()
    seats(wanted=1, busy=0)


def _has_room(waiting: int, busy: int, seats: Seats) -> bool:
    return waiting < MOST and seats(wanted=busy + 1, busy=busy) > busy
