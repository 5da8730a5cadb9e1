"""A mask that was found is the mask that is written: voxel for voxel, on its source's grid."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pacs_ai.encoding import ENCODERS, Encoding, on_volume
from pacs_ai.encoding.identity import light_source
from pacs_ai.errors import EncodingError
from pacs_ai.results import Axis, Embedding, JobResults, NothingFound, NotSuitable, Segmentation
from pacs_ai.study import Instance, read_instance
from tests.unit.encoding import sources as make
from tests.unit.pixels.made import enhanced

DATA = Path(__file__).parents[4] / "shared" / "data"


def encode(instances: tuple[Instance, ...], *masks: Segmentation, **changes: str) -> Dataset:
    (dataset,) = ENCODERS["segmentation"](work(instances, *masks, **changes))
    return pydicom.dcmread(BytesIO(make.to_bytes(dataset)))


def work(instances: tuple[Instance, ...], *masks: Segmentation, **changes: str) -> Encoding:
    uids = [one.SOPInstanceUID for one in instances]
    return make.encoding(make.study(instances), make.entry(*masks, sources=uids), **changes)


def mask_of(
    instances: tuple[Instance, ...], array: NDArray[np.bool_], label: str = "left lung"
) -> Segmentation:
    return Segmentation(label, array, tuple(one.SOPInstanceUID for one in instances), f"{label} in")


def frames(dataset: Dataset) -> NDArray[np.bool_]:
    """Unpack the frames as PS3.5 8.1.1 says: bits without padding between frames."""
    shape = (int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    assert len(dataset.PixelData) == (int(np.prod(shape)) + 15) // 16 * 2
    return bits[: int(np.prod(shape))].reshape(shape).astype(bool)


def decoded(dataset: Dataset, number: int, uids: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return a segment on the grid of its sources, each frame by the Instance it comes from."""
    whole = np.zeros((len(uids), dataset.Rows, dataset.Columns), np.bool_)
    for frame, group in zip(frames(dataset), dataset.PerFrameFunctionalGroupsSequence, strict=True):
        shared = dataset.SharedFunctionalGroupsSequence[0]
        identified = group if "SegmentIdentificationSequence" in group else shared
        if identified.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            (source,) = group.DerivationImageSequence[0].SourceImageSequence
            whole[uids.index(source.ReferencedSOPInstanceUID)] |= frame
    return whole


@pytest.fixture
def scan(tmp_path: Path) -> tuple[Instance, ...]:
    return make.volume(tmp_path, shape=(6, 20, 29))


@pytest.fixture
def film(tmp_path: Path) -> tuple[Instance, ...]:
    return (make.radiograph(tmp_path, shape=(61, 51)),)


def noise(shape: tuple[int, ...], seed: int) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(shape) > 0.7


@pytest.mark.parametrize("order", [1, -1], ids=["along the normal", "against it"])
def test_overlapping_masks_come_back_voxel_for_voxel(
    scan: tuple[Instance, ...], order: int
) -> None:
    instances = scan[::order]
    masks = [noise((6, 20, 29), seed) for seed in (1, 2)]
    dataset = encode(
        instances,
        mask_of(instances, masks[0]),
        mask_of(instances, masks[1], "right lung"),
    )
    assert dataset.SegmentsOverlap == "YES"
    uids = tuple(one.SOPInstanceUID for one in instances)
    for number, mask in enumerate(masks, 1):
        assert (decoded(dataset, number, uids) == mask).all()


def test_masks_that_do_not_overlap_come_back_too(scan: tuple[Instance, ...]) -> None:
    one = noise((6, 20, 29), 1)
    other = noise((6, 20, 29), 2) & ~one
    dataset = encode(scan, mask_of(scan, one), mask_of(scan, other, "heart"))
    uids = tuple(instance.SOPInstanceUID for instance in scan)
    assert dataset.SegmentsOverlap == "NO"
    assert (decoded(dataset, 1, uids) == one).all()
    assert (decoded(dataset, 2, uids) == other).all()


