"""Words in free text, after folding: upper case, no accents, punctuation as space, whole words.

Descriptions come in many languages and spellings; a substring match would find PORT in SUPPORT and
RIB in DISTRIBUTION.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from pacs_ai.errors import Fault
from pacs_ai.settings import Source

EXCLUSION = "not "
"""How a phrase of a term begins that must not count, such as ``not PORT A CATH``."""

_NOT_A_WORD = re.compile(r"[\W_]+")


def fold(text: str) -> str:
    """Return text in upper case, without accents, its words parted by single spaces.

    Folding twice is folding once.
    """
    folded = text
    while True:
        before = folded
        plain = unicodedata.normalize("NFKD", folded.upper())
        bare = "".join(one for one in plain if not unicodedata.combining(one))
        folded = _NOT_A_WORD.sub(" ", bare).strip()
        if (
            folded == before
        ):  # upper case of a few letters brings new marks, which need a second turn
            return folded


def has_phrase(folded: str, phrase: str) -> bool:
    """Tell whether folded text has a folded phrase as whole words."""
    return f" {phrase} " in f" {folded} "


@dataclass(frozen=True, slots=True)
class Term:
    """A named list of phrases, any of which says the same.

    Attributes
    ----------
    name : str
        As the settings name it; empty for a list written in place.
    phrases : tuple of str
        Folded.
    exclusions : tuple of str
        Folded phrases whose words do not count: PORT A CATH says nothing of PORT.
    """

    name: str
    phrases: tuple[str, ...]
    exclusions: tuple[str, ...] = ()

    def found_in(self, text: str) -> str | None:
        """Return the first phrase that stands in a text, or None."""
        folded = fold(text)
        for exclusion in self.exclusions:
            # The bar is no word and never survives folding, so nothing matches across it.
            while has_phrase(folded, exclusion):
                folded = f" {folded} ".replace(f" {exclusion} ", " | ").strip()
        for phrase in self.phrases:
            if has_phrase(folded, phrase):
                return phrase
        return None

    @property
    def label(self) -> str:
        """How it is named to people."""
        return self.name or f"[{', '.join(self.phrases)}]"


def parse_term(name: str, source: Source, faults: list[Fault]) -> Term:
    """Read a list of phrases; what is wrong with it is added to the faults."""
    listed = source.value if isinstance(source.value, list) else [source.value]
    if not listed or not all(isinstance(one, str) and fold(one) for one in listed):
        faults.append(
            source.fault("a term is a list of words or phrases, each quoted if it is a number")
        )
        return Term(name, ())
    phrases = _folded([one for one in listed if not one.startswith(EXCLUSION)])
    exclusions = _folded(
        [one.removeprefix(EXCLUSION) for one in listed if one.startswith(EXCLUSION)]
    )
    if not phrases:
        faults.append(source.fault("the term only excludes: add the words that it finds"))
    for phrase in set(phrases) & set(exclusions):
        faults.append(source.fault(f"{phrase} is both found and excluded: keep one"))
    return Term(name, phrases, exclusions)


def _folded(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(fold(text) for text in texts))
