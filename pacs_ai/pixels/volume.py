"""Slices to a Volume: sorted by geometry, refused when the geometry is not one regular grid.

The affine is never made up. A Series that leaves any doubt (a slice missing, two in one place, a
tilted gantry, several acquisitions) is refused by a :class:`~pacs_ai.errors.PixelError` that names
the Instance and the element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_ai.errors import PixelError
from pacs_ai.pixels.decode import check_header, stored_values
from pacs_ai.pixels.description import named, number
from pacs_ai.pixels.modality import finite, modality_values, padding_mask
from pacs_ai.settings import Window
from pacs_ai.study import Instance

RECIPE_WINDOW = "volume-window/1"
RECIPE_PERCENTILE = "volume-percentile/1"
"""Names and versions of the two ways to eight bits."""

VOXEL_LIMIT = 512 * 1024 * 1024
"""Most voxels of one Volume (2 GiB in memory)."""

_UNIT = 1e-3
"""How far direction cosines may be from unit length and from right angles."""
_SAME = 1e-4
"""How far direction cosines and spacings of two slices may differ by rounding."""
_SPACING = 0.01
"""Share of the slice distance, and millimetres, by which one distance may differ from the mean."""
_DRIFT = 0.05
"""Share of the slice distance by which a position may leave the regular grid."""
_SIDEWAYS = 0.1
"""Share of a pixel by which positions may leave the line along the normal."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A Series as one regular grid.

    Attributes
    ----------
    array : ndarray of float32, shape (slices, Rows, Columns)
        Native grid, in the units of RescaleType (HU for CT). Padding has the lowest value of the
        image.
    affine : ndarray of float64, shape (4, 4)
        Column, row, slice (in this order, from 0, at voxel centres) to millimetres in the patient
        coordinate system, LPS (PS3.3 C.7.6.2.1.1).
    order : tuple of str
        SOP Instance UID of each slice, along the normal (row direction × column direction).
    modality : str
    """

    array: NDArray[np.float32] = field(repr=False)
    affine: NDArray[np.float64]
    order: tuple[str, ...] = field(repr=False)
    modality: str


@dataclass(frozen=True, slots=True)
class _Slice:
    instance: Instance
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: NDArray[np.float64]

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.orientation[:3], self.orientation[3:])


def assemble(instances: Sequence[Instance]) -> Volume:
    """Assemble the single-frame Instances of one Series, in any order, to a Volume.

    Raises
    ------
    PixelError
        When they are not one regular grid of parallel slices at right angles, or cannot be decoded.
    """
    slices = ordered(instances)
    affine = _affine(slices)
    rows, columns = (number(slices[0].instance, keyword) for keyword in ("Rows", "Columns"))
    if len(slices) * rows * columns > VOXEL_LIMIT:
        raise PixelError(
            f"Series {slices[0].instance.SeriesInstanceUID} has {len(slices)} slices of {rows} "
            f"Rows and {columns} Columns, more than the limit of {VOXEL_LIMIT} voxels: "
            "select a Series with fewer or thicker slices"
        )
    array = np.empty((len(slices), rows, columns), np.float32)
    padding = np.zeros(array.shape, np.bool_)
    for index, one in enumerate(slices):
        stored = stored_values(one.instance)
        padding[index] = padding_mask(one.instance, stored)
        array[index] = modality_values(one.instance, stored)
    if padding.all():
        raise PixelError(f"Series {slices[0].instance.SeriesInstanceUID} is padding only: no image")
    if padding.any():
        array[padding] = array[~padding].min()
    order = tuple(one.instance.SOPInstanceUID for one in slices)
    return Volume(array, affine, order, slices[0].instance.Modality)


def ordered(instances: Sequence[Instance]) -> tuple[_Slice, ...]:
    """Sort slices along their normal and refuse what is not one regular grid; decodes nothing.

    Raises
    ------
    PixelError
        As :func:`assemble`.
    """
    if len(instances) < 2:
        raise PixelError(
            "a volume needs two slices or more, because one has no distance: "
            "select the whole Series"
        )
    slices = [_slice(instance) for instance in instances]
    for one in slices[1:]:
        _check_alike(slices[0], one)
    _check_one_acquisition(slices)
    normal = slices[0].normal
    slices.sort(key=lambda one: float(one.position @ normal))
    _check_straight(slices)
    _check_regular(slices)
    return tuple(slices)


def to_uint8(volume: Volume, window: Window) -> tuple[NDArray[np.uint8], str]:
    """Return a Volume in eight bits, and the name of the recipe.

    CT is windowed linearly from level − width/2 to level + width/2; other modalities have no
    absolute scale and go from their 0.5th to their 99.5th percentile.

    Returns
    -------
    ndarray of uint8, shape (slices, Rows, Columns)
    str
        :data:`RECIPE_WINDOW` with the window in it, or :data:`RECIPE_PERCENTILE`.

    Raises
    ------
    PixelError
        When the Volume has one value everywhere.
    """
    if volume.modality == "CT":
        low, high = window.level - window.width / 2, window.level + window.width / 2
        recipe = f"{RECIPE_WINDOW} W {window.width:g} L {window.level:g}"
    else:
        low, high = (float(one) for one in np.percentile(volume.array, (0.5, 99.5)))
        if low == high:
            low, high = float(volume.array.min()), float(volume.array.max())
        recipe = RECIPE_PERCENTILE
    if low == high:
        raise PixelError(f"Instance {volume.order[0]} and its Series have one value: no image")
    out = np.empty(volume.array.shape, np.uint8)
    for index, plane in enumerate(volume.array):
        out[index] = np.rint(np.clip((plane - low) / (high - low), 0, 1) * 255)
    return out, recipe


def _slice(instance: Instance) -> _Slice:
    check_header(instance)
    if instance.header.get("ModalityLUTSequence"):
        raise PixelError(
            f"{named(instance)} has a ModalityLUTSequence, which slices of a volume do not have: "
            "send the Series with RescaleSlope and RescaleIntercept"
        )
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        finite(instance, keyword, default=1.0)
    position = _vector(instance, "ImagePositionPatient", 3)
    orientation = _vector(instance, "ImageOrientationPatient", 6)
    spacing = _vector(instance, "PixelSpacing", 2)
    if (spacing <= 0).any():
        raise PixelError(f"{named(instance)} has a PixelSpacing of 0 or less: correct it")
    lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
    if (np.abs(lengths - 1) > _UNIT).any() or abs(orientation[:3] @ orientation[3:]) > _UNIT:
        raise PixelError(
            f"{named(instance)} has an ImageOrientationPatient whose directions are not of unit "
            "length at right angles (PS3.3 C.7.6.2.1.1): correct it at its source"
        )
    return _Slice(instance, position, orientation, spacing)


def _vector(instance: Instance, keyword: str, length: int) -> NDArray[np.float64]:
    value: Any = instance.header.get(keyword)
    try:
        vector = np.array([float(one) for one in value], np.float64)
    except (TypeError, ValueError):
        vector = np.empty(0)
    if len(vector) != length or not np.isfinite(vector).all():
        raise PixelError(
            f"{named(instance)} has no {keyword} of {length} numbers, and geometry is never "
            "guessed: send the original Series"
        )
    return vector


def _check_alike(first: _Slice, one: _Slice) -> None:
    """Refuse two slices that cannot lie on one grid."""
    a, b = first.instance, one.instance
    same_keywords = ("Rows", "Columns", "FrameOfReferenceUID", "SeriesInstanceUID", "Modality")
    differing = [keyword for keyword in same_keywords if _text(a, keyword) != _text(b, keyword)]
    if np.abs(first.orientation - one.orientation).max() > _SAME:
        differing.append("ImageOrientationPatient")
    if np.abs(first.spacing - one.spacing).max() > _SAME:
        differing.append("PixelSpacing")
    if differing:
        raise PixelError(
            f"{named(a)} and Instance {b.SOPInstanceUID} differ in {', '.join(differing)}: "
            "select one Series of parallel slices (no localizer or reformat among them)"
        )


def _check_one_acquisition(slices: list[_Slice]) -> None:
    """Refuse several acquisitions in one Series; a PET's bed positions are one examination."""
    header = slices[0].instance.header
    if str(header.get("Modality", "")) == "PT":
        return
    numbers = {_text(one.instance, "AcquisitionNumber") for one in slices}
    if len(numbers) > 1:
        raise PixelError(
            f"Series {header.SeriesInstanceUID} holds {len(numbers)} acquisitions "
            "(AcquisitionNumber): send each as a Series of its own"
        )


