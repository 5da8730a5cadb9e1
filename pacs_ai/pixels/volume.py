"""A Series as one regular grid, read slice by slice.

A :class:`Volume` is a description: planes in order, affine, sources. Its pixels are decoded one plane
at a time, so that a Series of any length takes the memory of a slice. What a Series holds is decided
in ``stacks.py``; more than one volume, or none, is a :class:`~pacs_ai.errors.PixelError`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import PixelError
from pacs_ai.pixels.decode import check_header, stored_frames, stored_values
from pacs_ai.pixels.frames import Frame
from pacs_ai.pixels.histogram import Histogram
from pacs_ai.pixels.modality import (
    check_hounsfield,
    inverted,
    is_rescaled,
    modality_values,
    padding_mask,
    padding_range,
    rescale,
)
from pacs_ai.pixels.stacks import Plane, Stack, partition
from pacs_ai.results import PIXEL_PATH
from pacs_ai.settings import Window
from pacs_ai.study import Instance

VOXEL_LIMIT = 512 * 1024 * 1024
"""Most voxels of one Volume: half a gigabyte at eight bits, which is what comes back."""

_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, slots=True)
class Volume:
    """A Series, or a part of one, as one regular grid.

    Attributes
    ----------
    stack : Stack
    notes : tuple of str
        What of the Series is not in it, and why.
    """

    stack: Stack = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, Rows, Columns."""
        header = self.stack.planes[0].frame.instance.header
        return len(self.stack.planes), int(header.Rows), int(header.Columns)

    @property
    def affine(self) -> NDArray[np.float64]:
        """Column, row, slice to millimetres, LPS; shape (4, 4), as :attr:`Stack.affine`."""
        return self.stack.affine

    @property
    def order(self) -> tuple[str, ...]:
        """SOP Instance UID of each slice, along the normal (row direction × column direction)."""
        return tuple(one.frame.instance.SOPInstanceUID for one in self.stack.planes)

    @property
    def frames(self) -> tuple[int, ...]:
        """Frame number of each slice; empty where the slices are single-frame Instances."""
        return self.stack.frames

    @property
    def modality(self) -> str:
        """Modality (0008,0060)."""
        return self.stack.planes[0].frame.instance.Modality


def assemble(instances: Sequence[Instance], *, frames: Collection[int] = ()) -> Volume:
    """Return the one volume that Instances of a Series, in any order, hold; decodes nothing.

    Parameters
    ----------
    instances : sequence of Instance
        Single-frame Instances, or multi-frame Instances with functional groups.
    frames : collection of int
        Numbers of the frames to take of a multi-frame Instance; all when empty.

    Raises
    ------
    PixelError
        When they hold none or several (:func:`~pacs_ai.pixels.stacks.partition`), one too large, or one
        of which only some slices are rescaled.
    """
    if not instances:
        raise PixelError("a volume needs two slices or more: select the whole Series")
    found = partition(instances, frames=frames)
    if not found.usable:
        raise PixelError(found.why_none())
    if len(found.usable) > 1:
        each = "; ".join(
            f"{len(one.planes)} slices of {one.stated(found.differ)}" for one in found.usable
        )
        raise PixelError(
            f"Series {instances[0].SeriesInstanceUID} holds {len(found.usable)} volumes that differ "
            f"in {found.differ} ({each}): let the rule select one of them, or send each as a Series "
            "of its own"
        )
    notes = tuple(
        f"{len(one.frames)} of its frames left out: {one.reason}" for one in found.refused
    )
    volume = Volume(found.usable[0], notes)
    for plane in volume.stack.planes:
        _check_plane(plane)
    _check_alike(volume)
    if math.prod(volume.shape) > VOXEL_LIMIT:
        slices, rows, columns = volume.shape
        raise PixelError(
            f"Series {instances[0].SeriesInstanceUID} has {slices} slices of {rows} Rows and "
            f"{columns} Columns, more than the limit of {VOXEL_LIMIT} voxels: select a Series with "
            "fewer or thicker slices"
        )
    return volume


