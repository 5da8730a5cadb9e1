"""UIDs are derived from everything that decides what they name, and from nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from pacs_ai.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, derived_uid, digest

PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.text(max_size=10), PARTS)
def test_every_derived_uid_is_a_valid_one(role: str, part: object) -> None:
    uid = derived_uid(role, part)  # type: ignore[arg-type]  # what Hypothesis draws is JSON
    assert UID(uid).is_valid
    assert uid.startswith("2.25.")
    assert len(uid) <= 64


def test_the_same_parts_give_the_same_uid_in_another_process() -> None:
    code = "from pacs_ai.uids import derived_uid; print(derived_uid('series', 'a', 1, {'b': [2]}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {str(derived_uid("series", "a", 1, {"b": [2]}))}


def test_a_uid_once_given_never_changes() -> None:
    # A changed value here means that every result already delivered would be delivered again.
    assert derived_uid("instance", "x", 1) == "2.25.204642884205906859943746415728065394978"


def test_the_order_of_a_mappings_keys_does_not_matter() -> None:
    assert derived_uid("job", {"a": 1, "b": 2}) == derived_uid("job", {"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc"), ("ab", "c")),
        ((1,), ("1",)),
        ((1,), (True,)),
        ((None,), ("",)),
        (([1, 2],), (1, 2)),
        ((), ("",)),
    ],
)
def test_parts_never_run_into_each_other(
    one: tuple[str | int | None, ...], other: tuple[str | int | None, ...]
) -> None:
    assert derived_uid("instance", *one) != derived_uid("instance", *other)


def test_another_role_is_another_uid() -> None:
    assert derived_uid("series", "x") != derived_uid("instance", "x")


@given(st.lists(PARTS, min_size=2, max_size=2, unique_by=repr))
def test_a_digest_is_of_the_whole_value(values: list[object]) -> None:
    one, other = (digest(value) for value in values)  # type: ignore[arg-type]  # JSON, as above
    assert len(one) == 64
    assert (one == other) == (values[0] == values[1] and repr(values[0]) == repr(values[1]))


def test_our_implementation_is_named_within_the_limits() -> None:
    assert UID(IMPLEMENTATION_CLASS_UID).is_valid  # PS3.7 Annex D.3.3.2
    assert len(IMPLEMENTATION_VERSION_NAME) <= 16
