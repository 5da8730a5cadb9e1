"""What the benchmark makes of a timeline, and that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.demo_ct import Run, busy, report, times
from benchmarks.memory import Memory, resident

ROOT = Path(__file__).parents[3]
START = datetime(2026, 11, 23, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def work(kind: str, began: float, ended: float | None) -> dict[str, Any]:
    last = None if ended is None else at(ended).isoformat()
    return {"kind": kind, "started": at(began).isoformat(), "ended": last}


TIMELINE = {
    "last_received": START.isoformat(),
    "work": [
        work("assemble", 2, 3),
        work("route", 3, 3.5),
        work("infer", 4, 10),
        work("encode", 10, 12),
        work("encode", 11, 13),  # the page, at the same time on the other processor
        work("deliver", 13, 13.5),
        work("worklist", 13, 20),
        work("infer", 30, None),
    ],
}


def test_spells_that_overlap_count_once() -> None:
    assert busy([(at(5), at(7)), (at(0), at(2)), (at(1), at(3)), (at(1), at(2))]).seconds == 5


def test_steps_and_what_lies_between_them_make_the_total() -> None:
    total, steps = times(TIMELINE)
    assert total == 13.5
    assert steps == {
        "assemble wait": 3,
        "route": 0.5,
        "infer": 6,
        "encode": 3,
        "deliver": 0.5,
        "between": 0.5,
    }
    assert sum(steps.values()) == total


def test_a_report_gives_medians_and_every_run() -> None:
    runs = [Run(1, total, {"infer": total / 2}) for total in (9.0, 4.0, 5.0)]
    made = report(runs, {"worker": 7}, quiet=timedelta(seconds=2))
    assert made["median_seconds"] == {"send": 1, "last C-STORE to delivered": 5, "infer": 2.5}
    assert [one["infer"] for one in made["each_seconds"]] == [4.5, 2, 2.5]
    assert made["peak_resident_bytes"] == {"worker": 7}


def test_memory_of_a_childs_child_is_counted_and_the_peak_stays() -> None:
    hold = "import sys, time; held = b'x' * 60_000_000; print('up', flush=True); time.sleep(60)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        with Memory({"worker": parent.pid, "model-x": parent.pid}) as memory:
            assert parent.stdout.readline() == b"up\n"
            seen = resident(psutil.Process(parent.pid))
            time.sleep(0.2)  # for a look or two
            for one in psutil.Process(parent.pid).children():
                one.kill()
            parent.wait(10)
    assert seen > 60_000_000
    assert memory.peaks["worker"] > 60_000_000
    assert memory.peaks["gateway"] < memory.peaks["everything"]


@pytest.mark.soak
def test_the_benchmark_reports_one_run() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo_ct", "--runs", "1", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    made = json.loads(ran.stdout)
    seconds = made["median_seconds"]
    assert seconds["assemble wait"] >= made["quiet_period_seconds"]
    parts = {"assemble wait", "route", "infer", "encode", "deliver", "between"}
    whole = seconds["last C-STORE to delivered"]
    # Steps may overlap: the first object can be on its way while the page is drawn.
    assert sum(seconds[part] for part in parts) >= whole - 1e-6
    assert all(seconds[part] <= whole for part in parts)
    assert all(seconds[part] > 0 for part in parts - {"between"})
    peaks = made["peak_resident_bytes"]
    assert peaks["everything"] >= peaks["gateway"] >= peaks["worker"] > 100_000_000
