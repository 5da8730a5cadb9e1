"""Seconds and memory from the last C-STORE of the demonstration's CT to the delivery of its results.

``python -m benchmarks.demo_ct --json``: the whole gateway with embedded defaults on loopback, a thorax CT of
64 × 512 × 512 sent a number of times, each time as another Study. Times are the ledger's own; memory is
looked at twenty times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.memory import Memory
from pacs_ai import phantom
from pacs_ai.cli.commands import DEMO_CONFIG
from pacs_ai.cli.demo import demo_settings, send
from pacs_ai.cli.serve import commands, prepare
from pacs_ai.cli.supervisor import Supervisor
from pacs_ai.ledger.engine import Database
from pacs_ai.ledger.views import Views
from pacs_ai.settings import Settings

STEPS = ("route", "infer", "encode", "deliver")
START_SECONDS = 90.0
STUDY_SECONDS = 600.0

Timeline = Mapping[str, Any]


class BenchmarkError(Exception):
    """The gateway did not start, or a Study did not arrive: there is nothing to report."""


@dataclass(frozen=True)
class Run:
    """One Study from the last C-STORE to its results at the destination.

    Attributes
    ----------
    send : float
        Seconds that all its C-STOREs took, association included.
    total : float
        Seconds from the last stored Instance to the end of the last delivery.
    steps : mapping of str to float
        ``assemble wait`` (from the last Instance until the Study counts as complete, most of it the
        configured quiet period), then the seconds that each step was busy (steps may overlap), and
        ``between``: what passed while none of them was.
    """

    send: float
    total: float
    steps: Mapping[str, float]


def measure(runs: int, *, tell: Callable[[str], object]) -> dict[str, Any]:
    """Start a gateway, send the CT ``runs`` times, and return what it took.

    Raises
    ------
    BenchmarkError
        When there is nothing to report.
    """
    with tempfile.TemporaryDirectory(prefix="pacs-ai-benchmark-") as name:
        folder = Path(name)
        path = folder / "settings.yaml"
        settings = demo_settings(DEMO_CONFIG, path, folder)
        prepare(settings)
        supervisor = Supervisor(commands(path, settings), log_folder=folder / "log")
        supervisor.start()
        database = Database(settings.ledger_url)
        try:
            late = supervisor.wait_ready(seconds=START_SECONDS)
            if late:
                raise BenchmarkError(f"did not start: {', '.join(late)}")
            pids = {role: supervisor.pid(role) for role in commands(path, settings)}
            with Memory(pids) as memory:
                done = [_run(settings, Views(database), number, tell) for number in range(runs)]
            return report(
                done, memory.peaks, quiet=settings.quiet("CT", next(iter(settings.peers)))
            )
        finally:
            supervisor.stop()
            database.close()


def _run(settings: Settings, views: Views, number: int, tell: Callable[[str], object]) -> Run:
    when = datetime.now(UTC)
    study = phantom.thorax_ct(name=f"benchmark/{when.isoformat()}/{number}", when=when)
    seconds = send(study, settings)
    timeline = _delivered(views, str(study[0].StudyInstanceUID))
    found = Run(seconds, *times(timeline))
    tell(f"run {number + 1}: {found.total:.1f} s from the last C-STORE to the last delivery")
    return found


def _delivered(views: Views, study: str) -> Timeline:
    """Wait until a Study is done and everything of it stored at its destination.

    Raises
    ------
    BenchmarkError
        When it ends otherwise, or not in time.
    """
    deadline = time.monotonic() + STUDY_SECONDS
    while time.monotonic() < deadline:
        timeline = views.timeline(study)
        waiting = [one for one in timeline["work"] if one["state"] in ("ready", "running")]
        if not waiting and timeline["state"] not in ("receiving", "running"):
            states = {one["state"] for one in timeline["deliveries"]}
            if timeline["state"] != "done" or states != {"stored"}:
                raise BenchmarkError(f"the Study ended {timeline['state']}: {timeline['reason']}")
            return timeline
        time.sleep(0.2)
    raise BenchmarkError(f"the Study did not end in {STUDY_SECONDS:.0f} s")


def times(timeline: Timeline) -> tuple[float, dict[str, float]]:
    """Return a Study's total seconds, and its seconds by step.

    Parameters
    ----------
    timeline : mapping
        As ``pacs-ai status --json`` gives it.
    """
    last = datetime.fromisoformat(timeline["last_received"])
    spells = {
        kind: [
            (datetime.fromisoformat(one["started"]), datetime.fromisoformat(one["ended"]))
            for one in timeline["work"]
            if one["kind"] == kind and one["ended"]
        ]
        for kind in ("assemble", *STEPS)
    }
    complete = max(ended for _, ended in spells["assemble"])
    total = max(ended for _, ended in spells["deliver"]) - last
    steps = {"assemble wait": complete - last} | {kind: busy(spells[kind]) for kind in STEPS}
    together = busy([spell for kind in STEPS for spell in spells[kind]])
    steps["between"] = total - steps["assemble wait"] - together
    return total.total_seconds(), {name: one.total_seconds() for name, one in steps.items()}


def busy(spells: Sequence[tuple[datetime, datetime]]) -> timedelta:
    """Return how long at least one of some spells lasted; what overlaps counts once."""
    total = timedelta()
    reached: datetime | None = None
    for began, ended in sorted(spells):
        start = began if reached is None else max(began, reached)
        total += max(ended - start, timedelta())
        reached = ended if reached is None else max(ended, reached)
    return total


def report(runs: Sequence[Run], peaks: Mapping[str, int], *, quiet: timedelta) -> dict[str, Any]:
    """Put runs together: medians, and every run by itself."""
    return {
        "study": "phantom thorax CT, 64 Instances of 512 x 512",
        "machine": {
            "processors": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
        },
        "runs": len(runs),
        "quiet_period_seconds": quiet.total_seconds(),
        "median_seconds": {
            "send": median(one.send for one in runs),
            "last C-STORE to delivered": median(one.total for one in runs),
            **{name: median(one.steps[name] for one in runs) for name in runs[0].steps},
        },
        "each_seconds": [
            {"send": one.send, "last C-STORE to delivered": one.total, **one.steps} for one in runs
        ],
        "peak_resident_bytes": dict(peaks),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when there is nothing to report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_ct", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often the CT is sent (3)")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    asked = parser.parse_args(arguments)
    if asked.runs < 1:
        parser.error("--runs is at least 1")
    try:
        found = measure(asked.runs, tell=lambda line: print(line, file=sys.stderr))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    if asked.json:
        print(json.dumps(found, indent=1))
        return 0
    for name, seconds in found["median_seconds"].items():
        print(f"{name:28} {seconds:8.2f} s")
    for name, size in found["peak_resident_bytes"].items():
        print(f"{name:28} {size / 2**20:8.0f} MiB at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
