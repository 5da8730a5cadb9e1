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
        open_part = PIL.Image.new("1", (columns, rows))
        draw = PIL.ImageDraw.Draw(open_part)
        # The standard counts from 1, Pillow from 0.
        if shape == "RECTANGULAR":
            draw.rectangle([edge - 1 for edge in _edges(instance)], fill=1)
        elif shape == "CIRCULAR":
            row, column = _numbers(instance, "CenterOfCircularShutter", 2)
            (radius,) = _numbers(instance, "RadiusOfCircularShutter", 1)
            around = (column - 1 - radius, row - 1 - radius, column - 1 + radius, row - 1 + radius)
            draw.ellipse(around, fill=1)
        elif shape == "POLYGONAL":
            corners = _numbers(instance, "VerticesOfThePolygonalShutter", None)
            points = zip(corners[1::2], corners[::2], strict=True)
            draw.polygon([(column - 1, row - 1) for column, row in points], fill=1)
        else:
            raise _wrong(instance, "ShutterShape")
        outside |= ~np.asarray(open_part, np.bool_)
    if outside.all():
        raise _wrong(instance, "ShutterShape")
    return outside


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
