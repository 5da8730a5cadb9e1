"""One set of objects for all referees, made from phantoms, turned volumes and real radiographs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_ai.encoding import ENCODERS, Encoding
from pacs_ai.phantom import chest_radiographs, frontal_truth, opacity_box, thorax_ct, thorax_truth
from pacs_ai.pixels.volume import assemble
from pacs_ai.results import (
    Assertion,
    Axis,
    Box,
    Finding,
    Measurement,
    Narrative,
    NothingFound,
    Result,
    Segmentation,
    Sentence,
)
from pacs_ai.study import Instance, read_instance
from tests.unit.encoding import sources as make
from tests.unit.encoding.test_segmentation import PLACES, on_frames, placed
from tests.unit.pixels.made import at, enhanced
from tests.unit.pixels.slide import picture, slide

DATA = Path(__file__).parents[3] / "shared" / "data"
WHEN = datetime(2026, 11, 23, 14, tzinfo=UTC)
REAL = {
    "canon": "dx-pa-mono1-12bit-j2k-canon",
    "nih": "cr-pa-8bit-jpegbaseline-nih-siim",
    "fuji": "cr-pa-mono1-10bit-fuji",
}
ANGLE = np.deg2rad(9)
TURNED: dict[str, tuple[float, ...]] = {
    "axial": make.AXIAL,
    "flipped": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "oblique": (
        float(np.cos(ANGLE)), 0.0, float(np.sin(ANGLE)),
        float(np.sin(ANGLE) * np.sin(ANGLE)), float(np.cos(ANGLE)),
        -float(np.cos(ANGLE) * np.sin(ANGLE)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """One object as a file, with what it was made from."""

    kind: str
    path: Path
    dataset: Dataset
    work: Encoding


def tool(name: str) -> str:
    """Return the path of a referee; a missing one fails unless ALLOW_MISSING_PEERS=1."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        sentence = f"{name} is not installed: install dicom3tools, dcmtk, pixelmed-apps and java"
        if os.environ.get("ALLOW_MISSING_PEERS") == "1":
            pytest.skip(sentence)
        pytest.fail(sentence)
    return found


