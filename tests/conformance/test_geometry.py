"""dcmqi, which shares no code with us, reads each mask back voxel for voxel where it was."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_ai.encoding import Encoding
from pacs_ai.results import Done, Segmentation
from tests.conformance.conftest import TURNED, Made, run
from tests.unit.encoding.test_segmentation import PLACES
from tests.unit.pixels.slide import corners

VOLUMES = [
    *(f"volume {name}" for name in TURNED),
    "volume reversed",
    "volume shuffled",
    "volume enhanced",
    "phantom thorax",
]


def masks(work: Encoding) -> list[Segmentation]:
    outcome = work.entries[0].outcome
    assert isinstance(outcome, Done)
    return [one for one in outcome.results if isinstance(one, Segmentation)]


def positions(work: Encoding, mask: Segmentation) -> NDArray[np.float64]:
    """Return where the voxels of a mask lie, in mm, from the source's own headers."""
    found = []
    numbers = mask.frames or [0] * len(mask.sources)
    for uid, number, plane in zip(mask.sources, numbers, mask.mask, strict=True):
        header = geometry(work.study.instance(uid).header, number)
        axes = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        down, across = (float(value) for value in header.PixelSpacing)
        rows, columns = np.nonzero(plane)
        origin = np.array(header.ImagePositionPatient, float)
        found.append(origin + columns[:, None] * across * axes[0] + rows[:, None] * down * axes[1])
    return np.concatenate(found)


def geometry(header: Dataset, number: int) -> Dataset:
    """Return what says where a frame lies; number 0 is the whole of a single-frame Instance."""
    if number == 0:
        return header
    (shared,) = header.SharedFunctionalGroupsSequence
    found = Dataset()
    own = header.PerFrameFunctionalGroupsSequence[number - 1]
    for macro in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
        found.update((own if macro in own else shared)[macro].value[0])
    return found


def read_back(path: Path, folder: Path, number: int) -> NDArray[np.float64]:
    """Return where the voxels of a segment lie as dcmqi reads them, in mm (LPS)."""
    if not (folder / "p-1.nii.gz").exists():
        arguments = ("--outputDirectory", folder, "--prefix", "p", "--outputType", "nii")
        run("segimage2itkimage", "--inputDICOM", path, *arguments)
    image = nibabel.load(folder / f"p-{number}.nii.gz")
    voxels = np.argwhere(np.asarray(image.dataobj) > 0)
    ras = nibabel.affines.apply_affine(image.affine, voxels)
    return np.asarray(ras * (-1, -1, 1), np.float64)


@pytest.mark.parametrize("name", VOLUMES)
def test_every_voxel_comes_back_where_it_was(
    made: dict[str, Made], name: str, tmp_path: Path
) -> None:
    one = made[f"{name}-segmentation-1"]
    for number, mask in enumerate(masks(one.work), 1):
        expected = positions(one.work, mask)
        found = read_back(one.path, tmp_path, number)
        assert len(found) == len(expected) == mask.mask.sum()
        # Rounding of a NIfTI header's single precision is far below a voxel.
        assert np.abs(nearest(expected, found)).max() < 0.02


