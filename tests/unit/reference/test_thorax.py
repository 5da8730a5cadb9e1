"""Lungs, bone and body on a CT: found, on the right side, whatever the order of the voxels."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_ai import phantom
from pacs_ai.reference import volume
from pacs_ai.reference.frame import BadInputError, UndecodableError
from tests.unit.reference.pictures import WHEN, dice, nifti

PROMPTS = ["left lung in chest CT", "right lung in chest CT"]
Small = tuple[nibabel.Nifti1Image, dict[str, NDArray[np.bool_]]]


def test_lungs_agree_with_the_truth_at_full_size() -> None:
    image, order = nifti(list(phantom.thorax_ct(name="full", when=WHEN)))
    truth = phantom.thorax_truth(name="full", when=WHEN)
    labels = volume.label_map(image, PROMPTS).transpose(2, 1, 0)
    assert dice(labels == 1, truth["left lung"][order]) >= 0.97
    assert dice(labels == 2, truth["right lung"][order]) >= 0.97


def test_body_and_bone_agree_with_the_truth(small_volume: Small) -> None:
    image, truth = small_volume
    labels = volume.label_map(image, ["body", "bone"])
    # Where two prompts overlap the smaller one shows: together they are the body.
    assert dice(labels > 0, truth["body"]) > 0.97
    assert dice(labels == 2, truth["bone"]) > 0.8


def test_labels_follow_the_order_of_the_prompts(small_volume: Small) -> None:
    image, truth = small_volume
    labels = volume.label_map(image, [*reversed(PROMPTS)])
    assert dice(labels == 1, truth["right lung"]) > 0.95
    assert dice(labels == 2, truth["left lung"]) > 0.95


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_side_comes_from_the_affine_and_not_from_the_order_of_voxels(
    small_volume: Small, axis: int
) -> None:
    image, truth = small_volume
    voxels = np.flip(np.asarray(image.dataobj), axis)
    turn = np.eye(4)
    turn[axis, axis], turn[axis, 3] = -1, voxels.shape[axis] - 1
    labels = volume.label_map(nibabel.Nifti1Image(voxels, image.affine @ turn), PROMPTS)
    assert dice(labels == 1, np.flip(truth["left lung"], axis)) > 0.95


def test_a_mirrored_patient_has_the_lungs_mirrored(small_volume: Small) -> None:
    image, truth = small_volume
    mirrored = nibabel.Nifti1Image(np.flip(np.asarray(image.dataobj), 0), image.affine)
    labels = volume.label_map(mirrored, PROMPTS)
    assert dice(labels == 1, np.flip(truth["right lung"], 0)) > 0.95


def test_axes_in_another_order_are_found_and_answered_in_that_order(small_volume: Small) -> None:
    image, truth = small_volume
    voxels = np.asarray(image.dataobj).transpose(2, 0, 1)
    order = np.eye(4)[:, [2, 0, 1, 3]]
    labels = volume.label_map(nibabel.Nifti1Image(voxels, image.affine @ order), PROMPTS)
    assert labels.shape == voxels.shape
    assert dice(labels == 1, truth["left lung"].transpose(2, 0, 1)) > 0.95


def test_lungs_that_touch_in_front_are_still_two(small_volume: Small) -> None:
    image, truth = small_volume
    voxels = np.asarray(image.dataobj).copy()
    # Where the lungs come near each other, put lung between them.
    bridge = np.zeros(voxels.shape, bool)
    for y, z in zip(
        *np.nonzero(truth["left lung"].any(0) & truth["right lung"].any(0)), strict=True
    ):
        left, right = (np.nonzero(truth[side][:, y, z])[0] for side in ("left lung", "right lung"))
        first, last = right.max(), left.min()
        if first < last <= first + 6:
            bridge[first:last, y, z] = True
    assert bridge.sum() > 100
    voxels[bridge] = 8
    labels = volume.label_map(nibabel.Nifti1Image(voxels, image.affine), PROMPTS)
    assert dice(labels == 1, truth["left lung"]) > 0.94
    assert dice(labels == 2, truth["right lung"]) > 0.94


def test_an_unknown_prompt_has_an_empty_mask(small_volume: Small) -> None:
    image, _ = small_volume
    assert not volume.label_map(image, ["spleen in abdomen CT", "left lung in chest MRI"]).any()


def test_an_empty_volume_has_no_lungs() -> None:
    image = nibabel.Nifti1Image(np.zeros((40, 40, 20), np.uint8), np.diag([5.0, 5, 5, 1]))
    assert not volume.label_map(image, [*PROMPTS, "body", "bone"]).any()


def test_a_volume_without_an_affine_is_refused() -> None:
    image = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.uint8), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    with pytest.raises(BadInputError, match="left and right"):
        volume.read_nifti(image.to_bytes())


@pytest.mark.parametrize("data", [b"", b"no volume", b"\x1f\x8b cut short"])
def test_bytes_that_are_no_volume_are_undecodable(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        volume.read_nifti(data)


def test_the_package_reads_nothing_of_the_gateway() -> None:
    for path in Path(volume.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "pacs_ai.models" not in text
        assert "pacs_ai.pixels" not in text
