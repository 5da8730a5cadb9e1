"""Masks on the frames of an Instance that make no volume, such as a cine's.

Most such frames have no place in space: a Segmentation says by its derivation alone which of them a mask is
on (PS3.3 C.8.20), and orders them as the source does. Where the frames say where they lie in the patient (an
enhanced MR's), the Segmentation has their Frame of Reference, and each of its frames the position,
orientation and spacing of its source. highdicom writes objects of one frame without a Frame of Reference,
and of one orientation and different positions with one; what it wrote for one frame is repeated here for
each frame that a segment is on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import DS

from pacs_ai.encoding.identity import measures_of, valid
from pacs_ai.errors import PixelError
from pacs_ai.pixels.frames import Frame, frames_of
from pacs_ai.pixels.stacks import SAME_PLACE, Plane, plane_of, same_directions
from pacs_ai.results import Segmentation
from pacs_ai.study import Instance, is_slide

_TOGETHER = 8
"""Frames of one bit whose pixels fill whole bytes together, whatever their size."""


def planes_of(instance: Instance, mask: Segmentation) -> tuple[Plane, ...]:
    """Return where the frames of a mask lie in the patient, in its order.

    Returns
    -------
    tuple of Plane
        Empty where one of them does not say it, or says it of no Frame of Reference: then none of the
        object's frames says it. Empty on a slide, whose coordinates are its own.
    """
    try:
        return _planes(instance, mask)
    except PixelError:
        return ()


def why_nowhere(instance: Instance, mask: Segmentation) -> str:
    """Return why the frames of a mask lie nowhere, with what can be done; empty where they do."""
    try:
        _planes(instance, mask)
    except PixelError as error:
        return str(error)
    return ""


def _planes(instance: Instance, mask: Segmentation) -> tuple[Plane, ...]:
    name = f"Instance {instance.SOPInstanceUID}"
    if is_slide(instance.header):
        raise PixelError(f"{name} lies on a slide, not in the patient: select another image")
    reference = valid(instance.header, "FrameOfReferenceUID")
    if reference is None or reference.is_empty:
        raise PixelError(f"{name} has no valid FrameOfReferenceUID: correct it at its source")
    numbers = mask.frames or (1,)
    frames = {one.number: one for one in frames_of(instance, numbers)}
    return tuple(plane_of(_placed(frames[number])) for number in numbers)


def _placed(frame: Frame) -> Frame:
    """Return a frame that functional groups place; what stands at the top level places no single one."""
    if any(group.get("PlanePositionSequence") for group in frame.groups):
        return frame
    raise PixelError(
        f"{frame.named} has no PlanePositionSequence that says where in the patient it lies: send it "
        "from a system that sets it, or let the rule select other images"
    )


def spread(dataset: Dataset, masks: Sequence[Segmentation], planes: Sequence[Plane]) -> None:
    """Make of an object with one frame for each segment one with a frame for each that a segment is on.

    Parameters
    ----------
    dataset : Dataset
        Of masks on one frame, its segments in the order of the masks; changed in place.
    masks : sequence of Segmentation
        On the same frames of one Instance.
    planes : sequence of Plane
        Where each of these frames lies; empty where they lie nowhere.
    """
    templates = list(dataset.PerFrameFunctionalGroupsSequence)
    used = [
        (segment, index)
        for segment, mask in enumerate(masks)
        for index in range(len(mask.frames))
        if mask.plane(index).any()
    ]
    order = _order(masks[0].frames, planes)
    groups = [
        _group(templates[segment], segment + 1, masks[segment].frames[index], order[index])
        for segment, index in used
    ]
    if planes:
        _place(dataset, groups, [planes[index] for _, index in used])
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = len(used)
    packed = b"".join(_packed(masks[segment].plane(index) for segment, index in used))
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    if order[0][-1] is not None:
        _add_dimension(dataset)


_Order = tuple[tuple[int, ...], int | None]
"""Dimension indices of a frame after its segment's, and its ordinal in time where that is one of them."""


def _order(numbers: Sequence[int], planes: Sequence[Plane]) -> list[_Order]:
    """Order frames by where they lie and, in one place or without any, as the source does."""
    if not planes:
        return [((number,), number) for number in numbers]
    places = _places(planes)
    if len(set(places)) == len(planes):
        return [((place,), None) for place in places]
    turns = {place: count(1) for place in places}
    ordered = [(place, next(turns[place])) for place in places]
    return [((place, turn), turn) for place, turn in ordered]


def _places(planes: Sequence[Plane]) -> list[int]:
    """Return the number of each frame's place, from 1 in the order in which they come."""
    positions = np.array([plane.position for plane in planes])
    places: list[int] = []
    for index, position in enumerate(positions):
        apart = np.linalg.norm(positions[:index] - position, axis=1)
        near = np.flatnonzero(apart <= SAME_PLACE)
        places.append(places[near[0]] if near.size else max(places, default=0) + 1)
    return places


def _group(template: Dataset, segment: int, number: int, order: _Order) -> Dataset:
    group = copy.deepcopy(template)
    (content,) = group.FrameContentSequence
    indices, turn = order
    content.DimensionIndexValues = [segment, *indices]
    if turn is not None:
        content.TemporalPositionIndex = turn
    for derivation in group.DerivationImageSequence:
        for source in derivation.SourceImageSequence:
            source.ReferencedFrameNumber = number
    return group


def _place(dataset: Dataset, groups: Sequence[Dataset], planes: Sequence[Plane]) -> None:
    """Give each frame the position of its source, and orientation and spacing where they are not shared."""
    for group, plane in zip(groups, planes, strict=True):
        group.PlanePositionSequence = [_item(ImagePositionPatient=plane.position)]
    first = planes[0]
    (shared,) = dataset.SharedFunctionalGroupsSequence
    if all(same_directions(first, one) for one in planes):
        shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=first.orientation)]
    else:
        del shared.PlaneOrientationSequence
        for group, plane in zip(groups, planes, strict=True):
            group.PlaneOrientationSequence = [_item(ImageOrientationPatient=plane.orientation)]
    measures = [measures_of(plane.frame) for plane in planes]
    if all(one == measures[0] for one in measures):
        shared.PixelMeasuresSequence = [measures[0]]
    else:
        del shared.PixelMeasuresSequence
        for group, own in zip(groups, measures, strict=True):
            group.PixelMeasuresSequence = [own]


def _item(**vectors: NDArray[np.float64]) -> Dataset:
    item = Dataset()
    for keyword, vector in vectors.items():
        setattr(item, keyword, [DS(float(one), auto_format=True) for one in vector])
    return item


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
    """Order the frames of a segment, or those in one place, by that of their source."""
    dimension = Dataset()
    dimension.DimensionOrganizationUID = dataset.DimensionIndexSequence[0].DimensionOrganizationUID
    dimension.DimensionIndexPointer = Tag("TemporalPositionIndex")
    dimension.FunctionalGroupPointer = Tag("FrameContentSequence")
    dimension.DimensionDescriptionLabel = "Frame of the source"
    dataset.DimensionIndexSequence.append(dimension)