def test_a_radiograph_s_mask_of_odd_width_comes_back(film: tuple[Instance, ...]) -> None:
    mask = noise((61, 51), 3)
    dataset = encode(film, mask_of(film, mask))
    assert (frames(dataset)[0] == mask).all()


def test_frames_lie_where_their_slices_lie(scan: tuple[Instance, ...]) -> None:
    mask = np.zeros((6, 20, 29), np.bool_)
    mask[2, 5, 7] = True
    mask[4, 5, 7] = True
    dataset = encode(scan, mask_of(scan, mask))
    assert dataset.FrameOfReferenceUID == scan[0].header.FrameOfReferenceUID
    written = {
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID: list(
            group.PlanePositionSequence[0].ImagePositionPatient
        )
        for group in dataset.PerFrameFunctionalGroupsSequence
    }
    assert written == {
        scan[index].SOPInstanceUID: list(scan[index].header.ImagePositionPatient)
        for index in (2, 4)
    }
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == scan[0].header.PixelSpacing
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert orientation == scan[0].header.ImageOrientationPatient


def written_as(instance: Instance, keyword: str, text: str) -> None:
    """Set a decimal element to a text as a sender may write it, whatever its VR allows."""
    value = text.encode() + b" " * (len(text) % 2)
    instance.header[Tag(keyword)] = RawDataElement(
        Tag(keyword), "DS", len(value), value, 0, is_implicit_VR=False, is_little_endian=True
    )


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("ImagePositionPatient", "-50.000000000000001\\-40\\100.00000000000000001"),
        ("ImageOrientationPatient", "1.00000000000000001\\0\\0\\0\\1\\0"),
        ("PixelSpacing", "0.80000000000000004\\0.69999999999999996"),
        ("SliceThickness", "2.50000000000000001"),
    ],
)
def test_a_number_of_more_characters_than_its_vr_allows_is_that_number(
    scan: tuple[Instance, ...], keyword: str, text: str
) -> None:
    mask = noise((6, 20, 29), 1)
    plain = encode(scan, mask_of(scan, mask))
    written_as(scan[0], keyword, text)
    dataset = encode(scan, mask_of(scan, mask))
    assert on_volume(dataset)
    assert dataset.FrameOfReferenceUID == plain.FrameOfReferenceUID
    uids = tuple(one.SOPInstanceUID for one in scan)
    assert (decoded(dataset, 1, uids) == mask).all()
    assert places(dataset) == places(plain)


def places(dataset: Dataset) -> list[list[float]]:
    return [
        [round(float(one), 9) for one in group.PlanePositionSequence[0].ImagePositionPatient]
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]


def test_a_text_that_is_no_number_stays_out_of_what_a_library_sees(
    scan: tuple[Instance, ...],
) -> None:
    written_as(scan[3], "SliceThickness", "2.5 mm and then some")
    assert "SliceThickness" not in light_source(scan[3])


@pytest.mark.parametrize("said", ["-2.5", "0.5", "0", "3"])
def test_the_distance_of_slices_is_that_of_their_positions(tmp_path: Path, said: str) -> None:
    scan = make.volume(tmp_path, SpacingBetweenSlices=said)
    (measures,) = (
        encode(scan, mask_of(scan, make.square((6, 20, 30))))
        .SharedFunctionalGroupsSequence[0]
        .PixelMeasuresSequence
    )
    assert float(measures.SpacingBetweenSlices) == 2.5


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "SliceThickness"])
def test_what_places_a_slice_and_is_missing_is_named_with_its_instance(
    tmp_path: Path, keyword: str
) -> None:
    scan = make.volume(tmp_path)
    for one in scan:
        del one.header[keyword]
    with pytest.raises(
        EncodingError, match=f"{keyword} is missing .* {scan[0].SOPInstanceUID}: send"
    ):
        encode(scan, mask_of(scan, make.square((6, 20, 30))))


def test_references_name_exactly_the_slices_that_have_a_mask(scan: tuple[Instance, ...]) -> None:
    mask = np.zeros((6, 20, 29), np.bool_)
    mask[1:3, 4, 4] = True
    dataset = encode(scan, mask_of(scan, mask))
    (series,) = dataset.ReferencedSeriesSequence
    named = {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence}
    assert named == {scan[1].SOPInstanceUID, scan[2].SOPInstanceUID}
    assert series.SeriesInstanceUID == scan[0].SeriesInstanceUID


