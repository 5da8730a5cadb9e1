"""`pacs-ai demo` as a newcomer runs it: one run for all, and one on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom
import pytest
import requests
from PIL import Image

from tests.end_to_end import reading
from tests.running import Running, running_gateway

COMMAND = [sys.executable, "-m", "pacs_ai.cli", "demo", "--out"]
TITLES = ("chest, normal", "chest, opacity", "thorax CT")
FILMS = ["capture", "narrative", "report", "report", "segmentation"]
STEPS = ("assemble", "route", "infer", "encode", "deliver", "worklist")


@dataclass(frozen=True)
class Shown:
    """What one run of the demo printed and left; timelines by title."""

    code: int
    printed: str
    complained: str
    out: Path

    @property
    def timelines(self) -> dict[str, dict[str, Any]]:
        report = json.loads((self.out / "report.json").read_text())
        return dict(zip(TITLES, report, strict=True))

    def folder(self, title: str) -> Path:
        return self.out / "results" / str(self.timelines[title]["StudyInstanceUID"])


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    out = tmp_path_factory.mktemp("demo") / "out"
    environment = {**os.environ, "COLUMNS": "160"}
    ran = subprocess.run(
        [*COMMAND, str(out)],
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
        env=environment,
    )
    return Shown(ran.returncode, ran.stdout, ran.stderr, out)


@pytest.fixture(scope="module")
def web(shown: Shown) -> Iterator[Running]:
    """Run the web face on what the demo left."""
    with running_gateway(shown.out / "settings.yaml", roles=("web",)) as running:
        yield running


def test_everything_arrives_and_it_ends_well(shown: Shown) -> None:
    assert shown.code == 0, shown.complained
    assert shown.complained == ""
    assert "MISSING" not in shown.printed
    states = {title: one["state"] for title, one in shown.timelines.items()}
    assert states == {
        "chest, normal": "nothing_found",
        "chest, opacity": "done",
        "thorax CT": "done",
    }
    for timeline in shown.timelines.values():
        assert {one["state"] for one in timeline["deliveries"]} == {"stored"}
        assert {one["state"] for one in timeline["work"]} == {"done"}


def test_the_table_goes_from_study_to_workitem(shown: Shown) -> None:
    head = next(line for line in shown.printed.splitlines() if "rule → model" in line)
    for column in ("Study", "outcome", "results → destination", "Workitem"):
        assert column in head
    for title in TITLES:
        assert title in shown.printed
    for line in ("cxr-adult → cxrreport", "cxr-adult → parse2d", "cxr-adult → insight"):
        assert shown.printed.count(line) == 2
    assert "ct-chest → parse3d" in shown.printed
    (flagged,) = (line for line in table_lines(shown) if "AI-CXR-REVIEW" in line)
    assert "chest, opacity" in flagged or "cxr-adult" in flagged
    assert any("HIGH" in line for line in table_lines(shown))
    assert str(shown.out / "results") in shown.printed
    assert "not for clinical use" in shown.printed


def table_lines(shown: Shown) -> list[str]:
    return [line for line in shown.printed.splitlines() if line.startswith("│")]


def test_without_a_terminal_every_step_is_a_json_line(shown: Shown) -> None:
    lines = [json.loads(line) for line in shown.printed.splitlines() if line.startswith("{")]
    assert "\x1b" not in shown.printed
    for timeline in shown.timelines.values():
        mine = [one for one in lines if one["study"] == timeline["StudyInstanceUID"]]
        assert {f"{step} done" for step in STEPS} <= {one["kind"] for one in mine}
        assert all(one["at"] and one["actor"] for one in mine)


def test_each_study_leaves_its_results_and_a_picture(shown: Shown) -> None:
    expected = {
        "chest, normal": FILMS,
        "chest, opacity": FILMS,
        "thorax CT": ["capture", "report", "segmentation"],
    }
    for title, kinds in expected.items():
        found = [path.name.partition("-")[0] for path in shown.folder(title).glob("*.dcm")]
        assert sorted(found) == kinds
        (picture,) = shown.folder(title).glob("*.png")
        with Image.open(picture) as opened:
            pixels = np.asarray(opened)
        capture = pydicom.dcmread(picture.with_suffix(".dcm"))
        assert np.array_equal(pixels, capture.pixel_array)
        assert has_red_banner(pixels)


def has_red_banner(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bool:
    """Tell whether a warning runs over the whole width, and the words on it in white."""
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 80) & (pixels[..., 2] < 80)
    rows = red.mean(axis=1) > 0.6
    banner = pixels[rows]
    return int(rows.sum()) > 40 and bool((banner.min(axis=2) > 230).any())


def test_every_object_of_the_demo_says_what_it_is(shown: Shown) -> None:
    for path, made in reading.objects(shown.out / "results").items():
        reading.assert_labelled(path, made)
    for timeline in shown.timelines.values():
        names = {str(one.PatientName) for one in sources(shown, timeline["StudyInstanceUID"])}
        results = reading.objects(shown.out / "results").items()
        mine = [one for path, one in results if path.parent.name == timeline["StudyInstanceUID"]]
        assert {str(one.PatientName) for one in mine} == names


def sources(shown: Shown, study: str) -> list[pydicom.Dataset]:
    """Return the headers of the Instances that were sent of a Study."""
    stored = (shown.out / "gateway/spool/instances").glob("*/*.dcm")
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in stored]
    found: list[pydicom.Dataset] = [
        one
        for one in headers
        if one.StudyInstanceUID == study and "ContributingEquipmentSequence" not in one
    ]
    assert found, "the spool holds no source of that Study"
    return found


@pytest.mark.parametrize("title", TITLES)
def test_no_validator_finds_an_error(shown: Shown, title: str) -> None:
    for path in shown.folder(title).glob("*.dcm"):
        assert reading.complaints(path) == [], path.name


def test_nothing_found_never_reads_as_normal(shown: Shown) -> None:
    said = "No finding flagged by PACS AI reference CXRReportGen"
    for text in (shown.printed, shown.timelines["chest, normal"]["reason"]):
        assert f"{said}; not a normal result" in text
    assert shown.timelines["chest, normal"]["workitems"] == []
    reports = [
        pydicom.dcmread(path)
        for kind in ("report", "narrative")
        for path in reading.of_kind(shown.folder("chest, normal"), kind)
    ]
    saying = [
        one
        for one in reports
        if any(said in text and "not a normal result" in text for text in reading.texts(one))
    ]
    assert len(saying) == 2  # findings and narrative of the model that looked
    assert not [text for one in reports for text in reading.texts(one) if "no abnormal" in text]


def test_the_opacity_is_on_the_reader_s_worklist(shown: Shown, web: Running) -> None:
    base = f"http://127.0.0.1:{web.settings.web.port}/dicom-web/workitems"
    accept = {"Accept": "application/dicom+json"}
    answer = requests.get(
        base, params={"ScheduledProcedureStepPriority": "HIGH"}, headers=accept, timeout=10
    )
    assert answer.status_code == 200
    (found,) = answer.json()
    whole = requests.get(f"{base}/{found['00080018']['Value'][0]}", headers=accept, timeout=10)
    (item,) = (pydicom.Dataset.from_json(one) for one in whole.json())
    assert item.ScheduledProcedureStepPriority == "HIGH"
    assert item.ProcedureStepState == "SCHEDULED"
    assert item.WorklistLabel == "AI-CXR-REVIEW"
    assert "unverified AI" in item.CommentsOnTheScheduledProcedureStep
    referred = {
        str(one.ReferencedSOPInstanceUID)
        for group in reading.items(item)
        if "ReferencedSOPSequence" in group
        for one in group.ReferencedSOPSequence
    }
    sent = sources(shown, shown.timelines["chest, opacity"]["StudyInstanceUID"])
    assert {str(one.SOPInstanceUID) for one in sent} <= referred


def test_a_terminal_shows_progress_and_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    running = subprocess.Popen(
        [*COMMAND, str(tmp_path / "out")],
        stdout=theirs,
        stderr=theirs,
        env=environment,
        # Tests that run in the background of a shell ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    os.close(theirs)
    try:
        seen = read_until(ours, "■", seconds=120)
        children = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal.SIGINT)
        read_until(ours, None, seconds=60)
        assert running.wait(30) != 0
    finally:
        running.kill()
        running.wait()
        os.close(ours)
    assert "□" in seen or "■" in seen
    for step in STEPS:
        assert step in seen
    assert '{"study"' not in seen
    assert children
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, [one.name() for one in alive]


def read_until(terminal: int, mark: str | None, *, seconds: float) -> str:
    """Return what a terminal shows until a mark is seen, or until its end where there is none."""
    deadline, seen = time.monotonic() + seconds, b""
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other side is closed: Linux says EIO
            part = b""
        seen += part
        if not part or (mark is not None and mark in seen.decode(errors="replace")):
            if mark is None or part:
                return seen.decode(errors="replace")
            break
    raise AssertionError(f"not seen in {seconds} s: {mark!r} in {seen[-2000:]!r}")
