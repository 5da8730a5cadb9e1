"""A Study and the rules in; Jobs out, with the reason of every yes and every no."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from pacs_ai.results import Likeness
from pacs_ai.routing.conditions import Answer, Says, StudyFacts, Subject
from pacs_ai.routing.pixels import Asking
from pacs_ai.routing.rules import CTR_PROMPTS, Never, Rule, Rules, Run
from pacs_ai.routing.selection import Chosen, Unsuitable, choose
from pacs_ai.routing.views import Side, ViewRule
from pacs_ai.study import Instance, Job, Study


class Outcome(StrEnum):
    """What a rule says of a Study."""

    YES = "yes"
    NO = "no"
    NOT_SUITABLE = "not suitable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule said, and why.

    Attributes
    ----------
    rule : str
        Its name; ``never 1`` and so on for the ``never`` rules.
    outcome : Outcome
        For a ``never`` rule, yes means that it left out at least one Instance.
    deciding : str
        One sentence: the condition, the element and the value that decided.
    details : tuple of str
        The ranking of the candidates, or what other Instances said.
    """

    rule: str
    outcome: Outcome
    deciding: str
    details: tuple[str, ...] = ()

    @property
    def matched(self) -> bool:
        """Whether the rule said yes."""
        return self.outcome is Outcome.YES


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule is meant for the Study but cannot take it: not suitable, and what a person can do."""

    rule: str
    endpoint: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Routing:
    """The way of one Study version.

    Attributes
    ----------
    jobs : tuple of Job
        In the order of the rules and of each rule's ``run``.
    refusals : tuple of Refusal
    verdicts : tuple of Verdict
        One where a rejection note leaves out Instances, one for each ``never`` rule, then one for each
        rule.
    """

    jobs: tuple[Job, ...]
    refusals: tuple[Refusal, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def reason(self) -> str:
        """Why nothing runs, for a Study without Jobs; empty for one with Jobs."""
        if self.jobs:
            return ""
        if self.refusals:
            return "; ".join(f"{one.rule}: {one.reason}" for one in self.refusals)
        said = "; ".join(f"{one.rule}: {one.deciding}" for one in self.verdicts if not one.matched)
        return f"no rule took it: {said or 'there are no rules'}"


@dataclass(frozen=True, slots=True)
class _Opinion:
    """A rule with what it made of a Study, before rules give way to those that extend them."""

    rule: Rule
    answers: tuple[tuple[Subject, Answer], ...]
    choice: Chosen | Unsuitable | None
    silent: tuple[Instance, ...] = ()

    @property
    def matching(self) -> frozenset[str]:
        return frozenset(
            subject.instance.SOPInstanceUID
            for subject, answer in self.answers
            if answer.says is Says.YES
        )


def route(
    study: Study,
    rules: Rules,
    *,
    now: datetime,
    pixels: Mapping[str, Likeness | None] | None = None,
) -> Routing:
    """Decide what is run on a Study.

    Conditions are judged on each Instance that no ``never`` rule leaves out; a rule goes on with
    those they hold for. The age is the Study's: every header must agree with it. A rule gives way
    to one that extends it where both would take the same images.

    Parameters
    ----------
    study : Study
        Source Instances only.
    rules : Rules
    now : datetime
        Aware; no age is reckoned at a Study that is dated after it.
    pixels : mapping of str to Likeness or None, optional
        What was answered of images without a view, by SOP Instance UID (:mod:`pacs_ai.routing.pixels`).

    Returns
    -------
    Routing
    """
    kept, note = _apply_notes(study)
    passing, left_out, never_verdicts = _apply_never(study, kept, rules, now.date())
    facts = StudyFacts(study, passing, rules.ages, now.date(), pixels or {})
    opinions = [_opinion(rule, facts) for rule in rules.rules]
    jobs = _asked(opinions, rules.asking)
    refusals: list[Refusal] = []
    verdicts = [*note, *never_verdicts]
    if not passing:
        refusals += [Refusal(one.rule, None, one.deciding) for one in note]
        refusals += [Refusal(never.name, None, never.reason) for never in left_out]
    for opinion in opinions:
        heir = _heir(opinion, opinions)
        if heir is not None:
            deciding = f"gives way to {heir}, which extends it"
            verdicts.append(Verdict(opinion.rule.name, Outcome.NO, deciding))
            continue
        verdict = _verdict(opinion)
        verdicts.append(verdict)
        if verdict.outcome is Outcome.NOT_SUITABLE:
            refusals.append(Refusal(opinion.rule.name, None, verdict.deciding))
        elif isinstance(opinion.choice, Chosen):
            jobs += [_job(opinion, opinion.choice, run) for run in opinion.rule.runs]
    return Routing(tuple(jobs), tuple(refusals), tuple(verdicts))


def _apply_notes(study: Study) -> tuple[tuple[Instance, ...], tuple[Verdict, ...]]:
    """Leave out what a rejection note of the Study names, whatever the rules say."""
    kept = tuple(one for one in study.instances if one.SOPInstanceUID not in study.rejected)
    if len(kept) == len(study.instances):
        return kept, ()
    count = f"{len(study.instances) - len(kept)} of {len(study.instances)} Instances left out"
    deciding = f"{count}: a Key Object Selection of the Study rejects them"
    return kept, (Verdict("rejection note", Outcome.YES, deciding),)


def _apply_never(
    study: Study, kept: tuple[Instance, ...], rules: Rules, today: date
) -> tuple[tuple[Instance, ...], tuple[Never, ...], tuple[Verdict, ...]]:
    facts = StudyFacts(study, kept, rules.ages, today)
    passing = list(kept)
    left_out, verdicts = [], []
    for never in rules.never:
        answers = [(one, never.condition.judge(Subject(one, facts))) for one in kept]
        # What cannot be told apart from an excluded Instance is excluded: fail closed.
        hit = [(one, answer) for one, answer in answers if answer.says is not Says.NO]
        if not hit:
            verdicts.append(Verdict(never.name, Outcome.NO, f"leaves out nothing ({never.reason})"))
            continue
        counted = Counter(answer.sentence for _, answer in hit).most_common(8)
        count = f"{len(hit)} of {len(answers)} Instances left out"
        deciding = f"{count}: {counted[0][0]} ({never.reason})"
        details = tuple(f"{number} Instances: {text}" for text, number in counted)
        verdicts.append(
            Verdict(never.name, Outcome.YES, deciding, details if len(counted) > 1 else ())
        )
        left_out.append(never)
        gone = {one.SOPInstanceUID for one, _ in hit}
        passing = [one for one in passing if one.SOPInstanceUID not in gone]
    return tuple(passing), tuple(left_out), tuple(verdicts)


def _opinion(rule: Rule, facts: StudyFacts) -> _Opinion:
    subjects = [Subject(instance, facts) for instance in facts.passing]
    answers = tuple((subject, rule.when.judge(subject)) for subject in subjects)
    held = [subject for subject, answer in answers if answer.says is Says.YES]
    silent = tuple(one.instance for one in held if _is_silent(one, rule.view))
    unasked = [one for one in silent if one.SOPInstanceUID not in facts.pixels]
    if unasked:
        waiting = f"the pixels of {len(unasked)} images without a view are asked first"
        return _Opinion(rule, answers, Unsuitable(waiting), silent)
    return _Opinion(rule, answers, choose(rule, held) if held else None, silent)


def _is_silent(subject: Subject, rule: ViewRule | None) -> bool:
    """Tell whether a rule asks the pixels of an image: its header does not say the view."""
    if rule is None or rule.pixels is None:
        return False
    return subject.view(replace(rule, pixels=None)).side is Side.UNKNOWN


def _asked(opinions: Sequence[_Opinion], asking: Asking | None) -> list[Job]:
    """Return the Jobs that ask: the same before and after the answer, so that it stays the version's."""
    if asking is None:
        return []
    instances = {one.SOPInstanceUID: one for opinion in opinions for one in opinion.silent}
    return [asking.job(one) for one in instances.values()]


