"""Which Study deserves whose eyes: worklist rules on what the models said. Pure.

Presence is not mention: "no pneumothorax" never raises a priority, and a condition on a score is false
where there is no score. An ungrounded remark, a state or a ratio may put a Study on a list; only a
finding that is present may put it higher.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from pacs_ai.errors import ConfigError, Fault
from pacs_ai.results import (
    Assertion,
    Done,
    Finding,
    JobResults,
    Measurement,
    NothingFound,
)
from pacs_ai.settings import Settings, Source, parse_duration
from pacs_ai.terms import TERMS, Term
from pacs_ai.worklist import Audience, Decision, Facts, Priority

CTR = "cardiothoracic ratio"
"""Label of the Measurement that ``ctr`` looks at."""

STATES = ("done", "nothing_found", "not_suitable", "held", "failed", "running")
"""States of a Study version that ``state`` may name."""

_FINDING_KEYS = ("finding", "assertion", "grounded", "score", "side", "view")
_CTR_KEYS = ("ctr", "view")
_STATE_KEYS = ("state",)
_RULE_KEYS = (
    *("when", "enabled", "workitem", "label", "priority", "performers", "fallback"),
    *("expires", "audience"),
)
_URGENCY = {Priority.HIGH: 0, Priority.MEDIUM: 1, None: 2, Priority.LOW: 3}
"""None is a new Workitem's MEDIUM."""
_SIDES = ("left", "right", "bilateral")
_COMPARISON = re.compile(r"^(<=|>=|<|>)\s*(\d+(?:\.\d+)?)$")
_LABEL_LENGTH = 64  # Worklist Label (0074,1202), VR LO
_CODE_LENGTH = 16  # Code Value (0008,0100), VR SH


@dataclass(frozen=True, slots=True)
class Threshold:
    """A comparison with a number, such as ``>=0.55``."""

    sign: str
    number: float

    def holds(self, value: float) -> bool:
        """Tell whether a value meets it; not-a-number never does."""
        return {
            ">=": value >= self.number,
            ">": value > self.number,
            "<=": value <= self.number,
            "<": value < self.number,
        }[self.sign]


@dataclass(frozen=True, slots=True)
class OnFinding:
    """Holds for each Job that stated a finding in this way.

    Attributes
    ----------
    label : str
        Key of ``pacs_ai.terms.TERMS``.
    assertion : Assertion
        PRESENT unless the rule states another.
    grounded : bool or None
        Whether the model must have pointed at it, must not, or may.
    score : Threshold or None
        False for a finding without a score.
    side : str
        Empty for any.
    view : str
        Of the frontal image; empty for any.
    """

    label: str
    assertion: Assertion
    grounded: bool | None
    score: Threshold | None
    side: str
    view: str

    def sentence(self, entry: JobResults) -> str:
        """Return what is to be said of a Job, or an empty string where the condition is false."""
        if self.view and entry.parameters.get("view") != self.view:
            return ""
        if not any(isinstance(one, Finding) and self._holds(one) for one in _results(entry)):
            return ""
        side = f", {self.side}" if self.side else ""
        return f"{self.label.capitalize()}{side} ({self.assertion}) by {entry.model.label}, unverified AI"

    def _holds(self, finding: Finding) -> bool:
        return (
            finding.label == self.label
            and finding.assertion is self.assertion
            and (self.grounded is None or finding.grounded is self.grounded)
            and (not self.side or finding.side == self.side)
            and (
                self.score is None
                or (finding.score is not None and self.score.holds(finding.score))
            )
        )


@dataclass(frozen=True, slots=True)
class OnRatio:
    """Holds for each Job whose masks gave a cardiothoracic ratio in a range."""

    ctr: Threshold
    view: str

    def sentence(self, entry: JobResults) -> str:
        """See :meth:`OnFinding.sentence`."""
        if self.view and entry.parameters.get("view") != self.view:
            return ""
        for one in _results(entry):
            if isinstance(one, Measurement) and one.label == CTR and self.ctr.holds(one.value):
                measured = f"Cardiothoracic ratio {one.value:.2f}"
                return f"{measured} from masks of {entry.model.label}, unverified AI"
        return ""


@dataclass(frozen=True, slots=True)
class OnState:
    """Holds for a Study version in one of some states."""

    states: tuple[str, ...]

    def sentence(self, facts: Facts) -> str:
        """See :meth:`OnFinding.sentence`; speaks of the Study."""
        if facts.state not in self.states:
            return ""
        if facts.state == "nothing_found":
            models = _joined(
                f"{one.nothing_flagged.capitalize()} by {one.model.label}" for one in facts.entries
            )
            return f"{models or 'No finding flagged'}; not a normal result"
        reasons = _joined(
            f"{one.model.label}: {reason}"
            for one in facts.entries
            if (reason := getattr(one.outcome, "reason", ""))
        )
        words = facts.state.replace("_", " ").capitalize()
        return f"{words} for AI{f': {reasons}' if reasons else ''}"


