"""Stored values to modality values, frame by frame: Modality LUT or rescale, and padding.

The door for whatever works with numbers rather than pictures. In an enhanced object the elements of
one frame stand in its functional groups; they are looked for there first (PS3.3 C.7.6.16).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pacs_ai.errors import PixelError
from pacs_ai.pixels.decode import stored_frames
from pacs_ai.pixels.description import describe, named, number
from pacs_ai.study import Instance, items, values

_IN_UNITS = ("CT", "PT")
"""Modalities whose values mean the same whichever way they are displayed."""


@dataclass(frozen=True, slots=True)
class FrameValues:
    """One frame in modality values.

    Attributes
    ----------
    number : int
        From 0.
    values : ndarray of float32, shape (Rows, Columns)
        Native grid, in the units of RescaleType; the stored values where the header says nothing.
        Whole numbers above 2 ** 24 are rounded.
    padding : ndarray of bool, shape (Rows, Columns)
        True where there is no image (PixelPaddingValue).
    """

    number: int
    values: NDArray[np.float32] = field(repr=False)
    padding: NDArray[np.bool_] = field(repr=False)


def frames(instance: Instance, numbers: Iterable[int] | None = None) -> Iterator[FrameValues]:
    """Yield frames of a grey Instance in modality values; only one is held at a time.

    Parameters
    ----------
    instance : Instance
    numbers : iterable of int, optional
        Frames, from 0; all of them when left out.

    Raises
    ------
    PixelError
        When it is colour, as :func:`~pacs_ai.pixels.decode.stored_frames`, and as
        :func:`modality_values`.
    """
    description = describe(instance.header, instance.transfer_syntax_uid)
    if description.colour:
        raise PixelError(
            f"{named(instance)} is colour (PhotometricInterpretation {description.photometric}), "
            "which has no modality values: select grey images"
        )
    chosen = range(description.frames) if numbers is None else tuple(numbers)
    for index, stored in zip(chosen, stored_frames(instance, chosen), strict=True):
        padding = padding_mask(instance, stored)
        yield FrameValues(index, modality_values(instance, stored, frame=index), padding)


def standing(instance: Instance, frame: int, macro: str) -> Dataset:
    """Return where a frame's elements of a functional group stand (PS3.3 C.7.6.16.1).

    Parameters
    ----------
    instance : Instance
    frame : int
        From 0.
    macro : str
        Keyword of the macro's sequence, such as ``PixelValueTransformationSequence``.

    Returns
    -------
    Dataset
        The frame's own item, else the shared one, else the header itself.
    """
    header = instance.header
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    for item in (*own[frame : frame + 1], *shared[:1]):
        if item.get(macro):
            found: Dataset = item[macro].value[0]
            return found
    return header


def modality_values(
    instance: Instance, stored: NDArray[Any], *, frame: int = 0
) -> NDArray[np.float32]:
    """Apply the Modality LUT or rescale (PS3.3 C.11.1).

    Returns
    -------
    ndarray of float32, shape (Rows, Columns)
        In the units of RescaleType; the stored values where the header says nothing.

    Raises
    ------
    PixelError
        When the LUT does not fit, and as :func:`rescale`.
    """
    header = instance.header
    if header.get("ModalityLUTSequence"):
        return looked_up(instance, header.ModalityLUTSequence[0], stored)[0]
    slope, intercept = rescale(instance, frame=frame)
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(np.float32)
    wide = np.float32 if stored.dtype.itemsize <= 2 else np.float64
    scaled: NDArray[Any] = np.multiply(stored, slope, dtype=wide)
    scaled += intercept
    return scaled.astype(np.float32, copy=False)


def rescale(instance: Instance, *, frame: int = 0) -> tuple[float, float]:
    """Return slope and intercept (PS3.3 C.11.1.1.2, C.7.6.16.2.9); 1 and 0 where nothing is said.

    Raises
    ------
    PixelError
        When RescaleSlope is zero or one of the two is not a number.
    """
    place = standing(instance, frame, "PixelValueTransformationSequence")
    slope = finite(instance, "RescaleSlope", default=1.0, within=place)
    intercept = finite(instance, "RescaleIntercept", default=0.0, within=place)
    if slope == 0.0:
        raise PixelError(f"{named(instance)} has RescaleSlope 0: correct it at its source")
    return slope, intercept


def is_rescaled(instance: Instance, *, frame: int = 0) -> bool:
    """Tell whether RescaleSlope and RescaleIntercept are both stated, for a frame (from 0)."""
    return not _unsaid(instance, frame)


def _unsaid(instance: Instance, frame: int) -> tuple[str, ...]:
    place = standing(instance, frame, "PixelValueTransformationSequence")
    wanted = ("RescaleSlope", "RescaleIntercept")
    return tuple(keyword for keyword in wanted if first(place, keyword) is None)


def check_hounsfield(instance: Instance, *, frame: int = 0) -> None:
    """Refuse a CT whose header does not put its values into Hounsfield units.

    PS3.3 C.8.2.1 wants RescaleSlope and RescaleIntercept of every CT, and has RescaleType left out where
    it is HU; of an enhanced one its functional groups say it (C.8.15.3.10). Nothing is taken for granted:
    air at 0 looks like water, and water like bone.

    Parameters
    ----------
    instance : Instance
        Of another Modality it has no such units, and passes.
    frame : int, optional
        From 0.

    Raises
    ------
    PixelError
        Naming what is missing, or has another unit.
    """
    if instance.Modality != "CT":
        return
    tables = items(instance.header, "ModalityLUTSequence")
    place = standing(instance, frame, "PixelValueTransformationSequence")
    unit = values(tables[0], "ModalityLUTType") if tables else values(place, "RescaleType")
    missing = () if tables else _unsaid(instance, frame)
    if missing:
        raise PixelError(
            f"{named(instance)} is CT and has no {' and no '.join(missing)}, without which its values are "
            "not in Hounsfield units: send it from a system that sets them"
        )
    if unit != ("HU",) and (tables or unit):
        raise PixelError(
            f"{named(instance)} is CT and its {'ModalityLUTType' if tables else 'RescaleType'} is not HU: "
            "select images in Hounsfield units, or correct it at its source"
        )


def finite(
    instance: Instance, keyword: str, *, default: float, within: Dataset | None = None
) -> float:
    """Return a decimal element, its first value when it has several, or a default when absent.

    Parameters
    ----------
    instance : Instance
    keyword : str
    default : float
    within : Dataset, optional
        Where it stands, when that is not the header itself.

    Raises
    ------
    PixelError
        When it is there and is not a finite number.
    """
    value = first(instance.header if within is None else within, keyword)
    if value is None:
        return default
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise PixelError(
            f"{named(instance)} has a {keyword} that is not a number: correct it at its source"
        )
    return found


def padding_mask(instance: Instance, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where PixelPaddingValue, or its range, stands (PS3.3 C.7.5.1.1.2).

    Not-a-number in Float Pixel Data is padding too.

    Returns
    -------
    ndarray of bool, shape (Rows, Columns)
        True where the stored value is padding and no image.
    """
    header = instance.header
    if np.issubdtype(stored.dtype, np.floating):
        missing: NDArray[np.bool_] = ~np.isfinite(stored)
        low = first(header, "FloatPixelPaddingValue")
        low = first(header, "DoubleFloatPixelPaddingValue") if low is None else low
        return missing if low is None else missing | (stored == stored.dtype.type(low))
    limits = padding_range(instance)
    if limits is None:
        return np.zeros(stored.shape, np.bool_)
    found: NDArray[np.bool_] = (stored >= limits[0]) & (stored <= limits[1])
    return found


