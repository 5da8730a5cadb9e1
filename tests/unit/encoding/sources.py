"""Small Studies with exact headers, so that a test can turn and flip them as it likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from pacs_ai.encoding import Encoding, Stamp
from pacs_ai.results import (
    Assertion,
    Box,
    Done,
    Finding,
    JobResults,
    Measurement,
    ModelIdentity,
    Narrative,
    Outcome,
    Result,
    Segmentation,
    Sentence,
)
from pacs_ai.study import Instance, Study, read_instance
from pacs_ai.uids import derived_uid

WHEN = datetime.fromisoformat("2026-11-23T15:04:05+01:00")
PARSE = ModelIdentity("MedImageParse", "5", "Microsoft", reference=False)
REPORTER = ModelIdentity("CXRReportGen", "7", "Microsoft", reference=False)
REFERENCE = ModelIdentity("Reference parser", "0.1", "PACS AI", reference=True)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def stamp(**changes: Any) -> Stamp:
    """Return a production stamp, with what a test wants to be different."""
    values: dict[str, Any] = {
        "when": WHEN,
        "identity": "job-1",
        "installation": "5f0c-test",
        "site": "Test site",
        "production": True,
        "prefix": "AI",
        "software_version": "0.1.0",
    }
    return Stamp(**{**values, **changes})


def entry(
    *results: Result,
    model: ModelIdentity = PARSE,
    kind: str = "parse2d",
    sources: Sequence[str] = (),
    outcome: Outcome | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> JobResults:
    """Return one Job's results."""
    return JobResults(
        key="k",
        rule="cxr-adult",
        kind=kind,
        model=model,
        outcome=Done(results) if outcome is None else outcome,
        sources=tuple(sources),
        parameters=parameters or {},
    )


def encoding(study: Study, *entries: JobResults, **changes: Any) -> Encoding:
    """Return work for an encoder."""
    return Encoding(study, entries, stamp(**changes))


def header(number: int, **elements: Any) -> Dataset:
    """Return the part of a header that every source shares."""
    dataset = Dataset()
    dataset.PatientName = "Doe^Jane"
    dataset.PatientID = "P1"
    dataset.IssuerOfPatientID = "Clinic"
    dataset.PatientBirthDate = "19600102"
    dataset.PatientSex = "F"
    dataset.StudyInstanceUID = derived_uid("test", "study")
    dataset.SeriesInstanceUID = derived_uid("test", "series")
    dataset.SOPInstanceUID = derived_uid("test", "instance", number)
    dataset.StudyDate = "20261123"
    dataset.StudyTime = "140000"
    dataset.StudyID = "S1"
    dataset.AccessionNumber = "A1"
    dataset.ReferringPhysicianName = "House^Gregory"
    dataset.InstanceNumber = number
    dataset.SeriesNumber = 1
    dataset.Manufacturer = "Scanner works"
    for keyword, value in elements.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    return dataset


def store(folder: Path, dataset: Dataset, pixels: NDArray[np.uint16]) -> Instance:
    """Write a source file and read it back as the gateway does."""
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return read_instance(path, digest="0" * 64)


def study(instances: Sequence[Instance]) -> Study:
    """Return a Study version of these Instances."""
    uid = str(instances[0].header.StudyInstanceUID)
    return Study(uid, tuple(instances), datetime(2026, 11, 23, 14, tzinfo=UTC), "file")


def radiograph(
    folder: Path,
    *,
    shape: tuple[int, int] = (60, 50),
    number: int = 1,
    pixels: NDArray[np.uint16] | None = None,
    **elements: Any,
) -> Instance:
    """Return a frontal chest radiograph, of a simple gradient where no pixels are given."""
    if pixels is None:
        rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
        pixels = ((rows * 31 + columns * 17) % 4096).astype(np.uint16)
    values: dict[str, Any] = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientOrientation": ["L", "F"],
        "ImageLaterality": "U",
        "PresentationIntentType": "FOR PRESENTATION",
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "US",
        "WindowCenter": "2048",
        "WindowWidth": "4096",
        "PresentationLUTShape": "IDENTITY",
        **elements,
    }
    return store(folder, header(number, **values), pixels)


def volume(
    folder: Path,
    *,
    shape: tuple[int, int, int] = (6, 20, 30),
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.7),
    **elements: Any,
) -> tuple[Instance, ...]:
    """Return the slices of a CT in the order of rising position along the normal.

    ``spacing`` is between slices, rows and columns in mm.
    """
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    generator = np.random.default_rng(1)
    slices = []
    for number in range(shape[0]):
        position = np.array([-50.0, -40.0, 100.0]) + normal * spacing[0] * number
        values: dict[str, Any] = {
            "SOPClassUID": CTImageStorage,
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "FrameOfReferenceUID": derived_uid("test", "frame of reference"),
            "PositionReferenceIndicator": "",
            "ImageOrientationPatient": [f"{value:.10g}" for value in orientation],
            "ImagePositionPatient": [f"{value:.10g}" for value in position],
            "PixelSpacing": [f"{spacing[1]}", f"{spacing[2]}"],
            "SliceThickness": f"{spacing[0]}",
            "RescaleIntercept": "-1024",
            "RescaleSlope": "1",
            "KVP": "120",
            "AcquisitionNumber": 1,
            **elements,
        }
        pixels = generator.integers(0, 2000, shape[1:]).astype(np.uint16)
        slices.append(store(folder, header(number + 1, **values), pixels))
    return tuple(slices)


def to_bytes(dataset: Dataset) -> bytes:
    """Return the file (PS3.10) of an object."""
    from io import BytesIO

    target = BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


def square(shape: tuple[int, ...], *, low: float = 0.2, high: float = 0.6) -> NDArray[np.bool_]:
    """Return a mask of a block between two shares of each side."""
    mask = np.zeros(shape, np.bool_)
    mask[tuple(slice(round(low * one), max(round(high * one), 1)) for one in shape)] = True
    return mask


def everything(folder: Path) -> Encoding:
    """Return work that makes one object of every kind: one reference model, not production."""
    instance = radiograph(folder)
    uid = instance.SOPInstanceUID
    results = (
        Segmentation("left lung", square((60, 50), low=0.5, high=0.8), (uid,), "left lung"),
        Segmentation("right lung", square((60, 50), low=0.1, high=0.4), (uid,), "right lung"),
        Finding("lung opacity", Assertion.PRESENT, (uid,), (Box(uid, 4, 5, 12.5, 20),), "right"),
        Finding("pneumothorax", Assertion.ABSENT, (uid,)),
        Measurement("cardiothoracic ratio", 0.47, "1", (uid,), "heart over thorax"),
        Narrative((Sentence("There is an opacity."),), (uid,)),
    )
    one = entry(*results, model=REFERENCE, kind="cxrreport", sources=[uid])
    return encoding(study([instance]), one, production=False)