@dataclass(frozen=True, slots=True)
class WorklistRule:
    """One worklist rule.

    Attributes
    ----------
    when : OnFinding, OnRatio or OnState
    enabled : bool
    workitem : bool
        False where the rule says that there is to be none; later rules are then not asked.
    label : str
    priority : Priority or None
    performers, fallback : tuple of str
    audience : Audience
    expires : timedelta or None
    """

    when: OnFinding | OnRatio | OnState
    enabled: bool
    workitem: bool
    label: str
    priority: Priority | None
    performers: tuple[str, ...]
    fallback: tuple[str, ...]
    audience: Audience
    expires: timedelta | None


def decide(rules: tuple[WorklistRule, ...], facts: Facts) -> tuple[Decision, ...]:
    """Return the Workitems that the rules ask for, one for each label, in the order of the rules.

    Rules of one label make one Workitem: of the highest priority, before the first of their expiries, for
    all their performers. A rule of the state that says ``workitem: none`` ends the list where it holds.
    """
    holding: dict[str, list[Decision]] = {}
    for rule in rules:
        reason = _reason(rule, facts) if rule.enabled else ""
        if not reason:
            continue
        if not rule.workitem:
            break
        decision = Decision(
            label=rule.label,
            priority=rule.priority,
            performers=rule.performers,
            fallback=rule.fallback,
            audience=rule.audience,
            expires=rule.expires,
            reason=reason,
        )
        holding.setdefault(rule.label, []).append(decision)
    return tuple(_as_one(decisions) for decisions in holding.values())


def _as_one(decisions: list[Decision]) -> Decision:
    urgent_first = sorted(decisions, key=lambda one: _URGENCY[one.priority])
    performers = dict.fromkeys(code for one in urgent_first for code in one.performers)
    fallback = dict.fromkeys(code for one in urgent_first for code in one.fallback)
    return replace(
        urgent_first[0],
        performers=tuple(performers),
        fallback=tuple(code for code in fallback if code not in performers),
        expires=min((one.expires for one in decisions if one.expires is not None), default=None),
        reason=_joined(one.reason for one in urgent_first),
    )


def _reason(rule: WorklistRule, facts: Facts) -> str:
    if isinstance(rule.when, OnState):
        return rule.when.sentence(facts)
    condition = rule.when
    return _joined(sentence for one in facts.entries if (sentence := condition.sentence(one)))


def _results(entry: JobResults) -> tuple[Any, ...]:
    return entry.outcome.results if isinstance(entry.outcome, Done | NothingFound) else ()


def _joined(sentences: Any) -> str:
    return "; ".join(dict.fromkeys(sentences))


# ---------------------------------------------------------------------- parsing


def parse(settings: Settings) -> tuple[WorklistRule, ...]:
    """Read the ``worklist`` section of the settings.

    Raises
    ------
    ConfigError
        With every fault found: each file, line and what to do.
    """
    source = settings.rules_source("worklist")
    if source is None or source.value is None:
        return ()
    if not isinstance(source.value, list):
        raise ConfigError([source.fault("worklist is a list: begin each rule with a dash")])
    reader = _Reader()
    rules = [reader.rule(part) for part in source]
    if reader.faults:
        raise ConfigError(reader.faults)
    return tuple(rule for rule in rules if rule is not None)


