"""The cardiothoracic ratio, measured by the gateway from masks; a ratio, so no millimetres.

Only where the header says that the image is PA: on AP images the heart is magnified, and a view
that was guessed from pixels is not a fact to measure on. Where a mask is missing, nothing is
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from scipy import ndimage

from pacs_ai.results import Measurement

HEART, LEFT_LUNG, RIGHT_LUNG = "heart", "left lung", "right lung"

METHOD = (
    "Largest horizontal extent of the heart mask divided by the largest horizontal distance "
    "between the outer edges of the lung masks in one row, on a PA image as displayed; "
    "the largest connected region of each mask"
)


def wanted(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a Job asks for the ratio and its header says that the view is PA."""
    asked = bool((parameters.get("measure") or {}).get("ctr"))
    source = str(parameters.get("view_from", "")).split(".")[0].split(" ")[0]
    from_header = bool(source) and tag_for_keyword(source) is not None
    return asked and parameters.get("view") == "PA" and from_header


def measure(masks: Mapping[str, NDArray[np.bool_]], *, source: str) -> tuple[Measurement, ...]:
    """Measure the ratio.

    Parameters
    ----------
    masks : mapping of str to ndarray of bool, shape (rows, columns)
        By label, on the upright displayed image.
    source : str
        SOP Instance UID.

    Returns
    -------
    tuple of Measurement
        One, or none when heart, left or right lung is missing or they do not lie as in a chest.
    """
    regions = [_largest(masks.get(label)) for label in (HEART, LEFT_LUNG, RIGHT_LUNG)]
    if any(region is None for region in regions):
        return ()
    heart, left, right = (region for region in regions if region is not None)
    columns = np.flatnonzero(heart.any(axis=0))
    heart_width = int(columns[-1] - columns[0] + 1)
    thorax_width = _thorax_width(left, right)
    if heart_width >= thorax_width:
        return ()
    value = round(heart_width / thorax_width, 3)
    return (Measurement("cardiothoracic ratio", value, "1", (source,), METHOD, HEART),)


def _largest(mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    if mask is None or not mask.any():
        return None
    regions, _ = ndimage.label(mask)
    sizes = np.bincount(np.ravel(regions))
    sizes[0] = 0
    return np.asarray(regions == int(sizes.argmax()))


def _thorax_width(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> int:
    """Return the largest distance of outer edges in a row that meets both lungs; 0 without one."""
    width = 0
    for row in np.flatnonzero(left.any(axis=1) & right.any(axis=1)):
        # On the displayed image the patient's right lung lies on the left.
        outer_right = int(np.flatnonzero(right[row])[0])
        outer_left = int(np.flatnonzero(left[row])[-1])
        width = max(width, outer_left - outer_right + 1)
    return width
