"""Chest radiographs of the phantom: Beer-Lambert projections of the voxel body.

Frontal PA and left lateral, Digital X-Ray Image Storage - For Presentation (PS3.3 A.26), portrait
14 × 17 inch at 0.25 mm. Parallel beam: the line integral of the attenuation along y (PA) or x
(lateral) gives the photons that arrive; they are counted with noise, and the picture shows the
logarithm, dense tissue bright.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation
from scipy import ndimage

from pacs_ai.phantom import header
from pacs_ai.phantom.body import (
    OPACITY_CENTRE,
    OPACITY_RADII,
    ORIGIN,
    SHAPE,
    Floats,
    Region,
    body,
)

ROWS, COLUMNS = 1728, 1424
PIXEL = 0.25
"""Detector pixel, mm in both directions; parallel beam, so also mm in the body."""

_WATER = 0.0185
"""Linear attenuation of water at the effective energy of a 120 kV chest beam, 1/mm."""

_PHOTONS = 250_000
_BRIGHTEST = 5.2


class _ViewText(NamedTuple):
    position: str
    orientation: tuple[str, str]
    code: tuple[str, str, str]
    description: str
    along: int


class View(Enum):
    """A view: its headers, and the axis of the body that the beam runs along."""

    FRONTAL = _ViewText("PA", ("L", "F"), ("272479007", "SCT", "postero-anterior"), "CHEST PA", 1)
    LATERAL = _ViewText("LL", ("P", "F"), ("399173006", "SCT", "left lateral"), "CHEST LAT", 2)


def chest_radiographs(*, name: str, when: datetime, opacity: bool) -> tuple[Dataset, ...]:
    """Make a chest radiograph Study: one frontal and one left lateral Instance.

    Parameters
    ----------
    name : str
        Different names make different Studies.
    when : datetime
        Acquisition time.
    opacity : bool
        With a dense opacity in the right lower lung zone, or without.

    Returns
    -------
    tuple of Dataset
        Frontal (PatientOrientation ``L\\F``), lateral (``P\\F``): File Meta Information and pixel
        data included, Explicit VR Little Endian, MONOCHROME2, 12 bits stored, 1728 × 1424.
    """
    identity = header.identity("radiographs", name=name, when=when, opacity=opacity)
    made = []
    for number, view in enumerate(View, 1):
        instance = header.instance(
            DigitalXRayImageStorageForPresentation,
            identity=identity,
            number=number,
            series=number,
            when=when,
        )
        _describe(instance, view)
        random = np.random.default_rng(int(identity[:15], 16) + number)
        _set_pixels(instance, _picture(view, random, opacity=opacity))
        made.append(instance)
    return tuple(made)


def frontal_truth() -> dict[str, NDArray[np.bool_]]:
    """Return where lungs and heart are on the frontal radiograph; for tests only.

    Returns
    -------
    dict of ndarray of bool, shape (Rows, Columns)
        ``"left lung"`` and ``"right lung"``: the lung fields a reader would draw, lung that is
        overlain by neither heart, mediastinum nor what lies under the diaphragm. ``"heart"``: the
        shadow of the heart.
    """
    region = body(opacity=False).region
    heart = (region == Region.HEART).any(axis=1)
    covered = (region == Region.ABDOMEN).sum(axis=1) > 25
    covered |= (region == Region.MEDIASTINUM).sum(axis=1) > 60
    fields = {"heart": heart}
    for label, lung in (("left lung", Region.LEFT_LUNG), ("right lung", Region.RIGHT_LUNG)):
        depth = (region == lung).sum(axis=1)
        fields[label] = (depth > 12) & ~covered & ~heart
    return {label: _on_detector(mask) for label, mask in fields.items()}


def opacity_box() -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of the opacity on the frontal radiograph; for tests only.

    Sub-pixel image coordinates of stored columns and rows, 0, 0 at the top left corner of the top
    left pixel (PS3.3 C.18.6.1.1).
    """
    x, _, z = OPACITY_CENTRE
    half_width, _, half_height = OPACITY_RADII
    column, row = x / PIXEL + COLUMNS / 2, ROWS / 2 - z / PIXEL
    across, down = half_width / PIXEL, half_height / PIXEL
    return (column - across, row - down, column + across, row + down)


