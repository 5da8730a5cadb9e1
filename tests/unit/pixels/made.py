"""Instances made for tests: written to disk and read back, as the spool holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    OphthalmicTomographyImageStorage,
)

from pacs_ai.study import Instance, read_instance

ENHANCED = {
    "CT": EnhancedCTImageStorage,
    "MR": EnhancedMRImageStorage,
    "PT": EnhancedPETImageStorage,
    "OPT": OphthalmicTomographyImageStorage,
}

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def written(folder: Path, dataset: Dataset, *, syntax: str = ExplicitVRLittleEndian) -> Instance:
    """Write a data set and read it back as the gateway does."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return read_instance(path, digest="")


def grey(pixels: NDArray[Any], *, uid: str, **elements: Any) -> Dataset:
    """Return a grey image's data set; elements replace or, as None, remove."""
    dataset = Dataset()
    dataset.SOPInstanceUID, dataset.SOPClassUID = uid, ComputedRadiographyImageStorage
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.1", "2.25.2"
    dataset.Modality = "CR"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    raw = pixels.tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in elements.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    return dataset


def image(folder: Path, pixels: NDArray[Any], *, uid: str = "2.25.10", **elements: Any) -> Instance:
    """Return a projection image."""
    return written(folder, grey(pixels, uid=uid, **elements))


def enhanced(
    folder: Path,
    volume: NDArray[Any],
    *,
    uid: str = "2.25.50",
    modality: str = "CT",
    own: Sequence[dict[str, Any]],
    shared: dict[str, Any] | None = None,
    **elements: Any,
) -> Instance:
    """Return an enhanced multi-frame Instance of an array (frames, Rows, Columns).

    ``own`` and ``shared`` are functional groups: macro keyword to the elements of its item.
    """
    every = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        "PixelMeasuresSequence": {"PixelSpacing": [0.7, 0.8], "SliceThickness": 2},
        "PixelValueTransformationSequence": {
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "RescaleType": "HU" if modality == "CT" else "US",
        },
        **(shared or {}),
    }
    dataset = grey(volume[0], uid=uid)
    raw = volume.tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset.NumberOfFrames = len(volume)
    dataset.SOPClassUID = ENHANCED[modality]
    dataset.Modality, dataset.FrameOfReferenceUID = modality, "2.25.3"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.SharedFunctionalGroupsSequence = [functional_group(every)]
    dataset.PerFrameFunctionalGroupsSequence = [functional_group(one) for one in own]
    for keyword, value in elements.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    return written(folder, dataset)


def at(*positions: Sequence[float], **macros: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the functional groups of frames that lie there and have the rest in common."""
    return [
        {"PlanePositionSequence": {"ImagePositionPatient": list(one)}, **macros}
        for one in positions
    ]


def functional_group(macros: dict[str, dict[str, Any]]) -> Dataset:
    """Return one item of a functional groups sequence: macro keyword to the elements of its item."""
    group = Dataset()
    for macro, elements in macros.items():
        item = Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        setattr(group, macro, [item])
    return group


def slices(
    folder: Path,
    volume: NDArray[Any],
    *,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    origin: Sequence[float] = (-100.0, -50.0, 20.0),
    step: Sequence[float] = (0.0, 0.0, 2.0),
    spacing: Sequence[float] = (0.7, 0.8),
    changes: dict[int, dict[str, Any]] | None = None,
    **elements: Any,
) -> list[Instance]:
    """Return a CT Series of an array (slices, Rows, Columns); changes are for single slices."""
    made = []
    for index, plane in enumerate(volume):
        position = [float(o + index * s) for o, s in zip(origin, step, strict=True)]
        values: dict[str, Any] = {
            "SOPClassUID": CTImageStorage,
            "Modality": "CT",
            "FrameOfReferenceUID": "2.25.3",
            "ImageOrientationPatient": list(orientation),
            "ImagePositionPatient": position,
            "PixelSpacing": list(spacing),
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            **elements,
            **(changes or {}).get(index, {}),
        }
        made.append(written(folder, grey(plane, uid=f"2.25.{100 + index}", **values)))
    return made
