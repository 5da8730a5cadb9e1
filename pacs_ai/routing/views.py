"""Which way a radiograph was taken, as its header says it.

PatientOrientation says in which plane the image lies. Whatever a rule lists as its sources, it is heard
against them: an image whose rows run to the back is no frontal one. For a view it is taken only where
the rule lists it, because some systems write the same letters on every image.

PatientPosition is no source: PA and AP sometimes stand there, but it says how the patient lay. Nor
is ImageLaterality, nor StudyDescription, which speaks of every image at once. Where sources
contradict each other the image is not used: a lateral image is never sent as a frontal one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pacs_ai.errors import Fault
from pacs_ai.results import Likeness
from pacs_ai.routing.pixels import threshold
from pacs_ai.routing.words import fold, has_phrase
from pacs_ai.settings import Source
from pacs_ai.study import items, projection_plane, values

CODED = ("ViewPosition", "ViewCodeSequence")
WORDED = ("SeriesDescription", "ProtocolName")
ORIENTED = "PatientOrientation"

# PS3.16 CID 4010 DX View, named as values of ViewPosition (PS3.3 C.8.7.5.1.1). Older SRT codes of
# the same concepts compare equal.
_CODES: Mapping[str, Code] = {
    "PA": codes.cid4010.PosteroAnterior,
    "AP": codes.cid4010.AnteroPosterior,
    "LL": codes.cid4010.LeftLateral,
    "RL": codes.cid4010.RightLateral,
    "LAT": codes.cid4010.LateralProjection,
}


class Side(StrEnum):
    """What a radiograph may be used as."""

    FRONTAL = "frontal"
    LATERAL = "lateral"
    OTHER = "other"
    UNKNOWN = "unknown"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True, slots=True)
class ViewRule:
    """How a rule reads views.

    Attributes
    ----------
    sources : tuple of str
        Element keywords, the most trusted first; PatientOrientation always comes last.
    frontal, lateral : tuple of str
        Values, or words of descriptions, that mean frontal and lateral.
    unknown : str
        ``not_suitable``, or ``frontal`` where a site vouches for images without a view.
    pixels : float or None
        Certainty from which the pixels say it, where nothing else does; None where they are not asked.
    """

    sources: tuple[str, ...] = (*CODED, "SeriesDescription")
    frontal: tuple[str, ...] = ("PA", "AP")
    lateral: tuple[str, ...] = ("LL", "RL", "LAT")
    unknown: Literal["not_suitable", "frontal"] = "not_suitable"
    pixels: float | None = None

    def side(self, position: str) -> Side:
        """Return what a position is used as."""
        if position in self.frontal:
            return Side.FRONTAL
        return Side.LATERAL if position in self.lateral else Side.OTHER


@dataclass(frozen=True, slots=True)
class View:
    """The view of one Instance.

    Attributes
    ----------
    side : Side
    position : str
        Such as ``PA``; empty when unknown, also of an image that is frontal or lateral by its
        PatientOrientation or its pixels.
    source : str
        The element that says so; empty when unknown.
    certain : bool
        False when another source names another position of the same side (PA and AP).
    remark : str
        Why it is unknown, or what contradicts it.
    """

    side: Side
    position: str
    source: str
    certain: bool
    remark: str


def view_of(
    header: Dataset, rule: ViewRule, *, alone: bool, pixels: Likeness | None = None
) -> View:
    """Read the view of one Instance.

    Parameters
    ----------
    header : Dataset
    rule : ViewRule
    alone : bool
        Whether the Instance is the only one of its Series. Words of a Series are believed only
        then: a Series called "chest PA" may hold the lateral image too.
    pixels : Likeness, optional
        What its pixels are like; heard only where the rule asks them and the header is silent.
    """
    plane = plane_of(header)
    said = [
        (source, position)
        for source in rule.sources
        if (source in CODED or (source in WORDED and alone))
        and (position := _position(header, source, rule))
    ]
    if not said:
        view = _unsaid(header, rule, alone=alone)
        return view if view.side is not Side.UNKNOWN else _seen(view, header, rule, pixels)
    source, position = said[0]
    side = rule.side(position)
    if side in (Side.FRONTAL, Side.LATERAL) and plane not in (side, Side.UNKNOWN):
        remark = f"{source} says {position} but {ORIENTED} {_PLANES[plane]}"
        return View(Side.CONTRADICTED, "", "", certain=False, remark=remark)
    for other, another in said[1:]:
        if rule.side(another) is not side:
            remark = f"{source} says {position} but {other} says {another}"
            return View(Side.CONTRADICTED, "", "", certain=False, remark=remark)
        if another != position:
            remark = f"{other} says {another}"
            return View(side, position, source, certain=False, remark=remark)
    return View(side, position, source, certain=True, remark="")


_PLANES = {
    Side.FRONTAL: "says frontal",
    Side.LATERAL: "says lateral",
    Side.OTHER: "says neither frontal nor lateral",
}


def plane_of(header: Dataset) -> Side:
    """Return what an image may be used as by its PatientOrientation alone."""
    return Side(projection_plane(header) or Side.UNKNOWN)


def _unsaid(header: Dataset, rule: ViewRule, *, alone: bool) -> View:
    """Return the view of an image of which no other source says anything."""
    plane = plane_of(header)
    if plane in (Side.FRONTAL, Side.LATERAL) and ORIENTED in rule.sources:
        remark = f"{ORIENTED} {_PLANES[plane]}, not which way"
        return View(plane, "", ORIENTED, certain=False, remark=remark)
    if plane in (Side.LATERAL, Side.OTHER):
        # Where a site vouches for images without a view, it does not vouch for this one.
        return View(Side.OTHER, "", "", certain=False, remark=f"{ORIENTED} {_PLANES[plane]}")
    remark = _unknown(header, rule, alone=alone)
    return View(Side.UNKNOWN, "", "", certain=False, remark=remark)


def _seen(unknown: View, header: Dataset, rule: ViewRule, pixels: Likeness | None) -> View:
    """Return the view by pixels of an image whose header is silent, or why it stays unknown."""
    if rule.pixels is None:
        return unknown
    if pixels is None:
        remark = f"{unknown.remark}; the pixels do not say it with a certainty of {rule.pixels:g}"
        return View(Side.UNKNOWN, "", "", certain=False, remark=remark)
    side, plane = Side(pixels.label), plane_of(header)
    remark = f"the pixels are like {side} with a certainty of {pixels.certainty:.3f}"
    if pixels.certainty < rule.pixels:
        # Where a site vouches for images without a view, it does not vouch for what looks lateral.
        doubt = Side.UNKNOWN if side is Side.FRONTAL else Side.CONTRADICTED
        remark = f"{unknown.remark}; {remark}, not {rule.pixels:g}"
        return View(doubt, "", "", certain=False, remark=remark)
    if plane not in (side, Side.UNKNOWN):
        remark = f"{remark}, but {ORIENTED} {_PLANES[plane]}"
        return View(Side.CONTRADICTED, "", "", certain=False, remark=remark)
    return View(side, "", "pixels", certain=False, remark=remark)


def _position(header: Dataset, source: str, rule: ViewRule) -> str:
    if source == "ViewPosition":
        return fold(" ".join(values(header, source)))[:16]
    if source == "ViewCodeSequence":
        return _coded(header)
    folded = fold(" ".join(values(header, source)))
    listed = (*rule.frontal, *rule.lateral)
    found = [one for one in listed if has_phrase(folded, fold(one))]
    # "PA and lateral" names two views and so says nothing of this one.
    return found[0] if len({rule.side(one) for one in found}) == 1 else ""


def _coded(header: Dataset) -> str:
    for item in items(header, "ViewCodeSequence"):
        value, scheme = values(item, "CodeValue"), values(item, "CodingSchemeDesignator")
        if value and scheme:
            code = Code(value[0], scheme[0], "")
            return next((name for name, known in _CODES.items() if known == code), value[0])
    return ""


def _unknown(header: Dataset, rule: ViewRule, *, alone: bool) -> str:
    missing = [one for one in rule.sources if one in CODED]
    remark = f"{' and '.join(missing)} missing" if missing else ""
    worded = [one for one in rule.sources if one in WORDED]
    if worded and alone:
        remark += f"{', ' if remark else ''}no view in {' or '.join(worded)}"
    elif worded:
        remark += f"{', ' if remark else ''}{' and '.join(worded)} speak of several Instances"
    if fold(" ".join(values(header, "PatientPosition"))) in rule.frontal:
        remark += "; PatientPosition is not a source of the view"
    return remark


def parse_view(source: Source, faults: list[Fault]) -> ViewRule:
    """Read a rule's ``view``; what is wrong with it is added to the faults."""
    default = ViewRule()
    if not isinstance(source.value, dict):
        faults.append(source.fault("view is a mapping of from, frontal, lateral, unknown"))
        return default
    lists = {"from": default.sources, "frontal": default.frontal, "lateral": default.lateral}
    unknown: Literal["not_suitable", "frontal"] | None = None
    for part in source:
        key = str(part.path[-1])
        if key in lists and _words(part.value):
            lists[key] = tuple(part.value)
        elif key == "unknown" and part.value in ("not_suitable", "frontal"):
            unknown = part.value
        else:
            faults.append(part.fault(_remedy(key)))
    by_pixels = [one for name in lists["from"] if (one := threshold(name)) is not None]
    lists["from"] = tuple(name for name in lists["from"] if threshold(name) is None)
    for name in lists["from"]:
        if name not in (*CODED, *WORDED, ORIENTED):
            faults.append(source.child("from").fault(_no_source(name)))
    for name in set(lists["frontal"]) & set(lists["lateral"]):
        faults.append(source.fault(f"{name} is both frontal and lateral: keep one"))
    if unknown is None:
        faults.append(
            source.fault("say what happens when the view is unknown: not_suitable or frontal")
        )
    return ViewRule(
        lists["from"],
        lists["frontal"],
        lists["lateral"],
        unknown or "not_suitable",
        max(by_pixels, default=None),
    )


def _words(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _remedy(key: str) -> str:
    if key in ("from", "frontal", "lateral"):
        return "write a list of words"
    if key == "unknown":
        return "choose not_suitable or frontal"
    return "unknown key: use from, frontal, lateral, unknown"


def _no_source(name: str) -> str:
    reasons = {
        "PatientPosition": "it says how the patient lay",
        "StudyDescription": "it speaks of every image of the Study at once",
    }
    reason = reasons.get(name, "it is not one that states a view")
    return (
        f"{name} is no source of the view, {reason}: use {', '.join((*CODED, *WORDED, ORIENTED))} "
        "or pixels>=0.95"
    )