def _check_straight(slices: list[_Slice]) -> None:
    """Refuse slices that are shifted against each other, as a tilted gantry leaves them."""
    normal = slices[0].normal
    limit = _SIDEWAYS * float(slices[0].spacing.min())
    for one in slices[1:]:
        step = one.position - slices[0].position
        if np.linalg.norm(step - (step @ normal) * normal) > limit:
            raise PixelError(
                f"{named(one.instance)} has an ImagePositionPatient beside the line along the "
                "slices' normal (GantryDetectorTilt, or slices that are shifted): "
                "send a Series without tilt"
            )


def _check_regular(slices: list[_Slice]) -> None:
    """Refuse duplicate, missing and unevenly spaced slices."""
    normal = slices[0].normal
    places = np.array([one.position @ normal for one in slices])
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    for index, gap in enumerate(gaps):
        pair = f"{named(slices[index].instance)} and {named(slices[index + 1].instance)}"
        if gap <= max(_SPACING * usual, 1e-3):
            raise PixelError(
                f"{pair} lie in one place (ImagePositionPatient): send each slice once, and each "
                "phase or echo as a Series of its own"
            )
        if abs(gap - usual) > max(_SPACING * usual, _SPACING + 1e-6):
            raise PixelError(
                f"{pair} are {gap:.3f} mm apart where {usual:.3f} mm is usual "
                "(ImagePositionPatient): send the missing slices, or an evenly spaced Series"
            )
    grid = np.linspace(places[0], places[-1], len(places))
    if np.abs(places - grid).max() > _DRIFT * usual:
        raise PixelError(
            f"Series {slices[0].instance.SeriesInstanceUID} is not evenly spaced "
            "(ImagePositionPatient): send an evenly spaced Series"
        )


def _affine(slices: tuple[_Slice, ...]) -> NDArray[np.float64]:
    """Return column, row, slice to LPS millimetres (PS3.3 C.7.6.2.1.1, Equation C.7.6.2.1-1)."""
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    # PixelSpacing gives the distance of rows first, then of columns.
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    distance = float((last.position - first.position) @ first.normal) / (len(slices) - 1)
    affine[:3, 2] = first.normal * distance
    affine[:3, 3] = first.position
    return affine


def _text(instance: Instance, keyword: str) -> str:
    header: Dataset = instance.header
    return str(header.get(keyword, "") or "")
