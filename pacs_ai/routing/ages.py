"""How old the patient was at the Study, as the headers say it, and whether they say it at all.

Ages come as ``62``, ``000Y`` or not at all; birth dates are placeholders or hashes. What is not
clear stays unknown, and each rule states what then happens. Only years leave this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from pydicom.dataset import Dataset

from pacs_ai.errors import Fault
from pacs_ai.settings import Source
from pacs_ai.study import Study, values
from pacs_ai.times import date_of

_AGE_STRING = re.compile(r"^(\d{1,3})([DWMY])$")
_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
_OLDEST = 130.0
_STUDY_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")


def years(text: str) -> float | None:
    """Read an Age String (PS3.5 §6.2, VR AS) such as ``018Y``, ``6M`` or ``18Y`` as years."""
    found = _AGE_STRING.match(text.strip())
    return int(found[1]) / _PER_YEAR[found[2]] if found else None


@dataclass(frozen=True, slots=True)
class AgePolicy:
    """How the settings want ages read.

    Attributes
    ----------
    sources : tuple of str
        ``PatientBirthDate``, ``PatientAge`` or both.
    placeholder_birth : frozenset of str
        Birth dates that a site enters when it does not know.
    unitless : str
        ``unknown``, or ``years`` where a site knows that a bare number means years.
    zero_without_birth : str
        ``unknown``, or ``newborn``: what ``000Y`` means without a birth date.
    disagree_over : float
        Years by which statements may differ before the age counts as unknown.
    """

    sources: tuple[str, ...] = ("PatientBirthDate", "PatientAge")
    placeholder_birth: frozenset[str] = frozenset({"19000101"})
    unitless: Literal["unknown", "years"] = "unknown"
    zero_without_birth: Literal["unknown", "newborn"] = "unknown"
    disagree_over: float = 1.0


@dataclass(frozen=True, slots=True)
class Age:
    """What a Study's headers say of the patient's age.

    Attributes
    ----------
    stated : tuple of float
        Every usable statement, in years, ascending; empty when there is none.
    disagree : bool
        Whether they differ by more than the settings allow.
    remark : str
        Why there is none, or that they disagree; names elements, never their patient's values.
    """

    stated: tuple[float, ...]
    disagree: bool
    remark: str

    @property
    def text(self) -> str:
        """The age in whole years as it may be shown."""
        whole = sorted({int(one) for one in self.stated})
        return " or ".join(str(one) for one in whole) + " years"


def age_of(study: Study, policy: AgePolicy, *, today: date) -> Age:
    """Read the age at the Study from all its headers: one that speaks of a child counts.

    Parameters
    ----------
    study : Study
    policy : AgePolicy
    today : date
        A Study dated after it (a day of tolerance for time zones) cannot tell an age from a birth
        date: a wrong century would make a child an adult.
    """
    stated: set[float] = set()
    remarks: dict[str, None] = {}
    for instance in study.instances:
        found, missing = _statements(instance.header, policy, today)
        stated.update(found)
        remarks.update(dict.fromkeys(missing))
    ordered = tuple(sorted(stated))
    if not ordered:
        return Age((), disagree=False, remark=" and ".join(remarks))
    disagree = ordered[-1] - ordered[0] > policy.disagree_over
    elements = " and ".join(policy.sources)
    remark = f"the statements of {elements} disagree" if disagree else ""
    return Age(ordered, disagree=disagree, remark=remark)


def _statements(header: Dataset, policy: AgePolicy, today: date) -> tuple[list[float], list[str]]:
    found, remarks = [], []
    birth, birth_remark = _from_birth(header, policy, today)
    if "PatientBirthDate" in policy.sources:
        if birth is not None:
            found.append(birth)
        remarks.append(birth_remark)
    if "PatientAge" in policy.sources:
        age, age_remark = _from_age(header, policy, birth_known=birth is not None)
        if age is not None:
            found.append(age)
        remarks.append(age_remark)
    return found, remarks


def _from_birth(header: Dataset, policy: AgePolicy, today: date) -> tuple[float | None, str]:
    given = values(header, "PatientBirthDate")
    birth = _date(given)
    if birth is None:
        return None, f"PatientBirthDate is {'not a date' if given else 'missing'}"
    if birth.strftime("%Y%m%d") in policy.placeholder_birth:
        return None, "PatientBirthDate is a placeholder"
    at = next((day for word in _STUDY_DATES if (day := _date(values(header, word)))), None)
    if at is None:
        return None, "the Study has no date to reckon PatientBirthDate from"
    if at > today + timedelta(days=1):
        return None, "the Study is dated in the future"
    age = at.year - birth.year - ((at.month, at.day) < (birth.month, birth.day))
    # Whole years for adults; a fraction only where months matter.
    exact = (at - birth).days / 365.25
    if not 0 <= exact <= _OLDEST:
        return None, "PatientBirthDate does not fit the date of the Study"
    return (float(age) if age >= 2 else exact), ""


def _from_age(header: Dataset, policy: AgePolicy, *, birth_known: bool) -> tuple[float | None, str]:
    given = values(header, "PatientAge")
    if not given:
        return None, "PatientAge is missing"
    text = given[0]
    if text.isdecimal():
        if policy.unitless == "years" and float(text) <= _OLDEST:
            return float(text), ""
        return None, "PatientAge has no unit"
    age = years(text)
    if age is None or age > _OLDEST:
        return None, "PatientAge is not an age"
    if (
        age == 0
        and text.endswith("Y")
        and not birth_known
        and policy.zero_without_birth == "unknown"
    ):
        return None, "PatientAge is 000Y without a birth date"
    return age, ""


def _date(given: Iterable[str]) -> date | None:
    return next((found for text in given if (found := date_of(text))), None)


_CHOICES: dict[str, tuple[str, ...]] = {
    "unitless": ("unknown", "years"),
    "000Y_without_birth": ("unknown", "newborn"),
}


def parse_age_policy(source: Source | None, faults: list[Fault]) -> AgePolicy:
    """Read the ``age`` section of the settings; what is wrong is added to the faults."""
    if source is None:
        return AgePolicy()
    if not isinstance(source.value, dict):
        faults.append(source.fault("age is a mapping of from, placeholder_birth, unitless, ..."))
        return AgePolicy()
    default = AgePolicy()
    sources, placeholders = list(default.sources), list(default.placeholder_birth)
    chosen = {key: options[0] for key, options in _CHOICES.items()}
    over = default.disagree_over
    for part in source:
        key, value = part.path[-1], part.value
        if key == "from" and _only(value, default.sources):
            sources = value
        elif key == "placeholder_birth" and _dates(value):
            placeholders = value
        elif key in chosen and value in _CHOICES[str(key)]:
            chosen[str(key)] = value
        elif key == "disagree_over" and years(str(value)) is not None:
            over = years(str(value)) or 0.0
        else:
            faults.append(part.fault(_remedy(str(key))))
    return AgePolicy(
        tuple(sources),
        frozenset(placeholders),
        "years" if chosen["unitless"] == "years" else "unknown",
        "newborn" if chosen["000Y_without_birth"] == "newborn" else "unknown",
        over,
    )


def _only(value: object, allowed: tuple[str, ...]) -> bool:
    return isinstance(value, list) and bool(value) and set(map(str, value)) <= set(allowed)


def _dates(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and _date([one]) for one in value)


def _remedy(key: str) -> str:
    remedies = {
        "from": "name PatientBirthDate, PatientAge or both in a list",
        "placeholder_birth": 'list dates as "YYYYMMDD", in quotes',
        "disagree_over": "write an age such as 1Y or 6M",
    }
    if key in _CHOICES:
        return f"choose {' or '.join(_CHOICES[key])}"
    return remedies.get(key, f"unknown key: use {', '.join([*remedies, *_CHOICES])}")
