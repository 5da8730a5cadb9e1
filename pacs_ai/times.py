"""What a DICOM date or time says (PS3.5 §6.2), and from when to when it may mean.

A value that breaks its VR says nothing: ``90000`` is no time, and least of all one after ``100000``.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time

# With the separators of ACR-NEMA, which readers are to understand still.
_DATE = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})")
_TIME = re.compile(r"([0-9]{2})(?:(:?)([0-9]{2})(?:\2([0-9]{2})(?:\.([0-9]{1,6}))?)?)?")
_LEAP = 60


def date_of(text: str) -> date | None:
    """Return the day of a DA value; None where it is none."""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    try:
        return date(int(found[1]), int(found[3]), int(found[4]))
    except ValueError:
        return None


def time_of(text: str) -> tuple[time, time] | None:
    """Return the first and the last time that a TM value can mean; None where it is none.

    Minutes, seconds and fractions that are left out are not zero but unknown.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    hour, minute, second, fraction = found[1], found[3], found[4], found[5] or ""
    if second == str(_LEAP):
        second, fraction = "59", "999999"  # a leap second, which Python does not know
    try:
        first, last = (
            time(
                int(hour),
                int(minute or unknown),
                int(second or unknown),
                int(fraction.ljust(6, digit)),
            )
            for unknown, digit in ((0, "0"), (59, "9"))
        )
    except ValueError:
        return None
    return first, last


def moments(day: str, clock: str) -> tuple[datetime, datetime] | None:
    """Return the first and the last moment, without a zone, that a DA and a TM value can mean."""
    found, times = date_of(day), time_of(clock)
    if found is None or times is None:
        return None
    first, last = (datetime.combine(found, one) for one in times)
    return first, last
