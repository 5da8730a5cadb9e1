"""How large a segment of a volume is, from its voxels and the geometry of its source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

from pacs_ai.encoding.identity import valid
from pacs_ai.results import Segmentation


def millilitres(mask: Segmentation, sources: Sequence[Dataset]) -> float | None:
    """Return the volume of a mask, or None where the geometry of its slices does not say it.

    Parameters
    ----------
    mask : Segmentation
        Volumetric.
    sources : sequence of Dataset
        Headers in the order of the mask's slices.

    Returns
    -------
    float or None
        In ml: voxels × Pixel Spacing × distance between slices along their normal.
    """
    positions, orientation = [], None
    for source in sources:
        elements = [
            valid(source, keyword)
            for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        ]
        if any(element is None or element.is_empty for element in elements):
            return None
        orientation = np.array(source.ImageOrientationPatient, float)
        positions.append(np.array(source.ImagePositionPatient, float))
    if orientation is None or len(positions) < 2:
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    steps = np.diff(np.sort([position @ normal for position in positions]))
    if steps.min() <= 0 or np.ptp(steps) > 0.01 * steps.mean() + 0.01:
        return None
    rows, columns = (float(value) for value in sources[0].PixelSpacing)
    return float(mask.mask.sum()) * rows * columns * float(steps.mean()) / 1000.0
