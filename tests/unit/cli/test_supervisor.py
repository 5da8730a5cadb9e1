"""Processes are started, started again when they die, and never outlive who started them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pacs_ai.cli.supervisor import Supervisor

READY = "print('ready', flush=True); "
SLEEP = [sys.executable, "-c", f"import time; {READY}time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}time.sleep(60)",
]


def wait(true: Callable[[], bool], *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


@pytest.fixture
def started() -> Iterator[Callable[..., Supervisor]]:
    made: list[Supervisor] = []

    def start(commands: dict[str, list[str]], **options: object) -> Supervisor:
        supervisor = Supervisor(commands, **options)  # type: ignore[arg-type]  # handed through
        made.append(supervisor)
        supervisor.start()
        return supervisor

    yield start
    for one in made:
        one.stop()


def test_every_process_is_waited_for(started: Callable[..., Supervisor]) -> None:
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    supervisor = started({"one": SLEEP, "two": SLEEP, "silent": silent})
    assert supervisor.wait_ready(seconds=1.5) == ["silent"]


def test_a_dead_child_is_started_again_and_stop_ends_all(
    started: Callable[..., Supervisor], capfd: pytest.CaptureFixture[str]
) -> None:
    supervisor = started({"one": SLEEP, "two": SLEEP}, restart_delay=0.05)
    assert supervisor.wait_ready(seconds=10) == []
    first, other = psutil.Process(supervisor.pid("one")), supervisor.pid("two")
    first.kill()

    def again() -> bool:
        supervisor.look()
        return supervisor.pid("one") != first.pid

    wait(again)
    assert supervisor.wait_ready(seconds=10) == []
    assert supervisor.pid("two") == other
    pids = [supervisor.pid(name) for name in ("one", "two")]
    supervisor.stop()
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    assert "one was ended by SIGKILL; starting it again" in capfd.readouterr().err


def test_a_child_that_dies_again_and_again_is_started_less_and_less_often(
    started: Callable[..., Supervisor], tmp_path: Path
) -> None:
    births = tmp_path / "births"
    command = [sys.executable, "-c", f"open({str(births)!r}, 'a').write('x')"]
    supervisor = started({"one": command}, restart_delay=0.3)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        supervisor.look()
        time.sleep(0.02)
    assert 2 <= len(births.read_text()) <= 4  # at 0, 0.3, 0.9 and 2.1 s


def test_what_a_child_says_on_standard_error_goes_to_its_log(
    started: Callable[..., Supervisor], tmp_path: Path
) -> None:
    speak = [sys.executable, "-c", f"import sys; sys.stderr.write('a line\\n'); {READY}"]
    supervisor = started({"one": speak}, log_folder=tmp_path / "log")
    wait(lambda: (tmp_path / "log" / "one.log").read_text() == "a line\n")
    supervisor.stop()
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0


def test_why_a_child_ended_is_told_by_the_end_of_its_log(
    started: Callable[..., Supervisor], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    speak = [sys.executable, "-c", "import sys; sys.exit('port 1: choose another')"]
    supervisor = started({"one": speak}, log_folder=tmp_path / "log")

    def told() -> bool:
        supervisor.look()
        return "port 1: choose another)" in capfd.readouterr().err

    wait(told)
    supervisor.stop()


def test_a_log_that_was_moved_away_ends_nobody(
    started: Callable[..., Supervisor], tmp_path: Path
) -> None:
    supervisor = started({"one": SLEEP}, log_folder=tmp_path / "log", restart_delay=0.05)
    assert supervisor.wait_ready(seconds=10) == []
    former = supervisor.pid("one")
    (tmp_path / "log" / "one.log").rename(tmp_path / "one.log.1")
    psutil.Process(former).kill()

    def again() -> bool:
        supervisor.look()
        return supervisor.pid("one") != former

    wait(again)
    supervisor.stop()


def test_who_is_asked_to_end_before_all_are_ready_says_not_that_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pacs_ai.processes.Ending.heed_signals", lambda _: None)
    supervisor = Supervisor({"one": [sys.executable, "-c", "import time; time.sleep(60)"]})
    threading.Timer(0.3, supervisor._ending.ask).start()
    assert supervisor.run(ready=lambda: pytest.fail("it is not ready")) == 0


def test_a_child_that_does_not_listen_is_killed_in_the_end(
    started: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_ai.cli.supervisor._STOP_SECONDS", 0.3)
    supervisor = started({"deaf": DEAF})
    assert supervisor.wait_ready(seconds=10) == []
    pid = supervisor.pid("deaf")
    supervisor.stop()
    assert not psutil.pid_exists(pid)


TALKS = [
    sys.executable,
    "-c",
    "import time\nwhile True: print('here', flush=True); time.sleep(0.1)",
]


def test_a_child_that_falls_silent_is_killed_and_started_again(
    started: Callable[..., Supervisor], capfd: pytest.CaptureFixture[str]
) -> None:
    supervisor = started({"one": TALKS, "two": TALKS}, restart_delay=0.05, silence=1.0)
    assert supervisor.wait_ready(seconds=10) == []
    hung, other = supervisor.pid("one"), supervisor.pid("two")
    psutil.Process(hung).suspend()

    def again() -> bool:
        supervisor.look()
        return supervisor.pid("one") != hung

    wait(again, seconds=3)
    assert supervisor.wait_ready(seconds=10) == []
    assert supervisor.pid("two") == other
    assert "one said nothing for 1 s: it hangs and is killed" in capfd.readouterr().err


def test_a_supervisor_that_slept_itself_kills_nobody(started: Callable[..., Supervisor]) -> None:
    supervisor = started({"one": TALKS}, silence=1.0)
    assert supervisor.wait_ready(seconds=10) == []
    pid = supervisor.pid("one")
    child = psutil.Process(pid)
    child.suspend()
    time.sleep(1.5)  # the whole machine stood still
    child.resume()
    supervisor.look()
    time.sleep(0.3)
    supervisor.look()
    assert supervisor.pid("one") == pid
    assert child.is_running()


def test_a_child_that_was_up_for_long_is_started_again_without_delay(
    started: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_ai.cli.supervisor._WELL_SECONDS", 0.2)
    supervisor = started({"one": SLEEP}, restart_delay=0.1)
    for _ in range(6):  # doubling, the sixth delay would be 3 s
        assert supervisor.wait_ready(seconds=2) == []
        pid = supervisor.pid("one")
        time.sleep(0.2)
        psutil.Process(pid).kill()
        wait(lambda pid=pid: not supervisor.look() and supervisor.pid("one") != pid, seconds=1)  # type: ignore[misc, func-returns-value]


KILLED = f"""
import sys
from pacs_ai.cli.supervisor import Supervisor
supervisor = Supervisor({{"one": {SLEEP!r}, "two": {SLEEP!r}}})
sys.exit(supervisor.run(ready=lambda: print(supervisor.pid("one"), supervisor.pid("two"), flush=True)))
"""


def _run() -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


def _gone(pids: list[int]) -> bool:
    return all(
        not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        for pid in pids
    )


def test_nothing_stays_behind_when_the_supervisor_is_killed() -> None:
    process, pids = _run()
    assert len(pids) == 2
    process.kill()
    process.communicate()
    wait(lambda: _gone(pids))


def test_a_supervisor_that_is_asked_to_end_ends_its_children_and_then_itself() -> None:
    process, pids = _run()
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert _gone(pids)
