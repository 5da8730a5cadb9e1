"""What a display shutter hides (PS3.3 C.7.6.11): shown black, and no part of the contrast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray

from pacs_ai.errors import PixelError
from pacs_ai.pixels.description import named
from pacs_ai.study import Instance, values

_RECTANGLE = tuple(
    f"Shutter{edge}Edge"
    for edge in ("LeftVertical", "UpperHorizontal", "RightVertical", "LowerHorizontal")
)


def hidden(instance: Instance, rows: int, columns: int) -> NDArray[np.bool_]:
    """Return what the header's shutters hide: everything outside of any of them.

    Parameters
    ----------
    instance : Instance
    rows, columns : int

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        On the stored grid.

    Raises
    ------
    PixelError
        When a shutter is not described as the standard says, or hides everything.
    """
    outside = np.zeros((rows, columns), np.bool_)
    for shape in values(instance.header, "ShutterShape"):
        if shape not in _OPEN:
            raise _wrong(instance, "ShutterShape")
        outside |= ~_OPEN[shape](instance, rows, columns)
    if outside.all():
        raise _wrong(instance, "ShutterShape")
    return outside


def _rectangle(instance: Instance, rows: int, columns: int) -> NDArray[np.bool_]:
    left, upper, right, lower = _edges(instance)
    inside = np.zeros((rows, columns), np.bool_)
    # The standard counts from 1 and means the edges to be seen.
    inside[max(upper - 1, 0) : max(lower, 0), max(left - 1, 0) : max(right, 0)] = True
    return inside


def _circle(instance: Instance, rows: int, columns: int) -> NDArray[np.bool_]:
    row, column = _numbers(instance, "CenterOfCircularShutter", 2)
    (radius,) = _numbers(instance, "RadiusOfCircularShutter", 1)
    down, across = np.ogrid[1 : rows + 1, 1 : columns + 1]
    inside: NDArray[np.bool_] = (down - row) ** 2 + (across - column) ** 2 <= radius**2
    return inside


def _polygon(instance: Instance, rows: int, columns: int) -> NDArray[np.bool_]:
    corners = _numbers(instance, "VerticesOfThePolygonalShutter", None)
    points = zip(corners[1::2], corners[::2], strict=True)
    inside = PIL.Image.new("1", (columns, rows))
    outline = [(column - 1, row - 1) for column, row in points]
    PIL.ImageDraw.Draw(inside).polygon(outline, fill=1)
    return np.asarray(inside, np.bool_)


_OPEN = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon}


def _edges(instance: Instance) -> tuple[int, int, int, int]:
    left, upper, right, lower = (_numbers(instance, edge, 1)[0] for edge in _RECTANGLE)
    if right < left or lower < upper:
        raise _wrong(instance, "ShutterRightVerticalEdge")
    return left, upper, right, lower


def _numbers(instance: Instance, keyword: str, count: int | None) -> Sequence[int]:
    try:
        found = [int(text) for text in values(instance.header, keyword)]
    except ValueError:
        raise _wrong(instance, keyword) from None
    if len(found) != count if count is not None else len(found) < 6 or len(found) % 2:
        raise _wrong(instance, keyword)
    return found


def _wrong(instance: Instance, keyword: str) -> PixelError:
    return PixelError(
        f"{named(instance)} has a display shutter that cannot be applied ({keyword}): "
        "correct it at its source"
    )