def test_without_a_frame_of_reference_the_derivation_says_where(
    film: tuple[Instance, ...],
) -> None:
    dataset = encode(film, mask_of(film, noise((61, 51), 1)))
    assert "FrameOfReferenceUID" not in dataset
    assert (dataset.Rows, dataset.Columns) == (61, 51)
    assert list(dataset.PatientOrientation) == ["L", "F"]
    (derivation,) = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence
    assert derivation.DerivationCodeSequence[0].CodeValue == "113076"
    source = derivation.SourceImageSequence[0]
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert source.ReferencedSOPInstanceUID == film[0].SOPInstanceUID


def test_an_orientation_the_source_does_not_state_stays_empty(tmp_path: Path) -> None:
    film = (make.radiograph(tmp_path, PatientOrientation=None),)
    dataset = encode(film, mask_of(film, make.square((60, 50))))
    assert "PatientOrientation" in dataset
    assert not dataset.PatientOrientation


def test_a_radiograph_with_a_frame_of_reference_and_no_plane_has_none(tmp_path: Path) -> None:
    film = (make.radiograph(tmp_path, FrameOfReferenceUID="1.2.3"),)
    dataset = encode(film, mask_of(film, make.square((60, 50))))
    assert "FrameOfReferenceUID" not in dataset


def test_segments_carry_code_side_colour_and_algorithm(film: tuple[Instance, ...]) -> None:
    dataset = encode(
        film,
        mask_of(film, make.square((61, 51))),
        mask_of(film, make.square((61, 51), low=0.7, high=0.9), "lung opacity"),
    )
    lung, opacity = dataset.SegmentSequence
    assert [lung.SegmentNumber, opacity.SegmentNumber] == [1, 2]
    (kind,) = lung.SegmentedPropertyTypeCodeSequence
    assert kind.CodeValue == "39607008"
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert opacity.AnatomicRegionSequence[0].CodeMeaning == "Lung"
    assert opacity.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    colours = [tuple(one.RecommendedDisplayCIELabValue) for one in (lung, opacity)]
    assert len(set(colours)) == 2
    (algorithm,) = lung.SegmentationAlgorithmIdentificationSequence
    assert lung.SegmentAlgorithmType == "AUTOMATIC"
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("MedImageParse", "5")
    assert "left lung in" in algorithm.AlgorithmParameters


def test_a_segmentation_says_that_nobody_verified_it(film: tuple[Instance, ...]) -> None:
    mask = mask_of(film, make.square((61, 51)))
    dataset = encode(film, mask)
    assert dataset.ContentDescription == "AI, not verified"
    assert dataset.ContentCreatorName == "PACS AI^"
    entry = make.entry(mask, model=make.REFERENCE)
    (reference,) = ENCODERS["segmentation"](make.encoding(make.study(film), entry))
    assert reference.ContentDescription.endswith("reference model, not for clinical use")
    assert "not for clinical use" in reference.SegmentSequence[0].SegmentAlgorithmName


def test_an_empty_mask_makes_no_segment_and_no_object(film: tuple[Instance, ...]) -> None:
    empty = mask_of(film, np.zeros((61, 51), np.bool_), "heart")
    assert ENCODERS["segmentation"](work(film, empty)) == ()
    dataset = encode(film, empty, mask_of(film, make.square((61, 51))))
    assert [one.SegmentLabel for one in dataset.SegmentSequence] == ["Left lung"]


def test_masks_on_different_sources_are_different_objects(tmp_path: Path) -> None:
    films = tuple(make.radiograph(tmp_path, number=number) for number in (1, 2))
    masks = [mask_of((film,), make.square((60, 50))) for film in films]
    written = ENCODERS["segmentation"](work(films, *masks))
    assert len(written) == 2
    assert len({one.SOPInstanceUID for one in written}) == 2
    assert len({one.SeriesInstanceUID for one in written}) == 2