def _picture(view: View, random: np.random.Generator, *, opacity: bool) -> NDArray[np.uint16]:
    hounsfield = body(opacity=opacity).hounsfield
    # Line integral of mu = mu_water (1 + HU/1000) over 1 mm steps, summed in whole numbers.
    total = hounsfield.sum(axis=view.value.along, dtype=np.int64)
    attenuation = (total / 1000 + hounsfield.shape[view.value.along]) * _WATER
    integral = _project(np.maximum(attenuation, 0).astype(np.float32))
    arriving = _PHOTONS * np.exp(-integral)
    counted = np.maximum(random.poisson(arriving), 1)
    shown = np.log(_PHOTONS / counted) / _BRIGHTEST * 4095
    return np.clip(np.rint(shown), 0, 4095).astype(np.uint16)


def _project(plane: Floats) -> Floats:
    """Bring a plane of the body (z up, other axis rising) to detector rows and columns."""
    other = SHAPE[2] if plane.shape[1] == SHAPE[2] else SHAPE[1]
    first = ORIGIN[2] if other == SHAPE[2] else ORIGIN[1]
    z = (ROWS / 2 - 0.5 - np.arange(ROWS)) * PIXEL
    across = (np.arange(COLUMNS) + 0.5 - COLUMNS / 2) * PIXEL
    # The grids are separable: an affine map per axis is enough.
    return np.asarray(
        ndimage.affine_transform(
            plane,
            np.array([-PIXEL, PIXEL]),
            offset=[z[0] - ORIGIN[0] - 0.5, across[0] - first - 0.5],
            output_shape=(ROWS, COLUMNS),
            order=3,
            mode="constant",
        ),
        np.float32,
    )


def _on_detector(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return _project(mask.astype(np.float32)) > 0.5


def _describe(made: Dataset, view: View) -> None:
    """Write the DX modules (PS3.3 C.8.11) that tell view and anatomy."""
    text = view.value
    made.Modality = "DX"
    made.PresentationIntentType = "FOR PRESENTATION"
    made.StudyDescription = "XR CHEST 2 VIEWS"
    made.SeriesDescription = text.description
    made.ProtocolName = text.description
    made.BodyPartExamined = "CHEST"
    made.AnatomicRegionSequence = [header.code("51185008", "SCT", "Chest")]
    made.ImageType = ["ORIGINAL", "PRIMARY", ""]
    made.ImageLaterality = "U"
    made.PatientOrientation = list(text.orientation)
    made.ViewPosition = text.position
    made.ViewCodeSequence = [header.code(*text.code)]
    made.ViewCodeSequence[0].ViewModifierCodeSequence = []
    made.PositionerType = "COLUMN"
    made.AcquisitionContextSequence = []
    made.PerformedProcedureStepStartDate = made.StudyDate
    made.PerformedProcedureStepStartTime = made.StudyTime
    made.PerformedProcedureStepID = "1"
    made.KVP = "120"
    made.Exposure = 2
    made.DistanceSourceToDetector = "1800"
    made.DetectorType = "SCINTILLATOR"
    made.DetectorConfiguration = "AREA"
    made.DetectorDescription = ""
    made.ImagerPixelSpacing = [PIXEL, PIXEL]
    made.FieldOfViewShape = "RECTANGLE"
    made.FieldOfViewDimensions = [round(ROWS * PIXEL), round(COLUMNS * PIXEL)]
    made.FieldOfViewOrigin = ["0", "0"]
    made.FieldOfViewRotation = "0"
    made.FieldOfViewHorizontalFlip = "NO"


def _set_pixels(made: Dataset, picture: NDArray[np.uint16]) -> None:
    made.Rows, made.Columns = picture.shape
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.PixelRepresentation = 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.PixelIntensityRelationship = "LOG"
    made.PixelIntensityRelationshipSign = -1
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = "0", "1", "US"
    made.PresentationLUTShape = "IDENTITY"
    made.WindowCenter, made.WindowWidth = "1950", "3500"
    made.PixelData = picture.astype("<u2").tobytes()