def planes(volume: Volume) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield each plane in the units of RescaleType (HU for CT: :func:`check_units`), and where it is padding.

    Yields
    ------
    ndarray of float32 and ndarray of bool, shape (Rows, Columns) each
        Native grid, along the normal.

    Raises
    ------
    PixelError
        When a slice cannot be decoded.
    """
    for plane, stored in _stored(volume.stack.planes):
        yield _rescaled(plane.frame, stored), _padding(plane.frame, stored)


@dataclass(frozen=True, slots=True)
class Grey:
    """A Volume in eight bits.

    Attributes
    ----------
    volume : Volume
    low, high : float
        Values that become 0 and 255; what lies outside is cut, padding is 0. ``low`` is the greater one
        where high values are dark.
    recipe : str
        The path, and the window or percentiles that it was asked for.
    """

    volume: Volume
    low: float
    high: float
    recipe: str

    def planes(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the planes, shape (Rows, Columns), along the normal.

        Raises
        ------
        PixelError
            After the last, when all of them were black or white: *nothing found* would read like an answer.
        """
        blank = True
        for drawn in self._drawn(self.volume.stack.planes):
            blank = blank and drawn.min() == drawn.max()
            yield drawn
        if blank:
            series = self.volume.stack.planes[0].frame.instance.SeriesInstanceUID
            raise PixelError(
                f"Series {series} is all black or all white from {self.low:g} to {self.high:g}: correct "
                "RescaleSlope and RescaleIntercept at their source, or select another Series"
            )

    def plane(self, index: int) -> NDArray[np.uint8]:
        """Return one plane; only that slice is decoded."""
        return next(self._drawn(self.volume.stack.planes[index : index + 1]))

    def _drawn(self, some: Sequence[Plane]) -> Iterator[NDArray[np.uint8]]:
        tables: dict[tuple[object, ...], NDArray[np.uint8]] = {}
        for plane, stored in _stored(some):
            if stored.dtype.itemsize > 2:
                yield self._draw(plane.frame, stored)
                continue
            # 65536 stored values at most: each is worked out once, and a slice is looked up.
            frame = plane.frame
            scale = rescale(frame.instance, frame=frame.index)
            key = (stored.dtype, scale, padding_range(frame.instance))
            if key not in tables:
                tables.clear()
                tables[key] = self._draw(frame, _every_value(stored.dtype))
            yield tables[key][_unsigned(stored)]

    def _draw(self, frame: Frame, stored: NDArray[Any]) -> NDArray[np.uint8]:
        values = _rescaled(frame, stored)
        share = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        drawn: NDArray[np.uint8] = np.rint(share * 255).astype(np.uint8)
        drawn[_padding(frame, stored)] = 0
        return drawn


def grey(volume: Volume, window: Window) -> Grey:
    """Return how a Volume becomes eight bits.

    CT is windowed linearly from level − width/2 to level + width/2; nothing is decoded yet. Other
    modalities have no absolute scale and go from their 0.5th to their 99.5th percentile, for which
    every slice is decoded once, in advance. What is displayed with high values dark (MONOCHROME1) is
    drawn so, save CT and PET, whose values are physical.

    Raises
    ------
    PixelError
        When the Volume has one value everywhere, is padding only, its slices are displayed in two ways,
        it cannot be decoded, and as :func:`check_units`.
    """
    check_units(volume)
    if volume.modality == "CT":
        low, high = window.level - window.width / 2, window.level + window.width / 2
        recipe = f"{PIXEL_PATH} W {window.width:g} L {window.level:g}"
    else:
        dark = _dark(volume)
        low, high = _percentiles(volume)
        if dark:
            low, high = high, low
        recipe = "{} P {:g} to {:g}".format(PIXEL_PATH, *_PERCENTILES)
    return Grey(volume, low, high, recipe)