def _squeezed(array: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return array[:, :-1]


def _turned(array: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return array.T


@pytest.mark.parametrize("wrong", [_squeezed, _turned])
def test_a_mask_that_is_not_on_the_native_grid_is_refused(
    film: tuple[Instance, ...], wrong: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]
) -> None:
    with pytest.raises(EncodingError, match="mask of left lung has shape"):
        encode(film, mask_of(film, wrong(make.square((61, 51)))))


def test_slices_of_another_frame_of_reference_are_refused(tmp_path: Path) -> None:
    scan = make.volume(tmp_path)
    scan[2].header.FrameOfReferenceUID = "1.2.3.4"
    with pytest.raises(EncodingError, match="share one orientation"):
        encode(scan, mask_of(scan, make.square((6, 20, 30))))


def test_what_cannot_be_segmented_is_refused(film: tuple[Instance, ...]) -> None:
    with pytest.raises(EncodingError, match="volume is not a thing that can be segmented"):
        encode(film, mask_of(film, make.square((61, 51)), "volume"))


def test_a_lossy_source_is_named() -> None:
    film = (read_instance(DATA / "cxr/cr-pa-8bit-jpegbaseline-nih-siim.dcm", digest="0" * 64),)
    shape = (int(film[0].header.Rows), int(film[0].header.Columns))
    dataset = encode(film, mask_of(film, make.square(shape)))
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == "ISO_10918_1"
    assert float(dataset.LossyImageCompressionRatio) >= 1


@pytest.mark.parametrize(
    "entry",
    [
        make.entry(outcome=NothingFound()),
        make.entry(outcome=NotSuitable("no frontal image")),
        make.entry(Embedding(np.ones(3, np.float32), "1.2", "r")),
    ],
)
def test_where_there_is_no_mask_there_is_no_object(
    film: tuple[Instance, ...], entry: JobResults
) -> None:
    assert ENCODERS["segmentation"](make.encoding(make.study(film), entry)) == ()


SINGLE_IMAGES = (
    *("1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"),  # ultrasound
    *("1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.840.10008.5.1.4.1.1.77.1.1"),  # photographs, endoscopy
    "1.2.840.10008.5.1.4.1.1.77.1.7",  # dermoscopy
    *("1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.840.10008.5.1.4.1.1.77.1.5.4"),  # ophthalmic
    "1.2.840.10008.5.1.4.1.1.1.2",  # mammography
    *("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.4"),  # secondary capture
)


@pytest.mark.parametrize("frame", [None, 1, 17])
@pytest.mark.parametrize("sop_class_uid", SINGLE_IMAGES)
def test_a_mask_on_a_single_image_names_its_frame(sop_class_uid: str, frame: int | None) -> None:
    source = read_instance(DATA / "us/us-34frame-ybr422-jpeg.dcm", digest="d")
    source.header.SOPClassUID = sop_class_uid
    if frame is None:
        source.header.NumberOfFrames = 1
    array = np.zeros((430, 480), np.bool_)
    array[10:60, 300:340] = True
    numbers = () if frame is None else (frame,)
    mask = Segmentation("optic disc", array, (source.SOPInstanceUID,), "p", numbers)
    dataset = encode((source,), mask)
    np.testing.assert_array_equal(frames(dataset)[0], array)
    (group,) = dataset.PerFrameFunctionalGroupsSequence
    (image,) = group.DerivationImageSequence[0].SourceImageSequence
    assert image.ReferencedSOPClassUID == sop_class_uid
    assert image.get("ReferencedFrameNumber") == frame
    # What the source does not say is not said of the mask either.
    assert "PixelMeasuresSequence" not in dataset.SharedFunctionalGroupsSequence[0]
    assert "FrameOfReferenceUID" not in dataset


def test_two_masks_on_one_frame_both_name_it() -> None:
    source = read_instance(DATA / "us/us-34frame-ybr422-jpeg.dcm", digest="d")
    masks = []
    for label, left in (("left heart ventricle", 10), ("left heart atrium", 200)):
        array = np.zeros((430, 480), np.bool_)
        array[10:60, left : left + 40] = True
        masks.append(Segmentation(label, array, (source.SOPInstanceUID,), "p", (17,)))
    dataset = encode((source,), *masks)
    named = [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert named == [17, 17]


@pytest.mark.parametrize("count", [1, 3, 8, 13])
def test_masks_on_all_frames_of_a_cine_name_each_frame_that_they_are_on(
    tmp_path: Path, count: int
) -> None:
    """Odd sizes: the bits of a frame begin in the middle of a byte."""
    cine = make.radiograph(
        tmp_path,
        shape=(9, 7),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1",
        Modality="US",
        NumberOfFrames=count,
    )
    generator = np.random.default_rng(count)
    truth = {}
    masks = []
    for label in ("left heart ventricle", "left heart atrium"):
        array = generator.random((count, 9, 7)) > 0.5  # they overlap
        array[1::3] = False
        truth[len(masks) + 1] = array
        sources, numbers = (cine.SOPInstanceUID,) * count, tuple(range(1, count + 1))
        masks.append(Segmentation(label, array, sources, "p", numbers, Axis.FRAMES))
    dataset = encode((cine,), *masks)
    pairs = []
    for frame, group in zip(frames(dataset), dataset.PerFrameFunctionalGroupsSequence, strict=True):
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        number = source.ReferencedFrameNumber
        np.testing.assert_array_equal(frame, truth[segment][number - 1])
        assert group.FrameContentSequence[0].TemporalPositionIndex == number
        pairs.append((segment, number))
    assert pairs == [
        (segment, number)
        for segment in (1, 2)
        for number in range(1, count + 1)
        if truth[segment][number - 1].any()
    ]
    indices = [
        tuple(group.FrameContentSequence[0].DimensionIndexValues)
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert len(set(indices)) == len(indices)
    assert len(dataset.DimensionIndexSequence) == 2
    assert "FrameOfReferenceUID" not in dataset
    assert "PlanePositionSequence" not in dataset.PerFrameFunctionalGroupsSequence[0]


AXIAL, CORONAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]
PLACES: dict[str, list[Any]] = {
    "phases of one slice": [((1.5, -2, 3), AXIAL, [0.7, 0.8])] * 4,
    "slices": [((1.5, -2, 3 + 2.5 * step), AXIAL, [0.7, 0.8]) for step in (3, 0, 2, 1)],
    "two phases of two slices": [((0, 0, step), AXIAL, [0.7, 0.8]) for step in (0, 5, 0, 5)],
    "several directions": [
        ((0, 0, 1), AXIAL, [0.7, 0.8]),
        ((0, 7, 9), CORONAL, [0.5, 0.5]),
        ((0, 0, 2), AXIAL, [0.7, 0.8]),
        ((0, 8, 9), CORONAL, [0.5, 0.5]),
    ],
}


def placed(folder: Path, places: list[Any]) -> Instance:
    """Return an enhanced MR whose frames say where each lies."""
    own = [
        {
            "PlanePositionSequence": {"ImagePositionPatient": list(position)},
            "PlaneOrientationSequence": {"ImageOrientationPatient": orientation},
            "PixelMeasuresSequence": {"PixelSpacing": spacing, "SliceThickness": 2},
        }
        for position, orientation, spacing in places
    ]
    pixels = np.arange(len(own) * 63, dtype=np.uint16).reshape(len(own), 9, 7)
    return enhanced(folder, pixels, modality="MR", own=own)


def on_frames(one: Instance, count: int) -> list[Segmentation]:
    """Return two masks that overlap, each on its own three of the frames."""
    masks = []
    for number, label in enumerate(("left kidney", "spleen")):
        array = np.random.default_rng(number).random((count, 9, 7)) > 0.5
        array[number + 1] = False
        numbers = tuple(range(1, count + 1))
        masks.append(
            Segmentation(label, array, (one.SOPInstanceUID,) * count, "p", numbers, Axis.FRAMES)
        )
    return masks


def nearest_group(dataset: Dataset, group: Dataset, macro: str) -> Dataset:
    item: Dataset = (group.get(macro) or dataset.SharedFunctionalGroupsSequence[0][macro].value)[0]
    return item


@pytest.mark.parametrize("name", PLACES)
def test_masks_on_frames_that_say_where_they_lie_lie_there_too(tmp_path: Path, name: str) -> None:
    places = PLACES[name]
    one = placed(tmp_path, places)
    masks = on_frames(one, len(places))
    dataset = encode((one,), *masks)
    assert dataset.FrameOfReferenceUID == one.header.FrameOfReferenceUID
    assert "PositionReferenceIndicator" in dataset
    named = []
    for frame, group in zip(frames(dataset), dataset.PerFrameFunctionalGroupsSequence, strict=True):
        segment = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        number = int(source.ReferencedFrameNumber)
        named.append((segment, number))
        np.testing.assert_array_equal(frame, masks[segment - 1].mask[number - 1])
        position, orientation, spacing = places[number - 1]
        assert group.PlanePositionSequence[0].ImagePositionPatient == list(position)
        plane = nearest_group(dataset, group, "PlaneOrientationSequence")
        assert plane.ImageOrientationPatient == orientation
        measures = nearest_group(dataset, group, "PixelMeasuresSequence")
        assert measures.PixelSpacing == spacing
        assert measures.SliceThickness == 2
    assert named == [(1, 1), (1, 3), (1, 4), (2, 1), (2, 2), (2, 4)]
    indices = [
        tuple(group.FrameContentSequence[0].DimensionIndexValues)
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert len(set(indices)) == len(indices)
    assert {len(one) for one in indices} == {len(dataset.DimensionIndexSequence)}
    # Only where frames share a place does anything but the place tell them apart.
    assert (len(dataset.DimensionIndexSequence) == 3) is ("phases" in name)
    assert on_volume(dataset) is (name == "slices")


def test_positions_that_differ_by_rounding_are_one_place(tmp_path: Path) -> None:
    phases = [((1.5, -2, 3 + 1e-7 * turn), AXIAL, [0.7, 0.8]) for turn in range(4)]
    one = placed(tmp_path, phases)
    dataset = encode((one,), *on_frames(one, 4))
    assert not on_volume(dataset)
    assert [
        tuple(group.FrameContentSequence[0].DimensionIndexValues)
        for group in dataset.PerFrameFunctionalGroupsSequence
    ] == [(1, 1, 1), (1, 1, 3), (1, 1, 4), (2, 1, 1), (2, 1, 2), (2, 1, 4)]


def test_directions_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    turned = [1, 0.00009, 0, -0.00009, 1, 0]
    steps = enumerate((AXIAL, turned, AXIAL, turned))
    one = placed(tmp_path, [((0, 0, 3 * step), along, [0.7, 0.8]) for step, along in steps])
    dataset = encode((one,), *on_frames(one, 4))
    assert on_volume(dataset)
    (shared,) = dataset.SharedFunctionalGroupsSequence
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == AXIAL


@pytest.mark.parametrize("number", [1, 3])
def test_a_mask_on_one_frame_that_says_where_it_lies_lies_there_too(
    tmp_path: Path, number: int
) -> None:
    places = PLACES["several directions"]
    one = placed(tmp_path, [*places[1:], places[0]])
    array = np.zeros((9, 7), np.bool_)
    array[2:5, 1:3] = True
    mask = Segmentation("spleen", array, (one.SOPInstanceUID,), "p", (number,))
    dataset = encode((one,), mask)
    np.testing.assert_array_equal(frames(dataset)[0], array)
    (group,) = dataset.PerFrameFunctionalGroupsSequence
    (source,) = group.DerivationImageSequence[0].SourceImageSequence
    assert source.ReferencedFrameNumber == number
    position, orientation, spacing = places[number]
    assert group.PlanePositionSequence[0].ImagePositionPatient == list(position)
    plane = nearest_group(dataset, group, "PlaneOrientationSequence")
    assert plane.ImageOrientationPatient == orientation
    assert nearest_group(dataset, group, "PixelMeasuresSequence").PixelSpacing == spacing
    assert dataset.FrameOfReferenceUID == one.header.FrameOfReferenceUID


def _no_reference(one: Instance) -> None:
    del one.header.FrameOfReferenceUID


def _one_unplaced(one: Instance) -> None:
    del one.header.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence


def _no_direction(one: Instance) -> None:
    group = one.header.PerFrameFunctionalGroupsSequence[1]
    group.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 0, 0, 0, 0, 0]


def _one_place_for_all(one: Instance) -> None:
    """The top level's position: of the first frame, or of which, nobody says."""
    del one.header.PerFrameFunctionalGroupsSequence
    one.header.ImagePositionPatient, one.header.ImageOrientationPatient = [0, 0, 0], AXIAL


def _placed_on_top_only(one: Instance) -> None:
    for group in one.header.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    one.header.ImagePositionPatient, one.header.ImageOrientationPatient = [0, 0, 0], AXIAL


DAMAGES: dict[Callable[[Instance], None], str] = {
    _no_reference: "no valid FrameOfReferenceUID",
    _one_unplaced: "frame 3 of Instance 2.25.50 has no PlanePositionSequence",
    _no_direction: "frame 2 of Instance 2.25.50 has an ImageOrientationPatient",
    _one_place_for_all: "no PerFrameFunctionalGroupsSequence",
    _placed_on_top_only: "frame 1 of Instance 2.25.50 has no PlanePositionSequence",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_the_class_wants_a_place_of_each_frame_one_without_it_is_refused_by_name(
    tmp_path: Path, damage: Callable[[Instance], None]
) -> None:
    one = placed(tmp_path, PLACES["slices"])
    damage(one)
    with pytest.raises(EncodingError, match=DAMAGES[damage]):
        encode((one,), *on_frames(one, 4))


def test_frames_of_an_ultrasound_volume_lie_in_no_patient_and_are_refused(tmp_path: Path) -> None:
    one = placed(tmp_path, PLACES["slices"])
    one.header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.6.2"
    for group in one.header.PerFrameFunctionalGroupsSequence:
        group.PlanePositionVolumeSequence = [Dataset()]
        group.PlanePositionVolumeSequence[0].ImagePositionVolume = [0, 0, 1]
        del group.PlanePositionSequence
    with pytest.raises(EncodingError, match=r"frame 1 .* has no PlanePositionSequence"):
        encode((one,), *on_frames(one, 4))


@pytest.mark.parametrize("damage", DAMAGES)
def test_masks_on_frames_of_which_one_does_not_say_where_it_lies_lie_nowhere(
    tmp_path: Path, damage: Callable[[Instance], None]
) -> None:
    one = placed(tmp_path, PLACES["slices"])
    one.header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"  # of ultrasound, which may lie nowhere
    damage(one)
    masks = on_frames(one, 4)
    dataset = encode((one,), *masks)
    assert "FrameOfReferenceUID" not in dataset
    assert not on_volume(dataset)
    for frame, group in zip(frames(dataset), dataset.PerFrameFunctionalGroupsSequence, strict=True):
        assert "PlanePositionSequence" not in group
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        segment = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        number = int(source.ReferencedFrameNumber)
        np.testing.assert_array_equal(frame, masks[segment - 1].mask[number - 1])
        assert group.FrameContentSequence[0].DimensionIndexValues == [segment, number]
    assert len(dataset.DimensionIndexSequence) == 2


def test_the_spacing_of_a_single_image_is_kept() -> None:
    source = read_instance(DATA / "vl/ophthalmic-ir-heidelberg-jpegll.dcm", digest="d")
    array = np.ones((1536, 1536), np.bool_)
    dataset = encode((source,), mask_of((source,), array, "optic disc"))
    (measures,) = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.PixelSpacing == source.header.PixelSpacing
    assert list(dataset.PatientOrientation) == ["L", "F"]


def test_a_source_of_a_retired_sop_class_is_refused_by_name() -> None:
    source = read_instance(DATA / "us/us-8frame-mono2-j2k.dcm", digest="d")
    mask = Segmentation(
        "optic disc", np.ones((120, 128), np.bool_), (source.SOPInstanceUID,), "p", (4,)
    )
    with pytest.raises(
        EncodingError, match=r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.3, which is retired"
    ):
        encode((source,), mask)
