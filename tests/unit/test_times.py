"""Which values of DA and TM are a date or a time, and from when to when each may mean."""

from __future__ import annotations

from datetime import date, datetime, time

import pytest

from pacs_ai.times import date_of, moments, time_of

END = 999999


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("09", time(9), time(9, 59, 59, END)),
        ("0907", time(9, 7), time(9, 7, 59, END)),
        ("090708", time(9, 7, 8), time(9, 7, 8, END)),
        ("09:07:08", time(9, 7, 8), time(9, 7, 8, END)),
        ("090708.25", time(9, 7, 8, 250000), time(9, 7, 8, 259999)),
        ("235959.123456", time(23, 59, 59, 123456), time(23, 59, 59, 123456)),
        ("235960", time(23, 59, 59, END), time(23, 59, 59, END)),
    ],
)
def test_a_time_means_every_moment_that_it_does_not_rule_out(
    text: str, first: time, last: time
) -> None:
    assert time_of(text) == (first, last)


@pytest.mark.parametrize(
    "text",
    [
        *("", "9", "90000", "900", "9:00", "0900:00", "09:0000", "240000", "096000", "090061"),
        *("09.5", "0900.5", "090000.", "090000.1234567", "090000 ", "-90000", "०९००००", "0900\n"),
    ],
)
def test_what_breaks_its_vr_is_no_time(text: str) -> None:
    assert time_of(text) is None


def test_a_date_is_a_day_of_the_calendar() -> None:
    assert date_of("20240229") == date_of("2024.02.29") == date(2024, 2, 29)
    for text in ("", "20230229", "2024229", "2024.0229", "202402", "20240229\n", "२०२४०२२९"):
        assert date_of(text) is None


def test_a_moment_needs_both() -> None:
    noon = datetime(2026, 11, 23, 12)
    assert moments("20261123", "12") == (noon, noon.replace(minute=59, second=59, microsecond=END))
    assert moments("20261123", "") is moments("", "12") is None