def check_units(volume: Volume) -> None:
    """Refuse a CT of which a slice is not in Hounsfield units.

    Raises
    ------
    PixelError
        As :func:`~pacs_ai.pixels.modality.check_hounsfield`.
    """
    for plane in volume.stack.planes:
        check_hounsfield(plane.frame.instance, frame=plane.frame.index)


def _dark(volume: Volume) -> bool:
    """Tell whether high values are to be dark, which all slices must say alike."""
    said = {one.frame.instance.SOPInstanceUID: one.frame for one in volume.stack.planes}
    ways = {inverted(frame.instance): frame for frame in said.values()}
    if len(ways) > 1:
        raise PixelError(
            f"{ways[True].named} has PhotometricInterpretation MONOCHROME1 and {ways[False].named} "
            "MONOCHROME2, in one Series: correct the one that is wrong"
        )
    return ways.popitem()[0]


def _percentiles(volume: Volume) -> tuple[float, float]:
    """Return the 0.5th and 99.5th percentile, or least and most where those two are one."""
    found = Histogram()
    for plane, stored in _stored(volume.stack.planes):
        found.add(*_weighed(plane.frame, stored))
    name = f"Series {volume.stack.planes[0].frame.instance.SeriesInstanceUID}"
    if found.empty:
        raise PixelError(f"{name} is padding only (PixelPaddingValue): correct it at its source")
    if found.least == found.most:
        raise PixelError(
            f"{name} has one value in all its PixelData, which shows nothing: send the original"
        )
    return found.range(*_PERCENTILES)


def _weighed(
    frame: Frame, stored: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Return the values of a slice that are image, and how often each is there; None for once."""
    if stored.dtype.itemsize > 2:
        return _rescaled(frame, stored[~_padding(frame, stored)]), None
    every = _every_value(stored.dtype)
    counts = np.bincount(_unsigned(stored).ravel(), minlength=every.size)
    there = (counts > 0) & ~_padding(frame, every)
    return _rescaled(frame, every[there]), counts[there]


def _stored(some: Sequence[Plane]) -> Iterator[tuple[Plane, NDArray[Any]]]:
    """Yield each plane with its stored values; the one door to the decoder."""
    if some and some[0].frame.groups:
        numbers = [one.frame.index for one in some]
        yield from zip(some, stored_frames(some[0].frame.instance, numbers), strict=True)
        return
    for one in some:
        yield one, stored_values(one.frame.instance)


def _every_value(dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return all values of a type of one or two bytes, in the order of :func:`_unsigned`."""
    return np.arange(1 << (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)


def _unsigned(stored: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(stored).view(f"u{stored.dtype.itemsize}")


def _check_plane(plane: Plane) -> None:
    """Refuse by its header what cannot be put into units; nothing is decoded."""
    frame = plane.frame
    if not frame.groups:
        check_header(frame.instance)
    if frame.instance.header.get("ModalityLUTSequence"):
        raise PixelError(
            f"{frame.named} has a ModalityLUTSequence, which slices of a volume do not have: "
            "send the Series with RescaleSlope and RescaleIntercept"
        )
    rescale(frame.instance, frame=frame.index)


def _check_alike(volume: Volume) -> None:
    """Refuse slices of which some are rescaled and others say nothing of it: one tissue, two values."""
    frames = [plane.frame for plane in volume.stack.planes]
    silent = [one for one in frames if not is_rescaled(one.instance, frame=one.index)]
    scales = {rescale(one.instance, frame=one.index) for one in frames}
    if silent and len(silent) < len(frames) and scales != {(1.0, 0.0)}:
        raise PixelError(
            f"{silent[0].named} lacks RescaleSlope or RescaleIntercept, which other slices of its Series "
            "have: send it from a system that sets them"
        )


def _rescaled(frame: Frame, stored: NDArray[Any]) -> NDArray[np.float32]:
    return modality_values(frame.instance, stored, frame=frame.index)


def _padding(frame: Frame, stored: NDArray[Any]) -> NDArray[np.bool_]:
    return padding_mask(frame.instance, stored)
