"""How large a segment of a volume is, from its voxels and the geometry of its source."""

from __future__ import annotations

import numpy as np

from pacs_ai.pixels.stacks import partition
from pacs_ai.results import Segmentation
from pacs_ai.study import Study


def millilitres(mask: Segmentation, study: Study) -> float | None:
    """Return the volume of a mask, or None where the geometry of its slices does not say it.

    Parameters
    ----------
    mask : Segmentation
        Volumetric.
    study : Study
        Holds its sources.

    Returns
    -------
    float or None
        In ml: voxels × Pixel Spacing × distance between slices along their normal.
    """
    sources = [study.instance(uid) for uid in dict.fromkeys(mask.sources)]
    stacks = partition(sources, frames=mask.frames).usable
    if len(stacks) != 1 or len(stacks[0].planes) != mask.shape[0]:
        return None
    voxel = abs(float(np.linalg.det(stacks[0].affine[:3, :3])))
    return mask.count * voxel / 1000.0
