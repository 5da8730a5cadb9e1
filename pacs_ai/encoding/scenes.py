"""Which pictures stand on a results page: source images as displayed, with masks, boxes and sides.

An image is shown turned as its model saw it, a frontal or lateral one upright; a volume as axial,
coronal and sagittal planes through its largest mask, each at its true proportions. Letters on the
edges say which way the patient lies, from the header's own elements; where the header does not say
it, there are none and the caption says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_ai.encoding import Encoding
from pacs_ai.errors import PixelError
from pacs_ai.pixels import contrast
from pacs_ai.pixels.display import View, display_image
from pacs_ai.pixels.placement import Turn
from pacs_ai.pixels.volume import Volume, assemble, grey
from pacs_ai.results import (
    Assertion,
    Axis,
    Box,
    Done,
    Finding,
    JobResults,
    NothingFound,
    Segmentation,
)
from pacs_ai.settings import Window
from pacs_ai.study import Instance, projection_plane
from pacs_ai.terms import term

Colour = tuple[int, int, int]

WINDOW = Window(width=1500, level=-160)
"""Window of CT planes on a page: lungs, mediastinum and bone in one picture (HU)."""

MOST = 12
"""Most single images on a page: with as many it is 3700 rows high before its text."""

_IN_A_ROW = 3
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}
_DIRECTIONS = ("L", "R"), ("P", "A"), ("H", "F")
"""Letters of the rising and falling patient axes x, y, z (LPS; PS3.3 C.7.6.1.1.1)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A box on a picture.

    Attributes
    ----------
    left, top, right, bottom : float
        In columns and rows of the picture, from its top left corner.
    colour : tuple of int
        sRGB.
    tag : str
        A short mark that the text beside the picture repeats, such as ``"1"``.
    """

    left: float
    top: float
    right: float
    bottom: float
    colour: Colour
    tag: str


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture of a page.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (rows, columns) or (rows, columns, 3)
        As displayed, white is dense; empty (0, 0) when it cannot be shown.
    aspect : float
        Height of a pixel over its width.
    masks : tuple of (ndarray of bool, tuple of int)
        Masks on the picture's grid, with their colours (sRGB).
    frames : tuple of Frame
    edges : tuple of str
        Letters for left, right, top and bottom edge; empty where unknown.
    caption : str
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    aspect: float
    masks: tuple[tuple[NDArray[np.bool_], Colour], ...] = field(repr=False)
    frames: tuple[Frame, ...]
    edges: tuple[str, str, str, str]
    caption: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A box with its finding, as the page numbers it; ``frame`` is that of a multi-frame Instance."""

    tag: str
    box: Box
    label: str
    frame: int | None = None


def results_of(entry: JobResults) -> tuple[Any, ...]:
    """Return the results of an entry, none when it has no results."""
    outcome = entry.outcome
    return outcome.results if isinstance(outcome, Done | NothingFound) else ()


def masks_of(work: Encoding) -> tuple[Segmentation, ...]:
    """Return every mask of the work that is not empty."""
    found = (one for entry in work.entries for one in results_of(entry))
    return tuple(one for one in found if isinstance(one, Segmentation) and one.count)


def marks_of(work: Encoding) -> tuple[Mark, ...]:
    """Return every box of a finding that is present or uncertain, numbered over the page."""
    marks: list[Mark] = []
    for entry in work.entries:
        frame = _frame_shown(work, entry)
        for finding in results_of(entry):
            if isinstance(finding, Finding) and finding.assertion in (
                Assertion.PRESENT,
                Assertion.UNCERTAIN,
            ):
                for box in finding.boxes:
                    marks.append(Mark(str(len(marks) + 1), box, finding.label, frame))
    return tuple(marks)


def scenes(work: Encoding) -> tuple[tuple[Scene, ...], ...]:
    """Return the pictures of a page, in rows; the first of a row is the large one."""
    shown = [_projection(work, *place) for place in _projections(work)[:MOST]]
    rows = [tuple(shown[first : first + _IN_A_ROW]) for first in range(0, len(shown), _IN_A_ROW)]
    for masks in _volumes(work):
        rows.append(_planes(work, masks))
    return tuple(rows)


def left_out(work: Encoding) -> int:
    """Return how many single images were analysed and have no picture on the page."""
    return max(0, len(_projections(work)) - MOST)


