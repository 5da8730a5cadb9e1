"""Reads results back without the gateway's own code, and asks other makers' validators about them."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from tests.conformance.conftest import run
from tests.conformance.test_referees import unknown

Mask = NDArray[np.bool_]


def objects(folder: Path) -> dict[Path, Dataset]:
    """Return every DICOM file of a folder destination."""
    found: dict[Path, Dataset] = {
        path: pydicom.dcmread(path) for path in sorted(folder.glob("*/*.dcm"))
    }
    assert found, f"no result in {folder}"
    return found


def of_kind(folder: Path, kind: str) -> list[Path]:
    """Return the files of one kind in the folder of one Study."""
    return sorted(folder.glob(f"{kind}-*.dcm"))


def items(data_set: Dataset) -> Iterator[Dataset]:
    """Yield a data set and every item of its sequences, at any depth."""
    yield data_set
    for element in data_set:
        if element.VR == "SQ":
            for item in element.value:
                yield from items(item)


def texts(data_set: Dataset) -> list[str]:
    """Return every text that a report's tree says."""
    return [str(item.TextValue) for item in items(data_set) if "TextValue" in item]


def raw(data_set: Dataset, keyword: str) -> bytes | None:
    """Return an element's bytes as they stand in the file, without padding; None when absent."""
    element = data_set.get_item(keyword)
    if element is None:
        return None
    value = element.value or b""
    assert isinstance(value, bytes), f"{keyword} was decoded"
    return value.rstrip(b" \0")


def dice(one: Mask, other: Mask) -> float:
    """Return how far two masks agree: 1 the same, 0 nowhere."""
    assert one.shape == other.shape
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


LUNG_DICE = 0.95


def lung_faults(found: Mapping[str, Mask], truth: Mapping[str, Mask]) -> list[str]:
    """Return the lungs of a volume that are not where they truly are."""
    return [
        label
        for label in ("left lung", "right lung")
        if label not in found or dice(found[label], truth[label]) < LUNG_DICE
    ]


_Box = tuple[float, float, float, float]


def finding_boxes(report: Dataset, tracking: str) -> list[_Box]:
    """Return left, top, right, bottom of each region that a finding of a report points at."""
    boxes = []
    for group in items(report):
        children = group.get("ContentSequence", ())
        tracked = [
            str(child.TextValue)
            for child in children
            if child.ValueType == "TEXT" and child.ConceptNameCodeSequence[0].CodeValue == "112039"
        ]
        if len(tracked) == 1 and tracked[0].startswith(tracking):
            regions = [child for child in children if child.ValueType == "SCOORD"]
            points = [[float(one) for one in child.GraphicData] for child in regions]
            boxes += [(min(p[::2]), min(p[1::2]), max(p[::2]), max(p[1::2])) for p in points]
    return boxes


