"""Who waits, who sits and who goes first."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from listener import door
from listener.door import Connection, Door, Limits, Porch

LIMITS = Limits(connections=8, associations=4, per_address=2, idle=0.3, whole=0.8)
ASSOCIATE = b"\x01\x00\x00\x00\x00\x04abcd"


def _comes(to: Door, address: str = "192.0.2.1", *, ago: float = 1.0) -> Connection:
    """Let a connection in that came so many seconds ago."""
    connection = Connection(socket.socket(), address, (address, 1))
    connection.socket.close()
    connection.opened = connection.heard = time.monotonic() - ago
    to.enter(connection)
    return connection


# ---------------------------------------------------------------------- the door


def test_who_waits_longest_goes_when_an_address_has_too_many() -> None:
    entrance = Door(LIMITS)
    came = [_comes(entrance) for _ in range(door.RESERVE + 2)]
    assert entrance.surplus() == came[:2]
    assert entrance.surplus() == []
    assert len(entrance) == door.RESERVE


def test_a_burst_is_let_in_for_a_moment() -> None:
    entrance = Door(LIMITS)
    for _ in range(door.RESERVE * door.BURST):
        _comes(entrance, ago=0)
    assert entrance.surplus() == []


def test_more_than_a_burst_is_not() -> None:
    entrance = Door(LIMITS)
    came = [_comes(entrance, ago=0) for _ in range(door.RESERVE * door.BURST + 3)]
    assert entrance.surplus() == came[:3]


def test_the_address_that_crowds_the_door_gives_way() -> None:
    entrance = Door(LIMITS)
    alone = _comes(entrance, "192.0.2.9")
    crowd = [_comes(entrance, f"192.0.2.{number}") for number in (1, 1, 1, 2, 2, 3, 3, 4)]
    assert entrance.surplus() == crowd[:1]
    entrance.leave(alone)
    assert len(entrance) == 7


def test_who_is_being_judged_goes_last() -> None:
    entrance = Door(LIMITS)
    judged = _comes(entrance)
    judged.give_way = lambda: None
    came = [_comes(entrance) for _ in range(door.RESERVE)]
    assert entrance.surplus() == came[:1]


def test_associations_leave_places_to_wait() -> None:
    entrance = Door(LIMITS)
    for _ in range(LIMITS.per_address):
        assert entrance.seat(_comes(entrance)) == (True, None)
    for _ in range(door.RESERVE):
        _comes(entrance)
    assert entrance.surplus() == []


def test_an_address_that_has_its_seats_gives_up_the_one_that_was_idle_longest() -> None:
    entrance = Door(LIMITS)
    first, second = _comes(entrance), _comes(entrance)
    assert entrance.seat(first)[0]
    assert entrance.seat(second)[0]
    first.heard = time.monotonic()
    assert entrance.seat(_comes(entrance)) == (True, second)


def test_a_message_that_is_under_way_is_never_cut_off() -> None:
    entrance = Door(LIMITS)
    for _ in range(LIMITS.per_address):
        one = _comes(entrance)
        assert entrance.seat(one)[0]
        one.begun = one.heard = time.monotonic()
    assert entrance.seat(_comes(entrance)) == (False, None)


@pytest.mark.parametrize(
    ("begun", "heard", "size", "goes"),
    [
        (LIMITS.whole + 1, LIMITS.whole + 1, 2**30, True),  # silent in mid message
        (door.SLOW + 1, 0, 1, True),  # a byte now and then
        (door.SLOW - 1, 0, 1, False),
        (door.SLOW + 1, 0, int(door.SLOW + 2) * door.SLOWEST, False),
    ],
)
def test_a_message_that_hardly_goes_on_keeps_no_seat_that_another_needs(
    begun: float, heard: float, size: int, *, goes: bool
) -> None:
    entrance, now = Door(LIMITS), time.monotonic()
    one, other = _comes(entrance), _comes(entrance)
    for seated in (one, other):
        assert entrance.seat(seated)[0]
        seated.begun = seated.heard = now
    one.begun, one.heard, one.size = now - begun, now - heard, size
    assert entrance.seat(_comes(entrance)) == ((True, one) if goes else (False, None))


def test_a_message_that_waits_for_our_answer_is_never_cut_off() -> None:
    entrance, long_ago = Door(LIMITS), time.monotonic() - 1_000
    for _ in range(LIMITS.per_address):
        one = _comes(entrance)
        assert entrance.seat(one)[0]
        one.begun = one.heard = long_ago
        one.ours = True
    assert entrance.seat(_comes(entrance)) == (False, None)


def test_who_is_idle_goes_before_a_message_that_hardly_goes_on() -> None:
    entrance, now = Door(LIMITS), time.monotonic()
    stuck, idle = _comes(entrance), _comes(entrance)
    for one in (stuck, idle):
        assert entrance.seat(one)[0]
    stuck.begun = stuck.heard = now - 1_000
    idle.heard = now
    assert entrance.seat(_comes(entrance)) == (True, idle)


def test_the_address_with_the_most_seats_gives_one_up_when_all_are_taken() -> None:
    entrance = Door(LIMITS)
    alone = _comes(entrance, "192.0.2.1", ago=9)
    crowd = [_comes(entrance, "192.0.2.2", ago=ago) for ago in (2, 3)]
    other = _comes(entrance, "192.0.2.3", ago=9)
    for one in (alone, *crowd, other):
        assert entrance.seat(one) == (True, None)
    assert entrance.seat(_comes(entrance, "192.0.2.4")) == (True, crowd[1])


def test_a_seat_is_taken_from_nobody_whose_message_is_under_way() -> None:
    entrance = Door(LIMITS)
    came = [_comes(entrance, f"192.0.2.{number}") for number in (1, 1, 2, 3)]
    assert all(entrance.seat(one)[0] for one in came)
    for one in came[:3]:
        one.begun = one.heard = time.monotonic()
    assert entrance.seat(_comes(entrance, "192.0.2.4")) == (True, came[3])


def test_who_comes_when_every_seat_is_busy_gets_none() -> None:
    entrance = Door(LIMITS)
    for number in (1, 1, 2, 2):
        one = _comes(entrance, f"192.0.2.{number}")
        assert entrance.seat(one)[0]
        one.begun = one.heard = time.monotonic()
    assert entrance.seat(_comes(entrance, "192.0.2.3")) == (False, None)


def test_who_had_to_go_gets_no_seat() -> None:
    entrance = Door(LIMITS)
    came = [_comes(entrance) for _ in range(door.RESERVE + 1)]
    assert entrance.surplus() == came[:1]
    assert entrance.seat(came[0]) == (False, None)


def test_a_seat_is_free_again_after_its_association() -> None:
    entrance = Door(LIMITS)
    sat = [_comes(entrance, f"192.0.2.{number}") for number in range(4)]
    assert all(entrance.seat(one)[0] for one in sat)
    entrance.leave(sat[0])
    entrance.leave(sat[0])
    assert entrance.seat(_comes(entrance, "192.0.2.9")) == (True, None)


# ---------------------------------------------------------------------- the porch


class Waiting:
    """A porch, and what it handed over."""

    def __init__(self) -> None:
        self.door = Door(LIMITS)
        self.begun: list[Connection] = []
        self.porch = Porch(self.door, LIMITS, self.begun.append)
        self.porch.start()

    def connect(self) -> socket.socket:
        """Return the peer's end of a new connection."""
        near, far = socket.socketpair()
        self.porch.admit(near, ("192.0.2.1", 104))
        far.settimeout(5)
        return far

    def wait_begun(self) -> Connection:
        until = time.monotonic() + 5
        while not self.begun:
            assert time.monotonic() < until
            time.sleep(0.01)
        return self.begun[0]


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    made = Waiting()
    yield made
    made.porch.stop()
    for one in made.begun:
        one.socket.close()
    assert not made.porch.is_alive()


