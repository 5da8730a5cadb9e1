"""A process that is asked to end does so, at whatever moment it is asked."""

from __future__ import annotations

import subprocess
import sys

WAITS = """
import signal, time
from pacs_ai.processes import Ending

ending = Ending()
signal.signal(signal.SIGALRM, lambda *_: ending.ask())
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0011)
over = time.monotonic() + 3
while time.monotonic() < over:
    ending = Ending()
    ending.wait(0.0003)
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_a_signal_in_the_moment_before_the_wait_stops_nobody_for_ever() -> None:
    subprocess.run([sys.executable, "-c", WAITS], check=True, timeout=30)


def test_the_request_is_heard_at_once_and_stays() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal\n"
            "from pacs_ai.processes import Ending\n"
            "ending = Ending()\n"
            "ending.heed_signals()\n"
            "print(ending.wait(0.01), ending.is_asked())\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
            "signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))\n"
            "print(ending.wait(60), ending.wait(60), ending.is_asked())\n",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert said.stdout.split() == ["False", "False", "True", "True", "True"]


LOST = """
import signal, weakref
from pacs_ai.processes import heed_interrupts

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests

class Connection:
    pass

heed = heed_interrupts()
heed()
connection = Connection()
weakref.finalize(connection, signal.raise_signal, signal.SIGINT)
del connection
print("went on", flush=True)
for _ in range(2):
    try:
        heed()
    except KeyboardInterrupt:
        print("heard")
"""


def test_an_interrupt_that_python_drops_is_heard_at_the_next_look() -> None:
    said = subprocess.run(
        [sys.executable, "-c", LOST], check=True, capture_output=True, text=True, timeout=30
    )
    assert said.stdout.split("\n")[:3] == ["went on", "heard", "heard"]
    assert "Exception ignored" in said.stderr