def overlap(one: _Box, other: _Box) -> float:
    """Return intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def complaints(path: Path) -> list[str]:
    """Return what dciodvfy and dsrdump find wrong, known false alarms left out."""
    kind = path.name.partition("-")[0]
    said = run("dciodvfy", "-new", path)
    assert re.search(r"^\w*(Segmentation|SR|SCImage)\s*$", said, re.MULTILINE), said
    errors = [line.strip() for line in said.splitlines() if "Error" in line or "Abort" in line]
    found = unknown("dciodvfy", kind, errors)
    if kind in ("report", "narrative"):
        printed = run("dsrdump", path)
        assert re.search(r"SR Document$", printed, re.MULTILINE), path.name
        found += [line for line in printed.splitlines() if line.startswith(("E:", "W:", "F:"))]
    return found


def assert_labelled(path: Path, made: Dataset) -> None:
    """Every object says that it is of a reference model, unverified, and not of production."""
    assert len(made.SeriesDescription) <= 64
    assert made.SeriesDescription.startswith("AI ")
    assert made.SeriesDescription.endswith("REFERENCE, NOT PRODUCTION")
    for equipment in made.ContributingEquipmentSequence:
        said = str(equipment.ContributionDescription)
        assert said.startswith("AI, not verified. Reference model, not for clinical use.")
    match path.name.partition("-")[0]:
        case "segmentation":
            assert made.ContentDescription == (
                "AI, not verified; reference model, not for clinical use"
            )
            for segment in made.SegmentSequence:
                assert segment.SegmentAlgorithmType == "AUTOMATIC"
                assert "reference" in segment.SegmentAlgorithmName
        case "report":
            assert (made.VerificationFlag, made.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
            assert "reference model, not for clinical use" in " ".join(texts(made))
        case "narrative":
            assert (made.VerificationFlag, made.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
            assert "draft, not verified" in made.SeriesDescription
            assert_every_sentence_is_a_draft(made)
        case "capture":
            assert "not verified" in made.SeriesDescription
        case kind:
            pytest.fail(f"what is a {kind}?")


def assert_every_sentence_is_a_draft(made: Dataset) -> None:
    """No sentence of a narrative stands without its mark; device names are no sentences."""
    sentences = [
        str(item.TextValue)
        for item in items(made)
        if "TextValue" in item
        and item.ConceptNameCodeSequence[0].CodeMeaning in ("Finding", "Impression")
    ]
    assert len(sentences) >= 3
    assert not [text for text in sentences if not text.startswith("AI draft, not verified")]


# ---------------------------------------------------------------------- masks


def volume_masks(path: Path, sources: Sequence[Dataset]) -> dict[str, Mask]:
    """Return each segment on the slices of a volume, placed by the frames' own geometry.

    Returns
    -------
    dict of ndarray of bool, shape (slices, Rows, Columns)
        By Segment Label in lower case; axis 0 in the order of ``sources``. A frame that lies on no
        source slice fails.
    """
    seg = pydicom.dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    positions = np.array([one.ImagePositionPatient for one in sources], float)
    for one in sources:
        assert np.allclose(orientation, one.ImageOrientationPatient, atol=1e-6)
        assert np.allclose(spacing, one.PixelSpacing, atol=1e-6)
        assert seg.FrameOfReferenceUID == one.FrameOfReferenceUID
    masks = _empty(seg, (len(sources), seg.Rows, seg.Columns))
    for frame, number, item in _frames(seg):
        place = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        distances = np.linalg.norm(positions - place, axis=1)
        nearest = int(distances.argmin())
        assert distances[nearest] < 1e-3
        _put(masks, number, nearest, frame)
    return _by_label(seg, masks)


def film_masks(path: Path, film: Dataset) -> dict[str, Mask]:
    """Return each segment on a radiograph: shape (Rows, Columns), by Segment Label in lower case."""
    seg = pydicom.dcmread(path)
    assert (seg.Rows, seg.Columns) == (film.Rows, film.Columns)
    masks = _empty(seg, (1, seg.Rows, seg.Columns))
    for frame, number, item in _frames(seg):
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == film.SOPInstanceUID
        _put(masks, number, 0, frame)
    return {label: mask[0] for label, mask in _by_label(seg, masks).items()}


def _empty(seg: Dataset, shape: tuple[int, int, int]) -> dict[int, Mask]:
    return {int(one.SegmentNumber): np.zeros(shape, np.bool_) for one in seg.SegmentSequence}


def _frames(seg: Dataset) -> Iterator[tuple[Mask, int, Dataset]]:
    pixels = seg.pixel_array.astype(np.bool_).reshape(-1, seg.Rows, seg.Columns)
    for frame, item in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        yield frame, int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber), item


def _put(masks: dict[int, Mask], number: int, place: int, frame: Mask) -> None:
    assert not masks[number][place].any(), "two frames of one segment in one place"
    masks[number][place] = frame


def _by_label(seg: Dataset, masks: dict[int, Mask]) -> dict[str, Mask]:
    return {
        str(one.SegmentLabel).lower(): masks[int(one.SegmentNumber)] for one in seg.SegmentSequence
    }


# ---------------------------------------------------------------------- dcmqi


@dataclass(frozen=True)
class Nrrd:
    """A segment as dcmqi reads it.

    ``voxels``: bool, axes column, row, slice. ``directions``: mm for one step along each axis, one
    a row. ``origin``: centre of the first voxel. Both LPS.
    """

    voxels: Mask
    directions: NDArray[np.float64]
    origin: NDArray[np.float64]

    @property
    def centroid(self) -> NDArray[np.float64]:
        """Where its middle lies, mm, LPS."""
        middle = np.argwhere(self.voxels).mean(axis=0)
        return np.asarray(self.origin + middle @ self.directions)

    @property
    def millilitres(self) -> float:
        """How large it is."""
        return float(self.voxels.sum() * abs(np.linalg.det(self.directions)) / 1000)


def dcmqi_segments(path: Path, folder: Path) -> dict[str, Nrrd]:
    """Return each segment as dcmqi's own reader gives it, by label in lower case."""
    arguments = ("--outputDirectory", folder, "--prefix", "p", "--outputType", "nrrd")
    run("segimage2itkimage", "--inputDICOM", path, *arguments)
    seg = pydicom.dcmread(path, stop_before_pixels=True)
    return {
        str(one.SegmentLabel).lower(): _nrrd(folder / f"p-{one.SegmentNumber}.nrrd")
        for one in seg.SegmentSequence
    }


def _nrrd(path: Path) -> Nrrd:
    head, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode("ascii").splitlines() if ": " in line)
    assert fields["space"] == "left-posterior-superior"
    assert fields["encoding"] == "gzip"
    kind = {"short": "<i2", "unsigned char": "u1", "unsigned short": "<u2"}[fields["type"]]
    sizes = [int(one) for one in fields["sizes"].split()]
    values = np.frombuffer(gzip.decompress(data), kind).reshape(sizes, order="F")
    axes = re.findall(r"\(([^)]*)\)", fields["space directions"])
    directions = np.array([[float(part) for part in axis.split(",")] for axis in axes])
    origin = np.array([float(part) for part in fields["space origin"].strip("()").split(",")])
    return Nrrd(values > 0, directions, origin)