def padding_range(instance: Instance) -> tuple[int, int] | None:
    """Return the least and most stored integer that is padding; None where none is."""
    low = first(instance.header, "PixelPaddingValue")
    if low is None:
        return None
    last = first(instance.header, "PixelPaddingRangeLimit")
    ends = (_as_stored(instance, low), _as_stored(instance, low if last is None else last))
    return min(ends), max(ends)


def looked_up(
    instance: Instance, item: Dataset, values: NDArray[Any]
) -> tuple[NDArray[np.float32], int]:
    """Apply a LUT (PS3.3 C.11.1.1, C.11.2.1.1); return the values and the most one can be.

    Raises
    ------
    PixelError
        When LUTDescriptor and LUTData do not fit.
    """
    try:
        entries, start, bits = (int(number) for number in item.LUTDescriptor)
        table = _lut_data(instance, item)
    except (AttributeError, TypeError, ValueError) as error:
        raise _bad_lut(instance) from error
    entries = entries or 1 << 16
    # The first value mapped is a stored value; its VR may have been read with the wrong sign.
    if start >= 1 << 15 and values.min() < 0:
        start -= 1 << 16
    full = (1 << bits) - 1
    if not 8 <= bits <= 16 or len(table) != entries or table.max() > full:
        raise _bad_lut(instance)
    index = np.clip(values.astype(np.int64) - start, 0, entries - 1)
    return table[index].astype(np.float32), full


def first(header: Dataset, keyword: str) -> Any:
    """Return an element's first value, None when it is missing or empty."""
    value = header.get(keyword)
    if value is None or value == "":
        return None
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return value
    return next(iter(value), None)


def _as_stored(instance: Instance, value: Any) -> int:
    """Return a padding value as the pixels have it: its VR may be read with the wrong sign."""
    chosen = int(value)
    bits = number(instance, "BitsAllocated")
    chosen &= (1 << bits) - 1
    if number(instance, "PixelRepresentation") == 1 and chosen >= 1 << (bits - 1):
        chosen -= 1 << bits
    return chosen


def _lut_data(instance: Instance, item: Dataset) -> NDArray[Any]:
    data = item.LUTData
    if isinstance(data, bytes):
        little = UID(instance.transfer_syntax_uid).is_little_endian
        return np.frombuffer(data, "<u2" if little else ">u2")
    return np.asarray(data, np.int64) & 0xFFFF


def _bad_lut(instance: Instance) -> PixelError:
    return PixelError(
        f"{named(instance)} has a LUT whose LUTDescriptor and LUTData do not fit "
        "(ModalityLUTSequence or VOILUTSequence): correct it at its source"
    )


def inverted(instance: Instance) -> bool:
    """Tell whether high values are drawn dark; the two elements that say so must agree (PS3.3 C.8.11.3.1).

    Those of CT and PET are physical, and never are: a model looks for air and bone by them.

    Raises
    ------
    PixelError
        When they contradict each other.
    """
    if instance.Modality in _IN_UNITS:
        return False
    photometric = str(instance.header.PhotometricInterpretation)
    shape = str(instance.header.get("PresentationLUTShape", "") or "")
    if (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
        raise PixelError(
            f"{named(instance)} has PresentationLUTShape {shape}, which contradicts "
            f"PhotometricInterpretation {photometric}: correct the one that is wrong"
        )
    return photometric == "MONOCHROME1"
