"""Enhanced SR (TID 2000): a model's draft report, and that it is one in every line.

PS3.3 A.35.2, PS3.16 TID 2000. Delivered only where the site releases it. A line that is copied out
of the document still says that it is an unverified draft.
"""

from __future__ import annotations

from collections.abc import Iterable

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode

from pacs_ai.encoding import Encoding
from pacs_ai.encoding.document import (
    image_item,
    no_finding,
    observation_context,
    procedures,
    unverified,
)
from pacs_ai.encoding.equipment import REFERENCE_NOTE, Place, finish
from pacs_ai.encoding.identity import identity_of, light_source
from pacs_ai.results import Done, JobResults, Narrative, NothingFound
from pacs_ai.terms import Code

KIND = "narrative"

DRAFT = "AI draft, not verified"

TITLE = Code("18748-4", "LN", f"Diagnostic Imaging Report ({DRAFT})")
"""Document title (PS3.16 CID 7000); its meaning is for people, and they must see what this is."""
FINDINGS = Code("59776-5", "LN", "Findings")
IMPRESSIONS = Code("19005-8", "LN", "Impressions")
"""Headings (PS3.16 CID 7001)."""

_CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS
_MODIFIES = hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD
_INFERRED = hd.sr.RelationshipTypeValues.INFERRED_FROM


def encode(work: Encoding) -> tuple[Dataset, ...]:
    """Write each draft of each entry; an empty tuple where there is none.

    Raises
    ------
    EncodingError
        When a source lacks what a reference needs.
    """
    written: list[Dataset] = []
    for entry in work.entries:
        if isinstance(entry.outcome, Done | NothingFound):
            for result in entry.outcome.results:
                if isinstance(result, Narrative):
                    place = Place(KIND, len(written) + 1)
                    written.append(_encode(work, entry, result, place))
    return tuple(written)


def lines(entry: JobResults, narrative: Narrative) -> tuple[str, ...]:
    """Return the draft's findings, each marked as a draft, with its remark in brackets."""
    said = []
    for sentence in narrative.sentences:
        remark = f" [{sentence.remark}]" if sentence.remark else ""
        said.append(f"{DRAFT}: {sentence.text}{remark}")
    if isinstance(entry.outcome, NothingFound):
        said.append(f"{DRAFT}: {no_finding(entry)}")
    return tuple(said)


def banner(entry: JobResults) -> str:
    """Return the first line: what this document is and who made it."""
    model = entry.model
    kind = f" {REFERENCE_NOTE.capitalize()}." if model.reference else ""
    return (
        f"{DRAFT}. Written by {model.name} {model.version} ({model.manufacturer}), "
        f"checked by nobody.{kind} A radiologist must read the images."
    )


def _encode(work: Encoding, entry: JobResults, narrative: Narrative, place: Place) -> Dataset:
    uids = tuple(dict.fromkeys((*narrative.sources, *entry.sources)))
    sources = [light_source(work.study.instance(uid)) for uid in uids]
    root = hd.sr.ContainerContentItem(_code(TITLE), template_id="2000")
    root.ContentSequence = hd.sr.ContentSequence(
        [
            *hd.sr.LanguageOfContentItemAndDescendants(
                hd.sr.CodedConcept("en-US", "RFC5646", "English (United States)")
            ),
            *observation_context(work.stamp),
            *_procedures(work, entry),
            _section(FINDINGS, codes.DCM.Finding, _findings(work, entry, narrative), sources),
            _section(IMPRESSIONS, codes.DCM.Impression, [_impression(entry)], ()),
        ],
        is_root=False,
    )
    dataset = unverified(hd.sr.EnhancedSR, root, sources, work, place)
    return finish(dataset, work, place, "draft, not verified")


def _findings(work: Encoding, entry: JobResults, narrative: Narrative) -> list[str]:
    notes = list(entry.notes)
    notes += identity_of(work.study.instances[0]).notes
    said = [banner(entry), *lines(entry, narrative)]
    return said + [f"{DRAFT}: note: {note}" for note in notes]


def _impression(entry: JobResults) -> str:
    return f"{DRAFT}: {entry.model.name} drafted findings only; no impression was drawn."


def _procedures(work: Encoding, entry: JobResults) -> list[hd.sr.CodeContentItem]:
    return [
        hd.sr.CodeContentItem(codes.DCM.ProcedureReported, code, relationship_type=_MODIFIES)
        for code in procedures(work, entry)
    ]


def _section(
    heading: Code, concept: PydicomCode, texts: Iterable[str], sources: Iterable[Dataset]
) -> hd.sr.ContainerContentItem:
    """Return a section of texts; the first text refers to the images that were read."""
    section = hd.sr.ContainerContentItem(_code(heading), relationship_type=_CONTAINS)
    section.ContentSequence = hd.sr.ContentSequence()
    for text in texts:
        item = hd.sr.TextContentItem(concept, text, relationship_type=_CONTAINS)
        section.ContentSequence.append(item)
    images = [image_item(source, _INFERRED) for source in sources]
    if images:
        section.ContentSequence[0].ContentSequence = hd.sr.ContentSequence(images)
    return section


def _code(code: Code) -> hd.sr.CodedConcept:
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)
