"""The conditions of rules: typed, frozen, and able to say what decided.

Each is judged on one Instance with what is known of its Study. Its sentence states a fact about the
header ("Modality is CT, not CR or DX"), so that it explains a yes and a no alike. Values of patient
elements and free text never stand in a sentence; an age in years may.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import Enum
from functools import cached_property
from typing import Literal

from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

from pacs_ai.results import Likeness
from pacs_ai.routing import kinds
from pacs_ai.routing.ages import Age, AgePolicy, age_of
from pacs_ai.routing.views import View, ViewRule, view_of
from pacs_ai.routing.words import Term
from pacs_ai.study import Instance, Study, values

_SHOWN_LENGTH = 48
_FREE_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT", "DA", "DT", "TM", "UN"})
_EQUIPMENT = frozenset(
    {"ConvolutionKernel", "Manufacturer", "ManufacturerModelName", "SoftwareVersions"}
)
_UNSEEN = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True)
class StudyFacts:
    """What conditions may know beside one header.

    Attributes
    ----------
    study : Study
        All of it, for age and for counts of Series.
    passing : tuple of Instance
        Those that no ``never`` rule leaves out.
    policy : AgePolicy
    today : date
    pixels : mapping of str to Likeness or None
        What the pixels of images without a view are like, by SOP Instance UID: None where they were asked
        and said nothing certain.
    """

    study: Study
    passing: tuple[Instance, ...]
    policy: AgePolicy
    today: date
    pixels: Mapping[str, Likeness | None] = field(default_factory=dict)

    @cached_property
    def age(self) -> Age:
        """The patient's age at the Study."""
        return age_of(self.study, self.policy, today=self.today)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Instances of each Series, received in all."""
        return {one.SeriesInstanceUID: len(one.instances) for one in self.study.series}

    def count(self, of: Literal["instances", "series"]) -> int:
        """Return how many Instances, or Series, pass the ``never`` rules."""
        if of == "instances":
            return len(self.passing)
        return len({one.SeriesInstanceUID for one in self.passing})


@dataclass(frozen=True, slots=True)
class Subject:
    """One Instance that a rule looks at."""

    instance: Instance
    facts: StudyFacts

    def values(self, keyword: str) -> tuple[str, ...]:
        """Return the values of an element as text."""
        return values(self.instance.header, keyword)

    def view(self, rule: ViewRule) -> View:
        """Return the view as a rule reads it."""
        alone = self.facts.sizes[self.instance.SeriesInstanceUID] == 1
        pixels = self.facts.pixels.get(self.instance.SOPInstanceUID)
        return view_of(self.instance.header, rule, alone=alone, pixels=pixels)


class Says(Enum):
    """What a condition says of an Instance."""

    YES = "yes"
    NO = "no"
    NOT_SUITABLE = "not suitable"


_OPPOSITE = {Says.YES: Says.NO, Says.NO: Says.YES, Says.NOT_SUITABLE: Says.NOT_SUITABLE}


@dataclass(frozen=True, slots=True)
class Answer:
    """A condition's answer.

    Attributes
    ----------
    says : Says
    sentence : str
        The fact that decided, without a full stop.
    met : int
        Conditions that were met before the one that decided: how near a "no" was.
    age_unknown : bool
        Whether a rule said to go on and mark the result although the age is unknown.
    """

    says: Says
    sentence: str
    met: int = 0
    age_unknown: bool = False


def _yes(sentence: str) -> Answer:
    return Answer(Says.YES, sentence)


def _no(sentence: str) -> Answer:
    return Answer(Says.NO, sentence)


class Condition(ABC):
    """A test of one Instance."""

    __slots__ = ()

    @abstractmethod
    def judge(self, subject: Subject) -> Answer:
        """Answer, with the fact that decided."""

    def matches(self, subject: Subject) -> bool:
        """Tell whether the condition holds."""
        return self.judge(subject).says is Says.YES

    def explain(self, subject: Subject) -> str:
        """Return the fact that decides."""
        return self.judge(subject).sentence


def shown(keyword: str, value: str) -> str:
    """Return a value as a sentence may show it: none of the patient's, no free text of people."""
    tag = Tag(keyword)
    private = tag.group == 0x0010 or dictionary_VR(tag) in _FREE_TEXT
    if private and keyword not in _EQUIPMENT:
        return "another value"
    text = _UNSEEN.sub("?", value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def _listed(names: tuple[str, ...], word: str = "or") -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {word} {names[-1]}"


@dataclass(frozen=True, slots=True)
class OneOf(Condition):
    """A single-valued element is one of some values, letter case aside."""

    keyword: str
    listed: tuple[str, ...]

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        found = subject.values(self.keyword)
        if not found:
            return _no(f"{self.keyword} is missing")
        for value in self.listed:
            if found[0].upper() == value.upper():
                return _yes(f"{self.keyword} is {value}")
        seen = shown(self.keyword, found[0])
        return _no(f"{self.keyword} is {seen}, not {_listed(self.listed)}")


@dataclass(frozen=True, slots=True)
class Contains(Condition):
    """A multi-valued element has any, or all, of some values."""

    keyword: str
    listed: tuple[str, ...]
    need: Literal["any", "all"]

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        found = {value.upper() for value in subject.values(self.keyword)}
        if not found:
            return _no(f"{self.keyword} is missing")
        here = tuple(value for value in self.listed if value.upper() in found)
        absent = tuple(value for value in self.listed if value not in here)
        if (self.need == "any" and here) or not absent:
            return _yes(f"{self.keyword} has {_listed(here, 'and')}")
        return _no(f"{self.keyword} does not have {_listed(absent)}")


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers between two bounds, written as ``<=5`` or ``>=1 <5``.

    Attributes
    ----------
    low, high : float
    low_open, high_open : bool
        Whether the bound itself is outside.
    text : str
        As the settings wrote it.
    """

    low: float
    high: float
    low_open: bool
    high_open: bool
    text: str

    def holds(self, number: float) -> bool:
        """Tell whether a number lies between the bounds; not-a-number never does."""
        above = number > self.low if self.low_open else number >= self.low
        below = number < self.high if self.high_open else number <= self.high
        return above and below


_COMPARISON = re.compile(r"(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)")


def parse_range(text: str) -> Range:
    """Read a range.

    Raises
    ------
    ValueError
        When it cannot be read, or when no number lies in it.
    """
    found = _COMPARISON.findall(text)
    if not found or _COMPARISON.sub("", text).strip(" ,"):
        raise ValueError('write a range such as "<=5", ">=40" or ">=1 <5"')
    low, high, low_open, high_open = float("-inf"), float("inf"), False, False
    for sign, digits in found:
        number = float(digits)
        if sign in (">", ">=") and (number, sign == ">") >= (low, low_open):
            low, low_open = number, sign == ">"
        elif sign in ("<", "<=") and (-number, sign == "<") >= (-high, high_open):
            high, high_open = number, sign == "<"
    if low > high or (low == high and (low_open or high_open)):
        raise ValueError(f"no number lies in the range {text}: swap the bounds")
    return Range(low, high, low_open, high_open, text)


@dataclass(frozen=True, slots=True)
class InRange(Condition):
    """A numeric element lies in a range; of several values each must."""

    keyword: str
    range: Range

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        found = subject.values(self.keyword)
        if not found:
            return _no(f"{self.keyword} is missing")
        try:
            holds = all(self.range.holds(float(value)) for value in found)
        except ValueError:
            return _no(f"{self.keyword} is not a number")
        seen = shown(self.keyword, "\\".join(found))
        verb = "is" if holds else "is not"
        sentence = f"{self.keyword} is {seen}, which {verb} {self.range.text}"
        return _yes(sentence) if holds else _no(sentence)


@dataclass(frozen=True, slots=True)
class Count(Condition):
    """The number of Instances or Series that pass the ``never`` rules lies in a range."""

    of: Literal["instances", "series"]
    range: Range

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        number = subject.facts.count(self.of)
        verb = "is" if self.range.holds(number) else "is not"
        word = "Instances" if self.of == "instances" else "Series"
        sentence = f"the Study has {number} {word}, which {verb} {self.range.text}"
        return _yes(sentence) if self.range.holds(number) else _no(sentence)


@dataclass(frozen=True, slots=True)
class HasWords(Condition):
    """Any of some elements has a phrase of a term, as whole words after folding."""

    keywords: tuple[str, ...]
    term: Term

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        missing = []
        for keyword in self.keywords:
            found = subject.values(keyword)
            if not found:
                missing.append(keyword)
            for value in found:
                phrase = self.term.found_in(value)
                if phrase is not None:
                    return _yes(self._fact(keyword, value, phrase))
        if len(missing) == len(self.keywords):
            verb = "is" if len(missing) == 1 else "are"
            return _no(f"{_listed(self.keywords, 'and')} {verb} missing")
        if len(self.keywords) == 1:
            seen = shown(self.keywords[0], "\\".join(subject.values(self.keywords[0])))
            return _no(f"{self.keywords[0]} is {seen}, which is not in {self.term.label}")
        names = _listed(self.keywords)
        return _no(f"no word of {self.term.label} stands in {names}")

    def _fact(self, keyword: str, value: str, phrase: str) -> str:
        if dictionary_VR(keyword) == "CS":
            return f"{keyword} is {shown(keyword, value)}, which is in {self.term.label}"
        return f"{keyword} has {phrase}, which is in {self.term.label}"


@dataclass(frozen=True, slots=True)
class Missing(Condition):
    """Elements are missing or empty, all of them."""

    keywords: tuple[str, ...]

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        present = next((one for one in self.keywords if subject.values(one)), None)
        if present is not None:
            return _no(f"{present} is present")
        return _yes(f"{_listed(self.keywords, 'and')} missing")


@dataclass(frozen=True, slots=True)
class ElseIfMissing(Condition):
    """A condition on an element, and another one for when that element is missing."""

    keyword: str
    condition: Condition
    if_missing: Condition

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        if subject.values(self.keyword):
            return self.condition.judge(subject)
        answer = self.if_missing.judge(subject)
        return replace(answer, sentence=f"{self.keyword} is missing and {answer.sentence}")


@dataclass(frozen=True, slots=True)
class AgeIs(Condition):
    """The patient's age at the Study lies between bounds, both included.

    Attributes
    ----------
    low, high : float
        Years.
    text : str
        The bounds for people.
    unknown : str
        ``not_suitable``, ``run_marked`` (go on, and say so with every result) or ``no_match``.
    """

    low: float
    high: float
    text: str
    unknown: Literal["not_suitable", "run_marked", "no_match"]

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        age = subject.facts.age
        inside = [one for one in age.stated if self.low <= one <= self.high]
        if age.stated and not inside:
            return _no(f"the age is {age.text}, not {self.text}")
        if len(inside) < len(age.stated):
            # Whatever the rule says of unknown ages: one header speaks of a patient it excludes.
            reason = f"the age is {age.text} and the rule is for {self.text}: correct PatientAge"
            return Answer(Says.NOT_SUITABLE, reason)
        if age.stated and not age.disagree:
            return _yes(f"the age is {age.text}")
        sentence = f"the age is unknown ({age.remark})"
        if self.unknown == "not_suitable":
            remedy = "correct PatientBirthDate or PatientAge"
            return Answer(
                Says.NOT_SUITABLE, f"{sentence} and the rule is for {self.text}: {remedy}"
            )
        holds = self.unknown == "run_marked"
        return Answer(Says.YES if holds else Says.NO, sentence, age_unknown=holds)


@dataclass(frozen=True, slots=True)
class ViewIs(Condition):
    """The view of a radiograph is one of some positions."""

    listed: tuple[str, ...]
    rule: ViewRule = field(repr=False)

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        view = subject.view(self.rule)
        if not view.position:
            return _no(f"the view is unknown ({view.remark})")
        if view.position in self.listed:
            return _yes(f"{view.source} says {view.position}")
        says = f"{view.source} says {view.position}"
        return _no(f"{says}, not {_listed(self.listed)}")


@dataclass(frozen=True, slots=True)
class KindIs(Condition):
    """The Instance is one of some kinds, such as a screenshot or a dose report.

    Attributes
    ----------
    listed : tuple of str
        Rows of :data:`pacs_ai.routing.kinds.KINDS`.
    """

    listed: tuple[str, ...]

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        fact = kinds.fact_of(subject.instance.header, self.listed)
        if fact:
            return _yes(f"it is {fact}")
        words = tuple(kinds.KINDS[one].words for one in self.listed)
        return _no(f"nothing in its header says that it is {_listed(words)}")


@dataclass(frozen=True, slots=True)
class AllOf(Condition):
    """Every condition holds."""

    conditions: tuple[Condition, ...]

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`: one "no" decides, "not suitable" only where no other says no."""
        sentences, marked, refusal, met = [], False, None, 0
        for condition in self.conditions:
            answer = condition.judge(subject)
            if answer.says is Says.NO:
                return Answer(Says.NO, answer.sentence, met + answer.met)
            if answer.says is Says.NOT_SUITABLE:
                refusal = refusal or answer.sentence
            met += 1
            marked = marked or answer.age_unknown
            sentences.append(answer.sentence)
        if refusal:
            return Answer(Says.NOT_SUITABLE, refusal, met)
        sentence = "; ".join(one for one in sentences if one)
        return Answer(Says.YES, sentence, met, age_unknown=marked)


@dataclass(frozen=True, slots=True)
class AnyOf(Condition):
    """At least one condition holds."""

    conditions: tuple[Condition, ...]

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        answers = []
        for condition in self.conditions:
            answer = condition.judge(subject)
            if answer.says is Says.YES:
                return answer
            answers.append(answer)
        for answer in answers:
            if answer.says is Says.NOT_SUITABLE:
                return answer
        return Answer(Says.NO, " and ".join(answer.sentence for answer in answers))


@dataclass(frozen=True, slots=True)
class Not(Condition):
    """A condition does not hold; what is not suitable stays so."""

    condition: Condition

    def judge(self, subject: Subject) -> Answer:
        """See :class:`Condition`."""
        answer = self.condition.judge(subject)
        return Answer(_OPPOSITE[answer.says], answer.sentence, age_unknown=answer.age_unknown)
