"""Masks on the frames of an Instance that make no volume, such as a cine's.

Such frames have no place in space: a Segmentation says by its derivation alone which of them a mask is on
(PS3.3 C.8.20), and orders them as the source does. Without a Frame of Reference highdicom writes objects of
one frame only; what it wrote for one is repeated here for each frame that a segment is on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pacs_ai.results import Segmentation

_TOGETHER = 8
"""Frames of one bit whose pixels fill whole bytes together, whatever their size."""


def spread(dataset: Dataset, masks: Sequence[Segmentation]) -> None:
    """Make of an object with one frame for each segment one with a frame for each that a segment is on.

    Parameters
    ----------
    dataset : Dataset
        Of masks on one frame, its segments in the order of the masks; changed in place.
    masks : sequence of Segmentation
        On the same frames of one Instance.
    """
    templates = list(dataset.PerFrameFunctionalGroupsSequence)
    used = [
        (segment, index)
        for segment, mask in enumerate(masks)
        for index in range(len(mask.frames))
        if mask.plane(index).any()
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        _group(templates[segment], segment + 1, masks[segment].frames[index])
        for segment, index in used
    ]
    dataset.NumberOfFrames = len(used)
    packed = b"".join(_packed(masks[segment].plane(index) for segment, index in used))
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    _add_dimension(dataset)


def _group(template: Dataset, segment: int, number: int) -> Dataset:
    group = copy.deepcopy(template)
    (content,) = group.FrameContentSequence
    content.DimensionIndexValues = [segment, number]
    content.TemporalPositionIndex = number
    for derivation in group.DerivationImageSequence:
        for source in derivation.SourceImageSequence:
            source.ReferencedFrameNumber = number
    return group


def _packed(planes: Iterator[NDArray[np.bool_]]) -> Iterator[bytes]:
    """Yield frames as bits without padding between them (PS3.5 8.1.1)."""
    together: list[NDArray[np.bool_]] = []
    for plane in planes:
        together.append(plane)
        if len(together) == _TOGETHER:
            yield np.packbits(np.stack(together), bitorder="little").tobytes()
            together = []
    if together:
        yield np.packbits(np.stack(together), bitorder="little").tobytes()


def _add_dimension(dataset: Dataset) -> None:
    """Order the frames of a segment by that of their source."""
    dimension = Dataset()
    dimension.DimensionOrganizationUID = dataset.DimensionIndexSequence[0].DimensionOrganizationUID
    dimension.DimensionIndexPointer = Tag("TemporalPositionIndex")
    dimension.FunctionalGroupPointer = Tag("FrameContentSequence")
    dimension.DimensionDescriptionLabel = "Frame of the source"
    dataset.DimensionIndexSequence.append(dimension)
