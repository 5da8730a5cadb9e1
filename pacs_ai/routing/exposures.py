"""Which pictures of a radiograph's exposures may stand for them.

A detector's one exposure often arrives more than once: raw (FOR PROCESSING), as the picture to be
read, and as a companion in which software took the bones away or drew the edges. A rejected exposure
may come along with its repeat. A model must get the picture to be read, and where two pictures of one
exposure cannot be told apart, none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pacs_ai.routing.kinds import NO_RADIOGRAPH, SPEAK_OF_ONE_IMAGE, fact_of, phrase_in
from pacs_ai.routing.views import Side
from pacs_ai.routing.words import Term
from pacs_ai.study import Instance, items, values

# What may as well stand on the picture to be read ("edge enhancement: medium"), and so counts only
# beside a picture of the same exposure that lacks it.
_HINT = Term(
    "",
    (
        *("ENHANCED", "ENHANCEMENT", "EDGE", "SHARP", "SHARPENED", "INVERTED", "INVERSE"),
        *("DUAL ENERGY", "TUBE", "TUBES", "LINE", "LINES", "CATHETER", "REPROCESSED", "COPY"),
    ),
)
_SECOND_HAND = Term("", ("DERIVED", "SECONDARY"))

_ACQUIRED = ("AcquisitionDate", "AcquisitionTime")
# Equal to the last digit for one exposure; alone each may be equal by chance.
_DOSED = ("ExposureIndex", "KVP", "ImageAndFluoroscopyAreaDoseProduct")


def left_out(seen: Sequence[tuple[Instance, Side]]) -> Mapping[str, str]:
    """Return what is no picture to be read, and why.

    Parameters
    ----------
    seen : sequence of (Instance, Side)
        Radiographs of one Study that a rule looks at, each with what it may be used as.

    Returns
    -------
    mapping of str to str
        SOP Instance UID to the reason, in the order given. Of two that name each other as their
        source neither is kept.
    """
    reasons = {}
    for one, _ in seen:
        fact = fact_of(one.header, NO_RADIOGRAPH)
        if fact:
            reasons[one.SOPInstanceUID] = f"it is {fact}"
    present = {one.SOPInstanceUID for one, _ in seen} - set(reasons)
    for one, _ in seen:
        # A raw image is never among them: what is made from it is the picture to be read.
        made_from = sorted((_sources(one) & present) - {one.SOPInstanceUID})
        if made_from and one.SOPInstanceUID in present:
            reasons[one.SOPInstanceUID] = f"it is made from {made_from[0]} (SourceImageSequence)"
    for term, keywords in ((_HINT, SPEAK_OF_ONE_IMAGE), (_SECOND_HAND, ("ImageType",))):
        rest = [(one, side) for one, side in seen if one.SOPInstanceUID not in reasons]
        reasons |= _companions(rest, term, keywords)
    return {uid: reasons[uid] for one, _ in seen if (uid := one.SOPInstanceUID) in reasons}


def _companions(
    seen: Sequence[tuple[Instance, Side]], term: Term, keywords: tuple[str, ...]
) -> dict[str, str]:
    """Return those that have a phrase beside a picture of the same exposure that has none."""
    facts = {one.SOPInstanceUID: phrase_in(one.header, term, keywords) for one, _ in seen}
    plain = [(one, side) for one, side in seen if not facts[one.SOPInstanceUID]]
    found = {}
    for one, side in seen:
        fact = facts[one.SOPInstanceUID]
        twins = [
            (other, how)
            for other, another in plain
            if side is another and (how := same_exposure(one, other) or _same_dose(one, other))
        ]
        if fact and twins:
            other, how = twins[0]
            found[one.SOPInstanceUID] = (
                f"{fact}, and Instance {other.SOPInstanceUID} of the same exposure ({how}) has not"
            )
    return found


def same_exposure(one: Instance, other: Instance) -> str:
    """Return the element by which two Instances of a view show one exposure; nothing if none does.

    Irradiation events that are named on both and differ are two exposures, whatever the clocks say.
    """
    events = [set(values(each.header, "IrradiationEventUID")) for each in (one, other)]
    if all(events):
        return "IrradiationEventUID" if events[0] & events[1] else ""
    return "AcquisitionTime" if _agree(one, other, _ACQUIRED) else ""


def _same_dose(one: Instance, other: Instance) -> str:
    """Return the same of two Instances that no event and no clock tells apart: less certain."""
    for keyword in ("IrradiationEventUID", "AcquisitionTime"):
        if all(values(each.header, keyword) for each in (one, other)):
            return ""
    return "ExposureIndex" if _agree(one, other, _DOSED) else ""


def _agree(one: Instance, other: Instance, keywords: tuple[str, ...]) -> bool:
    said = [[values(each.header, keyword) for keyword in keywords] for each in (one, other)]
    return all(said[0]) and said[0] == said[1]


def _sources(instance: Instance) -> set[str]:
    sources = items(instance.header, "SourceImageSequence")
    return {uid for item in sources for uid in values(item, "ReferencedSOPInstanceUID")}
