"""What comes out of the gateway lies where the phantom's organs are; and twice the same is the same bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
import yaml
from pydicom.dataset import Dataset

from pacs_ai import phantom
from pacs_ai.gateway import Gateway
from pacs_ai.settings import load
from tests.end_to_end import reading, stepping
from tests.running import Models

WHEN = datetime(2026, 11, 23, 14, tzinfo=UTC)
NAME = "truth"
FRONTAL_DICE = {"left lung": 0.93, "right lung": 0.93, "heart": 0.8}
"""What the reference models must reach on the projection; on a mirrored one they reach none of it."""

ENCODE = """
import datetime, pathlib, sys, time
shift, really = float(sys.argv[2]), time.time
class Later(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(days=shift)
    @classmethod
    def utcnow(cls):
        raise AssertionError("a time without a zone")
datetime.datetime = Later
time.time = lambda: really() + 86400 * shift
from pacs_ai.gateway import Gateway
from pacs_ai.settings import load
gateway = Gateway(load(pathlib.Path(sys.argv[1])))
while gateway.encode():
    pass
gateway.close()
"""
"""Encode on another day: every clock that Python code can read is moved before anything is imported."""


@dataclass(frozen=True)
class Sent:
    """The phantom Studies, and what two encoding processes made of the same ledger and spool."""

    films: tuple[Dataset, ...]
    slices: tuple[Dataset, ...]
    today: Path
    later: Path
    before: frozenset[str]

    def study(self, of: tuple[Dataset, ...]) -> str:
        return str(of[0].StudyInstanceUID)


@pytest.fixture(scope="module")
def sent(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    folder = tmp_path_factory.mktemp("phantom")
    films = phantom.chest_radiographs(name=NAME, when=WHEN, opacity=True)
    slices = phantom.thorax_ct(name=NAME, when=WHEN)
    with stepping.stepped(folder / "today", models) as gateway:
        for data_sets in (films, slices):
            stepping.receive(gateway, data_sets, folder / "sources")
        stepping.infer(gateway)
        before = frozenset(instances(gateway.spool.path))
    later = copy_of(folder / "today", folder / "later")
    encode(folder / "today", zone="America/St_Johns", seed="1", days=0)
    encode(later, zone="Pacific/Kiritimati", seed="2", days=2)
    return Sent(films, slices, folder / "today", later, before)


def instances(spool: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (spool / "instances").glob("*/*.dcm")}


def copy_of(folder: Path, target: Path) -> Path:
    """Copy a gateway's folder; its settings name the new one."""
    shutil.copytree(folder, target)
    settings = yaml.safe_load((target / "settings.yaml").read_text())
    settings["data"] = str(target / "gateway")
    (target / "settings.yaml").write_text(yaml.safe_dump(settings))
    return target


def encode(folder: Path, *, zone: str, seed: str, days: float) -> None:
    """Encode in a process of its own: other zone, other order of sets, other day."""
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::RuntimeWarning",
            "-c",
            ENCODE,
            str(folder / "settings.yaml"),
            str(days),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "TZ": zone, "PYTHONHASHSEED": seed},
    )
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def gateway(sent: Sent) -> Iterator[Gateway]:
    opened = Gateway(load(sent.today / "settings.yaml"))
    yield opened
    opened.close()


def test_two_processes_on_two_days_write_the_same_bytes(sent: Sent) -> None:
    one, other = (instances(folder / "gateway/spool") for folder in (sent.today, sent.later))
    new = set(one) - sent.before
    # Films: masks, two reports, draft, page. Volume: masks, report, page.
    assert len(new) == 8
    assert set(one) == set(other)
    assert [name for name in new if one[name] != other[name]] == []


def test_the_other_day_was_another_day(sent: Sent) -> None:
    """The clock of the second process was moved indeed: its ledger says so."""
    ends = []
    for folder in (sent.today, sent.later):
        opened = Gateway(load(folder / "settings.yaml"))
        timeline = stepping.timeline(opened, sent.study(sent.films))
        opened.close()
        ends.append(max(datetime.fromisoformat(one["made"]) for one in timeline["objects"]))
    assert (ends[1] - ends[0]).days in (1, 2)


def test_lungs_of_the_volume_are_where_the_phantom_s_are(sent: Sent, gateway: Gateway) -> None:
    (path,) = stepping.made(gateway, sent.study(sent.slices))["segmentation"]
    found = reading.volume_masks(path, sent.slices)
    truth = phantom.thorax_truth(name=NAME, when=WHEN)
    assert reading.lung_faults(found, truth) == []
    assert reading.dice(found["body"] | found["bone"], truth["body"]) > 0.95
    assert reading.dice(found["bone"], truth["bone"]) > 0.8


def test_lungs_and_heart_of_the_radiograph_are_where_the_phantom_s_are(
    sent: Sent, gateway: Gateway
) -> None:
    (path,) = stepping.made(gateway, sent.study(sent.films))["segmentation"]
    found = reading.film_masks(path, sent.films[0])
    truth = phantom.frontal_truth()
    reached = {label: reading.dice(found[label], truth[label]) for label in FRONTAL_DICE}
    assert not {label: one for label, one in reached.items() if one < FRONTAL_DICE[label]}, reached


def test_the_opacity_is_boxed_where_the_phantom_s_is(sent: Sent, gateway: Gateway) -> None:
    boxes = [
        box
        for path in stepping.made(gateway, sent.study(sent.films))["report"]
        for box in reading.finding_boxes(pydicom.dcmread(path), "lung opacity")
    ]
    (box,) = boxes
    assert reading.overlap(box, phantom.opacity_box()) > 0.6
