"""Several listener processes on one port: all answer, a hung one is replaced, nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from pynetdicom import build_context
from pynetdicom.sop_class import Verification

from pacs_ai.cli import check
from pacs_ai.cli.status import print_status
from pacs_ai.ledger import Ledger
from pacs_ai.ledger.views import Views
from pacs_ai.processes import listening
from pacs_ai.settings import Settings, loads
from tests.integration.listening import (
    CALLED,
    CALLING,
    CT,
    association,
    encoded,
    image,
    send,
    write_settings,
)
from tests.integration.wire import (
    ABORTED,
    COMMAND,
    EXPLICIT,
    LAST,
    associated,
    command,
    read,
    status,
    values,
)

LISTENER = [sys.executable, "-m", "pacs_ai.cli", "listener", "--config"]
GONE = 5.0
"""Seconds within which a hung process is killed: from then on every peer gets through."""
REPLACED = 10.0
"""Seconds within which it is replaced, on a machine that starts a process in half of them."""


@dataclass(frozen=True)
class Shared:
    """A listener of several processes."""

    parent: subprocess.Popen[str]
    settings: Settings
    log: Path
    start_seconds: float
    """What this machine took for parent and processes, one after the other."""

    @property
    def replaced(self) -> float:
        """Seconds within which a process is replaced, as busy as the machine is."""
        return max(REPLACED, GONE + self.start_seconds)

    @property
    def port(self) -> int:
        return self.settings.listener.port

    def processes(self) -> list[int]:
        """Return the ids of those that listen on the port now."""
        return sorted(
            one.pid
            for one in psutil.Process(self.parent.pid).children(recursive=True)
            if any(each.status == "LISTEN" for each in connections(one))
        )

    def answering(self) -> set[int]:
        """Return the ids of processes that hold associations of ours, of a few that we open."""
        found = set()
        for _ in range(12):
            with association(self.port, [build_context(Verification)]) as opened:
                assert opened.is_established
                assert opened.send_c_echo().Status == 0x0000
                found |= {pid for pid in self.processes() if holds(pid, opened)}
        return found


def connections(process: psutil.Process) -> list[psutil._common.pconn]:
    try:
        return list(process.net_connections(kind="tcp"))
    except psutil.NoSuchProcess:
        return []


def holds(pid: int, opened: object) -> bool:
    """Tell whether a process has the other end of an association."""
    own = opened.dul.socket.socket.getsockname()  # type: ignore[attr-defined]
    return any(each.raddr[:2] == own[:2] for each in connections(psutil.Process(pid)) if each.raddr)


@contextmanager
def shared(folder: Path, **listener: object) -> Iterator[Shared]:
    known = yaml.safe_load(write_settings(folder, **{"processes": 2, **listener}))
    del known["peers"]["elsewhere"]
    text = yaml.safe_dump(known)
    config, log = folder / "settings.yaml", folder / "listener.log"
    config.write_text(text)
    begun = time.monotonic()
    with log.open("wb") as errors:
        parent = subprocess.Popen(
            [*LISTENER, str(config)], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert parent.stdout is not None
        assert '"ready"' in parent.stdout.readline(), log.read_text()
        yield Shared(parent, loads(text), log, time.monotonic() - begun)
    finally:
        if parent.poll() is None:
            parent.terminate()
        parent.communicate(timeout=60)


def wait(true: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def replaced(two: Shared, number: signal.Signals) -> None:
    """Send one process a signal; return when another has taken its place, in time."""
    struck, other = two.processes()
    os.kill(struck, number)
    wait(lambda: listening(two.port) == 1, seconds=GONE)
    wait(lambda: len(two.processes()) == 2, seconds=two.replaced - GONE)
    assert other in two.processes()
    assert struck not in two.processes()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared(tmp_path_factory.mktemp("shared"), transport="hardened") as started:
        yield started


def test_every_process_answers_on_the_one_port(two: Shared) -> None:
    assert len(two.processes()) == listening(two.port) == 2
    assert two.answering() == {*two.processes()}


def test_a_process_that_hangs_is_replaced_in_time_and_good_peers_get_through(two: Shared) -> None:
    replaced(two, signal.SIGSTOP)
    assert "it hangs and is killed" in two.log.read_text()
    assert two.answering() == {*two.processes()}


def test_a_process_that_is_killed_is_missed_by_check_and_status_and_replaced(
    two: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    killed, _ = two.processes()
    os.kill(killed, signal.SIGKILL)
    wait(lambda: listening(two.port) == 1, seconds=5)
    (fault,) = check._ports(two.settings)
    assert "1 of 2 processes listen" in fault.message
    wait(lambda: len(two.processes()) == 2, seconds=two.replaced)
    assert [*check._ports(two.settings)] == []
    print_status(two.settings, None, None, "json")
    report = json.loads(capsys.readouterr().out)
    assert report["listener_processes"] == {"wanted": 2, "listening_here": 2}
    assert two.answering() == {*two.processes()}


def test_senders_on_both_processes_lose_nothing(two: Shared) -> None:
    sent: dict[str, str] = {}

    def sender() -> None:
        with association(two.port) as opened:
            for _ in range(20):
                data_set = image()
                data = encoded(data_set)
                uid = str(data_set.SOPInstanceUID)
                assert send(opened, data, sop_instance=uid).Status == 0x0000
                sent[uid] = hashlib.sha256(data).hexdigest()

    senders = [threading.Thread(target=sender) for _ in range(4)]
    for one in senders:
        one.start()
    for one in senders:
        one.join()
    assert len(sent) == 80
    ledger = Ledger(two.settings.ledger_url, two.settings.work)
    held = {one["SOPInstanceUID"]: one["digest"] for one in Views(ledger.database).instances(None)}
    ledger.close()
    assert sent.items() <= held.items()


def test_a_port_that_another_gateway_of_this_user_has_is_not_shared(
    two: Shared, tmp_path: Path
) -> None:
    second = tmp_path / "second.yaml"
    second.write_text(write_settings(tmp_path, processes=2, port=two.port))
    ended = subprocess.run(
        [*LISTENER, str(second)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert f"cannot listen at 127.0.0.1:{two.port} (Address already in use)" in ended.stderr
    assert listening(two.port) == 2


def test_a_message_that_is_under_way_is_answered_before_the_listener_ends(tmp_path: Path) -> None:
    data_set = image()
    data, uid = encoded(data_set), str(data_set.SOPInstanceUID)
    contexts = [(1, CT, EXPLICIT)]
    with (
        shared(tmp_path) as started,
        associated(started.port, CALLING, CALLED, contexts) as idle,
        associated(started.port, CALLING, CALLED, contexts) as busy,
    ):
        request = command(0x0001, data_set=True, sop_class=CT, sop_instance=uid)
        busy.sendall(values(1, COMMAND | LAST, request) + values(1, 0, data[:64]))
        time.sleep(0.5)  # both have been read
        started.parent.terminate()
        kind, _ = read(idle)
        assert kind == ABORTED
        wait(lambda: listening(started.port) == 0, seconds=5)
        assert started.parent.poll() is None
        busy.sendall(values(1, LAST, data[64:]))
        kind, body = read(busy)
        assert (kind, status(body)) == (0x04, 0x0000)
        kind, _ = read(busy)
        assert kind == ABORTED
        assert started.parent.wait(timeout=20) == 0


def test_the_librarys_own_transport_shares_a_port_too_and_no_process_outlives_its_parent(
    tmp_path: Path,
) -> None:
    with shared(tmp_path, transport="plain") as started:
        assert started.answering() == {*started.processes()}
        replaced(started, signal.SIGSTOP)
        hung, other = started.processes()
        os.kill(hung, signal.SIGSTOP)
        started.parent.kill()
        started.parent.wait()
        wait(lambda: not any(map(psutil.pid_exists, (hung, other))), seconds=5)
        assert listening(started.port) == 0
