"""Which frames of a Series lie on one grid: stacks, and what is refused and why.

Only headers are read. Frames are put together that were acquired and reconstructed alike
(:data:`TRAITS`) and lie parallel; each such group is a :class:`Stack` when its positions make one
regular right-angled grid, and else :class:`Refused` with the reason. Instance Number, file order and
In-Stack Position Number decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import PixelError
from pacs_ai.pixels.frames import Frame, frames_of
from pacs_ai.study import Instance

TRAITS: tuple[tuple[str, ...], ...] = (
    ("SeriesInstanceUID",),
    ("Modality",),
    ("FrameOfReferenceUID",),
    ("Rows",),
    ("Columns",),
    ("FrameType", "ImageType"),
    ("ConvolutionKernel",),
    ("SliceThickness",),
    ("EffectiveEchoTime", "EchoTime"),
    ("InversionTime",),
    ("ComplexImageComponent",),
    ("DiffusionBValue",),
    ("DiffusionGradientOrientation",),
    ("StackID",),
    ("TemporalPositionIndex", "TemporalPositionIdentifier"),
    ("NominalPercentageOfCardiacPhase",),
)
"""What the frames of one stack have in common; of several elements the first that is there."""

_ACQUISITION = ("FrameAcquisitionNumber", "AcquisitionNumber")

_SHOWN = 64
"""Most characters of a value in a message: as long as a SOP Instance UID can be."""

_LOCALIZER = "LOCALIZER"
_PROJECTIONS = frozenset({"MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE"})
_FLAT = frozenset({"", "NONE", "MPR"})
"""Values of VolumeBasedCalculationTechnique (PS3.3 C.8.16.2.1.4) that leave planes plane."""

_UNIT = 1e-3
"""How far direction cosines may be from unit length and from right angles."""
_SAME = 1e-4
"""How far direction cosines and spacings of two slices may differ by rounding."""
SAME_PLACE = 1e-3
"""How many millimetres two slices in one place may lie apart by rounding."""
_SPACING = 0.01
"""Share of the slice distance, and millimetres, by which one distance may differ from the mean."""
_DRIFT = 0.05
"""Share of the slice distance by which a position may leave the regular grid."""
_SIDEWAYS = 0.1
"""Share of a pixel by which positions may leave the line along the normal."""

_Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plane:
    """A frame and where it lies, in millimetres, LPS.

    Attributes
    ----------
    frame : Frame
    position : ndarray of float64, shape (3,)
        Centre of the first voxel (Image Position (Patient)).
    orientation : ndarray of float64, shape (6,)
        Direction of increasing column, then of increasing row.
    spacing : ndarray of float64, shape (2,)
        Distance of rows, then of columns.
    """

    frame: Frame
    position: _Vector = field(repr=False)
    orientation: _Vector = field(repr=False)
    spacing: _Vector = field(repr=False)

    @property
    def normal(self) -> _Vector:
        """Row direction × column direction."""
        return np.cross(self.orientation[:3], self.orientation[3:])


@dataclass(frozen=True, slots=True)
class Stack:
    """Planes on one regular right-angled grid.

    Attributes
    ----------
    planes : tuple of Plane
        Along the normal (row direction × column direction), from the least.
    affine : ndarray of float64, shape (4, 4)
        Column, row, slice (in this order, from 0, at voxel centres) to millimetres in the patient
        coordinate system, LPS (PS3.3 C.7.6.2.1.1).
    """

    planes: tuple[Plane, ...]
    affine: NDArray[np.float64]

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The Instances that its planes come from, each once, along the normal."""
        found = {id(one.frame.instance): one.frame.instance for one in self.planes}
        return tuple(found.values())

    @property
    def frames(self) -> tuple[int, ...]:
        """Frame numbers along the normal; empty where the planes are single-frame Instances."""
        multi = self.planes[0].frame.groups
        return tuple(one.frame.number for one in self.planes) if multi else ()

    def stated(self, differ: str) -> str:
        """Return what it says of :attr:`Stacks.differ`, such as ``AcquisitionNumber 2``."""
        first = self.planes[0].frame
        every = {keywords[-1]: keywords for keywords in (*TRAITS, _ACQUISITION)}
        found = (
            (one, first.text(*every.get(one, (one,)))[:_SHOWN]) for one in differ.split(", ") if one
        )
        return ", ".join(
            f"{keyword} {text}" if text else f"no {keyword}" for keyword, text in found
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """Frames that are no volume, and why: Instances, elements, remedy."""

    frames: tuple[Frame, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Stacks:
    """What a Series holds.

    Attributes
    ----------
    usable : tuple of Stack
        In the order in which their first frame came.
    refused : tuple of Refused
    differ : str
        Keywords by which the groups differ, for messages; empty when there is one group.
    """

    usable: tuple[Stack, ...]
    refused: tuple[Refused, ...]
    differ: str

    def why_none(self) -> str:
        """Return why nothing is usable: the reason of the largest group, and what split the rest."""
        largest = max(self.refused, key=lambda one: len(one.frames))
        if not self.differ:
            return largest.reason
        return f"{largest.reason}. Its Instances differ in {self.differ}"


def partition(instances: Sequence[Instance], *, frames: Collection[int] = ()) -> Stacks:
    """Divide the frames of a Series, in any order, into stacks; decodes nothing, raises nothing.

    Parameters
    ----------
    instances : sequence of Instance
    frames : collection of int
        Of a multi-frame Instance, the numbers of the frames to look at; all when empty.
    """
    groups: dict[tuple[str, ...], list[Frame]] = {}
    refused: list[Refused] = []
    for instance in instances:
        try:
            for frame in frames_of(instance, frames):
                groups.setdefault(_traits(frame), []).append(frame)
        except PixelError as error:
            refused.append(Refused((Frame(instance),), str(error)))
    names = [_differing(groups)]
    usable: list[Stack] = []
    for group in groups.values():
        by_acquisition = _by_acquisition(group)
        names.append(_ACQUISITION[-1] if len(by_acquisition) > 1 else "")
        for alike in by_acquisition:
            parts = _parallel(alike)
            names.extend(parts.names)
            refused.extend(parts.refused)
            for planes in parts.planes:
                try:
                    usable.append(_stack(planes))
                except PixelError as error:
                    refused.append(Refused(tuple(one.frame for one in planes), str(error)))
    differ = ", ".join(dict.fromkeys(name for name in names if name))
    return Stacks(tuple(usable), tuple(refused), differ)


def _traits(frame: Frame) -> tuple[str, ...]:
    # A multi-frame Instance is a volume of its own: a result refers to frames of one Instance.
    within = frame.instance.SOPInstanceUID if frame.groups else ""
    return (within, *(_rounded(frame.text(*keywords)) for keywords in TRAITS))


def _rounded(text: str) -> str:
    """Return decimal numbers with two places, so that one written twice is one; text as it is."""
    parts = text.split("\\")
    try:
        return "\\".join(f"{float(part):.2f}" for part in parts) if "." in text else text.upper()
    except ValueError:
        return text.upper()


def _differing(groups: Iterable[tuple[str, ...]]) -> str:
    columns = list(zip(*groups, strict=True))
    return ", ".join(
        keywords[-1]
        for keywords, column in zip((("SOPInstanceUID",), *TRAITS), columns, strict=False)
        if len(set(column)) > 1
    )


def _by_acquisition(frames: list[Frame]) -> list[list[Frame]]:
    """Divide by acquisition; a PET's beds are one examination, and so is a slice a rotation.

    Breath holds, contrast phases and repetitions are not, even where they lie end to end.
    """
    groups: dict[str, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(frame.text(*_ACQUISITION), []).append(frame)
    step_and_shoot = len(groups) == len(frames)
    if frames[0].instance.Modality == "PT" or step_and_shoot:
        return [frames]
    return list(groups.values())


@dataclass(frozen=True, slots=True)
class _Parts:
    planes: list[list[Plane]]
    refused: list[Refused]
    names: list[str]


def _parallel(frames: list[Frame]) -> _Parts:
    """Divide frames that were made alike into parallel planes of one spacing.

    A frame whose place is not known could be any slice of its group, so the group goes with it.
    """
    why = _no_cut(frames[0])
    if why:
        return _Parts([], [Refused(tuple(frames), why)], [])
    groups: list[list[Plane]] = []
    names: list[str] = []
    for frame in frames:
        try:
            plane = plane_of(frame)
        except PixelError as error:
            return _Parts([], [Refused(tuple(frames), str(error))], [])
        for group in groups:
            unlike = _unlike(group[0], plane)
            if not unlike:
                group.append(plane)
                break
            names.append(unlike)
        else:
            groups.append([plane])
    return _Parts(groups, [], names if len(groups) > 1 else [])


def _no_cut(frame: Frame) -> str:
    """Return why a frame is no cut through the patient, or nothing."""
    kinds = {one.upper() for one in (*frame.values("FrameType"), *frame.values("ImageType"))}
    if _LOCALIZER in kinds:
        return f"{frame.named} is a localizer (ImageType): select the Series that was planned on it"
    technique = frame.text("VolumeBasedCalculationTechnique").upper()
    sampled = frame.text("VolumetricProperties").upper() == "SAMPLED"
    if kinds & _PROJECTIONS or technique not in _FLAT or sampled:
        return (
            f"{frame.named} is projected or rendered from a volume (ImageType, "
            "VolumeBasedCalculationTechnique): select the original Series"
        )
    return ""


def plane_of(frame: Frame) -> Plane:
    """Return where a frame lies.

    Raises
    ------
    PixelError
        When it does not say so, or says what is no plane.
    """
    position = _vector(frame, "ImagePositionPatient", 3)
    orientation = _vector(frame, "ImageOrientationPatient", 6)
    spacing = _vector(frame, "PixelSpacing", 2)
    if (spacing <= 0).any():
        raise PixelError(f"{frame.named} has a PixelSpacing of 0 or less: correct it at its source")
    lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
    if (np.abs(lengths - 1) > _UNIT).any() or abs(orientation[:3] @ orientation[3:]) > _UNIT:
        raise PixelError(
            f"{frame.named} has an ImageOrientationPatient whose directions are not of unit "
            "length at right angles (PS3.3 C.7.6.2.1.1): correct it at its source"
        )
    return Plane(frame, position, orientation, spacing)


def _vector(frame: Frame, keyword: str, length: int) -> _Vector:
    try:
        vector = np.array([float(one) for one in frame.values(keyword)], np.float64)
    except ValueError:
        vector = np.empty(0)
    if len(vector) != length or not np.isfinite(vector).all():
        raise PixelError(
            f"{frame.named} has no {keyword} of {length} numbers, and geometry is never "
            "guessed: send the original Series"
        )
    return vector


def same_directions(one: Plane, other: Plane) -> bool:
    """Tell whether two slices lie in the same directions, rounding aside."""
    return bool(np.abs(one.orientation - other.orientation).max() <= _SAME)


def _unlike(first: Plane, one: Plane) -> str:
    if not same_directions(first, one):
        return "ImageOrientationPatient"
    return "PixelSpacing" if np.abs(first.spacing - one.spacing).max() > _SAME else ""


def _stack(planes: list[Plane]) -> Stack:
    if len(planes) < 2:
        raise PixelError(
            f"{planes[0].frame.named} is alone, and a volume needs two slices or more, because "
            "one has no distance: select the whole Series"
        )
    normal = planes[0].normal
    ordered = tuple(sorted(planes, key=lambda one: float(one.position @ normal)))
    _check_places(ordered)
    _check_straight(ordered)
    _check_even(ordered)
    return Stack(ordered, _affine(ordered))


def _places(planes: tuple[Plane, ...]) -> _Vector:
    return np.array([one.position for one in planes]) @ planes[0].normal


def _check_places(planes: tuple[Plane, ...]) -> None:
    """Refuse two slices in one place: a phase, an echo or a copy that no element tells apart."""
    gaps = np.diff(_places(planes))
    least = max(_SPACING * float(np.median(gaps)), SAME_PLACE)
    for (one, other), gap in zip(pairwise(planes), gaps, strict=True):
        if gap <= least:
            raise PixelError(
                f"{one.frame.named} and {other.frame.named} lie in one place "
                "(ImagePositionPatient): send each slice once, and each phase or echo as a Series "
                "of its own"
            )


def _check_straight(planes: tuple[Plane, ...]) -> None:
    """Refuse slices that are shifted against each other.

    A tilted gantry shifts each slice by the same step. That could go into the affine as a shear,
    but NIfTI's quaternion cannot say it and a model's server may read just that; so it is refused.
    """
    normal, limit = planes[0].normal, _SIDEWAYS * float(planes[0].spacing.min())
    steps = np.array([one.position for one in planes]) - planes[0].position
    aside = steps - np.outer(steps @ normal, normal)
    beside = np.flatnonzero(np.linalg.norm(aside, axis=1) > limit)
    if not beside.size:
        return
    shear = aside[-1] / float(steps[-1] @ normal)
    straight = np.outer(steps @ normal, shear)
    name = planes[int(beside[0])].frame.named
    if np.linalg.norm(aside - straight, axis=1).max() <= limit:
        degrees = math.degrees(math.atan(float(np.linalg.norm(shear))))
        raise PixelError(
            f"{name} and the others lie along a line {degrees:.1f} degrees off their normal "
            "(ImagePositionPatient), as a tilted gantry leaves them (GantryDetectorTilt): send a "
            "Series without tilt, or one reformatted at right angles"
        )
    raise PixelError(
        f"{name} has an ImagePositionPatient beside the line along the slices' normal: "
        "send a Series of slices that are not shifted against each other"
    )


def _check_even(planes: tuple[Plane, ...]) -> None:
    """Refuse missing and unevenly spaced slices."""
    places = _places(planes)
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    for (one, other), gap in zip(pairwise(planes), gaps, strict=True):
        if abs(gap - usual) > max(_SPACING * usual, _SPACING + 1e-6):
            raise PixelError(
                f"{one.frame.named} and {other.frame.named} are {gap:.3f} mm apart where "
                f"{usual:.3f} mm is usual (ImagePositionPatient): send the missing slices, or an "
                "evenly spaced Series"
            )
    grid = np.linspace(places[0], places[-1], len(places))
    if np.abs(places - grid).max() > _DRIFT * usual:
        raise PixelError(
            f"Series {planes[0].frame.instance.SeriesInstanceUID} is not evenly spaced "
            "(ImagePositionPatient): send an evenly spaced Series"
        )


def _affine(planes: tuple[Plane, ...]) -> NDArray[np.float64]:
    """Return column, row, slice to LPS millimetres (PS3.3 C.7.6.2.1.1, Equation C.7.6.2.1-1)."""
    first, last = planes[0], planes[-1]
    affine = np.eye(4)
    # PixelSpacing gives the distance of rows first, then of columns.
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    distance = float((last.position - first.position) @ first.normal) / (len(planes) - 1)
    affine[:3, 2] = first.normal * distance
    affine[:3, 3] = first.position
    return affine
