"""Whether a picture shows what its values hold: a window or VOI LUT of the header can hide it.

A model that gets a black square finds nothing on it, and *nothing found* reads like an answer. What is drawn
is held against the contrast that the image's own values would give: much black or white is no fault of a
window where the image is so itself (collimation, air, the surround of a slice).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pacs_ai.pixels.border import COLLIMATED

AT_THE_ENDS = 0.9
"""Share of the pixels that must be black or white for a picture to be hidden at its ends, ..."""

OF_THE_MIDDLE = 0.95
"""... and share of those pixels that in the image's own contrast are between black and white."""

LEAST_RANGE = 0.08
"""Least part of the grey scale from the darkest to the brightest pixel; real slices of PET have 0.11."""

_NEAR = 5
"""How many grey levels from 0 and from 255 count as black and white: a SIGMOID only comes near them."""

_SIDE = 256
"""Rows and columns of the sample that is looked at, at least."""

_STILL = (COLLIMATED | {"MG"}) - {"XA", "RF"}
"""Modality of images on which a marker may be all that is bright. Of a subtracted angiogram or a bone scan
the vessels or the lesions are, and may be as small."""

_PERCENTILES = (1, 99)


def is_hidden(
    values: NDArray[np.float32],
    shown: NDArray[np.uint8],
    has_say: NDArray[np.bool_],
    *,
    modality: str,
) -> bool:
    """Tell whether a picture hides nearly all of what its values hold.

    Either nearly all pixels are black or white, and nearly all of those that would be grey in the image's own
    contrast are among them; or all greys lie close together.

    Parameters
    ----------
    values : ndarray of float32, shape (Rows, Columns)
        Modality values.
    shown : ndarray of uint8, shape (Rows, Columns)
        What is drawn of them.
    has_say : ndarray of bool, shape (Rows, Columns)
        Where there is an image (:func:`pacs_ai.pixels.contrast.picture`).
    modality : str
        Of the image: on a radiograph the brightest and the darkest hundredth may be markers.
    """
    # Shares need no more; each pixel of a radiograph would cost as much as drawing it.
    step = max(1, math.isqrt(values.size // _SIDE**2))
    says = has_say[::step, ::step]
    found, drawn = values[::step, ::step][says], shown[::step, ::step][says]
    if not found.size or found.min() == found.max():
        return False
    ends = _PERCENTILES if modality in _STILL else (0, 100)
    dark, bright = np.percentile(drawn, ends)
    low, high = np.percentile(found, ends)
    if low == high:
        low, high = found.min(), found.max()
    margin = (high - low) * 0.05
    middle = (found > low + margin) & (found < high - margin)
    return bool(bright - dark < LEAST_RANGE * 255) or _at_its_ends(drawn, middle)


def _at_its_ends(drawn: NDArray[np.uint8], middle: NDArray[np.bool_]) -> bool:
    at_an_end = (drawn <= _NEAR) | (drawn >= 255 - _NEAR)
    return bool(
        at_an_end.mean() > AT_THE_ENDS and middle.any() and at_an_end[middle].mean() > OF_THE_MIDDLE
    )