def run(name: str, *arguments: str | Path, **environment: str) -> str:
    """Run a referee and return all it said."""
    ran = subprocess.run(
        [tool(name), *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    return ran.stdout + ran.stderr


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Every object of the set by name."""
    folder = tmp_path_factory.mktemp("made")
    objects: dict[str, Made] = {}
    for name, work in works(tmp_path_factory.mktemp("sources")).items():
        for kind in ENCODERS:
            for number, dataset in enumerate(ENCODERS[kind](work), 1):
                key = f"{name}-{kind}-{number}"
                path = folder / f"{key}.dcm"
                path.write_bytes(make.to_bytes(dataset))
                objects[key] = Made(kind, path, dataset, work)
    return objects


def works(folder: Path) -> dict[str, Encoding]:
    """Return the works that the set is made from."""
    made = {f"volume {name}": turned(folder / name, axes) for name, axes in TURNED.items()}
    made["volume reversed"] = turned(folder / "reversed", make.AXIAL, order=-1)
    made["volume shuffled"] = turned(folder / "shuffled", TURNED["oblique"], order=0)
    # What Spacing Between Slices says may be a gap, and is not copied.
    made["volume gap"] = turned(folder / "gap", make.AXIAL, SpacingBetweenSlices="0")
    made["volume enhanced"] = enhanced_echo(folder / "enhanced", TURNED["oblique"])
    made["cine"] = cine()
    made["frame"] = frame()
    for name in PLACES:
        made[f"frames {name}"] = in_places(folder / name, name)
    made["slide"] = tissue(folder / "slide")
    made["phantom thorax"] = phantom_thorax(folder)
    made["phantom chest"] = phantom_chest(folder)
    made["nothing found"] = nothing_found(folder / "nothing")
    for name, path in REAL.items():
        made[f"real {name}"] = real(read_instance(DATA / f"cxr/{path}.dcm", digest="0" * 64))
    return made


def turned(folder: Path, axes: Sequence[float], *, order: int = 1, **elements: str) -> Encoding:
    """Return masks on a small volume of odd columns; ``order`` 0 shuffles its Instances."""
    folder.mkdir(parents=True, exist_ok=True)
    scan = list(make.volume(folder, shape=(7, 22, 27), orientation=axes, **elements))
    if order == 0:
        scan = [scan[index] for index in np.random.default_rng(5).permutation(len(scan))]
    else:
        scan = scan[::order]
    uids = tuple(one.SOPInstanceUID for one in scan)
    generator = np.random.default_rng(4)
    masks = [generator.random((7, 22, 27)) > 0.8 for _ in range(2)]
    masks[1][0] = False
    results = [
        Segmentation(label, mask, uids, f"{label} in chest CT")
        for label, mask in zip(("left lung", "heart"), masks, strict=True)
    ]
    return make.encoding(make.study(scan), make.entry(*results, kind="parse3d", sources=uids))


def enhanced_echo(folder: Path, axes: Sequence[float]) -> Encoding:
    """Return masks on the second echo of an enhanced MR whose frames come in no order."""
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(axes[:3]), np.array(axes[3:])
    step = np.cross(row, column) * 2.5
    places = [(place, echo) for place in range(7) for echo in (10.0, 80.0)]
    places = [places[index] for index in np.random.default_rng(5).permutation(len(places))]
    own = [
        group
        for place, echo in places
        for group in at(
            [round(float(one), 6) for one in place * step],
            MREchoSequence={"EffectiveEchoTime": echo},
        )
    ]
    pixels = np.random.default_rng(6).integers(0, 900, (14, 22, 27)).astype(np.uint16)
    orientation = {"ImageOrientationPatient": [round(one, 9) for one in axes]}
    source = enhanced(
        folder,
        pixels,
        modality="MR",
        own=own,
        shared={"PlaneOrientationSequence": orientation},
    )
    volume = assemble([source], frames=[n for n, (_, echo) in enumerate(places, 1) if echo == 80])
    generator = np.random.default_rng(4)
    masks = []
    for label in ("left kidney", "spleen"):
        mask = generator.random(volume.shape) > 0.8
        mask[1] = False
        masks.append(Segmentation(label, mask, volume.order, label, volume.frames))
    entry = make.entry(*masks, kind="parse3d", sources=[source.SOPInstanceUID])
    return make.encoding(make.study([source]), entry)


def cine() -> Encoding:
    """Return masks on all frames of an ultrasound cine; on some of them there is none."""
    source = read_instance(DATA / "us/us-34frame-ybr422-jpeg.dcm", digest="0" * 64)
    generator = np.random.default_rng(7)
    uids, numbers = (source.SOPInstanceUID,) * 34, tuple(range(1, 35))
    masks = []
    for label in ("left heart ventricle", "left heart atrium"):
        array = np.zeros((34, 430, 480), np.bool_)
        array[4:30, 100:180, 200:260] = generator.random((26, 80, 60)) > 0.3
        masks.append(Segmentation(label, array, uids, label, numbers, Axis.FRAMES))
    entry = make.entry(*masks, sources=[source.SOPInstanceUID], parameters={"frame": "all"})
    return make.encoding(make.study([source]), entry)


def frame() -> Encoding:
    """Return findings on one frame of an ultrasound cine."""
    source = read_instance(DATA / "us/us-34frame-ybr422-jpeg.dcm", digest="0" * 64)
    uid = source.SOPInstanceUID
    said = "BodyPartExamined is KNEE, and the pixels are like heart, not like knee"
    against = "body part contradicts header"
    results = (
        Finding("mass", Assertion.PRESENT, (uid,), (Box(uid, 100, 120, 180, 200),)),
        Finding(against, Assertion.PRESENT, (uid,), score=0.95, sentence=said),
    )
    entry = make.entry(*results, sources=[uid], parameters={"frame": 17})
    return make.encoding(make.study([source]), entry)


def in_places(folder: Path, name: str) -> Encoding:
    """Return masks on frames of an enhanced MR that lie in the patient and make no volume."""
    folder.mkdir(parents=True, exist_ok=True)
    source = placed(folder, PLACES[name])
    entry = make.entry(
        *on_frames(source, 4), sources=[source.SOPInstanceUID], parameters={"frame": "all"}
    )
    return make.encoding(make.study([source]), entry)


def tissue(folder: Path) -> Encoding:
    """Return masks on some tiles of a slide, which lies turned on its glass."""
    folder.mkdir(parents=True, exist_ok=True)
    source = slide(folder, picture(70, 130), uid="2.25.73")
    numbers = (2, 3, 6, 8)
    generator = np.random.default_rng(8)
    masks = []
    for label in ("epithelial breast cells", "neoplastic breast cells"):
        array = generator.random((4, 32, 48)) > 0.6
        array[1, :, 34:] = array[2, :, 34:] = array[3, 6:] = False  # beyond the slide
        array[0] &= label.startswith("epithelial")
        uids = (source.SOPInstanceUID,) * 4
        masks.append(Segmentation(label, array, uids, label, numbers, Axis.FRAMES))
    entry = make.entry(*masks, sources=[source.SOPInstanceUID], parameters={"frame": "all"})
    return make.encoding(make.study([source]), entry)


def stored(folder: Path, datasets: Sequence[Dataset]) -> tuple[Instance, ...]:
    """Write phantom Instances and read them as the gateway does."""
    paths = []
    for dataset in datasets:
        paths.append(folder / f"{dataset.SOPInstanceUID}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return tuple(read_instance(path, digest="0" * 64) for path in paths)


def phantom_thorax(folder: Path) -> Encoding:
    scan = stored(folder, thorax_ct(name="conformance", when=WHEN, slices=16, rows=96))
    truth = thorax_truth(name="conformance", when=WHEN, slices=16, rows=96)
    uids = tuple(one.SOPInstanceUID for one in scan)
    results = [
        Segmentation(label, truth[label], uids, f"{label} in chest CT")
        for label in ("left lung", "right lung", "bone")
    ]
    entry = make.entry(*results, model=make.REFERENCE, kind="parse3d", sources=uids)
    return make.encoding(make.study(scan), entry, production=False)


def phantom_chest(folder: Path) -> Encoding:
    films = stored(folder, chest_radiographs(name="conformance", when=WHEN, opacity=True))
    masks = frontal_truth()
    return make.encoding(make.study(films), chest_entry(films, masks, opacity_box()))


def chest_entry(
    films: Sequence[Instance],
    masks: dict[str, NDArray[np.bool_]],
    box: tuple[float, float, float, float],
) -> make.JobResults:
    uid = films[0].SOPInstanceUID
    results: list[Result] = [
        Segmentation(label, mask, (uid,), f"{label} in chest X-Ray")
        for label, mask in masks.items()
    ]
    results += [
        Finding("lung opacity", Assertion.PRESENT, (uid,), (Box(uid, *box),), "right", 0.8),
        Finding("cardiomegaly", Assertion.PRESENT, (uid,)),
        Finding("pneumothorax", Assertion.ABSENT, (uid,)),
        Finding("pleural effusion", Assertion.UNCERTAIN, (uid,)),
        Finding("pneumonia", Assertion.HISTORICAL, (uid,)),
        Measurement("cardiothoracic ratio", 0.512, "1", (uid,), "heart over thorax, from masks"),
        Narrative((Sentence("There is an opacity in the right lower lung."),), (uid,)),
    ]
    uids = tuple(one.SOPInstanceUID for one in films)
    notes = {"view": "PA", "notes": ["Lines and tubes not assessed"]}
    return make.entry(
        *results, model=make.REPORTER, kind="cxrreport", sources=uids, parameters=notes
    )


def nothing_found(folder: Path) -> Encoding:
    folder.mkdir()
    film = make.radiograph(folder)
    uid = film.SOPInstanceUID
    absent = tuple(
        Finding(label, Assertion.ABSENT, (uid,)) for label in ("pneumothorax", "consolidation")
    )
    draft = Narrative((Sentence("No focal opacity."),), (uid,))
    entry = make.entry(
        model=make.REFERENCE,
        kind="cxrreport",
        sources=[uid],
        outcome=NothingFound((*absent, draft)),
    )
    return make.encoding(make.study([film]), entry)


def real(film: Instance) -> Encoding:
    rows, columns = int(film.header.Rows), int(film.header.Columns)
    masks = {
        "left lung": make.square((rows, columns), low=0.55, high=0.8),
        "right lung": make.square((rows, columns), low=0.2, high=0.45),
    }
    box = (columns / 5, rows / 5, columns / 3, rows / 3)
    return make.encoding(make.study([film]), chest_entry([film], masks, box))


Referee = Callable[..., str]
