"""The wild cards of a search: what they match, and that no value makes them slow."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword

from pacs_ai.web.search import parse, search


def matches(wanted: str, value: str, keyword: str = "ProcedureStepLabel") -> bool:
    item: dict[str, Any] = {f"{tag_for_keyword(keyword):08X}": {"vr": "LO", "Value": [value]}}
    found, _ = search([item], parse([(keyword, wanted)]))
    return found == [item]


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        ("a*", "abc", True),
        ("*c", "abc", True),
        ("a*c", "ac", True),
        ("a*a", "a", False),
        ("ab*ba", "aba", False),
        ("*b*b*", "ab", False),
        ("*b*b*", "abb", True),
        ("**b**", "abc", True),
        ("?", "", False),
        ("???", "abc", True),
        ("*?", "", False),
        ("*?c", "c", False),
        ("a?c*", "a\nc", True),
        ("A*", "abc", False),
        ("a.c*", "abc", False),
    ],
)
def test_wild_cards(wanted: str, value: str, *, expected: bool) -> None:
    assert matches(wanted, value) is expected


@given(st.text("ab*?", min_size=1, max_size=8), st.text("ab\n", max_size=10))
def test_they_match_what_the_plain_expression_matches(wanted: str, value: str) -> None:
    plain = "".join({"*": ".*", "?": "."}.get(one, one) for one in wanted)
    expected = wanted == "*" or re.fullmatch(plain, value, re.DOTALL) is not None
    assert matches(wanted, value) is expected


@pytest.mark.timeout(20)
@pytest.mark.parametrize("wanted", ["*?" * 25 + "*\x01", "*a" * 25 + "*\x01", "*" * 5000 + "\x01"])
def test_no_value_takes_long(wanted: str) -> None:
    began = time.monotonic()
    assert not matches(wanted, "a" * 64)
    assert time.monotonic() - began < 2