def instances_shown(work: Encoding) -> tuple[Instance, ...]:
    """Return the source Instances that a page is made of."""
    volumes = (uid for masks in _volumes(work) for uid in masks[0].sources)
    flat = dict.fromkeys(instance.SOPInstanceUID for instance, _ in _projections(work)[:MOST])
    return tuple(work.study.instance(uid) for uid in (*flat, *volumes))


def _projections(work: Encoding) -> list[tuple[Instance, int | None]]:
    """Return the single images that were analysed, the one with most evidence first.

    The number (from 1) says which frame of a multi-frame Instance it was.
    """
    weight: dict[tuple[str, int | None], int] = {}
    volumes = {uid for masks in _volumes(work) for uid in masks[0].sources}
    for entry in work.entries:
        frame = _frame_shown(work, entry)
        for result in results_of(entry):
            for uid in dict.fromkeys(getattr(result, "sources", ())):
                place = (uid, frame)
                weight[place] = weight.get(place, 0) + isinstance(result, Segmentation)
        if results_of(entry) and not any(uid in volumes for uid in entry.sources):
            for uid in entry.sources:
                weight.setdefault((uid, frame), 0)
    for mark in marks_of(work):
        place = (mark.box.source, mark.frame)
        weight[place] = weight.get(place, 0) + 2
    # A slice is a picture of its own where it was analysed alone.
    flat = [
        place
        for place, evidence in weight.items()
        if place[0] not in volumes and (evidence or _is_projection(work, place[0]))
    ]
    ranked = sorted(flat, key=lambda place: (-weight[place], _is_lateral(work, place[0])))
    return [(work.study.instance(uid), frame) for uid, frame in ranked]


def _frame_shown(work: Encoding, entry: JobResults) -> int | None:
    """Return the number (from 1) of the frame to show: of all, the one with most in its masks."""
    frame: int | str | None = entry.parameters.get("frame")
    if not isinstance(frame, str):
        return frame
    area: dict[int, int] = {}
    for mask in results_of(entry):
        if isinstance(mask, Segmentation) and mask.axis is Axis.FRAMES:
            for index, number in enumerate(mask.frames):
                area[number] = area.get(number, 0) + int(mask.plane(index).sum())
    if any(area.values()):
        return max(area, key=lambda number: area[number])
    return (int(work.study.instance(entry.sources[0]).header.NumberOfFrames) + 1) // 2


def _is_projection(work: Encoding, uid: str) -> bool:
    header = work.study.instance(uid).header
    return not {"ImagePositionPatient", "PerFrameFunctionalGroupsSequence"} & set(header.dir())


def _is_lateral(work: Encoding, uid: str) -> bool:
    return _view(work, work.study.instance(uid)) is View.LATERAL


def _volumes(work: Encoding) -> list[list[Segmentation]]:
    grouped: dict[frozenset[tuple[str, int]], list[Segmentation]] = {}
    for mask in masks_of(work):
        if mask.volumetric:
            slices = frozenset(_slices(mask.sources, mask.frames))
            grouped.setdefault(slices, []).append(mask)
    return list(grouped.values())


def _view(work: Encoding, instance: Instance) -> View:
    """Return what an image was taken for, so that it stands as its model saw it.

    The Job's role decides, never ViewPosition: a rule finds the view in other elements as well, in a
    site's own words or in the pixels, and no element of the header says what it found. Only a Job
    with a frontal image has a ``view``, and its lateral one comes after it.
    """
    kinds = set()
    for entry in work.entries:
        if instance.SOPInstanceUID not in entry.sources:
            continue
        if "view" in entry.parameters:
            first = entry.sources[0] == instance.SOPInstanceUID
            return View.FRONTAL if first else View.LATERAL
        kinds.add(entry.kind)
    # An embedding is of an image that is turned by its PatientOrientation alone.
    plane = projection_plane(instance.header) if kinds == {"insight"} else ""
    return View(plane) if plane in (View.FRONTAL, View.LATERAL) else View.ANY


def _projection(work: Encoding, instance: Instance, frame: int | None) -> Scene:
    view = _view(work, instance)
    position = str(instance.header.get("ViewPosition", "") or "")
    name = {View.FRONTAL: "Frontal", View.LATERAL: "Lateral", View.ANY: "As stored"}[view]
    caption = f"{name} ({position})" if position else name
    if frame is not None:
        caption += f", frame {frame} of {instance.header.NumberOfFrames}"
    try:
        common = contrast.common(instance) if _all_frames(work, instance) else None
        index = None if frame is None else frame - 1
        shown = display_image(instance, view=view, frame=index, common=common)
    except PixelError as error:
        return _unseen(f"{caption}: cannot be shown. {error}")
    edges = _edges(instance.header, shown.turn)
    if not any(edges):
        caption += "; sides are not stated in the header"
    uid = instance.SOPInstanceUID
    masks = tuple(
        (shown.turn.apply(plane), colour_of(mask.label))
        for mask in masks_of(work)
        if (plane := _plane_on(mask, uid, frame)) is not None
    )
    frames = tuple(
        _frame(mark, shown.turn)
        for mark in marks_of(work)
        if (mark.box.source, mark.frame) == (uid, frame)
    )
    return Scene(shown.pixels, shown.aspect, masks, frames, edges, caption)


