"""From the settings' YAML to typed conditions; every fault is kept with its line and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_dict, tag_for_keyword

from pacs_ai.errors import Fault
from pacs_ai.routing.ages import years
from pacs_ai.routing.conditions import (
    AgeIs,
    AllOf,
    AnyOf,
    Condition,
    Contains,
    Count,
    ElseIfMissing,
    HasWords,
    InRange,
    KindIs,
    Missing,
    Not,
    OneOf,
    Range,
    ViewIs,
    parse_range,
)
from pacs_ai.routing.kinds import KINDS
from pacs_ai.routing.views import ViewRule
from pacs_ai.routing.words import Term, parse_term
from pacs_ai.settings import Source

TEXT_ELEMENTS = ("StudyDescription", "SeriesDescription", "ProtocolName", "BodyPartExamined")
"""Where ``text`` looks unless the settings name other elements."""

_NUMERIC = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "UL", "US", "SV", "UV"})
_UNREADABLE = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"})
_IDENTITY = frozenset({"PatientID", "OtherPatientIDs", "IssuerOfPatientID", "AccessionNumber"})
_KEYWORDS = frozenset(keyword_dict)
_NOTHING = AllOf(())
_AGE_CHOICES: dict[Any, Literal["not_suitable", "run_marked", "no_match"]] = {
    "not_suitable": "not_suitable",
    "run_marked": "run_marked",
    "no_match": "no_match",
}

MISTYPED_LIST = "write a list"


def known_keyword(source: Source, keyword: object, faults: list[Fault]) -> bool:
    """Tell whether a rule may look at an element; when not, the fault says why."""
    name = str(keyword)
    if tag_for_keyword(name) is None or name not in _KEYWORDS:
        near = difflib.get_close_matches(name, _KEYWORDS, n=1, cutoff=0.75)
        hint = f"do you mean {near[0]}?" if near else "use a keyword of PS3.6"
        faults.append(source.fault(f"{name} is no condition and no element keyword: {hint}"))
        return False
    if name in ("PatientAge", "PatientBirthDate"):
        faults.append(source.fault(f"{name} is read by age: write age: {{min: 18Y, unknown: ...}}"))
        return False
    if name in _IDENTITY or dictionary_VR(name) == "PN":
        faults.append(source.fault(f"{name} says who the patient is: no rule looks at it"))
        return False
    if dictionary_VR(name) in _UNREADABLE:
        faults.append(source.fault(f"{name} is no single value: no condition can compare it"))
        return False
    return True


@dataclass(frozen=True, slots=True)
class ConditionParser:
    """Reads conditions.

    Attributes
    ----------
    terms : mapping of str to Term
        The settings' own terms, by name.
    text_elements : tuple of str
        Where ``text`` and ``none_of`` look.
    view : ViewRule or None
        How the rule reads views; None where it says nothing of them.
    faults : list of Fault
        Grows by every fault that is found.
    """

    terms: Mapping[str, Term]
    text_elements: tuple[str, ...]
    view: ViewRule | None
    faults: list[Fault] = field(default_factory=list)

    def all_of(self, source: Source, *, without: tuple[str, ...] = ()) -> AllOf:
        """Read a mapping of conditions, every one of which must hold."""
        if not isinstance(source.value, dict):
            self._fault(source, "write conditions as a mapping, such as {Modality: CT}")
            return _NOTHING
        parts = [part for part in source if part.path[-1] not in without]
        return AllOf(tuple(self._condition(part) for part in parts))

    def _condition(self, source: Source) -> Condition:
        readers: dict[str, Callable[[Source], Condition]] = {
            "all": lambda part: AllOf(self._several(part)),
            "any": lambda part: AnyOf(self._several(part)),
            "not": lambda part: Not(self.all_of(part)),
            "none_of": lambda part: Not(AnyOf(self._several(part))),
            "text": self._text,
            "missing": self._missing,
            "body": self._body,
            "age": self._age,
            "view": self._view,
            "kind": self._kind,
            "instances": lambda part: Count("instances", self.range(part)),
            "series": lambda part: Count("series", self.range(part)),
        }
        key = str(source.path[-1])
        return readers.get(key, self._element)(source)

    def _several(self, source: Source) -> tuple[Condition, ...]:
        if not isinstance(source.value, list) or not source.value:
            self._fault(source, f"{MISTYPED_LIST} of conditions or terms")
            return ()
        return tuple(
            self.all_of(part) if isinstance(part.value, dict) else self._words(part)
            for part in source
        )

    def _words(self, source: Source) -> Condition:
        return HasWords(self.text_elements, self.term(source))

    def term(self, source: Source) -> Term:
        """Read a term: its name, or a list of phrases in place."""
        if isinstance(source.value, list):
            return parse_term("", source, self.faults)
        name = str(source.value)
        if name not in self.terms:
            near = difflib.get_close_matches(name, self.terms, n=1)
            hint = (
                f"do you mean {near[0]}?" if near else "add it to terms, or write a list of words"
            )
            self._fault(source, f"{name} is no term: {hint}")
        return self.terms.get(name, Term(name, ()))

    def _text(self, source: Source) -> Condition:
        if not isinstance(source.value, dict):
            return self._words(source)
        unknown = set(source.value) - {"from", "has"}
        if unknown or "has" not in source.value:
            self._fault(source, "text is a term, a list of words, or {from: [elements], has: term}")
            return _NOTHING
        keywords = self.text_elements
        if "from" in source.value:
            keywords = self.keywords(source.child("from"))
        return HasWords(keywords, self.term(source.child("has")))

    def keywords(self, source: Source) -> tuple[str, ...]:
        """Read a list of element keywords."""
        names = source.value if isinstance(source.value, list) else [source.value]
        for name in names:
            known_keyword(source, name, self.faults)
        return tuple(str(name) for name in names)

    def _missing(self, source: Source) -> Condition:
        return Missing(self.keywords(source))

    def _body(self, source: Source) -> Condition:
        given = source.value if isinstance(source.value, dict) else {}
        elements = [key for key in given if key != "if_missing"]
        if len(elements) != 1 or "if_missing" not in given:
            self._fault(
                source,
                "body is {BodyPartExamined: {in: term}, if_missing: {from: [...], has: term}}",
            )
            return _NOTHING
        keyword = str(elements[0])
        condition = self._element(source.child(keyword))
        return ElseIfMissing(keyword, condition, self._text(source.child("if_missing")))

    def _view(self, source: Source) -> Condition:
        listed = _texts(source.value)
        if self.view is None:
            self._fault(
                source, "the rule has no view section that says where views come from: add one"
            )
            return _NOTHING
        for name in listed:
            if name not in self.view.frontal + self.view.lateral:
                self._fault(
                    source, f"{name} is neither in view.frontal nor in view.lateral: add it there"
                )
        return ViewIs(listed, self.view)

    def _kind(self, source: Source) -> Condition:
        listed = _texts(source.value)
        if not listed:
            self._fault(source, f"write a kind or a list of kinds: {', '.join(KINDS)}")
        for name in listed:
            if name not in KINDS:
                near = difflib.get_close_matches(name, KINDS, n=1)
                hint = f"do you mean {near[0]}?" if near else f"use {', '.join(KINDS)}"
                self._fault(source, f"{name} is no kind: {hint}")
        return KindIs(tuple(name for name in listed if name in KINDS))

    def _age(self, source: Source) -> Condition:
        given = source.value if isinstance(source.value, dict) else {}
        if not given or set(given) - {"min", "max", "unknown"}:
            self._fault(source, "age is {min: 18Y, max: 90Y, unknown: not_suitable}")
            return _NOTHING
        low, high = self._bound(source, "min", 0.0), self._bound(source, "max", float("inf"))
        if low > high or not {"min", "max"} & set(given):
            self._fault(source, "give min, max or both, min being the lower")
        choice = given.get("unknown")
        if choice not in _AGE_CHOICES:
            choices = ", ".join(_AGE_CHOICES)
            self._fault(source, f"say in unknown what happens when the age is unknown: {choices}")
        words = [f"at least {given['min']}"] if "min" in given else []
        words += [f"at most {given['max']}"] if "max" in given else []
        return AgeIs(low, high, " and ".join(words), _AGE_CHOICES.get(choice, "not_suitable"))

    def _bound(self, source: Source, key: str, default: float) -> float:
        if key not in source.value:
            return default
        part = source.child(key)
        number = years(str(part.value))
        if number is None:
            self._fault(part, "write an age as in DICOM: 18Y, 6M, 2W or 10D")
        return default if number is None else number

    def range(self, source: Source) -> Range:
        """Read a range of numbers."""
        try:
            return parse_range(str(source.value))
        except ValueError as error:
            self._fault(source, str(error))
            return Range(0, 0, low_open=False, high_open=False, text="")

    def _element(self, source: Source) -> Condition:
        keyword = str(source.path[-1])
        if not known_keyword(source, keyword, self.faults):
            return _NOTHING
        if isinstance(source.value, dict):
            return self._element_with(keyword, source)
        if str(source.value)[:1] in ("<", ">"):
            return self._element_range(keyword, source)
        if dictionary_VM(keyword) != "1":
            self._fault(
                source, f"{keyword} has several values: write {{any: [...]}} or {{all: [...]}}"
            )
        return OneOf(keyword, self._values(source))

    def _element_range(self, keyword: str, source: Source) -> Condition:
        if dictionary_VR(keyword) not in _NUMERIC:
            self._fault(source, f"{keyword} is not a number: a range cannot hold it")
        return InRange(keyword, self.range(source))

    def _element_with(self, keyword: str, source: Source) -> Condition:
        key = next(iter(source.value), None)
        if len(source.value) != 1 or key not in ("in", "any", "all"):
            self._fault(source, "write one of {in: term}, {any: [values]}, {all: [values]}")
            return _NOTHING
        part = source.child(key)
        if key == "in":
            return HasWords((keyword,), self.term(part))
        need: Literal["any", "all"] = "any" if key == "any" else "all"
        return Contains(keyword, self._values(part), need)

    def _values(self, source: Source) -> tuple[str, ...]:
        listed = _texts(source.value)
        if not listed:
            self._fault(source, "write a value or a list of values")
        return listed

    def _fault(self, source: Source, message: str) -> None:
        self.faults.append(source.fault(message))


def _texts(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    plain = [one for one in listed if isinstance(one, str | int | float) and one != ""]
    # YAML reads unquoted NO and OFF as booleans: taken as a fault rather than as the word False.
    usable = [str(one) for one in plain if not isinstance(one, bool)]
    return tuple(usable) if len(usable) == len(listed) else ()
