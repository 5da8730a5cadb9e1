"""The border of a radiograph: rows and columns at its edges that show nothing of the patient.

What is left out can hide a finding, so that only what is proved empty counts as border. Two proofs
are taken, for each edge by itself:

* The outermost rows or columns have one value in every pixel: a console masked or padded them.
* The header describes an X-Ray collimator (PS3.3 C.8.7.3; a circle or polygon by its uppermost,
  lowest, leftmost and rightmost point) and every pixel beyond one of its four sides agrees: together
  they vary by no more than :data:`FEATURELESS` of the range inside, at its dark or at its bright end.
  A wrong header, a marker or a limb outside of it then costs nothing.

An edge of grey values found without the header is no proof: a cast, a prosthesis or the edge of a
shield looks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from pacs_ai.pixels.placement import WHOLE, Cut
from pacs_ai.study import Instance, values

FEATURELESS = 0.02
"""Most that pixels outside of a collimator differ, in parts of the range (1st to 99th percentile) inside."""

LARGEST = 0.5
"""Most of the rows, and of the columns, that can be border; where more would be, nothing is."""

COLLIMATED = frozenset({"CR", "DX", "RG", "IO", "PX", "RF", "XA"})
"""Modality of images with such a border. The even dark around a breast, a slice or an ultrasound
sector is air, which stands in the pictures that the models learned from too."""

_EDGES = ("UpperHorizontal", "LowerHorizontal", "LeftVertical", "RightVertical")


def find(instance: Instance, found: NDArray[np.float32], no_image: NDArray[np.bool_]) -> Cut:
    """Return the border of a frame.

    Parameters
    ----------
    instance : Instance
    found : ndarray of float32, shape (Rows, Columns)
        Modality values.
    no_image : ndarray of bool, shape (Rows, Columns)
        Padding, and what a shutter hides: as empty as one value.

    Returns
    -------
    Cut
        Nothing where the Modality has no collimator, more than :data:`LARGEST` would be border, or the
        whole frame has one value.
    """
    if instance.Modality not in COLLIMATED:
        return WHOLE
    rows, columns = found.shape
    even = np.where(no_image, np.float32(np.inf), found) if no_image.any() else found
    cut = _uniform(even)
    if cut is None:
        return WHOLE
    cut = _collimated(instance, even, cut)
    if cut.top + cut.bottom > LARGEST * rows or cut.left + cut.right > LARGEST * columns:
        return WHOLE
    return cut


def _uniform(even: NDArray[np.float32]) -> Cut | None:
    """Return the outermost lines of one value; None where there is nothing else."""
    top = bottom = left = right = 0
    # Rows again at the end: those that a border of columns with another value ran through.
    for axis in (0, 1, 0):
        kept = even[Cut(top, bottom, left, right).inside(*even.shape)]
        lines = kept if axis == 0 else kept.T
        before = _leading(lines)
        if before == len(lines):
            return None
        after = _leading(lines[::-1])
        if axis == 0:
            top, bottom = top + before, bottom + after
        else:
            left, right = left + before, right + after
    return Cut(top, bottom, left, right)


def _leading(lines: NDArray[np.float32]) -> int:
    """Count the first lines of which every pixel has the value of the very first."""
    value = lines[0, 0]
    for number, line in enumerate(lines):
        if not (line == value).all():
            return number
    return len(lines)


def _collimated(instance: Instance, even: NDArray[np.float32], cut: Cut) -> Cut:
    """Add what lies outside of the header's collimator, edge by edge, where the pixels agree."""
    stated = _opening(instance, *even.shape)
    if stated is None:
        return cut
    wanted = Cut(*(max(pair) for pair in zip(_sides(cut), _sides(stated), strict=True)))
    inside = even[wanted.inside(*even.shape)]
    inside = inside[np.isfinite(inside)]
    if inside.size == 0:
        return cut
    low, high = (float(one) for one in np.percentile(inside, (1, 99)))
    kept = even[cut.inside(*even.shape)]
    top, bottom, left, right = (
        most - already for most, already in zip(_sides(wanted), _sides(cut), strict=True)
    )
    bands = (
        kept[:top],
        kept[len(kept) - bottom :],
        kept[:, :left],
        kept[:, kept.shape[1] - right :],
    )
    agreed = (_empty(band, low, high) for band in bands)
    sides = zip(agreed, _sides(wanted), _sides(cut), strict=True)
    return Cut(*(most if empty else already for empty, most, already in sides))


def _sides(cut: Cut) -> tuple[int, int, int, int]:
    return cut.top, cut.bottom, cut.left, cut.right


def _opening(instance: Instance, rows: int, columns: int) -> Cut | None:
    """Return what lies above, below, left and right of the collimator; None where none is described.

    Lines are counted from 1, and the one that is named stays in the image. A collimator that makes no
    sense is no reason to refuse: nothing is taken from it.
    """
    shapes = values(instance.header, "CollimatorShape")
    if not shapes or not set(shapes) <= set(_BOUNDS):
        return None
    try:
        bounds = [_BOUNDS[shape](instance) for shape in shapes]
    except ValueError:
        return None
    # Several shapes leave open what all of them do.
    upper, left = (max(one[side] for one in bounds) for side in (0, 2))
    lower, right = (min(one[side] for one in bounds) for side in (1, 3))
    if not (upper < lower and left < right and upper <= rows and left <= columns):
        return None
    if lower < 1 or right < 1:
        return None
    return Cut(max(upper - 1, 0), max(rows - lower, 0), max(left - 1, 0), max(columns - right, 0))


def _rectangle(instance: Instance) -> _Bounds:
    (upper,), (lower,), (left,), (right,) = (
        _whole(instance, f"Collimator{edge}Edge") for edge in _EDGES
    )
    return upper, lower, left, right


def _circle(instance: Instance) -> _Bounds:
    row, column = _whole(instance, "CenterOfCircularCollimator")
    (radius,) = _whole(instance, "RadiusOfCircularCollimator")
    return row - radius, row + radius, column - radius, column + radius


def _polygon(instance: Instance) -> _Bounds:
    corners = _whole(instance, "VerticesOfThePolygonalCollimator")
    down, across = corners[::2], corners[1::2]
    if len(down) != len(across) or len(down) < 3:
        raise ValueError("no polygon")
    return min(down), max(down), min(across), max(across)


def _whole(instance: Instance, keyword: str) -> list[int]:
    return [int(one) for one in values(instance.header, keyword)]


_Bounds = tuple[int, int, int, int]
"""First and last row, first and last column that a collimator leaves open."""

_BOUNDS: Mapping[str, Callable[[Instance], _Bounds]] = {
    "RECTANGULAR": _rectangle,
    "CIRCULAR": _circle,
    "POLYGONAL": _polygon,
}


def _empty(band: NDArray[np.float32], low: float, high: float) -> bool:
    """Tell whether a band outside of the collimator is without feature, at one end of the range inside."""
    shown = band[np.isfinite(band)]
    if shown.size == 0:
        return True
    bound = FEATURELESS * (high - low)
    least, most = float(shown.min()), float(shown.max())
    return most - least <= bound and (most <= low + bound or least >= high - bound)
