"""A mirrored source and a mirrored mask are both seen by what the phantom's truth is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_ai import phantom, results
from tests.end_to_end import reading, stepping
from tests.end_to_end.test_phantom_truth import FRONTAL_DICE
from tests.running import Models

WHEN = datetime(2026, 11, 23, 14, tzinfo=UTC)
SIDES = ("left lung", "right lung")


def mirrored(data_sets: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """Return the same Instances with columns in reverse, and the header as if nothing had happened."""
    turned = []
    for one in data_sets:
        copy = Dataset(one)
        copy.file_meta = one.file_meta
        copy.PixelData = np.ascontiguousarray(one.pixel_array[:, ::-1]).tobytes()
        turned.append(copy)
    return tuple(turned)


@pytest.fixture(scope="module")
def thorax() -> tuple[Dataset, ...]:
    return phantom.thorax_ct(name="mirror", when=WHEN, slices=64, rows=128)


@pytest.fixture(scope="module")
def truth() -> dict[str, reading.Mask]:
    return phantom.thorax_truth(name="mirror", when=WHEN, slices=64, rows=128)


def results_of(data_sets: Sequence[Dataset], folder: Path, models: Models) -> dict[str, list[Path]]:
    """Take a Study through the gateway to its SOP Instances."""
    with stepping.stepped(folder, models) as gateway:
        stepping.receive(gateway, data_sets, folder / "sources")
        stepping.infer(gateway, "parse2d", "parse3d", "cxrreport")
        stepping.encode(gateway)
        return stepping.made(gateway, str(data_sets[0].StudyInstanceUID))


def masks_of(data_sets: Sequence[Dataset], folder: Path, models: Models) -> dict[str, reading.Mask]:
    (path,) = results_of(data_sets, folder, models)["segmentation"]
    return reading.volume_masks(path, data_sets)


def test_a_volume_that_nobody_mirrored_passes(
    thorax: tuple[Dataset, ...], truth: dict[str, reading.Mask], tmp_path: Path, models: Models
) -> None:
    found = masks_of(thorax, tmp_path, models)
    assert reading.lung_faults(found, truth) == []


def test_a_mirrored_volume_fails(
    thorax: tuple[Dataset, ...], truth: dict[str, reading.Mask], tmp_path: Path, models: Models
) -> None:
    # The header says where left is, so each label stays on its side and gets the other lung's shape:
    # both lie in the same half of the chest, and only what is asymmetric tells them apart.
    found = masks_of(mirrored(thorax), tmp_path, models)
    assert reading.lung_faults(found, truth) == [*SIDES]
    assert max(reading.dice(found[side], truth[side]) for side in SIDES) < 0.9
    assert reading.dice(found["left lung"], truth["right lung"][:, :, ::-1]) > reading.LUNG_DICE


def test_a_mask_that_is_mirrored_before_it_is_encoded_fails(
    thorax: tuple[Dataset, ...],
    truth: dict[str, reading.Mask],
    tmp_path: Path,
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def turned(data: bytes) -> tuple[results.Result, ...]:
        return tuple(
            results.Segmentation(
                one.label, one.mask[:, :, ::-1], one.sources, one.prompt, one.frames
            )
            if isinstance(one, results.Segmentation)
            else one
            for one in loads(data)
        )

    loads = results.loads
    monkeypatch.setattr(results, "loads", turned)
    found = masks_of(thorax, tmp_path, models)
    assert reading.lung_faults(found, truth) == [*SIDES]
    assert max(reading.dice(found[side], truth[side]) for side in SIDES) < 0.1


def test_a_mirrored_radiograph_fails(tmp_path: Path, models: Models) -> None:
    films = phantom.chest_radiographs(name="mirror", when=WHEN, opacity=True)
    turned = (*mirrored(films[:1]), films[1])
    made = results_of(turned, tmp_path, models)
    found = reading.film_masks(made["segmentation"][0], turned[0])
    truth = phantom.frontal_truth()
    boxes = [
        box
        for path in made["report"]
        for box in reading.finding_boxes(pydicom.dcmread(path), "lung opacity")
    ]
    for label, least in FRONTAL_DICE.items():
        assert reading.dice(found[label], truth[label]) < least, label
    assert len(boxes) == 1
    assert not [box for box in boxes if reading.overlap(box, phantom.opacity_box()) > 0]
