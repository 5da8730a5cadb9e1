"""Which Instances of a Study a rule's models get: one frontal radiograph, one image, or one volume.

Where two are equally good the Study is not suitable and both are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pacs_ai.routing.conditions import Says, StudyFacts, Subject
from pacs_ai.routing.exposures import left_out, same_exposure
from pacs_ai.routing.rules import Rule, Select, SelectImage
from pacs_ai.routing.views import Side, View, ViewRule
from pacs_ai.routing.words import Term
from pacs_ai.study import Instance, Series, is_slide, values
from pacs_ai.times import moments

if TYPE_CHECKING:
    from pacs_ai.pixels.stacks import Stack

_CLOCKS = (("AcquisitionDate", "AcquisitionTime"), ("ContentDate", "ContentTime"))

_STATED = 3
"""Most reasons in one sentence; a Series can have one for each of its files. The ranking has them all."""

ALL_FRAMES = 256 * 1024 * 1024
"""Most pixels of all frames of an Instance together, where all are looked at: a mask takes 32 MiB."""

_VOLUME = "VOLUME"
_FLAVOURS = frozenset({"LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER"})
"""The third value of a whole-slide image's ImageType (PS3.3 C.8.12.4.1.1)."""

_WHOLE = ("ORIGINAL", "PRIMARY", "AXIAL")
# PS3.3 C.7.6.1.1.2 and C.8.2.1.1.1; MIP and the like are private values or stand in descriptions.
_NO_SOURCE = Term(
    "", ("LOCALIZER", "DERIVED", "SECONDARY", "MIP", "MINIP", "MPR", "PROJECTION IMAGE")
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a rule takes from a Study.

    Attributes
    ----------
    frontal, lateral : Instance or None
    image : Instance or None
        The single image of a rule that takes one.
    frame : int, "all" or None
        Number (from 1) of its frame, or all of them, where it has several.
    volume : tuple of Instance
        The Instances of the chosen volume; empty for images.
    frames : tuple of int
        Numbers of the frames of the volume, where it is a part of a multi-frame Instance.
    view : View or None
        Of the frontal image.
    notes : tuple of str
        Shown with every result.
    ranking : tuple of str
        How the candidates stood, best first, then those left out and why.
    """

    frontal: Instance | None = None
    lateral: Instance | None = None
    image: Instance | None = None
    frame: int | Literal["all"] | None = None
    volume: tuple[Instance, ...] = ()
    frames: tuple[int, ...] = ()
    view: View | None = None
    notes: tuple[str, ...] = ()
    ranking: tuple[str, ...] = ()

    @property
    def uids(self) -> frozenset[str]:
        """SOP Instance UIDs of what decides the choice: the image, or the volume."""
        single = self.frontal or self.image
        chosen = self.volume if single is None else (single,)
        return frozenset(one.SOPInstanceUID for one in chosen)


@dataclass(frozen=True, slots=True)
class Unsuitable:
    """Why a rule cannot choose, and what a person can do."""

    reason: str
    ranking: tuple[str, ...] = ()


def choose(rule: Rule, subjects: Sequence[Subject]) -> Chosen | Unsuitable:
    """Choose among the Instances that a rule's conditions hold for."""
    if isinstance(rule.select, SelectImage):
        return _choose_image(rule.select, subjects)
    if rule.select is not None:
        return _choose_series(rule.select, subjects)
    if rule.view is not None:
        return _choose_frontal(rule.view, subjects)
    return Unsuitable(rule.reason)


def _choose_frontal(rule: ViewRule, subjects: Sequence[Subject]) -> Chosen | Unsuitable:
    seen = [(subject.instance, subject.view(rule)) for subject in subjects]
    facts = subjects[0].facts
    # A companion is known by its plain picture, whether or not the rule holds for that one.
    every = [(one, Subject(one, facts).view(rule).side) for one in facts.passing]
    unread = left_out(every)
    dropped = tuple(
        f"{_name(one)} left out: {unread[one.SOPInstanceUID]}"
        for one, _ in seen
        if one.SOPInstanceUID in unread
    )
    seen = [(one, view) for one, view in seen if one.SOPInstanceUID not in unread]
    ranking = (*(f"{_name(one)}: {_seen(view)}" for one, view in seen), *dropped)
    if not seen:
        return Unsuitable(f"no image to be read: {dropped[0]}", ranking)
    frontal = [(one, view) for one, view in seen if view.side is Side.FRONTAL]
    if not frontal and rule.unknown == "frontal":
        frontal = [(one, view) for one, view in seen if view.side is Side.UNKNOWN]
    if not frontal:
        return Unsuitable(_no_frontal(seen), ranking)
    latest = _latest([one for one, _ in frontal])
    if isinstance(latest, Unsuitable):
        return Unsuitable(f"{len(frontal)} frontal images and {latest.reason}", ranking)
    view = next(view for one, view in frontal if one is latest)
    notes = []
    if len(frontal) > 1:
        notes.append(f"1 of {len(frontal)} frontal images, the latest")
    if view.remark and view.source:
        notes.append(_doubt(view))
    notes.extend(_passed_over(latest, seen))
    laterals = [one for one, view in seen if view.side is Side.LATERAL]
    lateral = _latest(laterals) if laterals else None
    if isinstance(lateral, Unsuitable):
        notes.append(f"No lateral image was used: {len(laterals)} and {lateral.reason}")
        lateral = None
    elif len(laterals) > 1:
        notes.append(f"1 of {len(laterals)} lateral images, the latest")
    taken = [(one, view) for one, view in seen if one is latest or one is lateral]
    others = [(one, view) for one, view in seen if not (one is latest or one is lateral)]
    ranking = (
        *(f"{_name(one)}: {_seen(view)}: taken" for one, view in taken),
        *(f"{_name(one)}: {_seen(view)}" for one, view in others),
        *dropped,
    )
    return Chosen(latest, lateral, view=view, notes=tuple(notes), ranking=ranking)


def _doubt(view: View) -> str:
    if not view.position:
        return f"Frontal by {view.source} alone: {view.remark}"
    return f"View {view.position} from {view.source}, but {view.remark}"


def _passed_over(latest: Instance, seen: Sequence[tuple[Instance, View]]) -> Iterator[str]:
    """Say which radiographs may be the later frontal one, but are of no view that is known."""
    doubtful = (Side.UNKNOWN, Side.CONTRADICTED)
    missed = [
        view
        for one, view in seen
        if one is not latest and view.side in doubtful and not _is_older(one, latest)
    ]
    if missed:
        yield (
            f"{len(missed)} of {len(seen)} radiographs may be later and cannot be used: "
            f"{missed[0].side} view ({missed[0].remark})"
        )


def _seen(view: View) -> str:
    if not view.position:
        return f"{view.side}, {view.remark}"
    return f"{view.side}, {view.source} says {view.position}"


def _no_frontal(seen: Sequence[tuple[Instance, View]]) -> str:
    for side in (Side.CONTRADICTED, Side.UNKNOWN):
        for instance, view in seen:
            if view.side is side:
                what = "contradictory" if side is Side.CONTRADICTED else "unknown"
                return (
                    f"no frontal image: the view of {_name(instance)} is {what} "
                    f"({view.remark}): enter ViewPosition and send it again"
                )
    instance, view = seen[0]
    if not view.position:
        return f"no frontal image: {_name(instance)} is none ({view.remark})"
    return f"no frontal image: {view.source} of {_name(instance)} says {view.position}"


def _latest(instances: Sequence[Instance]) -> Instance | Unsuitable:
    if len(instances) == 1:
        return instances[0]
    for date, time in _CLOCKS:
        spans = [span for one in instances if (span := _span(one, date, time))]
        if len(spans) == len(instances):
            latest = max(first for first, _ in spans)
            one, *others = (
                one for one, (_, last) in zip(instances, spans, strict=True) if last >= latest
            )
            if others:
                names = f"{_name(one)} and {_name(others[0])}"
                return Unsuitable(
                    f"{time} does not tell which of {names} is later: ambiguous, keep one of them"
                )
            return _alone(one, instances)
    return Unsuitable("no AcquisitionTime or ContentTime in each of them tells which is the latest")


def _alone(latest: Instance, instances: Sequence[Instance]) -> Instance | Unsuitable:
    """Return the latest, unless another picture of its exposure is there: later means processed."""
    for other in instances:
        if other is not latest and (how := same_exposure(latest, other)):
            names = f"{_name(latest)} and {_name(other)}"
            return Unsuitable(
                f"{names} are two pictures of one exposure ({how}): ambiguous, keep one of them"
            )
    return latest


def _is_older(one: Instance, than: Instance) -> bool:
    for date, time in _CLOCKS:
        span, other = _span(one, date, time), _span(than, date, time)
        if span and other:
            return span[1] < other[0]
    return False


def _span(instance: Instance, date: str, time: str) -> tuple[datetime, datetime] | None:
    day, clock = values(instance.header, date), values(instance.header, time)
    return moments(day[0], clock[0]) if day and clock else None


def _name(instance: Instance) -> str:
    return f"Instance {instance.SOPInstanceUID}"


def _choose_image(select: SelectImage, subjects: Sequence[Subject]) -> Chosen | Unsuitable:
    """Choose the one image for which the rule's own conditions hold, or the latest of several."""
    judged = [(subject.instance, select.condition.judge(subject)) for subject in subjects]
    why = {one.SOPInstanceUID: _no_slide(one) for one, _ in judged}
    ranking = tuple(
        f"{_name(one)}: {why[one.SOPInstanceUID] or answer.sentence}" for one, answer in judged
    )
    suited = [
        one for one, answer in judged if answer.says is Says.YES and not why[one.SOPInstanceUID]
    ]
    if not suited:
        return Unsuitable(f"no image suits: {'; '.join(dict.fromkeys(ranking))}", ranking)
    notes = []
    if len(suited) == 1:
        (image,) = suited
    elif select.latest:
        latest = _latest(suited)
        if isinstance(latest, Unsuitable):
            return Unsuitable(f"{len(suited)} images and {latest.reason}", ranking)
        image = latest
        notes.append(f"1 of {len(suited)} images, the latest")
    else:
        return Unsuitable(
            f"ambiguous: {len(suited)} images are equally good, such as {_name(suited[0])} and "
            f"{_name(suited[1])}: select what they differ in, or take: latest image",
            ranking,
        )
    return _framed(image, select, notes, ranking)


def _framed(
    image: Instance, select: SelectImage, notes: list[str], ranking: tuple[str, ...]
) -> Chosen | Unsuitable:
    """Choose the frame of an image: the one that the rule names, the middle one, or all."""
    stated = "".join(values(image.header, "NumberOfFrames")[:1]) or "1"
    count = int(stated) if stated.isascii() and stated.isdigit() else 0
    number = select.frame if isinstance(select.frame, int) else (count + 1) // 2
    if not 1 <= number <= count:
        return Unsuitable(
            f"{_name(image)} has no frame {number} (NumberOfFrames): name another in the rule",
            ranking,
        )
    if count == 1:
        return Chosen(image=image, notes=tuple(notes), ranking=ranking)
    if select.frame == "all":
        large = _too_large(image, count)
        if large:
            return Unsuitable(large, ranking)
        return Chosen(image=image, frame="all", notes=tuple(notes), ranking=ranking)
    which = "in the middle" if select.frame == "middle" else "that the rule names"
    notes.append(f"Only frame {number} of {count} was looked at, the one {which}")
    return Chosen(image=image, frame=number, notes=tuple(notes), ranking=ranking)


def _no_slide(instance: Instance) -> str:
    """Say why a picture of a slide is none of its tissue; empty where it is, and for all that is no slide."""
    if not is_slide(instance.header):
        return ""
    kind = "".join(values(instance.header, "ImageType")[2:3])
    if kind == _VOLUME:
        return ""
    said = kind if kind in _FLAVOURS else "something else"
    return (
        f"ImageType says {said} and not {_VOLUME}: only the slide's own pixels are read, as a label or "
        "an overview shows no tissue to be judged and may name the patient"
    )


def _too_large(image: Instance, count: int) -> str:
    """Say why not all frames of an image are looked at; empty where they are."""
    try:
        rows, columns = (int(values(image.header, one)[0]) for one in ("Rows", "Columns"))
    except (IndexError, ValueError):
        return ""  # whoever reads the pixels refuses it by name
    if count * rows * columns <= ALL_FRAMES:
        return ""
    remedy = "name one frame in the rule"
    if values(image.header, "TotalPixelMatrixColumns"):
        remedy = f"select another level (TotalPixelMatrixColumns), or {remedy}"
    return (
        f"{_name(image)} has {count} frames of {rows} Rows and {columns} Columns, more than the limit of "
        f"{ALL_FRAMES} pixels for frame: all: {remedy}"
    )


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    stack: Stack
    whole: int
    kernel: str
    kernel_rank: int
    thickness: float

    @property
    def key(self) -> tuple[float, ...]:
        """Lower is better."""
        return (-self.whole, self.kernel_rank, self.thickness, -len(self.stack.planes))

    @property
    def text(self) -> str:
        kernel = self.kernel or "unknown"
        kind = f"{self.whole} of ORIGINAL, PRIMARY, AXIAL"
        return f"{kind}; kernel {kernel}; {self.thickness:g} mm; {len(self.stack.planes)} slices"


def _choose_series(select: Select, subjects: Sequence[Subject]) -> Chosen | Unsuitable:
    facts = subjects[0].facts
    suited = {subject.instance.SOPInstanceUID for subject in subjects}
    candidates: list[_Candidate] = []
    left_out: list[str] = []
    for series in facts.study.series:
        for one in _candidates(series, select, facts, suited):
            if isinstance(one, _Candidate):
                candidates.append(one)
            else:
                left_out.append(f"{_series_name(series)} left out: {one}")
    candidates.sort(key=lambda one: one.key)
    ranked = [f"{place}. {one.name}: {one.text}" for place, one in enumerate(candidates, 1)]
    ranking = (*ranked, *left_out)
    if not candidates:
        reason = f"no Series suits: {'; '.join(left_out[:_STATED])}"
        if len(left_out) > _STATED:
            reason += f"; and {len(left_out) - _STATED} more for such reasons"
        return Unsuitable(reason, ranking if len(ranking) > 1 else ())
    best, *others = candidates
    if others and others[0].key == best.key:
        names = f"{best.name} and {others[0].name}"
        return Unsuitable(
            f"ambiguous: {names} are equally good ({best.text}): prefer a kernel, or select what "
            "they differ in",
            ranking,
        )
    notes = [f"1 of {len(candidates)} suitable Series"] if others else []
    return _chosen(best.stack, facts, notes, ranking)


def _chosen(stack: Stack, facts: StudyFacts, notes: list[str], ranking: tuple[str, ...]) -> Chosen:
    instances, frames = stack.instances, stack.frames
    received = facts.sizes[instances[0].SeriesInstanceUID]
    if received > len(instances):
        notes.append(f"{len(instances)} of the {received} Instances of the Series")
    total = len(instances[0].header.get("PerFrameFunctionalGroupsSequence") or ())
    if len(frames) == total:
        frames = ()
    elif frames:
        notes.append(f"{len(frames)} of the {total} frames of the Instance")
    return Chosen(volume=instances, frames=frames, notes=tuple(notes), ranking=ranking)


def _candidates(
    series: Series, select: Select, facts: StudyFacts, suited: set[str]
) -> Iterator[_Candidate | str]:
    """Yield the volumes of a Series, or why what is in it is none; nothing if it is not meant."""
    passing = {one.SOPInstanceUID for one in facts.passing}
    members = tuple(one for one in series.instances if one.SOPInstanceUID in passing)
    inside = [one for one in members if one.SOPInstanceUID in suited]
    if not inside:
        return
    if len(inside) < len(members):
        # Taking those that fit would leave a hole in the volume.
        yield f"the rule holds for only {len(inside)} of its {len(members)} Instances"
        return
    unfit = [_unfit(one, select, facts) for one in members]
    if all(unfit):
        yield unfit[0]
        return
    from pacs_ai.pixels.stacks import partition  # noqa: PLC0415 - no pixels where a listener starts

    found = partition(members)
    yield from (f"{len(one.frames)} of its slices: {one.reason}" for one in found.refused)
    for stack in found.usable:
        name = _series_name(series)
        if len(found.usable) > 1:
            name += f", its {len(stack.planes)} slices of {stack.stated(found.differ)}"
        yield _candidate(name, stack, select, facts)


def _candidate(name: str, stack: Stack, select: Select, facts: StudyFacts) -> _Candidate | str:
    unfit = next((why for one in stack.instances if (why := _unfit(one, select, facts))), "")
    first = stack.planes[0].frame
    word = _NO_SOURCE.found_in(first.text("FrameType").replace("\\", " "))
    if unfit or word:
        return unfit or f"FrameType has {word}"
    thickness, slices = _thickness(stack), len(stack.planes)
    if select.thickness is not None and not select.thickness.holds(thickness):
        unsaid = "no thickness" if first.text("SliceThickness") else "missing"
        seen = unsaid if thickness == float("inf") else f"{thickness:g} mm"
        return f"SliceThickness is {seen}, not {select.thickness.text}"
    if select.slices is not None and not select.slices.holds(slices):
        return f"it has {slices} slices, not {select.slices.text}"
    kernel = "".join(first.values("ConvolutionKernel")[:1])
    ranks = {one: rank for rank, one in enumerate(select.kernels)}
    types = {value.upper() for value in first.values("FrameType") or first.values("ImageType")}
    return _Candidate(
        name=name,
        stack=stack,
        whole=len(types & set(_WHOLE)),
        kernel=kernel,
        kernel_rank=ranks.get(kernel, len(ranks)),
        thickness=thickness,
    )


def _unfit(instance: Instance, select: Select, facts: StudyFacts) -> str:
    answer = select.condition.judge(Subject(instance, facts))
    if answer.says is not Says.YES:
        return answer.sentence
    for keyword in ("ImageType", "SeriesDescription"):
        word = _NO_SOURCE.found_in(" ".join(values(instance.header, keyword)))
        if word:
            return f"{keyword} has {word}"
    return ""


def _series_name(series: Series) -> str:
    number = "".join(values(series.header, "SeriesNumber")[:1])
    return f"Series {number} ({series.SeriesInstanceUID})".replace("Series  ", "Series ")


def _thickness(stack: Stack) -> float:
    """Return the greatest SliceThickness, in mm; infinite when one of its slices states none.

    What is not above 0 is none: taken at its word it would be the thinnest, and so the best.
    """
    return max(_millimetres(one.frame.values("SliceThickness")) for one in stack.planes)


def _millimetres(found: tuple[str, ...]) -> float:
    try:
        number = float(found[0])
    except (IndexError, ValueError):
        return float("inf")
    return number if number > 0 else float("inf")
