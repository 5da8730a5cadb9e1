from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pacs_ai.errors import ConfigError
from pacs_ai.results import (
    Assertion,
    Box,
    Done,
    Failed,
    Finding,
    JobResults,
    Measurement,
    ModelIdentity,
    NothingFound,
    NotSuitable,
    Outcome,
)
from pacs_ai.settings import loads
from pacs_ai.worklist import Audience, Decision, Facts, Priority
from pacs_ai.worklist.rules import Threshold, decide, parse

SITE = "site: {name: Test, time_zone: Etc/UTC, use: research, responsible: tests}\n"
MODEL = ModelIdentity("Report", "2.1", "Maker", reference=False)

OPACITY = "{finding: lung opacity}"


def _decisions(rules: str, facts: Facts) -> tuple[Decision, ...]:
    return decide(parse(loads(SITE + "worklist:\n" + rules)), facts)


def _listed(when: str, *outcomes: Outcome | Failed, state: str = "done", **parameters: Any) -> str:
    """Return the reason why a rule lists a Study, or an empty string."""
    entries = tuple(
        JobResults("k", "cxr", "cxrreport", MODEL, outcome, ("1.2",), parameters)
        for outcome in outcomes
    )
    decided = _decisions(f"  - {{when: {when}, label: L}}\n", Facts(state, entries))
    return decided[0].reason if decided else ""


def _finding(
    assertion: Assertion = Assertion.PRESENT, *, grounded: bool = True, **more: Any
) -> Done:
    boxes = (Box("1.2", 1, 2, 3, 4),) if grounded else ()
    given = {"label": "lung opacity", **more}
    return Done((Finding(assertion=assertion, sources=("1.2",), boxes=boxes, **given),))


def _ratio(value: float) -> Done:
    return Done((Measurement("cardiothoracic ratio", value, "1", ("1.2",), "masks"),))


def test_a_present_finding_lists_the_study_and_says_who_flagged_it() -> None:
    reason = _listed(OPACITY, _finding())
    assert reason == "Lung opacity (present) by Report 2.1, unverified AI"


@pytest.mark.parametrize("assertion", [Assertion.ABSENT, Assertion.UNCERTAIN, Assertion.HISTORICAL])
def test_a_mention_is_not_presence(assertion: Assertion) -> None:
    assert not _listed(OPACITY, _finding(assertion))
    stated = f"{{finding: lung opacity, assertion: {assertion}}}"
    assert _listed(stated, _finding(assertion))
    assert not _listed(stated, _finding())


def test_another_finding_does_not_count() -> None:
    assert not _listed(OPACITY, _finding(label="pneumothorax"))


def test_grounded_asks_for_a_box() -> None:
    grounded = "{finding: lung opacity, grounded: true}"
    assert _listed(grounded, _finding())
    assert not _listed(grounded, _finding(grounded=False))
    assert _listed("{finding: lung opacity, grounded: false}", _finding(grounded=False))
    assert not _listed("{finding: lung opacity, grounded: false}", _finding())


def test_a_score_condition_is_false_where_there_is_no_score() -> None:
    scored = '{finding: lung opacity, score: ">=0.5"}'
    assert _listed(scored, _finding(score=0.5))
    assert not _listed(scored, _finding(score=0.49))
    assert not _listed(scored, _finding())


def test_a_side_is_compared() -> None:
    left = "{finding: lung opacity, side: left}"
    assert _listed(left, _finding(side="left")).startswith("Lung opacity, left (present)")
    assert not _listed(left, _finding(side="right"))
    assert not _listed(left, _finding())


def test_conditions_must_hold_for_one_and_the_same_finding() -> None:
    both = Done((*_finding(grounded=False, side="left").results, *_finding(side="right").results))
    assert not _listed("{finding: lung opacity, side: left, grounded: true}", both)


def test_the_ratio_is_compared_on_the_view_that_the_rule_names() -> None:
    wide = '{ctr: ">=0.55", view: PA}'
    assert "Cardiothoracic ratio 0.56" in _listed(wide, _ratio(0.56), view="PA")
    assert not _listed(wide, _ratio(0.54), view="PA")
    assert not _listed(wide, _ratio(0.56), view="AP")
    assert not _listed(wide, _ratio(0.56))
    assert not _listed(wide, _ratio(float("nan")), view="PA")


@pytest.mark.parametrize("sign", [">=", ">", "<=", "<"])
def test_not_a_number_meets_no_threshold(sign: str) -> None:
    assert not Threshold(sign, 0.5).holds(float("nan"))


def test_nothing_found_is_never_called_normal() -> None:
    reason = _listed("{state: nothing_found}", NothingFound(), state="nothing_found")
    assert reason == "No finding flagged by Report 2.1; not a normal result"


def test_what_is_uncertain_was_not_flagged_as_present() -> None:
    (doubt,) = _finding(Assertion.UNCERTAIN).results
    said = _listed("{state: nothing_found}", NothingFound((doubt,)), state="nothing_found")
    assert said == "No finding flagged as present by Report 2.1; not a normal result"


def test_a_state_says_why() -> None:
    when = "{state: [not_suitable, failed]}"
    reason = _listed(when, NotSuitable("no frontal image"), state="not_suitable")
    assert reason == "Not suitable for AI: Report 2.1: no frontal image"
    assert _listed(when, Failed("the endpoint is away"), state="failed")
    assert _listed(when, state="failed") == "Failed for AI"
    assert not _listed(when, _finding(), state="done")


def test_two_jobs_that_say_the_same_say_it_once() -> None:
    assert _listed(OPACITY, _finding(), _finding()).count("Lung opacity") == 1


