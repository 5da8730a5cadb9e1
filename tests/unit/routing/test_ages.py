from __future__ import annotations

from datetime import date

import pytest

from pacs_ai.routing.ages import AgePolicy, age_of, years
from tests.unit.routing.studies import instance, study

TODAY = date(2026, 11, 23)


def _age(policy: AgePolicy | None = None, **elements: object) -> tuple[tuple[int, ...], str]:
    found = age_of(study(instance(**elements)), policy or AgePolicy(), today=TODAY)
    return tuple(int(one) for one in found.stated), found.remark


@pytest.mark.parametrize(
    ("text", "expected"),
    [("018Y", 18), ("18Y", 18), ("006M", 0.5), ("052W", 0.9966), ("62", None), ("Y", None)],
)
def test_an_age_string_is_read_in_years(text: str, expected: float | None) -> None:
    assert years(text) == (expected if expected is None else pytest.approx(expected, abs=1e-3))


def test_a_birth_date_counts_to_the_study_and_not_to_today() -> None:
    assert _age(PatientAge=None, PatientBirthDate="20000601", StudyDate="20180531")[0] == (17,)
    assert _age(PatientAge=None, PatientBirthDate="20000601", StudyDate="20180601")[0] == (18,)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("elements", "remark"),
    [
        ({"PatientAge": "62"}, "PatientAge has no unit"),
        ({"PatientAge": "000Y"}, "PatientAge is 000Y without a birth date"),
        ({"PatientAge": "999Y"}, "PatientAge is not an age"),
        ({"PatientAge": None}, "PatientAge is missing"),
        ({"PatientAge": None, "PatientBirthDate": "d14a02"}, "PatientBirthDate is not a date"),
        ({"PatientAge": None, "PatientBirthDate": "19000101"}, "PatientBirthDate is a placeholder"),
        ({"PatientAge": None, "PatientBirthDate": "20300101"}, "does not fit the date"),
        (
            {"PatientAge": None, "PatientBirthDate": "20200101", "StudyDate": None},
            "no date to reckon",
        ),
        (
            {"PatientAge": None, "PatientBirthDate": "20200101", "StudyDate": "21261123"},
            "dated in the future",
        ),
    ],
)
def test_an_unclear_age_is_unknown(elements: dict[str, str | None], remark: str) -> None:
    stated, said = _age(**elements)
    assert stated == ()
    assert remark in said


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_site_may_say_that_a_bare_number_means_years() -> None:
    assert _age(AgePolicy(unitless="years"), PatientAge="62")[0] == (62,)


def test_a_site_may_say_that_zero_years_is_a_newborn() -> None:
    assert _age(AgePolicy(zero_without_birth="newborn"), PatientAge="000Y")[0] == (0,)


def test_zero_years_with_a_birth_date_is_an_age() -> None:
    assert _age(PatientAge="000Y", PatientBirthDate="20261001")[0] == (0, 0)


def test_statements_that_differ_too_much_disagree() -> None:
    found = age_of(
        study(instance(PatientAge="061Y", PatientBirthDate="20000101")), AgePolicy(), today=TODAY
    )
    assert found.disagree
    assert "disagree" in found.remark


def test_every_header_of_a_study_is_heard() -> None:
    adult, child = instance(1, PatientAge="061Y"), instance(2, PatientAge="005Y")
    assert age_of(study(adult, child), AgePolicy(), today=TODAY).stated == (5.0, 61.0)
