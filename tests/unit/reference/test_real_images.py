"""The reference models on real images: plausible organs, on the right side, no finding made up."""

from __future__ import annotations

from collections.abc import Callable

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from pacs_ai.reference import volume
from pacs_ai.reference.lungfield import SIDE, Chest, find_chest
from pacs_ai.reference.report import report

Frontal = Callable[[str], NDArray[np.uint8]]

FRONTALS = [
    "cr-pa-mono1-10bit-fuji.dcm",
    "cr-pa-8bit-jpegbaseline-nih-siim.dcm",
    "nih-test1-dx.dcm",
    "nih-test2-dx-cardiomegaly.dcm",
    "dx-pa-mono1-12bit-j2k-canon.dcm",
]
WITHOUT_A_FOCAL_OPACITY = FRONTALS[:4]


@pytest.fixture(scope="module")
def lungs(real_ct: nibabel.Nifti1Image) -> NDArray[np.uint8]:
    """Left (1) and right (2) lung of the real CT, axes x, y, z."""
    return volume.label_map(real_ct, ["left lung in chest CT", "right lung in chest CT"])


@pytest.fixture(scope="module")
def chests(real_frontal: Frontal) -> dict[str, Chest]:
    return {name: find_chest(real_frontal(name)) for name in FRONTALS}


def test_the_left_lung_lies_on_the_patients_left(
    lungs: NDArray[np.uint8], real_ct: nibabel.Nifti1Image
) -> None:
    centres = [
        (real_ct.affine @ [*ndimage.center_of_mass(lungs == label), 1])[:3] for label in (1, 2)
    ]
    # RAS+: x rises towards the patient's right.
    assert centres[0][0] < centres[1][0] - 80


def test_lungs_have_the_volume_of_lungs(
    lungs: NDArray[np.uint8], real_ct: nibabel.Nifti1Image
) -> None:
    voxel = abs(np.linalg.det(real_ct.affine)) / 1e6
    left, right = (float((lungs == label).sum()) * voxel for label in (1, 2))
    assert 1.0 < left < right < 4.5


def test_lungs_are_lung_and_hold_their_vessels(
    lungs: NDArray[np.uint8], real_ct: nibabel.Nifti1Image
) -> None:
    hounsfield = np.asarray(real_ct.dataobj) / 255 * 1500 - 910
    inside = hounsfield[lungs > 0]
    assert np.median(inside) < -780
    assert 0.005 < (inside > -100).mean() < 0.08
    for label in (1, 2):
        parts, _ = ndimage.label(lungs == label)
        sizes = np.bincount(parts.ravel())[1:]
        assert sizes.max() > 0.98 * sizes.sum()


def test_the_windpipe_belongs_to_no_lung(
    lungs: NDArray[np.uint8], real_ct: nibabel.Nifti1Image
) -> None:
    # In the upper chest the windpipe is the air between the lungs that is in neither.
    hounsfield = np.asarray(real_ct.dataobj) / 255 * 1500 - 910
    level = int(np.nonzero((lungs > 0).any(axis=(0, 1)))[0].max()) - 5
    free = (hounsfield[:, :, level] < -850) & (lungs[:, :, level] == 0)
    depths = np.nonzero((lungs[:, :, level] > 0).any(axis=0))[0]
    free[:, : depths.min()] = free[:, depths.max() :] = False
    parts, count = ndimage.label(free)
    area = abs(real_ct.affine[0, 0] * real_ct.affine[1, 1])
    sizes = ndimage.sum(free, parts, np.arange(1, count + 1)) * area
    columns = ndimage.center_of_mass(free, parts, np.arange(1, count + 1))
    lung_columns = [ndimage.center_of_mass(lungs[:, :, level] == label)[0] for label in (1, 2)]
    windpipes = [
        size
        for size, (column, _) in zip(sizes, columns, strict=True)
        if 80 < size < 600 and min(lung_columns) < column < max(lung_columns)
    ]
    assert len(windpipes) == 1


@pytest.mark.parametrize("name", FRONTALS)
def test_lung_fields_are_found_on_real_radiographs(chests: dict[str, Chest], name: str) -> None:
    chest = chests[name]
    assert chest.found
    for lung in (chest.left, chest.right):
        assert 0.05 < lung.mean() < 0.25
    # Seen face to face: the patient's left lung is on the right.
    left, right = (np.nonzero(lung)[1].mean() for lung in (chest.left, chest.right))
    assert left - right > 0.25 * SIDE
    assert not (chest.left & chest.right).any()


@pytest.mark.parametrize("name", FRONTALS)
def test_the_heart_lies_between_the_lungs_and_to_the_left(
    chests: dict[str, Chest], name: str
) -> None:
    chest = chests[name]
    heart = np.nonzero(chest.heart)[1].mean()
    lungs = np.nonzero((chest.left | chest.right).any(axis=0))[0]
    assert np.nonzero(chest.right)[1].mean() < heart < np.nonzero(chest.left)[1].mean()
    assert heart > lungs.mean() - 0.02 * SIDE
    assert 0.3 < np.ptp(np.nonzero(chest.heart.any(axis=0))[0]) / np.ptp(lungs) < 0.65


def test_an_enlarged_heart_is_wider_than_the_others(chests: dict[str, Chest]) -> None:
    def ratio(chest: Chest) -> float:
        lungs = np.nonzero((chest.left | chest.right).any(axis=0))[0]
        return float(np.ptp(np.nonzero(chest.heart.any(axis=0))[0]) / np.ptp(lungs))

    ratios = {name: ratio(chest) for name, chest in chests.items()}
    assert max(ratios, key=lambda name: ratios[name]) == "nih-test2-dx-cardiomegaly.dcm"


@pytest.mark.parametrize("name", WITHOUT_A_FOCAL_OPACITY)
def test_no_opacity_is_made_up(real_frontal: Frontal, name: str) -> None:
    sentences = report(real_frontal(name))
    assert sentences
    assert [boxes for _, boxes in sentences if boxes] == []


def test_a_lung_that_is_dense_throughout_is_said_to_be(real_frontal: Frontal) -> None:
    sentences = report(real_frontal("dx-pa-mono1-12bit-j2k-canon.dcm"))
    assert [text for text, boxes in sentences if boxes] == [
        "There is diffuse opacity in the left lung."
    ]
    assert "No dense opacity is seen in the left lung." not in [text for text, _ in sentences]
