"""Results written as bytes come back equal, and the same results give the same bytes everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pacs_ai import results
from pacs_ai.results import (
    Assertion,
    Box,
    Done,
    Embedding,
    Failed,
    Finding,
    JobResults,
    Measurement,
    ModelIdentity,
    Narrative,
    Result,
    Segmentation,
    Sentence,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SOURCES = st.lists(TEXT, max_size=3).map(tuple)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
BOXES = st.lists(st.builds(Box, TEXT, NUMBER, NUMBER, NUMBER, NUMBER), max_size=2).map(tuple)
SHAPES = st.one_of(
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
    arrays.array_shapes(min_dims=3, max_dims=3, max_side=5),
)
RESULTS: st.SearchStrategy[Result] = st.one_of(
    st.builds(
        Segmentation,
        label=TEXT,
        mask=arrays.arrays(np.bool_, SHAPES),
        sources=SOURCES,
        prompt=TEXT,
    ),
    st.builds(
        Finding,
        label=TEXT,
        assertion=st.sampled_from(Assertion),
        sources=SOURCES,
        boxes=BOXES,
        side=TEXT,
        score=st.none() | NUMBER,
        sentence=TEXT,
    ),
    st.builds(
        Measurement,
        label=TEXT,
        value=NUMBER,
        unit=TEXT,
        sources=SOURCES,
        method=TEXT,
        segment=TEXT,
    ),
    st.builds(
        Narrative,
        st.lists(st.builds(Sentence, TEXT, BOXES, TEXT), max_size=3).map(tuple),
        SOURCES,
    ),
    st.builds(
        Embedding,
        arrays.arrays(np.float32, st.integers(0, 9), elements=st.floats(width=32, allow_nan=False)),
        TEXT,
        TEXT,
        TEXT,
    ),
)


def comparable(result: Result) -> list[Any]:
    """Return a result's kind and fields, arrays as shape, type and bytes."""
    fields = (getattr(result, name) for name in type(result).__slots__)
    return [
        type(result),
        *(
            (one.shape, one.dtype, one.tobytes()) if isinstance(one, np.ndarray) else one
            for one in fields
        ),
    ]


@given(st.lists(RESULTS, max_size=4))
@settings(deadline=None)
def test_what_is_written_comes_back_equal(made: list[Result]) -> None:
    found = results.loads(results.dumps(made))
    assert isinstance(found, tuple)
    assert [comparable(one) for one in found] == [comparable(one) for one in made]


@given(st.lists(RESULTS, max_size=4))
@settings(deadline=None)
def test_writing_again_what_was_read_gives_the_same_bytes(made: list[Result]) -> None:
    data = results.dumps(made)
    assert results.dumps(results.loads(data)) == data


SAMPLE = """
import hashlib, numpy as np
from pacs_ai import results
from pacs_ai.results import *
made = [
    Segmentation("left lung", np.indices((3, 40, 41)).sum(0) % 3 == 0, ("1.2", "1.3", "1.4"), "lung"),
    Finding("lung opacity", Assertion.PRESENT, ("1.2",), (Box("1.2", 1.5, 2, 3.25, 4),), "left", 0.1),
    Measurement("cardiothoracic ratio", 0.1 + 0.2, "1", ("1.2",), "from masks"),
    Narrative((Sentence("Größe unverändert.", (), "compares with a prior"),), ("1.2",)),
    Embedding(np.linspace(-1, 1, 9, dtype=np.float32) / 3, "1.2", "recipe 1", "frame 2 of 3"),
]
print(hashlib.sha256(results.dumps(made)).hexdigest())
"""


def test_the_same_results_give_the_same_bytes_in_every_process() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", SAMPLE],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_mask_that_is_not_contiguous_is_written_as_it_is_seen() -> None:
    whole = np.arange(48).reshape(6, 8) % 5 == 0
    turned = Segmentation("heart", whole.T[::2], ("1.2",), "heart")
    (found,) = results.loads(results.dumps([turned]))
    assert isinstance(found, Segmentation)
    assert np.array_equal(found.mask, turned.mask)
    assert found.mask.dtype == np.bool_


def test_a_mask_takes_little_room() -> None:
    mask = np.zeros((64, 512, 512), dtype=bool)
    mask[20:40, 100:300, 100:300] = True
    data = results.dumps([Segmentation("left lung", mask, ("1.2",) * 64, "lung")])
    assert len(data) < 100_000


def test_the_bytes_are_plain_json_without_pickles() -> None:
    data = results.dumps([Finding("lung opacity", Assertion.ABSENT, ("1.2",))])
    (item,) = json.loads(data)
    assert item["kind"] == "Finding"
    assert item["assertion"] == "absent"
    assert data.isascii()


@pytest.mark.parametrize("data", [b"", b"[{}]", b'[{"kind": "Other"}]', b'[{"kind": "Finding"}]'])
def test_what_is_not_ours_is_not_read(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        results.loads(data)


def test_a_reference_model_says_so_in_its_label() -> None:
    assert ModelIdentity("Parse", "1.0", "ACME", reference=False).label == "Parse 1.0"
    assert "reference model" in ModelIdentity("Parse", "1.0", "ACME", reference=True).label


def test_only_a_finding_with_a_box_is_grounded() -> None:
    box = Box("1.2", 0, 0, 1, 1)
    assert Finding("x", Assertion.PRESENT, ("1.2",), (box,)).grounded
    assert not Finding("x", Assertion.PRESENT, ("1.2",)).grounded


def test_a_volume_has_three_axes() -> None:
    flat = Segmentation("x", np.zeros((2, 3), bool), ("1.2",), "x")
    deep = Segmentation("x", np.zeros((2, 3, 4), bool), ("1.2", "1.3"), "x")
    assert (flat.volumetric, deep.volumetric) == (False, True)


@given(
    shape=st.lists(st.integers(1, 13), min_size=2, max_size=3).map(tuple), seed=st.integers(0, 99)
)
def test_a_mask_comes_out_of_its_bits_as_it_was(shape: tuple[int, ...], seed: int) -> None:
    mask = np.random.default_rng(seed).random(shape) > 0.5
    kept = Segmentation("x", mask, ("1.2",), "x")
    np.testing.assert_array_equal(kept.mask, mask)
    assert kept.mask.dtype == np.bool_
    assert (kept.shape, kept.count) == (mask.shape, mask.sum())
    for index, plane in enumerate(mask if mask.ndim == 3 else mask[np.newaxis]):
        np.testing.assert_array_equal(kept.plane(index), plane)


def test_notes_are_kept_beside_the_results() -> None:
    made = [Finding("lung opacity", Assertion.ABSENT, ("1.2",))]
    data = results.dumps(made, ["heart was not found", "x"])
    assert list(results.loads(data)) == made
    assert results.notes_in(data) == ("heart was not found", "x")
    assert results.notes_in(results.dumps(made)) == ()


def test_the_rule_s_notes_come_before_the_run_s() -> None:
    model = ModelIdentity("m", "1", "x", reference=False)
    told = {"notes": ["portable"]}
    ran = JobResults("k", "r", "parse2d", model, Done((), ("not found",)), (), told)
    assert ran.notes == ("portable", "not found")
    failed = JobResults("k", "r", "parse2d", model, Failed("away"), (), told)
    assert failed.notes == ("portable",)
