"""A Series divided: what lies on one grid together, and what is refused with which reason."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement

from pacs_ai.errors import PixelError
from pacs_ai.pixels.stacks import Stacks, partition
from pacs_ai.pixels.volume import assemble, planes
from pacs_ai.study import Instance, read_instance
from tests.unit.pixels.made import at, enhanced, slices

STORED = np.random.default_rng(3).integers(0, 2000, (6, 4, 5)).astype(np.uint16)
ZS = [(-100.0, -50.0, 20.0 + 2 * k) for k in range(6)]


def sizes(found: Stacks) -> list[int]:
    return [len(one.planes) for one in found.usable]


def places(found: Stacks, which: int = 0) -> list[float]:
    return [float(one.position[2]) for one in found.usable[which].planes]


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("EchoTime", (10, 80)),
        ("EchoTime", ("10.001", "10.01")),
        ("AcquisitionNumber", (1, 2)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("DiffusionBValue", (0.0, 1000.0)),
        ("ConvolutionKernel", ("B30f", "B70f")),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
        ("InversionTime", (400, 900)),
        ("FrameOfReferenceUID", ("2.25.3", "2.25.4")),
        ("SliceThickness", (2, 4)),
    ],
)
def test_two_volumes_in_one_place_are_told_apart_by_what_made_them(
    tmp_path: Path, keyword: str, values: tuple[Any, Any]
) -> None:
    made: list[Instance] = []
    for index, value in enumerate(values):
        (folder := tmp_path / str(index)).mkdir()
        one = slices(folder, STORED, **{keyword: value})
        made += one
    random.Random(1).shuffle(made)
    found = partition(made)
    assert sizes(found) == [6, 6]
    assert found.refused == ()
    assert keyword in found.differ
    with pytest.raises(PixelError, match=f"holds 2 volumes that differ in {keyword}") as caught:
        assemble(made)
    assert str(caught.value).count(f"6 slices of {keyword} ") == 2


def test_mixed_orientations_are_split(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    axial = slices(tmp_path, STORED)
    sagittal = slices(
        tmp_path / "b", STORED, orientation=(0, 1, 0, 0, 0, -1), step=(3, 0, 0), Rows=4
    )
    found = partition([*axial, *sagittal])
    assert sizes(found) == [6, 6]
    assert found.differ == "ImageOrientationPatient"


def test_localizer_in_the_series_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    scout = slices(
        tmp_path / "b",
        STORED[:1],
        orientation=(1, 0, 0, 0, 0, -1),
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImagePositionPatient=None,
    )
    volume = assemble(
        [*scout, *slices(tmp_path, STORED, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])]
    )
    assert volume.shape == (6, 4, 5)
    (note,) = volume.notes
    assert "is a localizer" in note
    assert note.startswith("1 of its frames")


@pytest.mark.parametrize("kind", ["MIP", "MinIP", "PROJECTION IMAGE"])
def test_projection_is_no_volume_however_even_its_positions(tmp_path: Path, kind: str) -> None:
    made = slices(tmp_path, STORED, ImageType=["DERIVED", "SECONDARY", kind.upper()])
    with pytest.raises(PixelError, match="projected or rendered"):
        assemble(made)


def test_derived_slices_are_never_mixed_with_the_original_ones(tmp_path: Path) -> None:
    derived = {k: {"ImageType": ["DERIVED", "PRIMARY"]} for k in (4, 5)}
    found = partition(slices(tmp_path, STORED, ImageType=["ORIGINAL", "PRIMARY"], changes=derived))
    assert sizes(found) == [4, 2]


def test_slice_without_position_takes_its_whole_group_with_it(tmp_path: Path) -> None:
    """It could be any of them, the last one for instance, whose loss nothing else would show."""
    changes = {5: {"ImagePositionPatient": None}}
    with pytest.raises(PixelError, match=r"2\.25\.105 has no ImagePositionPatient"):
        assemble(slices(tmp_path, STORED, changes=changes))


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("PixelSpacing", ["NaN", "0.8"], "no PixelSpacing of 2 numbers"),
        ("PixelSpacing", ["0", "0.8"], "PixelSpacing of 0"),
        ("PixelSpacing", ["-1", "0.8"], "PixelSpacing of 0 or less"),
        ("PixelSpacing", ["0.8"], "no PixelSpacing of 2"),
        ("ImagePositionPatient", ["inf", "0", "0"], "no ImagePositionPatient"),
        ("ImagePositionPatient", ["x", "0", "0"], "no ImagePositionPatient"),
        ("ImageOrientationPatient", ["nan", "0", "0", "0", "1", "0"], "no ImageOrientationPatient"),
        ("ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"], "right angles"),
        ("ImageOrientationPatient", ["0", "0", "0", "0", "0", "0"], "unit length"),
        ("ImageOrientationPatient", None, "no ImageOrientationPatient"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_geometry_that_is_no_number_is_refused_by_name(
    tmp_path: Path, keyword: str, value: list[str] | None, reason: str
) -> None:
    made = slices(tmp_path, STORED)
    header = made[3].header
    if value is None:
        del header[keyword]
    else:
        header[keyword] = _raw(header[keyword], "\\".join(value))
    with pytest.raises(PixelError, match=rf"2\.25\.103 has .*{reason}|{reason}") as caught:
        assemble(made)
    assert "2.25.103" in str(caught.value)


def _raw(element: Any, text: str) -> Any:
    value = text.encode() + b" " * (len(text) % 2)
    return RawDataElement(
        element.tag, "DS", len(value), value, 0, is_implicit_VR=False, is_little_endian=True
    )


def test_tilt_is_refused_with_its_angle(tmp_path: Path) -> None:
    step = (0, 2 * np.tan(np.deg2rad(18)), 2)
    with pytest.raises(PixelError, match=r"18\.0 degrees off .*GantryDetectorTilt"):
        assemble(slices(tmp_path, STORED, step=step))


def test_step_and_shoot_is_one_volume_and_two_breath_holds_are_not(tmp_path: Path) -> None:
    each = {k: {"AcquisitionNumber": k + 1} for k in range(6)}
    assert sizes(partition(slices(tmp_path, STORED, changes=each))) == [6]
    (tmp_path / "b").mkdir()
    halves = {k: {"AcquisitionNumber": 1 + k // 3} for k in range(6)}
    assert sizes(partition(slices(tmp_path / "b", STORED, changes=halves))) == [3, 3]


def test_beds_of_a_pet_are_one_volume(tmp_path: Path) -> None:
    halves = {k: {"AcquisitionNumber": 1 + k // 3} for k in range(6)}
    assert sizes(partition(slices(tmp_path, STORED, changes=halves, Modality="PT"))) == [6]


def test_slice_that_came_twice_is_refused_naming_both(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    made = slices(tmp_path, STORED)
    twin = slices(tmp_path / "b", STORED[2:3], origin=ZS[2])[0]
    twin.header.SOPInstanceUID = "2.25.777"
    with pytest.raises(
        PixelError, match=r"2\.25\.(102|777) and Instance 2\.25\.(102|777) lie in one"
    ):
        assemble([*made, twin])


# Enhanced multi-frame.


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_frames_are_sorted_by_position_whatever_their_order(tmp_path: Path, modality: str) -> None:
    order = [3, 0, 5, 1, 4, 2]
    instance = enhanced(tmp_path, STORED[order], modality=modality, own=at(*(ZS[k] for k in order)))
    volume = assemble([instance])
    assert volume.frames == tuple(order.index(k) + 1 for k in range(6))
    assert volume.order == ("2.25.50",) * 6
    values = np.stack([plane for plane, _ in planes(volume)])
    np.testing.assert_array_equal(values, STORED.astype(np.float32) - 1024)
    assert (volume.affine @ [1, 2, 3, 1]).tolist() == pytest.approx([-99.2, -48.6, 26, 1])


def test_frames_say_the_same_as_single_frame_instances(tmp_path: Path) -> None:
    single = assemble(slices(tmp_path, STORED))
    multi = assemble([enhanced(tmp_path, STORED, own=at(*ZS))])
    np.testing.assert_allclose(single.affine, multi.affine)
    for (one, _), (other, _) in zip(planes(single), planes(multi), strict=True):
        np.testing.assert_array_equal(one, other)


def test_echoes_within_one_instance_are_two_stacks_and_frames_choose(tmp_path: Path) -> None:
    own = [
        {**group, "MREchoSequence": {"EffectiveEchoTime": echo}}
        for group in at(*ZS[:3])
        for echo in (10.0, 80.0)
    ]
    instance = enhanced(tmp_path, STORED, modality="MR", own=own)
    found = partition([instance])
    assert [one.frames for one in found.usable] == [(1, 3, 5), (2, 4, 6)]
    assert found.differ == "EchoTime"
    with pytest.raises(PixelError, match="holds 2 volumes"):
        assemble([instance])
    volume = assemble([instance], frames=[2, 4, 6])
    assert volume.frames == (2, 4, 6)
    values = np.stack([plane for plane, _ in planes(volume)])
    np.testing.assert_array_equal(values, STORED[1::2].astype(np.float32) - 1024)


def test_rescale_of_a_frame_is_its_own(tmp_path: Path) -> None:
    own = at(*ZS)
    for number, group in enumerate(own, 1):
        group["PixelValueTransformationSequence"] = {"RescaleSlope": number, "RescaleIntercept": 5}
    shared = {"FrameVOILUTSequence": {"WindowCenter": 1}}
    volume = assemble([enhanced(tmp_path, STORED, modality="PT", own=own, shared=shared)])
    for number, (plane, _) in enumerate(planes(volume), 1):
        np.testing.assert_array_equal(plane, STORED[number - 1].astype(np.float32) * number + 5)


@pytest.mark.parametrize(
    ("macro", "item", "reason"),
    [
        ("CTImageFrameTypeSequence", {"VolumeBasedCalculationTechnique": "MAX_IP"}, "projected"),
        ("CTImageFrameTypeSequence", {"VolumetricProperties": "SAMPLED"}, "projected"),
        (
            "CTImageFrameTypeSequence",
            {"FrameType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
            "localiz",
        ),
        ("PlanePositionSequence", {}, "frame 1 of Instance 2.25.50 has no ImagePositionPatient"),
        ("PlaneOrientationSequence", {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "angles"),
        ("PixelMeasuresSequence", {"PixelSpacing": [0, 0]}, "PixelSpacing of 0"),
        ("PixelValueTransformationSequence", {"RescaleSlope": 0}, "RescaleSlope 0"),
    ],
)
def test_frames_that_are_no_volume_are_refused(
    tmp_path: Path, macro: str, item: dict[str, Any], reason: str
) -> None:
    own = [{**group, macro: item} for group in at(*ZS)]
    with pytest.raises(PixelError, match=reason):
        assemble([enhanced(tmp_path, STORED, own=own)])


def test_multi_frame_without_functional_groups_is_refused(tmp_path: Path) -> None:
    made = enhanced(
        tmp_path, STORED, own=at(*ZS), PerFrameFunctionalGroupsSequence=None, uid="2.25.51"
    )
    with pytest.raises(PixelError, match=r"2\.25\.51 has 6 frames and no PerFrameFunctionalGroups"):
        assemble([made])


def test_fewer_groups_than_frames_are_refused(tmp_path: Path) -> None:
    made = enhanced(tmp_path, STORED, own=at(*ZS[:5]))
    with pytest.raises(PixelError, match="NumberOfFrames 6 and 5 items"):
        assemble([made])


def test_real_enhanced_ct_goes_along_its_own_normal(shared_data: Path) -> None:
    """Its columns run to the patient's right, so its normal runs to the feet."""
    instance = read_instance(shared_data / "multiframe/enhanced-ct-2frame.dcm", digest="")
    volume = assemble([instance])
    assert volume.frames == (2, 1)
    assert places(partition([instance])) == [-149, -159]
    assert volume.affine[2, 2] == pytest.approx(-10)
    assert sum(1 for _ in planes(volume)) == 2


def test_real_single_frame_of_an_enhanced_mr_is_no_volume(shared_data: Path) -> None:
    instance = read_instance(shared_data / "multiframe/enhanced-mr-brain-1frame.dcm", digest="")
    with pytest.raises(PixelError, match="is alone"):
        assemble([instance])


def test_real_topogram_is_a_localizer(shared_data: Path) -> None:
    instance = read_instance(shared_data / "ct-other/ct-topogram-lateral.dcm", digest="")
    with pytest.raises(PixelError, match="localizer"):
        assemble([instance])
