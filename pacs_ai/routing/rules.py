"""Rules as the settings give them: parsed once at start, each fault with its line and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pacs_ai.errors import ConfigError, Fault
from pacs_ai.routing.ages import AgePolicy, parse_age_policy
from pacs_ai.routing.asking import PromptCheck
from pacs_ai.routing.conditions import AllOf, Condition, Not, Range
from pacs_ai.routing.parsing import TEXT_ELEMENTS, ConditionParser
from pacs_ai.routing.pixels import Asking, asking
from pacs_ai.routing.views import ViewRule, parse_view
from pacs_ai.routing.words import Term, parse_term
from pacs_ai.settings import Settings, Source
from pacs_ai.study import NEVER

CTR_PROMPTS = frozenset({"heart", "left lung", "right lung"})
"""Masks that the cardiothoracic ratio is measured from."""

_PROMPTED = frozenset({"parse2d", "parse3d"})
_RULE_KEYS = (
    "name",
    "extends",
    "when",
    "view",
    "select",
    "run",
    "reason",
    "note",
    "measure",
)
_SELECT_OWN = ("thickness", "slices", "kernel")
_IMAGE_OWN = ("take", "frame")
_TAKE = ("image", "latest image")


@dataclass(frozen=True, slots=True)
class Run:
    """A model that a rule runs.

    Attributes
    ----------
    endpoint : str
        Name in the settings.
    kind : str
        Row of ``pacs_ai.models.MODELS``.
    prompts : tuple of str
        Labels or words of the prompt catalogue; empty for kinds that take none.
    asked : str
        Digest of how the prompts are asked and checked; empty without prompts.
    """

    endpoint: str
    kind: str
    prompts: tuple[str, ...]
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Select:
    """Which Series of a Study a rule takes, when it takes a volume.

    Attributes
    ----------
    condition : Condition
        Holds for every Instance of the Series.
    thickness, slices : Range or None
        Of SliceThickness in mm, and of the number of slices.
    kernels : tuple of str
        Convolution kernels in order of preference; a Series of another kernel ranks after them.
    """

    condition: Condition
    thickness: Range | None
    slices: Range | None
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SelectImage:
    """Which single image of a Study a rule takes, where views do not tell images apart.

    Attributes
    ----------
    condition : Condition
        Holds for the image.
    latest : bool
        Whether the latest of several is taken; else there must be one only.
    frame : int, "middle" or "all"
        Which frame of a multi-frame Instance is looked at: by its number (from 1), or all of them.
    """

    condition: Condition
    latest: bool
    frame: int | Literal["middle", "all"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, with what it extends already worked in.

    Attributes
    ----------
    name : str
    extends : tuple of str
        Names of the rules that it extends, the nearest first. They give way to it.
    when : Condition
    view : ViewRule or None
        How it reads views; None where it takes no radiographs.
    select : Select, SelectImage or None
        Which Series or single image it takes; None where it takes radiographs.
    runs : tuple of Run
    reason : str
        Why nothing is run, where ``runs`` is empty.
    notes : tuple of str
        Shown with every result.
    measure : mapping of str to bool
        What the gateway measures, where the rule says so (``ctr``).
    """

    name: str
    extends: tuple[str, ...]
    when: Condition
    view: ViewRule | None
    select: Select | SelectImage | None
    runs: tuple[Run, ...]
    reason: str
    notes: tuple[str, ...]
    measure: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Never:
    """Instances that no rule gets to see.

    Attributes
    ----------
    name : str
        ``never 1``, ``never 2``, ... in the order of the settings.
    condition : Condition
    reason : str
        Shown to people.
    """

    name: str
    condition: Condition
    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that decides a Study's way.

    Attributes
    ----------
    rules : tuple of Rule
        In the order of the settings.
    never : tuple of Never
    ages : AgePolicy
    asking : Asking or None
        Who says what pixels are like, where a rule wants to know.
    """

    rules: tuple[Rule, ...]
    never: tuple[Never, ...]
    ages: AgePolicy
    asking: Asking | None = None


def parse(settings: Settings) -> Rules:
    """Read the rules of a settings file.

    Raises
    ------
    ConfigError
        With every fault found: each file, line and what to do.
    """
    reader = _Reader(settings)
    rules = reader.rules()
    # A base rule is read again by each rule that extends it, and so are its faults.
    faults = list(dict.fromkeys(reader.faults))
    if faults:
        raise ConfigError(sorted(faults, key=lambda fault: fault.line or 0))
    return rules


@dataclass
class _Reader:
    """Reads the rule sections, gathering faults on the way."""

    settings: Settings
    faults: list[Fault] = field(default_factory=list)
    terms: dict[str, Term] = field(default_factory=dict)
    text_elements: tuple[str, ...] = TEXT_ELEMENTS

    def __post_init__(self) -> None:
        self._asking = PromptCheck(self.settings, self.faults)

    def rules(self) -> Rules:
        ages = parse_age_policy(self.settings.rules_source("age"), self.faults)
        self._read_terms()
        never = tuple(self._never(part, n) for n, part in enumerate(self._listed("never"), 1))
        sources = self._named(self._listed("rules"))
        rules = tuple(self._rule(name, sources) for name in sources)
        wanted = [one.view.pixels for one in rules if one.view and one.view.pixels is not None]
        return Rules(rules, never, ages, asking(self.settings, wanted, self.faults))

    def _listed(self, section: str) -> list[Source]:
        source = self.settings.rules_source(section)
        if source is None or source.value is None:
            return []
        if not isinstance(source.value, list):
            self.faults.append(source.fault(f"{section} is a list: begin each entry with a dash"))
            return []
        parts = list(source)
        for part in parts:
            if not isinstance(part.value, dict):
                self.faults.append(part.fault("each entry is a mapping"))
        return [part for part in parts if isinstance(part.value, dict)]

    def _read_terms(self) -> None:
        source = self.settings.rules_source("terms")
        if source is not None and isinstance(source.value, dict):
            self.terms = {
                str(part.path[-1]): parse_term(str(part.path[-1]), part, self.faults)
                for part in source
            }
        elif source is not None:
            self.faults.append(source.fault("terms is a mapping of names to lists of words"))
        elements = self.settings.rules_source("text_elements")
        if elements is not None:
            self.text_elements = self._parser(None).keywords(elements)

    def _parser(self, view: ViewRule | None) -> ConditionParser:
        return ConditionParser(self.terms, self.text_elements, view, self.faults)

    def _never(self, source: Source, number: int) -> Never:
        parser = self._parser(None)
        condition = parser.all_of(source, without=("reason", "except"))
        if not condition.conditions:
            self.faults.append(
                source.fault("the entry has no condition: it would leave out everything")
            )
        if "except" in source.value:
            exception = parser.all_of(source.child("except"))
            condition = AllOf((*condition.conditions, Not(exception)))
        reason = source.value.get("reason")
        if not isinstance(reason, str) or not reason.strip():
            self.faults.append(source.fault("say in reason: why these Instances are left out"))
        return Never(f"{NEVER}{number}", condition, str(reason))

    def _named(self, sources: Iterable[Source]) -> dict[str, Source]:
        named: dict[str, Source] = {}
        for source in sources:
            name = source.value.get("name")
            if not isinstance(name, str) or not name.strip():
                self.faults.append(source.fault("the rule has no name: add name:"))
            elif name in named:
                self.faults.append(source.fault(f"another rule is called {name}: rename one"))
            else:
                named[name] = source
        return named

    def _chain(self, name: str, sources: Mapping[str, Source]) -> list[Source]:
        """Return the rule and those it extends, the farthest first."""
        chain, seen = [sources[name]], [name]
        while (base := chain[0].value.get("extends")) is not None:
            at = chain[0].child("extends")
            if base not in sources:
                self.faults.append(at.fault(f"no rule is called {base}: correct the name"))
                break
            if base in seen:
                self.faults.append(
                    at.fault(f"{' -> '.join([*seen, base])} extends itself: break the circle")
                )
                break
            seen.append(base)
            chain.insert(0, sources[base])
        return chain

    def _rule(self, name: str, sources: Mapping[str, Source]) -> Rule:
        chain = self._chain(name, sources)
        own = chain[-1]
        self._check_keys(own, _RULE_KEYS)
        # The nearest rule that has a key decides it; conditions, notes and measures add up.
        given = {str(part.path[-1]): part for source in chain for part in source}
        view = parse_view(given["view"], self.faults) if "view" in given else None
        parser = self._parser(view)
        whens = [source.child("when") for source in chain if "when" in source.value]
        if not whens:
            self.faults.append(own.fault("the rule has no when: say which Studies it is for"))
        conditions = [one for when in whens for one in parser.all_of(when).conditions]
        runs = self._runs(given["run"]) if "run" in given else ()
        rule = Rule(
            name=name,
            extends=tuple(str(source.value.get("name")) for source in reversed(chain[:-1])),
            when=AllOf(tuple(conditions)),
            view=view,
            select=self._select(given["select"]) if "select" in given else None,
            runs=tuple(run for _, run in runs),
            reason=str(given["reason"].value) if "reason" in given else "",
            notes=tuple(self._note(source) for source in chain if "note" in source.value),
            measure=self._measure(chain),
        )
        self._check_rule(own, rule)
        return replace(rule, runs=tuple(self._checked(at, run, rule) for at, run in runs))

    def _check_keys(self, source: Source, allowed: tuple[str, ...]) -> None:
        for key in set(source.value) - set(allowed):
            near = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f"do you mean {near[0]}?" if near else f"use {', '.join(allowed)}"
            self.faults.append(source.child(key).fault(f"unknown key: {hint}"))

    def _select(self, source: Source) -> Select | SelectImage:
        if isinstance(source.value, dict) and "take" in source.value:
            return self._select_image(source)
        if not isinstance(source.value, dict):
            self.faults.append(
                source.fault('select is a mapping such as {thickness: "<=5", slices: ">=40"}')
            )
            return Select(AllOf(()), None, None, ())
        parser = self._parser(None)
        ranges = {
            key: parser.range(source.child(key)) if key in source.value else None
            for key in ("thickness", "slices")
        }
        kernels = source.value.get("kernel", [])
        if not isinstance(kernels, list) or not all(isinstance(one, str) for one in kernels):
            self.faults.append(
                source.child("kernel").fault("list kernels, the preferred one first")
            )
            kernels = []
        condition = parser.all_of(source, without=_SELECT_OWN)
        return Select(condition, ranges["thickness"], ranges["slices"], tuple(kernels))

    def _select_image(self, source: Source) -> SelectImage:
        take, frame = source.value["take"], source.value.get("frame", "middle")
        if take not in _TAKE:
            self.faults.append(
                source.child("take").fault(
                    f"choose {' or '.join(_TAKE)}; without take the rule takes a volume"
                )
            )
        number = isinstance(frame, int) and not isinstance(frame, bool) and frame >= 1
        if frame not in ("middle", "all") and not number:
            self.faults.append(
                source.child("frame").fault("write middle, all, or the number of a frame from 1")
            )
            frame = "middle"
        for key in set(_SELECT_OWN) & set(source.value):
            self.faults.append(source.child(key).fault("it is for volumes: leave take or it out"))
        condition = self._parser(None).all_of(source, without=(*_SELECT_OWN, *_IMAGE_OWN))
        return SelectImage(condition, take == "latest image", frame)

    def _runs(self, source: Source) -> tuple[tuple[Source, Run], ...]:
        if not isinstance(source.value, list):
            self.faults.append(
                source.fault("run is a list of endpoints: [insight, {parse2d: [heart]}]")
            )
            return ()
        return tuple((part, run) for part in source if (run := self._run(part)) is not None)

    def _run(self, source: Source) -> Run | None:
        prompts: Any = ()
        name, at = source.value, source
        if isinstance(name, dict) and len(name) == 1:
            name, prompts = next(iter(name.items()))
            at = source.child(name)
        if name not in self.settings.endpoints:
            known = ", ".join(self.settings.endpoints) or "none is configured"
            self.faults.append(
                at.fault(f"{name} is no endpoint: add it to endpoints, or use {known}")
            )
            return None
        kind = self.settings.endpoints[name].kind
        if not isinstance(prompts, list | tuple) or bool(prompts) is not (kind in _PROMPTED):
            remedy = "list its prompts" if kind in _PROMPTED else "it takes no prompts"
            self.faults.append(at.fault(f"{name} is a {kind} endpoint: {remedy}"))
            return None
        if len(set(map(str, prompts))) < len(prompts):
            self.faults.append(at.fault("a prompt stands twice: keep one"))
        return Run(str(name), kind, tuple(str(label) for label in prompts))

    def _checked(self, source: Source, run: Run, rule: Rule) -> Run:
        """Check a run's prompts, and return it with the identity of how they are asked."""
        at = source.child(run.endpoint) if isinstance(source.value, dict) else source
        selected = () if rule.select is None else (rule.select.condition,)
        conditions = AllOf((rule.when, *selected))
        for message in self._asking.faults(run.endpoint, run.prompts, conditions):
            self._fault(at, message)
        return replace(run, asked=self._asking.identity(run.endpoint, run.prompts, conditions))

    def _note(self, source: Source) -> str:
        note = source.value["note"]
        if not isinstance(note, str) or not note.strip():
            self.faults.append(source.child("note").fault("note is one sentence"))
        return str(note)

    def _measure(self, chain: Iterable[Source]) -> Mapping[str, bool]:
        measure: dict[str, bool] = {}
        for source in chain:
            given = source.value.get("measure", {})
            if not isinstance(given, dict) or not all(
                key == "ctr" and isinstance(value, bool) for key, value in given.items()
            ):
                self.faults.append(
                    source.child("measure").fault("measure is {ctr: true} or {ctr: false}")
                )
            else:
                measure.update(given)
        return measure

    def _check_rule(self, source: Source, rule: Rule) -> None:
        if not rule.runs and not source.value.get("run"):
            if not rule.reason:
                self._fault(
                    source, "the rule runs nothing: list endpoints in run, or say why in reason"
                )
            return
        if rule.reason:
            self._fault(source, "reason is for rules that run nothing: remove it, or empty run")
        if (rule.view is None) is (rule.select is None):
            self._fault(
                source,
                "say which images it takes: view for radiographs, or select for a Series or an image",
            )
        whole = isinstance(rule.select, SelectImage) and rule.select.frame == "all"
        for run in rule.runs:
            if run.kind == "cxrreport" and rule.view is None:
                self._fault(source, f"{run.endpoint} reads radiographs: add view to the rule")
            if run.kind == "parse3d" and not isinstance(rule.select, Select):
                self._fault(
                    source, f"{run.endpoint} reads volumes: add select to the rule, without take"
                )
            if run.kind == "insight" and whole:
                self._fault(
                    source,
                    f"{run.endpoint} embeds one picture and not all frames: run it in a rule of its own, "
                    "with frame: middle or the number of a frame",
                )
        prompts = {label for run in rule.runs if run.kind == "parse2d" for label in run.prompts}
        if rule.measure.get("ctr") and not prompts >= CTR_PROMPTS:
            wanted = ", ".join(sorted(CTR_PROMPTS))
            self._fault(source, f"the cardiothoracic ratio needs a parse2d endpoint with {wanted}")

    def _fault(self, source: Source, message: str) -> None:
        self.faults.append(source.fault(message))