def _all_frames(work: Encoding, instance: Instance) -> bool:
    """Tell whether all frames were looked at, and so in one contrast, which the page shows too."""
    return any(
        entry.parameters.get("frame") == "all" and instance.SOPInstanceUID in entry.sources
        for entry in work.entries
    )


def _plane_on(mask: Segmentation, uid: str, frame: int | None) -> NDArray[np.bool_] | None:
    """Return what of a mask lies on an image, or on a frame of it; None where it is not on it."""
    if mask.volumetric or uid not in mask.sources:
        return None
    if frame is None:
        return None if mask.frames else mask.plane(0)
    return mask.plane(mask.frames.index(frame)) if frame in mask.frames else None


def _unseen(caption: str) -> Scene:
    return Scene(np.zeros((0, 0), np.uint8), 1.0, (), (), ("", "", "", ""), caption)


def colour_of(label: str) -> Colour:
    """Return the colour of a term in pictures; white where the table gives none."""
    return term(label).colour or (255, 255, 255)


def _edges(header: Dataset, turn: Turn) -> tuple[str, str, str, str]:
    stated = header.get("PatientOrientation")
    cosines = header.get("ImageOrientationPatient")
    if stated and len(stated) == 2 and all(stated):
        across, down = (str(one).upper() for one in stated)
    elif cosines and len(cosines) == 6:
        across, down = (_towards(np.array(part, float)) for part in (cosines[:3], cosines[3:]))
    else:
        return ("", "", "", "")
    if turn.transpose:
        across, down = down, across
    if turn.flip_columns:
        across = _turned(across)
    if turn.flip_rows:
        down = _turned(down)
    return (_turned(across), across, _turned(down), down)


def _towards(step: NDArray[np.float64]) -> str:
    """Return the letter of where a step in patient coordinates (LPS) leads most."""
    patient = int(np.abs(step).argmax())
    return _DIRECTIONS[patient][0 if step[patient] > 0 else 1]


def _turned(letters: str) -> str:
    return "".join(_OPPOSITE.get(letter, letter) for letter in letters)


def _frame(mark: Mark, turn: Turn) -> Frame:
    xs, ys = [], []
    for x, y in ((mark.box.left, mark.box.top), (mark.box.right, mark.box.bottom)):
        shown = turn.apply_point(x, y)
        xs.append(shown[0])
        ys.append(shown[1])
    return Frame(min(xs), min(ys), max(xs), max(ys), colour_of(mark.label), mark.tag)


def _planes(work: Encoding, masks: Sequence[Segmentation]) -> tuple[Scene, ...]:
    """Return axial, coronal and sagittal planes where the largest mask is widest."""
    try:
        sources = dict.fromkeys(masks[0].sources)
        instances = [work.study.instance(uid) for uid in sources]
        volume = assemble(instances, frames=masks[0].frames)
        standing = _Standing(volume)
        largest = max(masks, key=lambda one: one.count)
        cuts = standing.widest(_in_order(largest, volume))
        body = standing.sections(grey(volume, WINDOW).planes(), cuts)
    except PixelError as error:
        return (_unseen(f"Volume: cannot be shown. {error}"),)
    shown = [standing.sections(_in_order(mask, volume), cuts) for mask in masks]
    colours = [colour_of(mask.label) for mask in masks]
    window = f"W {WINDOW.width:g} L {WINDOW.level:g}" if volume.modality == "CT" else "percentiles"
    made = []
    for axis, name in enumerate(("Axial", "Coronal", "Sagittal")):
        others = tuple(other for other in range(3) if other != axis)
        made.append(
            Scene(
                np.ascontiguousarray(body[axis]),
                standing.spacing[others[0]] / standing.spacing[others[1]],
                tuple((cut[axis], colour) for cut, colour in zip(shown, colours, strict=True)),
                (),
                standing.edges(others),
                f"{name}, plane {cuts[axis] + 1} of {standing.shape[axis]}, {window}",
            )
        )
    return tuple(made)


