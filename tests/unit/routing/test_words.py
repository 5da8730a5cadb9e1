from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pacs_ai.errors import Fault
from pacs_ai.routing.words import Term, fold, has_phrase, parse_term
from pacs_ai.settings import Source

PORTABLE = Term("portable", ("PORT", "PORTABLE"), ("PORT A CATH",))


@given(st.text())
@example("ΐŉǰ")
@example("ß straße")
@example("̂a")
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.lists(st.text(alphabet="abcXYZ019äéß", min_size=1), min_size=1, max_size=5))
def test_punctuation_and_case_and_accents_never_decide(words: list[str]) -> None:
    assert fold(" ".join(words)) == fold("--" + "_/".join(words).upper() + ".")


@given(st.text(alphabet="ABC ", min_size=1), st.text(alphabet="ABC", min_size=1))
def test_a_word_is_found_exactly_where_it_stands_whole(text: str, word: str) -> None:
    assert has_phrase(fold(text), word) == (word in text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tórax PA", "TORAX PA"),
        ("SCHÄDEL^nativ", "SCHADEL NATIV"),
        ("chest_2/views", "CHEST 2 VIEWS"),
        ("  ", ""),
    ],
)
def test_text_is_folded(text: str, expected: str) -> None:
    assert fold(text) == expected


def test_a_word_inside_another_does_not_count() -> None:
    assert PORTABLE.found_in("SUPPORT DEVICE") is None
    assert PORTABLE.found_in("chest, port.") == "PORT"


def test_an_excluded_phrase_hides_only_its_own_words() -> None:
    assert PORTABLE.found_in("Port-a-Cath placement") is None
    assert PORTABLE.found_in("port a cath, portable chest") == "PORTABLE"
    assert PORTABLE.found_in("PORT A CATH PORT A CATH") is None


def test_words_beside_an_excluded_phrase_are_not_joined() -> None:
    term = Term("", ("CHEST TUBE",), ("PORT A CATH",))
    assert term.found_in("CHEST PORT A CATH TUBE") is None


@pytest.mark.parametrize("value", [[], [3], ["not PORT"], ["--"], ["PORT", "not PORT"]])
def test_a_term_that_cannot_find_anything_is_a_fault(value: object) -> None:
    faults: list[Fault] = []
    parse_term("portable", Source(value), faults)
    assert faults
