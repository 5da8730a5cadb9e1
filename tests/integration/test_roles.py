"""Each role as the process that a service manager starts: ready line, log lines, a clean end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pydicom
import pytest
import requests
import yaml

from pacs_ai import phantom
from pacs_ai.cli.serve import prepare
from pacs_ai.settings import load
from tests.integration import wire
from tests.integration.listening import CALLED, association
from tests.unit.cli.conftest import write_config

COMMAND = [sys.executable, "-m", "pacs_ai.cli"]


@contextmanager
def role(
    config: Path, *name: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, object] | str]]:
    """Start a command that runs until it is told to end; yields it with the first line it prints."""
    process = subprocess.Popen(
        [*COMMAND, *name, "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield process, json.loads(line) if line.startswith("{") else line
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> list[dict[str, object]]:
    """Ask a role to end; return its log."""
    process.terminate()
    _, err = process.communicate(timeout=40)
    assert process.returncode == 0
    return [json.loads(line) for line in err.splitlines()]


def wait(true: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def alive(pids: Sequence[int]) -> list[str]:
    """Return the command lines of the processes that still run."""
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return found


def descendants(pid: int) -> list[int]:
    return [one.pid for one in psutil.Process(pid).children(recursive=True)]


def test_the_listener_says_that_it_is_ready_and_logs_json_lines(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with role(config, "listener") as (process, line):
        assert line == {"role": "listener", "ready": True}
        port = load(config).listener.port
        assert wire.rejection(port, "CANARY-AE", CALLED) == wire.CALLING_NOT_RECOGNISED
        assert wire.rejection(port, "DEMO", "ANOTHER") == wire.CALLED_NOT_RECOGNISED
        with association(port, calling="DEMO") as opened:
            assert opened.is_established
        log = end(process)
    assert [(one["message"], one["address"], one["title_of"]) for one in log] == [
        (
            "association rejected: not a configured peer, address and certificate",
            "127.0.0.1",
            [],
        ),
        (
            "association rejected: called by a title that is not the gateway's",
            "127.0.0.1",
            ["demo"],
        ),
    ]
    assert log[0].keys() >= {"at", "level", "logger", "message"}
    assert "CANARY" not in json.dumps(log)


def test_the_web_face_says_that_it_is_ready_and_ends_cleanly(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with role(config, "web") as (process, line):
        assert line == {"role": "web", "ready": True}
        port = load(config).web.port
        answer = requests.get(f"http://127.0.0.1:{port}/dicom-web/workitems", timeout=10)
        assert answer.status_code in (200, 204)
        assert end(process) == []


def test_the_worker_says_that_it_is_ready_and_leaves_no_process_behind(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with role(config, "worker") as (process, line):
        assert line == {"role": "worker", "ready": True}
        family = descendants(process.pid)
        assert any("valkey" in one or "redis" in one for one in alive(family))
        end(process)
        assert alive(family) == []


def test_nothing_of_a_killed_worker_stays_behind(tmp_path: Path) -> None:
    with role(write_config(tmp_path), "worker") as (process, _):
        family = descendants(process.pid)
        assert len(family) >= 2, "a broker, and children that work"
        process.kill()
        process.wait()
        wait(lambda: alive(family) == [])


def with_one_model(folder: Path, endpoint: str, *rules: str) -> Path:
    """Write the demo's settings with one of its endpoints and some of its rules."""
    demo = yaml.safe_load(write_config(folder).read_text())
    wanted = [one for one in demo["rules"] if one["name"] in rules]
    one = demo["endpoints"][endpoint]
    return write_config(folder, endpoints={endpoint: one}, rules=wanted)


def test_the_reference_models_run_alone(tmp_path: Path) -> None:
    config = with_one_model(tmp_path, "insight")
    prepare(load(config))
    with role(config, "models", "serve") as (process, line):
        assert line == {"role": "models", "ready": True}
        family = descendants(process.pid)
        assert len(family) == 1
        end(process)
        assert alive(family) == []


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """Settings of a gateway without models: the quickest whole `serve`."""
    return write_config(tmp_path, endpoints={}, rules=[])


def _told(process: subprocess.Popen[str], first: object) -> str:
    assert process.stdout is not None
    return str(first) + "".join(process.stdout.readline() for _ in range(2))


def test_serve_says_where_everything_is_and_ends_cleanly(quick: Path) -> None:
    with role(quick, "serve") as (process, line):
        said = _told(process, line)
        face = load(quick).listener
        assert f"DICOM: {face.ae_title} at {face.host}:{face.port}" in said
        assert "/dicom-web/workitems" in said
        assert "Ctrl-C stops everything" in said
        family = descendants(process.pid)
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert alive(family) == []


def test_nothing_of_a_killed_serve_stays_behind(quick: Path) -> None:
    with role(quick, "serve") as (process, line):
        _told(process, line)
        family = descendants(process.pid)
        assert len(family) >= 4
        process.kill()
        process.wait()
        wait(lambda: alive(family) == [], seconds=40)


def test_process_takes_files_through_every_step(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    when = datetime.now(UTC)
    for one in phantom.thorax_ct(name="process", when=when, slices=64, rows=64):
        one.save_as(source / f"{one.SOPInstanceUID}.dcm", enforce_file_format=True)
    (source / "letter.txt").write_text("no DICOM")
    config = with_one_model(tmp_path, "parse3d", "ct-chest")
    out = tmp_path / "out"
    ended = subprocess.run(
        [*COMMAND, "process", str(source), "--out", str(out), "--config", str(config)],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    report = json.loads((out / "report.json").read_text())
    (study,) = report["studies"]
    assert study["state"] == "done"
    assert [job["endpoint"] for job in study["jobs"]] == ["parse3d"]
    assert report["refused"] == [{"file": "letter.txt", "reason": "not a DICOM file (PS3.10)"}]
    assert "refused: letter.txt: not a DICOM file (PS3.10)" in ended.stderr
    assert ended.returncode == 1, "a file was refused"
    results = [one for one in out.rglob("*.dcm") if "gateway" not in one.parts]
    modalities = {str(pydicom.dcmread(one, stop_before_pixels=True).Modality) for one in results}
    assert {"SEG", "SR", "OT"} <= modalities
    assert [*out.rglob("*.png")]
