"""What can be measured in a volume's masks: attenuation, and of lesions how many and how long.

Volumes in ml are measured where the masks are written (:mod:`pacs_ai.encoding.volumes`). Nothing here is
measured on a projection, whose pixels have no one size in the patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from pacs_ai.catalogue import Prompt
from pacs_ai.errors import PixelError
from pacs_ai.models.prompts import remark
from pacs_ai.pixels.volume import Volume, check_units, planes
from pacs_ai.results import HOUNSFIELD, Done, Measurement, NothingFound, Segmentation
from pacs_ai.terms import ABNORMAL, term

_ATTENUATION = "Mean over all voxels of the mask that are not padding"
_COUNT = "Parts of the mask that touch at no face, edge or corner"
_LENGTH = "Greatest distance of two voxels' centres within one part and slice"
_TOUCHING = np.ones((3, 3, 3), np.bool_)


@dataclass(slots=True)
class _Mean:
    """A mean on its way through the slices."""

    total: float = 0.0
    count: int = 0


def outcome(
    volume: Volume, prompts: Sequence[Prompt], found: Mapping[str, Segmentation]
) -> Done | NothingFound:
    """Return what prompts on a volume came to, and say what was not found.

    Parameters
    ----------
    volume : Volume
    prompts : sequence of Prompt
        In the order of the rule.
    found : mapping of str to Segmentation
        By the words of its prompt; what was not found is left out.

    Raises
    ------
    PixelError
        As :func:`measure`.
    """
    masks = tuple(found[one.words] for one in prompts if one.words in found)
    notes = remark([one for one in prompts if one.words not in found])
    if not masks:
        return NothingFound(notes=notes)
    return Done((*masks, *measure(volume, masks)), notes)


def measure(volume: Volume, masks: Sequence[Segmentation]) -> tuple[Measurement, ...]:
    """Measure masks of a volume.

    Parameters
    ----------
    volume : Volume
    masks : sequence of Segmentation
        On the volume, their slices in its order.

    Returns
    -------
    tuple of Measurement
        For each mask, in its order: on CT in Hounsfield units the mean attenuation (PS3.16 CID 6141); of
        what is abnormal the number of its parts and the longest diameter in a slice, in mm.

    Raises
    ------
    PixelError
        When a slice cannot be decoded.
    """
    means = _means(volume, masks) if _is_hounsfield(volume) else [_Mean() for _ in masks]
    found: list[Measurement] = []
    for mask, mean in zip(masks, means, strict=True):
        if mean.count:
            value = mean.total / mean.count
            found.append(_measured("mean attenuation", value, HOUNSFIELD, mask, _ATTENUATION))
        if term(mask.label).category == ABNORMAL:
            found.extend(_of_lesion(mask, volume))
    return tuple(found)


def _measured(label: str, value: float, unit: str, mask: Segmentation, method: str) -> Measurement:
    sources = tuple(dict.fromkeys(mask.sources))
    return Measurement(label, round(value, 1), unit, sources, method, mask.label)


def _is_hounsfield(volume: Volume) -> bool:
    try:
        check_units(volume)
    except PixelError:
        return False
    return volume.modality == "CT"


def _means(volume: Volume, masks: Sequence[Segmentation]) -> list[_Mean]:
    found = [_Mean() for _ in masks]
    for index, (values, padding) in enumerate(planes(volume)):
        for mask, mean in zip(masks, found, strict=True):
            inside = mask.plane(index) & ~padding
            mean.total += float(values[inside].sum(dtype=np.float64))
            mean.count += int(inside.sum())
    return found


def _of_lesion(mask: Segmentation, volume: Volume) -> Iterator[Measurement]:
    cut = _cut(mask)
    parts, count = ndimage.label(cut, structure=_TOUCHING)
    yield _measured("number of lesions", count, "1", mask, _COUNT)
    across, down = volume.affine[:3, 0], volume.affine[:3, 1]
    longest = max(
        _longest(plane == part, across, down)
        for plane in parts
        for part in np.unique(plane[plane > 0])
    )
    yield _measured("longest diameter", longest, "mm", mask, _LENGTH)


def _cut(mask: Segmentation) -> NDArray[np.bool_]:
    """Return the smallest block that holds a mask: of a long CT the whole would take 157 MB."""
    used = [index for index in range(mask.shape[0]) if mask.plane(index).any()]
    block = range(used[0], used[-1] + 1)
    across = np.flatnonzero(np.any([mask.plane(index).any(axis=0) for index in used], axis=0))
    down = np.flatnonzero(np.any([mask.plane(index).any(axis=1) for index in used], axis=0))
    rows, columns = slice(down[0], down[-1] + 1), slice(across[0], across[-1] + 1)
    return np.stack([mask.plane(index)[rows, columns] for index in block])


def _longest(
    part: NDArray[np.bool_], across: NDArray[np.float64], down: NDArray[np.float64]
) -> float:
    """Return the greatest distance of two pixels' centres, in mm."""
    rows, columns = np.nonzero(part)
    points = columns[:, np.newaxis] * across + rows[:, np.newaxis] * down
    if len(points) < 2:
        return 0.0
    flat = np.column_stack((columns, rows))
    try:
        points = points[ConvexHull(flat).vertices]
    except QhullError:  # all of them lie on one line
        order = np.lexsort((rows, columns))
        points = points[order[[0, -1]]]
    return float(pdist(points).max())