def nearest(expected: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance in mm from each expected point to the closest found one."""
    from scipy.spatial import cKDTree

    distances, indices = cKDTree(found).query(expected)
    assert len(set(indices.tolist())) == len(expected)
    return np.asarray(distances, np.float64)


def test_frames_of_a_multi_frame_source_are_named_as_it_numbers_them(made: dict[str, Made]) -> None:
    """highdicom reads the object back by source frame, and each frame is where its source is."""
    one = made["volume enhanced-segmentation-1"]
    found = masks(one.work)
    (source,) = one.work.study.instances
    segmentation = hd.seg.segread(one.path)
    read = segmentation.get_pixels_by_source_frame(
        source_sop_instance_uid=source.SOPInstanceUID,
        source_frame_numbers=list(found[0].frames),
        ignore_spatial_locations=False,
        assert_missing_frames_are_empty=True,
    )
    for segment, mask in enumerate(found):
        np.testing.assert_array_equal(read[..., segment].astype(bool), mask.mask)
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        (derived,) = group.DerivationImageSequence[0].SourceImageSequence
        place = geometry(source.header, int(derived.ReferencedFrameNumber)).ImagePositionPatient
        assert list(group.PlanePositionSequence[0].ImagePositionPatient) == list(place)
    assert segmentation.FrameOfReferenceUID == source.header.FrameOfReferenceUID


def test_frames_of_a_cine_are_read_back_by_their_numbers(made: dict[str, Made]) -> None:
    one = made["cine-segmentation-1"]
    found = masks(one.work)
    segmentation = hd.seg.segread(one.path)
    read = segmentation.get_pixels_by_source_frame(
        source_sop_instance_uid=one.work.study.instances[0].SOPInstanceUID,
        source_frame_numbers=list(found[0].frames),
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    for segment, mask in enumerate(found):
        np.testing.assert_array_equal(read[..., segment].astype(bool), mask.mask)


@pytest.mark.parametrize("name", PLACES)
def test_frames_in_the_patient_are_read_back_where_their_source_lies(
    made: dict[str, Made], name: str
) -> None:
    one = made[f"frames {name}-segmentation-1"]
    (source,) = one.work.study.instances
    found = masks(one.work)
    segmentation = hd.seg.segread(one.path)
    read = segmentation.get_pixels_by_source_frame(
        source_sop_instance_uid=source.SOPInstanceUID,
        source_frame_numbers=list(found[0].frames),
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    for segment, mask in enumerate(found):
        np.testing.assert_array_equal(read[..., segment].astype(bool), mask.mask)
    assert segmentation.FrameOfReferenceUID == source.header.FrameOfReferenceUID
    for index, group in enumerate(segmentation.PerFrameFunctionalGroupsSequence, 1):
        (derived,) = group.DerivationImageSequence[0].SourceImageSequence
        place, directions, spacing = PLACES[name][int(derived.ReferencedFrameNumber) - 1]
        written = geometry(segmentation, index)
        assert list(written.ImagePositionPatient) == list(place)
        assert list(written.ImageOrientationPatient) == directions
        assert list(written.PixelSpacing) == spacing


def test_tiles_come_back_where_they_lie_on_the_slide(made: dict[str, Made]) -> None:
    """highdicom puts the slide together again, and says where its own tiles of the source lie."""
    one = made["slide-segmentation-1"]
    (source,) = one.work.study.instances
    segmentation = hd.seg.segread(one.path)
    whole = segmentation.get_total_pixel_matrix()
    for segment, mask in enumerate(masks(one.work)):
        expected = np.zeros((96, 144), np.bool_)
        for plane, number in zip(mask.mask, mask.frames, strict=True):
            row, column = corners((70, 130), (32, 48))[number - 1]
            expected[row : row + 32, column : column + 48] = plane
        np.testing.assert_array_equal(whole[..., segment].astype(bool), expected[:70, :130])
    assert segmentation.PositionReferenceIndicator == "SLIDE_CORNER"
    assert segmentation.ContainerIdentifier == source.header.ContainerIdentifier
    places = hd.utils.compute_plane_position_slide_per_frame(pydicom.dcmread(source.path))
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        (derived,) = group.DerivationImageSequence[0].SourceImageSequence
        (place,) = places[int(derived.ReferencedFrameNumber) - 1]
        (own,) = group.PlanePositionSlideSequence
        for keyword in ("RowPosition", "ColumnPosition"):
            name = f"{keyword}InTotalImagePixelMatrix"
            assert own[name].value == place[name].value
        for axis in "XYZ":
            name = f"{axis}OffsetInSlideCoordinateSystem"
            assert float(own[name].value) == pytest.approx(float(place[name].value), abs=1e-6)


def test_the_left_lung_comes_back_on_the_patient_s_left(
    made: dict[str, Made], tmp_path: Path
) -> None:
    one = made["phantom thorax-segmentation-1"]
    left = read_back(one.path, tmp_path, 1).mean(axis=0)
    right = read_back(one.path, tmp_path, 2).mean(axis=0)
    assert left[0] > right[0] + 50


def test_a_mirrored_mask_would_be_seen(made: dict[str, Made], tmp_path: Path) -> None:
    one = made["volume oblique-segmentation-1"]
    mask = masks(one.work)[0]
    mirrored = Segmentation(mask.label, mask.mask[:, :, ::-1], mask.sources, mask.prompt)
    found = read_back(one.path, tmp_path, 1)
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(found).query(positions(one.work, mirrored))
    assert distances.max() > 0.5