FULL = """
  - when: {finding: lung opacity, grounded: true}
    label: AI-CXR-REVIEW
    priority: HIGH
    performers: [thoracic]
    fallback: [duty]
    expires: 4h
  - {when: {finding: lung opacity}, enabled: false, label: UNUSED, priority: HIGH}
  - {when: {state: done}, label: AI-STATUS, audience: imaging-it}
"""


def _facts(outcome: Outcome, state: str = "done") -> Facts:
    return Facts(state, (JobResults("k", "cxr", "cxrreport", MODEL, outcome, ("1.2",)),))


def test_every_rule_that_holds_and_is_enabled_decides() -> None:
    review, status = _decisions(FULL, _facts(_finding()))
    assert (review.label, review.priority) == ("AI-CXR-REVIEW", Priority.HIGH)
    assert (review.performers, review.fallback) == (("thoracic",), ("duty",))
    assert (review.expires, review.audience) == (timedelta(hours=4), Audience.READER)
    assert (status.label, status.priority) == ("AI-STATUS", None)
    assert status.audience is Audience.IMAGING_IT


TWO = """
  - {when: {finding: consolidation}, label: REVIEW, performers: [general, duty], expires: 24h}
  - when: {finding: lung opacity}
    label: REVIEW
    priority: HIGH
    performers: [thoracic]
    fallback: [duty, night]
    expires: 4h
"""


def test_rules_of_one_label_make_one_workitem_for_all_and_as_urgent_as_the_most_urgent() -> None:
    both = Done((*_finding().results, *_finding(label="consolidation").results))
    (review,) = _decisions(TWO, _facts(both))
    assert (review.priority, review.expires) == (Priority.HIGH, timedelta(hours=4))
    assert review.performers == ("thoracic", "general", "duty")
    assert review.fallback == ("night",)
    assert review.reason.index("Lung opacity") < review.reason.index("Consolidation")


def test_an_unchanged_priority_is_not_lowered_by_a_rule_of_the_same_label() -> None:
    low = TWO.replace("HIGH", "LOW")
    both = Done((*_finding().results, *_finding(label="consolidation").results))
    (review,) = _decisions(low, _facts(both))
    assert review.priority is None


def test_workitem_none_ends_the_list() -> None:
    rules = "  - {when: {state: done}, workitem: none}\n" + FULL.lstrip("\n")
    assert _decisions(rules, _facts(_finding())) == ()
    assert len(_decisions(rules, _facts(_finding(), state="running"))) == 1


def test_settings_without_worklist_rules_list_nothing() -> None:
    assert decide(parse(loads(SITE)), _facts(_finding())) == ()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("{when: {finding: opacty}, label: L}", "is no term"),
        ("{when: {finding: lung opacity}}", "label is 1 to 64"),
        ("{when: {finding: lung opacity}, label: 'A\\B'}", "label is 1 to 64"),
        ("{when: {finding: lung opacity, state: done}, label: L}", "exactly one of"),
        ("{when: {side: left}, label: L}", "exactly one of"),
        ("{when: {finding: lung opacity, certainty: 1}, label: L}", "unknown key"),
        ("{when: {finding: lung opacity, assertion: likely}, label: L}", "choose present"),
        ("{when: {finding: lung opacity, score: 0.5}, label: L}", "write a comparison"),
        ('{when: {ctr: ">=55"}, label: L}', "0 to 1"),
        ("{when: {finding: lung opacity, grounded: sure}, label: L}", "true or false"),
        ("{when: {state: normal}, label: L}", "is no state"),
        ("{when: {finding: lung opacity}, label: L, priority: STAT}", "choose HIGH"),
        ("{when: {finding: lung opacity}, label: L, prio: HIGH}", "do you mean priority?"),
        ("{when: {finding: lung opacity}, label: L, expires: 4}", "with its unit"),
        ("{when: {finding: lung opacity}, label: L, performers: thoracic}", "list codes"),
        ("{when: {finding: lung opacity}, label: L, audience: all}", "choose reader"),
        ("{when: {finding: lung opacity}, workitem: none}", "is for states"),
        ("{when: {state: done}, workitem: none, label: L}", "remove label"),
        ("{when: {state: done}, workitem: one, label: L}", "only choice is none"),
        ("{label: L}", "mapping with when"),
    ],
)
def test_a_wrong_rule_is_a_fault_with_a_remedy(rule: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(loads(f"{SITE}worklist: [{rule}]"))
    assert [one for one in caught.value.faults if words in one.message and one.line == 2]


def test_one_label_is_for_one_audience() -> None:
    other = "{when: {state: done}, label: L, audience: imaging-it}"
    with pytest.raises(ConfigError, match="two audiences: give each a label of its own"):
        parse(loads(f"{SITE}worklist: [{{when: {OPACITY}, label: L}}, {other}]"))


@pytest.mark.parametrize(
    "when",
    [
        "{finding: pneumothorax, assertion: absent}",
        "{finding: pneumothorax, assertion: uncertain}",
        "{finding: pneumothorax, assertion: historical}",
        '{ctr: ">=0.55", view: PA}',
        "{state: nothing_found}",
    ],
)
@pytest.mark.parametrize("priority", ["HIGH", "MEDIUM", "LOW"])
def test_only_a_present_finding_may_carry_a_priority(when: str, priority: str) -> None:
    with pytest.raises(ConfigError, match="write priority: unchanged"):
        parse(loads(f"{SITE}worklist: [{{when: {when}, label: L, priority: {priority}}}]"))
    assert parse(loads(f"{SITE}worklist: [{{when: {when}, label: L, priority: unchanged}}]"))