def _in_order(mask: Segmentation, volume: Volume) -> Iterator[NDArray[np.bool_]]:
    """Yield the slices of a mask in the order of a volume."""
    place = {slice_: index for index, slice_ in enumerate(_slices(mask.sources, mask.frames))}
    for slice_ in _slices(volume.order, volume.frames):
        yield mask.plane(place[slice_])


def _slices(uids: Sequence[str], frames: Sequence[int]) -> list[tuple[str, int]]:
    return list(zip(uids, frames or repeat(1, len(uids)), strict=True))


class _Standing:
    """How a volume is turned so that it stands before the reader, without resampling.

    Its axis 0 runs from head to feet, axis 1 from front to back, axis 2 from the patient's right to the
    left, each as nearly as the volume's own axes (slice, row, column) do. Slices are gone through one after
    the other: of a long CT all of them, or a mask on all, take 157 MB.
    """

    def __init__(self, volume: Volume) -> None:
        # Columns of the affine are steps along column, row and slice; the array's axes run the
        # other way round.
        steps = volume.affine[:3, :3][:, ::-1]
        self._axes = _nearest(np.abs(steps / np.linalg.norm(steps, axis=0)))
        wanted = (-1.0, 1.0, 1.0)  # feet, back, left
        self._flips = tuple(
            bool(np.sign(steps[patient, axis]) != wanted[standing])
            for standing, (patient, axis) in enumerate(zip((2, 1, 0), self._axes, strict=True))
        )
        lengths = np.linalg.norm(steps, axis=0)
        self.spacing = tuple(float(lengths[axis]) for axis in self._axes)
        self.shape = tuple(volume.shape[axis] for axis in self._axes)
        self._steps = steps

    def widest(self, planes: Iterable[NDArray[np.bool_]]) -> tuple[int, int, int]:
        """Return the plane across each axis in which a mask is widest."""
        slices, rows, columns = [], 0, 0
        for plane in planes:
            slices.append(plane.sum())
            rows, columns = rows + plane.sum(axis=1), columns + plane.sum(axis=0)
        own = (np.array(slices), np.array(rows), np.array(columns))
        first, second, third = (
            int(_turned_round(own[axis], (flip,)).argmax())
            for axis, flip in zip(self._axes, self._flips, strict=True)
        )
        return first, second, third

    def sections(
        self, planes: Iterable[NDArray[Any]], cuts: tuple[int, int, int]
    ) -> tuple[NDArray[Any], ...]:
        """Return the planes across each axis of slices that come in the volume's order."""
        places = [0, 0, 0]
        for axis, flip, cut, length in zip(self._axes, self._flips, cuts, self.shape, strict=True):
            places[axis] = length - 1 - cut if flip else cut
        level, row, column = places
        whole, rows, columns = np.empty(0), [], []
        for index, plane in enumerate(planes):
            if index == level:
                whole = plane
            rows.append(plane[row].copy())
            columns.append(plane[:, column].copy())
        own = (whole, np.stack(rows), np.stack(columns))
        return tuple(self._stood(own[axis], standing) for standing, axis in enumerate(self._axes))

    def _stood(self, section: NDArray[Any], standing: int) -> NDArray[Any]:
        """Turn a plane, whose axes are in the volume's order, as it stands before the reader."""
        down, across = (other for other in range(3) if other != standing)
        turned = section.T if self._axes[down] > self._axes[across] else section
        return _turned_round(turned, (self._flips[down], self._flips[across]))

    def edges(self, shown: tuple[int, ...]) -> tuple[str, str, str, str]:
        """Return the letters of a plane whose rows and columns run along two standing axes."""
        down, across = (self._letter(axis) for axis in shown)
        return (_turned(across), across, _turned(down), down)

    def _letter(self, standing: int) -> str:
        step = self._steps[:, self._axes[standing]] * (-1 if self._flips[standing] else 1)
        return _towards(step)


def _turned_round(array: NDArray[Any], flips: Sequence[bool]) -> NDArray[Any]:
    return array[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def _nearest(share: NDArray[np.float64]) -> tuple[int, int, int]:
    """Return which array axis runs along z, y and x; each axis is taken once."""
    left = [0, 1, 2]
    chosen = []
    for patient in (2, 1, 0):
        best = max(left, key=lambda axis: float(share[patient, axis]))
        left.remove(best)
        chosen.append(best)
    return (chosen[0], chosen[1], chosen[2])