def test_a_request_is_handed_over_once_it_is_whole(waiting: Waiting) -> None:
    with waiting.connect() as peer:
        for place in range(len(ASSOCIATE)):
            assert not waiting.begun
            peer.sendall(ASSOCIATE[place : place + 1])
        assert bytes(waiting.wait_begun().request) == ASSOCIATE


def test_nothing_beyond_the_request_is_read(waiting: Waiting) -> None:
    with waiting.connect() as peer:
        peer.sendall(ASSOCIATE + b"more")
        begun = waiting.wait_begun()
        assert bytes(begun.request) == ASSOCIATE
        assert begun.socket.recv(4) == b"more"


def test_a_silent_connection_is_closed_in_time(waiting: Waiting) -> None:
    with waiting.connect() as peer:
        began = time.monotonic()
        assert peer.recv(1) == b""
        assert LIMITS.idle <= time.monotonic() - began < LIMITS.idle + 2
    assert len(waiting.door) == 0


def test_a_request_that_drips_is_closed_in_time(waiting: Waiting) -> None:
    with waiting.connect() as peer:
        began = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(100):
                peer.sendall(b"\x01")
                time.sleep(LIMITS.idle / 3)
                peer.getpeername()
        assert LIMITS.whole / 2 < time.monotonic() - began < LIMITS.whole + 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 1),
        (b"\x04\x00\x00\x00\x00\x04abcd", 2),
        (b"\x01\x00\xff\xff\xff\xff", 6),
    ],
    ids=["unrecognised", "unexpected", "too long"],
)
def test_what_is_no_request_is_aborted_at_once(waiting: Waiting, data: bytes, reason: int) -> None:
    with waiting.connect() as peer:
        peer.sendall(data)
        assert peer.recv(64) == b"\x07\x00\x00\x00\x00\x04\x00\x00\x02" + bytes([reason])
    assert waiting.begun == []


def test_what_waits_is_closed_at_the_end() -> None:
    made = Waiting()
    with made.connect() as peer:
        made.porch.stop()
        assert peer.recv(1) == b""
    assert len(made.door) == 0


class ByteByByte:
    """A connection that gives one byte at a time, without an end."""

    def __init__(self) -> None:
        self.read = 0

    def recv(self, _: int) -> bytes:
        self.read += 1
        return b"\x01" if self.read == 1 else b"\0"


def test_who_has_much_to_say_waits_for_the_others_in_between() -> None:
    waiting = Porch(Door(LIMITS), LIMITS, lambda _: None)
    talking: Any = ByteByByte()
    connection = Connection(
        talking, "192.0.2.1", ("192.0.2.1", 1), bytearray(b"\x01\0\0\0\xff\xff")
    )
    waiting._read(connection)
    assert talking.read == door.PIECES
    waiting.start()
    waiting.stop()


def test_who_gave_way_counts_until_it_is_gone_and_is_not_waited_for() -> None:
    entrance = Door(LIMITS)
    first, second, third = (_comes(entrance) for _ in range(3))
    assert entrance.seat(first) == entrance.seat(second) == (True, None)
    seated, gone = entrance.seat(third)
    assert seated
    assert gone is not None
    assert len(entrance) == 3
    assert entrance.lingering() == []
    entrance._leaving[gone] -= door.GRACE
    assert entrance.lingering() == [gone]
    entrance.leave(gone)
    assert entrance.lingering() == []
    assert len(entrance) == 2
