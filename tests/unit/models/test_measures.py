"""Numbers measured in masks of a volume are those of the voxels, in the patient's millimetres."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from pacs_ai.models.measures import measure
from pacs_ai.pixels.volume import Volume, assemble
from pacs_ai.results import HOUNSFIELD, Measurement, Segmentation
from tests.unit.pixels.made import at, enhanced, slices

SHAPE = (4, 12, 10)


def volume_of(folder: Path, stored: NDArray[np.uint16] | None = None, **how: Any) -> Volume:
    pixels = np.zeros(SHAPE, np.uint16) if stored is None else stored
    return assemble(slices(folder, pixels, **how))


def masked(volume: Volume, mask: NDArray[np.bool_], label: str) -> Segmentation:
    return Segmentation(label, mask, volume.order, "p", volume.frames)


def values(found: tuple[Measurement, ...]) -> dict[str, float]:
    return {one.label: one.value for one in found}


def test_attenuation_is_the_mean_of_the_mask_in_hounsfield_units(tmp_path: Path) -> None:
    stored = np.random.default_rng(1).integers(900, 1200, SHAPE).astype(np.uint16)
    volume = volume_of(tmp_path, stored)
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 2:7, 3:9] = True
    (found,) = measure(volume, [masked(volume, mask, "liver")])
    assert found.value == pytest.approx(float(stored[mask].mean()) - 1024, abs=0.051)
    assert (found.label, found.unit, found.segment) == ("mean attenuation", HOUNSFIELD, "liver")
    assert set(found.sources) == set(volume.order)


def test_padding_is_no_attenuation(tmp_path: Path) -> None:
    stored = np.full(SHAPE, 1064, np.uint16)
    stored[:, :, :5] = 0
    volume = volume_of(tmp_path, stored, PixelPaddingValue=0)
    assert values(measure(volume, [masked(volume, np.ones(SHAPE, bool), "liver")])) == {
        "mean attenuation": 40.0
    }


@pytest.mark.parametrize(
    "changes",
    [{"Modality": "MR"}, {"RescaleType": "MGML"}, {"RescaleSlope": None, "RescaleIntercept": None}],
    ids=["MR", "other units", "no units"],
)
def test_what_is_not_in_hounsfield_units_has_no_attenuation(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    volume = volume_of(tmp_path, **changes)
    assert measure(volume, [masked(volume, np.ones(SHAPE, bool), "liver")]) == ()


def test_frames_that_are_not_in_hounsfield_units_have_no_attenuation(tmp_path: Path) -> None:
    flow = {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}
    own = at(*[(0, 0, z) for z in range(4)], PixelValueTransformationSequence=flow)
    volume = assemble([enhanced(tmp_path, np.zeros(SHAPE, np.uint16), own=own)])
    assert measure(volume, [masked(volume, np.ones(SHAPE, bool), "liver")]) == ()


def test_lesions_are_counted_and_the_longest_is_measured_in_millimetres(tmp_path: Path) -> None:
    volume = volume_of(tmp_path, Modality="MR", spacing=(0.5, 2.0))
    mask = np.zeros(SHAPE, bool)
    mask[0, 0, 0:3] = True  # 2 columns of 2.0 mm
    mask[2, 1:11, 5] = True  # 9 rows of 0.5 mm
    mask[3, 11, 6] = True  # touches the second at a corner, and is shorter
    found = values(measure(volume, [masked(volume, mask, "lung nodule")]))
    assert found == {"number of lesions": 2, "longest diameter": 4.5}


def test_a_diameter_lies_between_the_two_corners_that_are_farthest_apart(tmp_path: Path) -> None:
    volume = volume_of(tmp_path, Modality="MR", spacing=(0.5, 2.0))
    mask = np.zeros(SHAPE, bool)
    mask[1, 2:9, 2:5] = True
    found = values(measure(volume, [masked(volume, mask, "lung nodule")]))
    assert found["longest diameter"] == pytest.approx(np.hypot(6 * 0.5, 2 * 2.0), abs=0.05)


def test_an_organ_has_neither_count_nor_diameter(tmp_path: Path) -> None:
    volume = volume_of(tmp_path, Modality="MR")
    assert measure(volume, [masked(volume, np.ones(SHAPE, bool), "liver")]) == ()


@pytest.mark.parametrize("seed", range(5))
def test_a_diameter_is_the_same_as_between_all_pairs(tmp_path: Path, seed: int) -> None:
    volume = volume_of(tmp_path, Modality="MR", spacing=(0.7, 1.1))
    mask = np.zeros(SHAPE, bool)
    mask[1] = ndimage.binary_fill_holes(np.random.default_rng(seed).random(SHAPE[1:]) > 0.55)
    parts, count = ndimage.label(mask[1], np.ones((3, 3)))
    points = [np.argwhere(parts == part) * (0.7, 1.1) for part in range(1, count + 1)]
    longest = max(np.linalg.norm(a - b) for one in points for a in one for b in one)
    found = values(measure(volume, [masked(volume, mask, "lung nodule")]))
    assert found["longest diameter"] == pytest.approx(longest, abs=0.051)
    assert found["number of lesions"] == count
