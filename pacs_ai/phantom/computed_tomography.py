"""The thorax CT of the phantom: the voxel body sampled on an oblique grid.

The grid is turned by a few degrees about all three axes. The header's own decimal strings are read
back before sampling, so that the voxels lie where ImagePositionPatient, ImageOrientationPatient and
PixelSpacing (PS3.3 C.7.6.2) say, to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import format_number_as_ds
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pacs_ai.phantom import header
from pacs_ai.phantom.body import ORIGIN, SHAPE, Region, body
from pacs_ai.uids import derived_uid

_TILT = (3.5, -2.5, 4.0)
"""Turns about the patient's x, y and z axes, degrees."""

_FIELD = 400.0
"""Reconstruction diameter, mm."""

_EXTENT = 320.0
"""From the first slice's lower face to the last one's upper face, mm."""

_CENTRE = (3.0, -4.0, -6.0)
_NOISE = 24.0


def thorax_ct(
    *, name: str, when: datetime, slices: int = 64, rows: int = 512
) -> tuple[Dataset, ...]:
    """Make a thorax CT Series: CT Image Storage, oblique by a few degrees.

    Parameters
    ----------
    name : str
        Different names make different Studies.
    when : datetime
        Acquisition time.
    slices : int
        Number of slices over the 320 mm of the thorax.
    rows : int
        Rows and Columns of each slice, over 400 mm.

    Returns
    -------
    tuple of Dataset
        In an order of their own, not by position: File Meta Information and pixel data included,
        Explicit VR Little Endian, int16 with RescaleIntercept -1024.
    """
    identity = _identity(name, when, slices, rows)
    hounsfield = body(opacity=False).hounsfield
    made = []
    for number in _order(identity, slices):
        instance = header.instance(
            CTImageStorage, identity=identity, number=number + 1, series=2, when=when
        )
        _describe(instance, identity)
        _set_geometry(instance, number, slices, rows)
        values = ndimage.map_coordinates(
            hounsfield, _voxels(instance), output=np.float32, order=1, cval=-1000.0
        )
        random = np.random.default_rng(int(identity[:15], 16) + number)
        values += _NOISE * random.standard_normal(values.shape, dtype=np.float32)
        _set_pixels(instance, values)
        made.append(instance)
    return tuple(made)


def thorax_truth(
    *, name: str, when: datetime, slices: int = 64, rows: int = 512
) -> dict[str, NDArray[np.bool_]]:
    """Return where the organs are in the CT that the same arguments make; for tests only.

    Returns
    -------
    dict of ndarray of bool, shape (slices, Rows, Columns)
        ``"left lung"``, ``"right lung"`` (with the vessels inside the lung's contour), ``"bone"``
        (with marrow) and ``"body"``; axis 0 in the order of the returned Instances.
    """
    region = body(opacity=False).region
    found = np.zeros((slices, rows, rows), np.uint8)
    for place, number in enumerate(_order(_identity(name, when, slices, rows), slices)):
        instance = Dataset()
        _set_geometry(instance, number, slices, rows)
        ndimage.map_coordinates(region, _voxels(instance), output=found[place], order=0)
    return {
        "left lung": found == Region.LEFT_LUNG,
        "right lung": found == Region.RIGHT_LUNG,
        "bone": found == Region.BONE,
        "body": found != Region.OUTSIDE,
    }


def _identity(name: str, when: datetime, slices: int, rows: int) -> str:
    return header.identity("thorax ct", name=name, when=when, slices=slices, rows=rows)


def _order(identity: str, slices: int) -> Iterator[int]:
    """Yield slice numbers in the order they are handed out: no reader may rely on arrival order."""
    random = np.random.default_rng(int(identity[:15], 16))
    return iter(int(number) for number in random.permutation(slices))


def _set_geometry(made: Dataset, number: int, slices: int, rows: int) -> None:
    axes = Rotation.from_euler("xyz", _TILT, degrees=True).as_matrix()
    spacing, thickness = _FIELD / rows, _EXTENT / slices
    along = (number - (slices - 1) / 2) * thickness
    corner = -spacing * (rows - 1) / 2
    position = np.array(_CENTRE) + axes @ np.array((corner, corner, along))
    made.ImagePositionPatient = [format_number_as_ds(float(part)) for part in position]
    made.ImageOrientationPatient = [
        format_number_as_ds(float(part)) for part in (*axes[:, 0], *axes[:, 1])
    ]
    made.PixelSpacing = [format_number_as_ds(spacing)] * 2
    made.SliceThickness = format_number_as_ds(thickness)
    made.SpacingBetweenSlices = format_number_as_ds(thickness)
    made.Rows = made.Columns = rows


def _voxels(made: Dataset) -> NDArray[np.float32]:
    """Return where each pixel lies in the body: shape (3, Rows, Columns), voxel indices z, y, x."""
    position = np.array(made.ImagePositionPatient, float)
    along_row = np.array(made.ImageOrientationPatient[:3], float)
    along_column = np.array(made.ImageOrientationPatient[3:], float)
    down, across = (float(part) for part in made.PixelSpacing)
    rows = np.arange(made.Rows, dtype=float)[:, None] * down
    columns = np.arange(made.Columns, dtype=float)[None, :] * across
    found = np.empty((len(SHAPE), made.Rows, made.Columns), np.float32)
    for number in range(3):
        part = 2 - number
        found[number] = (
            position[part]
            + columns * along_row[part]
            + rows * along_column[part]
            - (ORIGIN[number] + 0.5)
        )
    return found


def _describe(made: Dataset, identity: str) -> None:
    """Write the CT and Frame of Reference modules (PS3.3 C.8.2.1, C.7.4.1)."""
    made.Modality = "CT"
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.StudyDescription = "CT CHEST"
    made.SeriesDescription = "CHEST 5.0 B31f"
    made.ProtocolName = "THORAX ROUTINE"
    made.BodyPartExamined = "CHEST"
    made.PatientPosition = "HFS"
    made.FrameOfReferenceUID = derived_uid("phantom frame of reference", identity)
    made.PositionReferenceIndicator = ""
    made.AcquisitionNumber = 1
    made.KVP = "120"
    made.ConvolutionKernel = "B31f"
    made.ScanOptions = "HELICAL MODE"
    made.ReconstructionDiameter = format_number_as_ds(_FIELD)
    made.XRayTubeCurrent = 180
    made.ExposureTime = 500
    made.GantryDetectorTilt = "0"


def _set_pixels(made: Dataset, hounsfield: NDArray[np.float32]) -> None:
    stored = np.clip(np.rint(hounsfield) + 1024, 0, 4095).astype("<i2")
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.PixelRepresentation = 1
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = "-1024", "1", "HU"
    made.WindowCenter, made.WindowWidth = ["40", "-600"], ["400", "1500"]
    made.WindowCenterWidthExplanation = ["MEDIASTINUM", "LUNG"]
    made.PixelData = stored.tobytes()
