from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs_ai.routing.conditions import (
    AgeIs,
    AllOf,
    AnyOf,
    Contains,
    ElseIfMissing,
    HasWords,
    InRange,
    Missing,
    Not,
    OneOf,
    Says,
    ViewIs,
    parse_range,
    shown,
)
from pacs_ai.routing.views import Side, ViewRule, view_of
from pacs_ai.routing.words import Term
from tests.unit.routing.studies import instance, radiograph, subject

CHEST = Term("chest", ("CHEST", "THORAX"))
ADULT = AgeIs(18, math.inf, "at least 18Y", "not_suitable")

numbers = st.integers(min_value=-1000, max_value=1000)


@given(low=numbers, high=numbers, value=numbers)
def test_a_range_holds_what_lies_between_its_bounds(low: int, high: int, value: int) -> None:
    assume(low <= high)
    assert parse_range(f">={low} <={high}").holds(value) == (low <= value <= high)


@given(low=numbers, high=numbers, value=numbers)
def test_open_bounds_are_outside(low: int, high: int, value: int) -> None:
    assume(low < high)
    assert parse_range(f"> {low}, < {high}").holds(value) == (low < value < high)


@given(st.lists(st.tuples(st.sampled_from(["<", "<=", ">", ">="]), numbers), min_size=1), numbers)
def test_all_comparisons_of_a_range_hold_together(parts: list[tuple[str, int]], value: int) -> None:
    compare = {
        "<": lambda number: value < number,
        "<=": lambda number: value <= number,
        ">": lambda number: value > number,
        ">=": lambda number: value >= number,
    }
    expected = all(compare[sign](number) for sign, number in parts)
    text = " ".join(f"{sign}{number}" for sign, number in parts)
    try:
        found = parse_range(text)
    except ValueError:
        assert not expected
    else:
        assert found.holds(value) == expected


@pytest.mark.parametrize("text", [">5 <5", ">=6 <=5", "5", "about 5", "<=5mm", ""])
def test_an_impossible_or_unreadable_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"range"):
        parse_range(text)


def test_not_a_number_lies_in_no_range() -> None:
    assert not parse_range("<=5").holds(math.nan)


def test_a_missing_element_is_said_to_be_missing() -> None:
    answer = OneOf("Modality", ("CT",)).judge(subject(instance()))
    assert (answer.says, answer.sentence) == (Says.NO, "Modality is missing")


def test_a_no_names_element_and_value() -> None:
    one = subject(radiograph(BodyPartExamined="RIBCAGE"))
    assert OneOf("Modality", ("CT", "MR")).explain(one) == "Modality is DX, not CT or MR"
    words = HasWords(("BodyPartExamined",), CHEST)
    assert words.explain(one) == "BodyPartExamined is RIBCAGE, which is not in chest"


def test_any_and_all_of_several_values_are_told_apart() -> None:
    one = subject(instance(ImageType=["DERIVED", "PRIMARY", ""]))
    assert Contains("ImageType", ("DERIVED", "SECONDARY"), "any").matches(one)
    assert not Contains("ImageType", ("DERIVED", "SECONDARY"), "all").matches(one)
    assert Contains("ImageType", ("DERIVED", "PRIMARY"), "all").matches(one)
    assert not Contains("ImageType", ("DERIVED",), "any").matches(subject(instance()))


def test_every_value_must_lie_in_the_range() -> None:
    thin = InRange("PixelSpacing", parse_range("<=1"))
    assert thin.matches(subject(instance(PixelSpacing=[0.5, 0.5])))
    assert not thin.matches(subject(instance(PixelSpacing=[0.5, 1.5])))
    assert not thin.matches(subject(instance()))


def test_values_of_the_patient_and_free_text_are_never_shown() -> None:
    one = subject(instance(PatientSex="F", StudyDescription="SMITH^JANE knee"))
    sex = OneOf("PatientSex", ("M",)).explain(one)
    assert sex == "PatientSex is another value, not M"
    for condition in (
        HasWords(("StudyDescription",), CHEST),
        HasWords(("StudyDescription", "SeriesDescription"), CHEST),
        OneOf("StudyDescription", ("THORAX",)),
    ):
        assert "SMITH" not in condition.explain(one)
    assert shown("BodyPartExamined", "A" * 99) == "A" * 48 + "..."
    assert shown("Manufacturer", "Maker\x1b[2J") == "Maker?[2J"


def test_what_is_missing_asks_the_other_condition() -> None:
    body = ElseIfMissing(
        "BodyPartExamined",
        HasWords(("BodyPartExamined",), CHEST),
        HasWords(("StudyDescription",), CHEST),
    )
    assert body.matches(subject(instance(StudyDescription="Thorax ap")))
    assert not body.matches(subject(instance(BodyPartExamined="KNEE", StudyDescription="Thorax")))
    sentence = body.explain(subject(instance(StudyDescription="Knee")))
    assert sentence.startswith("BodyPartExamined is missing and StudyDescription")


