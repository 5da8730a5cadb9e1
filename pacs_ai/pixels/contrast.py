"""The contrast of a grey image whose header has no window: from its own values.

A frame that is looked at alone has the contrast of its own values. Where all frames of an Instance are
looked at they have one in common, so that the same tissue has the same grey on each of them. Padding,
what a shutter hides and the border of a radiograph have no say; nor has a frame of one value, such as
a white one between two runs, which would else make all others dark.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import PixelError
from pacs_ai.pixels import border, shutter
from pacs_ai.pixels.description import describe, named
from pacs_ai.pixels.histogram import Histogram
from pacs_ai.pixels.modality import FrameValues, first, frames, standing
from pacs_ai.pixels.placement import Cut
from pacs_ai.settings import Window
from pacs_ai.study import Instance

_PERCENTILES = (1, 99)


def common(instance: Instance) -> Window | None:
    """Return one window for all frames whose header has none, in modality values.

    Each of these frames is decoded once, and one is held at a time. Percentiles are those of a single
    frame, and exact while there are no more than a million different values.

    Returns
    -------
    Window or None
        None where no frame wants it: in colour, and where the header has a window or VOI LUT for each.

    Raises
    ------
    PixelError
        When a frame cannot be decoded.
    """
    description = describe(instance.header, instance.transfer_syntax_uid)
    if description.colour:
        return None
    unsaid = [index for index in range(description.frames) if not is_said(instance, index)]
    if not unsaid:
        return None
    hidden = shutter.hidden(instance, description.rows, description.columns)
    found = Histogram()
    for one in frames(instance, unsaid):
        has_say, _ = picture(instance, one, hidden)
        if not is_blank(one.values, has_say):
            found.add(one.values[has_say])
    if found.empty:
        return Window(width=1, level=0)  # whatever it is, frames of one value show nothing
    low, high = found.range(*_PERCENTILES)
    return Window(width=high - low, level=(low + high) / 2)


def own(instance: Instance, values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the ends of a frame's own contrast: what becomes black and what becomes white.

    Parameters
    ----------
    instance : Instance
    values : ndarray of float32, shape (n,)
        Those that have a say (:func:`picture`).

    Raises
    ------
    PixelError
        When there are none, or all are the same.
    """
    if values.size == 0:
        raise PixelError(
            f"{named(instance)} is padding only (PixelPaddingValue): correct it at its source"
        )
    low, high = np.percentile(values, _PERCENTILES)
    if low == high:
        low, high = values.min(), values.max()
    if low == high:
        raise PixelError(one_value(instance))
    return float(low), float(high)


def one_value(instance: Instance) -> str:
    """Say that an image shows nothing whatever its contrast is."""
    return f"{named(instance)} has one value in all its PixelData, which shows nothing: send the original"


def outside(instance: Instance, window: Window) -> str:
    """Say that all of an image is black or white in a window that was asked for."""
    return (
        f"{named(instance)} is all black or all white in the window of the prompt (width {window.width:g}, "
        f"level {window.level:g}): correct its RescaleSlope and RescaleIntercept at its source, or select "
        "other images"
    )


def hidden_by_header(instance: Instance, index: int) -> str:
    """Say that the header's own VOI LUT or window hides what a frame (from 0) shows."""
    table = standing(instance, index, "FrameVOILUTSequence").get("VOILUTSequence")
    what = "VOILUTSequence" if table else "WindowCenter and WindowWidth"
    return (
        f"{named(instance)} has {what} that hide nearly all of its PixelData: correct them at its source, "
        "or send it without them"
    )


def is_said(instance: Instance, index: int) -> bool:
    """Tell whether the header has a window or a VOI LUT for a frame (from 0)."""
    header = standing(instance, index, "FrameVOILUTSequence")
    if header.get("VOILUTSequence"):
        return True
    return first(header, "WindowCenter") is not None and first(header, "WindowWidth") is not None


def picture(
    instance: Instance, one: FrameValues, hidden: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], Cut]:
    """Return where a frame's values have a say in its contrast, and its border.

    Parameters
    ----------
    instance : Instance
    one : FrameValues
    hidden : ndarray of bool, shape (Rows, Columns)
        What a shutter hides.
    """
    no_image = one.padding | hidden
    edges = border.find(instance, one.values, no_image)
    inside = np.zeros_like(no_image)
    inside[edges.inside(*inside.shape)] = True
    return inside & ~no_image, edges


def is_blank(pixels: NDArray[np.float32] | NDArray[np.uint8], has_say: NDArray[np.bool_]) -> bool:
    """Tell whether a frame has one value wherever it has a say, or none: a picture of nothing.

    Parameters
    ----------
    pixels : ndarray, shape (Rows, Columns) or with 3 for colour
    has_say : ndarray of bool, shape (Rows, Columns)
    """
    value = None
    for row, says in zip(pixels, has_say, strict=True):  # the first that differs ends it
        shown = row[says]
        if value is None and len(shown):
            value = shown[0]
        if (shown != value).any():
            return False
    return True
