"""Is a Study at a PACS still the one whose results are to be sent? The rules of comparison.

Pure: two headers in, keywords of what differs out; a value never leaves this module.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from pydicom.dataset import Dataset

from pacs_ai.errors import PacsAiError
from pacs_ai.study import values

IDENTITY = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
)
"""What a PACS is asked for: who the patient is, and which order the Study belongs to."""

MOST_ANSWERS = 20
"""A question for one Study has one answer; a PACS that gives more than these does not filter."""

_MARKS = re.compile("[\u0300-\u036f]")
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"
_SEPARATORS = re.compile(r"[\s.,'’`^-]+")


class NotOfferedError(PacsAiError):
    """A peer cannot be asked the way the settings say: a person must change one of them."""


def differing(ours: Dataset, theirs: Dataset) -> tuple[str, ...]:
    """Return the keywords of :data:`IDENTITY` in which two headers do not name the same Study.

    PatientID is equal after trimming, or it differs: an empty one is equal to an empty one only. Every
    other element counts where both sides state it. Issuer, birth date and Accession Number are equal
    after trimming; sex without regard to case; names are folded (case, accents of Latin letters,
    punctuation, trailing components) and compared in each of the three groups of components that
    both sides state (PS3.5 section 6.2, PN).

    A value with bytes that are no text in its Specific Character Set is equal to none, not even to
    itself: what stands for those bytes (U+FFFD) is the same for every one of them.

    Parameters
    ----------
    ours, theirs : Dataset
    """
    found = []
    for keyword, same in _RULES.items():
        one, other = _text(ours, keyword), _text(theirs, keyword)
        if keyword != "PatientID" and not (one and other):
            continue
        if _UNREADABLE in one + other or not same(one, other):
            found.append(keyword)
    return tuple(found)


def _text(header: Dataset, keyword: str) -> str:
    return "\\".join(values(header, keyword))


def _same_name(one: str, other: str) -> bool:
    return all(
        ours == theirs
        for ours, theirs in zip(_groups(one), _groups(other), strict=False)
        if ours and theirs
    )


def _groups(name: str) -> list[str]:
    return [_folded(group) for group in name.split("=")]


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKC", _without_accents(unicodedata.normalize("NFKD", text)))
    return _SEPARATORS.sub(" ", plain.casefold()).strip()


def _without_accents(apart: str) -> str:
    # Only of Latin letters: in other scripts a mark makes another letter (Cyrillic и and й).
    kept, is_latin = [], False
    for character in apart:
        if not unicodedata.combining(character):
            is_latin = unicodedata.name(character, "").startswith("LATIN ")
        elif is_latin and _MARKS.match(character):
            continue
        kept.append(character)
    return "".join(kept)


def _same_fold(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


_RULES: dict[str, Callable[[str, str], bool]] = {
    "PatientID": str.__eq__,
    "IssuerOfPatientID": str.__eq__,
    "PatientName": _same_name,
    "PatientBirthDate": str.__eq__,
    "PatientSex": _same_fold,
    "AccessionNumber": str.__eq__,
}