def test_missing_needs_all_of_them_missing() -> None:
    assert Missing(("ViewPosition", "Laterality")).matches(subject(instance()))
    assert not Missing(("ViewPosition", "Laterality")).matches(subject(radiograph()))


def test_an_adult_is_old_enough_and_a_child_is_not() -> None:
    assert ADULT.explain(subject(instance(PatientAge="061Y"))) == "the age is 61 years"
    child = ADULT.judge(subject(instance(PatientAge="017Y")))
    assert (child.says, child.sentence) == (Says.NO, "the age is 17 years, not at least 18Y")


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("not_suitable", Says.NOT_SUITABLE),
        ("run_marked", Says.YES),
        ("no_match", Says.NO),
    ],
)
def test_an_unknown_age_ends_as_the_rule_says(choice: str, says: Says) -> None:
    condition = AgeIs(18, math.inf, "at least 18Y", choice)  # type: ignore[arg-type] # parametrized
    answer = condition.judge(subject(instance(PatientAge=None)))
    assert (answer.says, answer.age_unknown) == (says, choice == "run_marked")
    assert "PatientAge is missing" in answer.sentence


def test_ages_on_both_sides_of_a_bound_are_never_run() -> None:
    condition = AgeIs(18, math.inf, "at least 18Y", "run_marked")
    both = instance(PatientAge="061Y", PatientBirthDate="20210101")
    assert condition.judge(subject(both)).says is Says.NOT_SUITABLE


def test_a_no_is_stronger_than_not_suitable() -> None:
    unknown = instance(Modality="MR", PatientAge=None)
    answer = AllOf((ADULT, OneOf("Modality", ("CT",)))).judge(subject(unknown))
    assert (answer.says, answer.sentence, answer.met) == (Says.NO, "Modality is MR, not CT", 1)


def test_not_suitable_is_not_turned_round_by_not() -> None:
    unknown = subject(instance(PatientAge=None))
    assert Not(ADULT).judge(unknown).says is Says.NOT_SUITABLE
    assert AnyOf((ADULT, OneOf("Modality", ("CT",)))).judge(unknown).says is Says.NOT_SUITABLE
    assert Not(OneOf("Modality", ("CT",))).matches(unknown)


def test_a_no_of_any_names_every_condition() -> None:
    one = subject(radiograph())
    answer = AnyOf((OneOf("Modality", ("CT",)), HasWords(("StudyDescription",), CHEST))).judge(one)
    assert answer.sentence == "Modality is DX, not CT and StudyDescription is missing"


def _coded(value: str, scheme: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "view"
    return Sequence([item])


@pytest.mark.parametrize(
    ("elements", "side", "position"),
    [
        ({"ViewPosition": "PA"}, Side.FRONTAL, "PA"),
        ({"ViewPosition": "LL"}, Side.LATERAL, "LL"),
        ({"ViewPosition": "RLO"}, Side.OTHER, "RLO"),
        ({"ViewPosition": "", "ViewCodeSequence": _coded("399348003", "SCT")}, Side.FRONTAL, "AP"),
        ({"ViewPosition": "", "ViewCodeSequence": _coded("R-10206", "SRT")}, Side.FRONTAL, "AP"),
        ({"ViewPosition": "", "ViewCodeSequence": _coded("399173006", "SCT")}, Side.LATERAL, "LL"),
        ({"ViewPosition": "", "ViewCodeSequence": _coded("260427002", "SCT")}, Side.OTHER, None),
        ({"ViewPosition": "", "SeriesDescription": "view: pa"}, Side.FRONTAL, "PA"),
        ({"ViewPosition": "", "SeriesDescription": "PA and LAT"}, Side.UNKNOWN, ""),
        ({"ViewPosition": "", "StudyDescription": "CHEST PA"}, Side.UNKNOWN, ""),
        ({"ViewPosition": "", "PatientPosition": "PA"}, Side.UNKNOWN, ""),
        ({"ViewPosition": "PA", "SeriesDescription": "LAT"}, Side.CONTRADICTED, ""),
    ],
)
def test_a_view_comes_from_its_sources_alone(
    elements: dict[str, object], side: Side, position: str | None
) -> None:
    view = view_of(radiograph(**elements).header, ViewRule(), alone=True)
    assert view.side is side
    assert position is None or view.position == position


def test_words_of_a_series_are_not_believed_of_several_instances() -> None:
    header = radiograph(ViewPosition="", SeriesDescription="chest PA").header
    view = view_of(header, ViewRule(), alone=False)
    assert view.side is Side.UNKNOWN
    assert "several Instances" in view.remark


def test_a_view_that_another_source_doubts_is_not_certain() -> None:
    header = radiograph(ViewPosition="PA", SeriesDescription="thorax ap").header
    view = view_of(header, ViewRule(), alone=True)
    assert (view.position, view.certain, view.remark) == ("PA", False, "SeriesDescription says AP")


def test_a_condition_may_ask_for_the_view() -> None:
    asked = ViewIs(("AP",), ViewRule())
    assert asked.matches(subject(radiograph(ViewPosition="AP")))
    assert asked.explain(subject(radiograph())) == "ViewPosition says PA, not AP"