def _heir(opinion: _Opinion, opinions: Sequence[_Opinion]) -> str | None:
    """Return the rule that extends this one and holds for what this one would take."""
    for other in opinions:
        if opinion.rule.name not in other.rule.extends or not other.matching:
            continue
        if not isinstance(opinion.choice, Chosen) or opinion.choice.uids & other.matching:
            return other.rule.name
    return None


def _verdict(opinion: _Opinion) -> Verdict:
    name, choice = opinion.rule.name, opinion.choice
    if isinstance(choice, Unsuitable):
        return Verdict(name, Outcome.NOT_SUITABLE, choice.reason, choice.ranking)
    if isinstance(choice, Chosen):
        held = next(answer for _, answer in opinion.answers if answer.says is Says.YES)
        return Verdict(name, Outcome.YES, held.sentence, choice.ranking)
    if not opinion.answers:
        return Verdict(name, Outcome.NO, "every Instance is left out by a never rule")
    counted = Counter(answer.sentence for _, answer in opinion.answers)
    details = tuple(f"{count} Instances: {text}" for text, count in counted.most_common(8))
    refused = [answer for _, answer in opinion.answers if answer.says is Says.NOT_SUITABLE]
    # Of several Instances the one that came nearest says why: an SR beside a CT explains nothing.
    nearest = max(refused or [answer for _, answer in opinion.answers], key=lambda one: one.met)
    outcome = Outcome.NOT_SUITABLE if refused else Outcome.NO
    return Verdict(name, outcome, nearest.sentence, details if len(counted) > 1 else ())


def _job(opinion: _Opinion, chosen: Chosen, run: Run) -> Job:
    inputs: dict[str, tuple[Instance, ...]] = {}
    if chosen.frontal is not None:
        inputs["frontal"] = (chosen.frontal,)
    if chosen.lateral is not None and run.kind == "cxrreport":
        inputs["lateral"] = (chosen.lateral,)
    if chosen.image is not None:
        inputs["image"] = (chosen.image,)
    if chosen.volume:
        inputs["volume"] = chosen.volume
    return Job(opinion.rule.name, run.endpoint, run.kind, inputs, _parameters(opinion, chosen, run))


def _parameters(opinion: _Opinion, chosen: Chosen, run: Run) -> dict[str, Any]:
    """Return what reaches the model or its reading: JSON values, the same for the same Study."""
    rule = opinion.rule
    notes = [*rule.notes, *chosen.notes]
    parameters: dict[str, Any] = {"notes": notes}
    marked = [answer.sentence for _, answer in opinion.answers if answer.age_unknown]
    if marked:
        parameters["age_unknown"] = True
        notes.append("Age unknown: not checked against the ages that the rule is for")
    if run.prompts:
        parameters["prompts"] = list(run.prompts)
        parameters["asked"] = run.asked
    if chosen.frames:
        parameters["frames"] = list(chosen.frames)
    if chosen.frame is not None:
        parameters["frame"] = chosen.frame
    if chosen.view is not None:
        parameters["view"] = chosen.view.position
        parameters["view_from"] = chosen.view.source or "rule"
    if run.kind == "parse2d" and chosen.view is not None:
        # On PA by the header alone: on AP the heart is magnified.
        pa = chosen.view.position == "PA" and chosen.view.certain
        wanted = rule.measure.get("ctr", set(run.prompts) >= CTR_PROMPTS)
        parameters["measure"] = {"ctr": pa and wanted}
    return parameters