@dataclass
class _Reader:
    """Reads worklist rules, gathering faults on the way."""

    faults: list[Fault] = field(default_factory=list)
    audiences: dict[str, Audience] = field(default_factory=dict)
    """Whom the Workitem of a label is for."""

    def rule(self, source: Source) -> WorklistRule | None:
        given = source.value
        if not isinstance(given, dict) or not isinstance(given.get("when"), dict):
            self._fault(source, "a worklist rule is a mapping with when: {finding, ctr or state}")
            return None
        self._keys(source, _RULE_KEYS)
        when = self._when(source.child("when"))
        if when is None:
            return None
        workitem = self._workitem(source, when)
        rule = WorklistRule(
            when=when,
            enabled=self._truth(source, "enabled", default=True) is not False,
            workitem=workitem,
            label=self._label(source) if workitem else "",
            priority=self._priority(source),
            performers=self._codes(source, "performers"),
            fallback=self._codes(source, "fallback"),
            audience=self._audience(source),
            expires=self._expires(source),
        )
        self._check_priority(source, rule)
        self._check_audience(source, rule)
        return rule

    def _when(self, source: Source) -> OnFinding | OnRatio | OnState | None:
        kinds = [key for key in ("finding", "ctr", "state") if key in source.value]
        if len(kinds) != 1:
            self._fault(source, "when has exactly one of finding, ctr and state")
            return None
        allowed = {"finding": _FINDING_KEYS, "ctr": _CTR_KEYS, "state": _STATE_KEYS}[kinds[0]]
        self._keys(source, allowed)
        if kinds[0] == "finding":
            return self._on_finding(source)
        if kinds[0] == "ctr":
            threshold = self._threshold(source.child("ctr"))
            view = self._one_of(source, "view", ("PA", "AP"))
            return OnRatio(threshold, view)
        return OnState(self._states(source.child("state")))

    def _on_finding(self, source: Source) -> OnFinding:
        label = str(source.value["finding"])
        term: Term | None = TERMS.get(label)
        if term is None:
            near = difflib.get_close_matches(label, TERMS, n=1)
            hint = f"do you mean {near[0]}?" if near else "use a label of the table of terms"
            self._fault(source.child("finding"), f"{label} is no term: {hint}")
        assertion = self._one_of(source, "assertion", tuple(Assertion)) or Assertion.PRESENT
        return OnFinding(
            label=label,
            assertion=Assertion(assertion),
            grounded=self._truth(source, "grounded", default=None),
            score=self._threshold(source.child("score")) if "score" in source.value else None,
            side=self._one_of(source, "side", _SIDES),
            view=self._one_of(source, "view", ("PA", "AP")),
        )

    def _check_priority(self, source: Source, rule: WorklistRule) -> None:
        """Refuse what would raise a priority for anything but a finding that is present."""
        if rule.priority is None:
            return
        if isinstance(rule.when, OnFinding) and rule.when.assertion is not Assertion.PRESENT:
            why = f"a finding that is {rule.when.assertion} raises no priority"
        elif isinstance(rule.when, OnRatio):
            why = "a cardiothoracic ratio is not urgent"
        elif isinstance(rule.when, OnState) and rule.audience is Audience.READER:
            why = "a state says nothing of the patient"
        else:
            return
        self._fault(source.child("priority"), f"{why}: write priority: unchanged")

    def _check_audience(self, source: Source, rule: WorklistRule) -> None:
        if rule.label and self.audiences.setdefault(rule.label, rule.audience) != rule.audience:
            self._fault(source, f"{rule.label} is for two audiences: give each a label of its own")

    def _workitem(self, source: Source, when: OnFinding | OnRatio | OnState) -> bool:
        if "workitem" not in source.value:
            return True
        if source.value["workitem"] not in ("none", None):
            self._fault(source.child("workitem"), "the only choice is none")
        if not isinstance(when, OnState):
            self._fault(source, "workitem: none is for states: disable the rule instead")
        surplus = set(source.value) - {"when", "workitem", "enabled"}
        if surplus:
            self._fault(source, f"workitem: none makes none: remove {', '.join(sorted(surplus))}")
        return False

    def _label(self, source: Source) -> str:
        label = source.value.get("label")
        if not isinstance(label, str) or not 0 < len(label) <= _LABEL_LENGTH or "\\" in label:
            self._fault(source, "label is 1 to 64 characters without a backslash")
            return ""
        return label

    def _priority(self, source: Source) -> Priority | None:
        choice = self._one_of(source, "priority", (*Priority, "unchanged"))
        return Priority(choice) if choice not in ("", "unchanged") else None

    def _audience(self, source: Source) -> Audience:
        return Audience(self._one_of(source, "audience", tuple(Audience)) or Audience.READER)

    def _expires(self, source: Source) -> timedelta | None:
        if "expires" not in source.value:
            return None
        try:
            return parse_duration(source.value["expires"])
        except ValueError as error:
            self._fault(source.child("expires"), str(error))
            return None

    def _codes(self, source: Source, key: str) -> tuple[str, ...]:
        given = source.value.get(key, [])
        if not isinstance(given, list) or not all(_is_code(one) for one in given):
            self._fault(source.child(key), "list codes of at most 16 characters")
            return ()
        return tuple(given)

    def _states(self, source: Source) -> tuple[str, ...]:
        listed = source.value if isinstance(source.value, list) else [source.value]
        for state in listed:
            if state not in STATES:
                self._fault(source, f"{state} is no state: use {', '.join(STATES)}")
        return tuple(str(state) for state in listed)

    def _threshold(self, source: Source) -> Threshold:
        found = _COMPARISON.match(str(source.value).strip())
        number = float(found[2]) if found else 0.0
        if found is None or number > 1:
            self._fault(source, 'write a comparison with a number from 0 to 1, such as ">=0.55"')
            return Threshold(">", 1)
        return Threshold(found[1], number)

    def _one_of(self, source: Source, key: str, choices: tuple[str, ...]) -> str:
        if key not in source.value:
            return ""
        value = source.value[key]
        if value not in choices:
            self._fault(source.child(key), f"choose {', '.join(choices)}")
            return ""
        return str(value)

    def _truth(self, source: Source, key: str, *, default: bool | None) -> bool | None:
        value = source.value.get(key, default)
        if value is not default and not isinstance(value, bool):
            self._fault(source.child(key), "write true or false")
            return default
        return bool(value) if value is not None else None

    def _keys(self, source: Source, allowed: tuple[str, ...]) -> None:
        given: Mapping[Any, Any] = source.value
        for key in given:
            if key not in allowed:
                near = difflib.get_close_matches(str(key), allowed, n=1)
                hint = f"do you mean {near[0]}?" if near else f"use {', '.join(allowed)}"
                self._fault(source.child(key), f"unknown key: {hint}")

    def _fault(self, source: Source, message: str) -> None:
        self.faults.append(source.fault(message))


def _is_code(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _CODE_LENGTH and "\\" not in value
