"""The breast on a mammogram: what is brighter than air and cut off on one side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import filters

_filters: Any = filters  # without annotations

_LEAST = 0.02
"""Share of the picture below which it is no breast."""

_STRAIGHT = 0.4
"""Share of its height that lies on one side in a straight line: the edge of the detector."""


def find_breast(picture: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Find the breast with what of the chest wall is in the picture.

    Parameters
    ----------
    picture : ndarray of float64, shape (rows, columns)
        A mammogram, 0 to 1, air dark.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        Empty where nothing stands out from air, or what does is cut off on neither side or on both.
    """
    smooth: Any = ndimage.gaussian_filter(picture, 1.5)
    nothing = np.zeros(picture.shape, np.bool_)
    if np.ptp(smooth) == 0:
        return nothing
    # Fat is nearer to air than to dense tissue: the darker of three classes is air.
    air = _filters.threshold_multiotsu(smooth, classes=3)[0] / 2
    parts, _ = ndimage.label(smooth > air)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = np.asarray(ndimage.binary_fill_holes(parts == sizes.argmax()))
    return largest if largest.mean() >= _LEAST and _cut_off(largest) else nothing


def _cut_off(mask: NDArray[np.bool_]) -> bool:
    columns = np.flatnonzero(mask.any(axis=0))
    height = np.count_nonzero(mask.any(axis=1))
    edges = (mask[:, columns[0] + 2], mask[:, columns[-1] - 2])
    straight = [np.count_nonzero(edge) >= _STRAIGHT * height for edge in edges]
    return straight[0] is not straight[1]
