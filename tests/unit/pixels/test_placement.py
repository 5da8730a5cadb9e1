"""Turn and Placement: whatever goes to a model comes back to where it was."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pacs_ai.pixels.placement import Cut, Placement, Turn

TURNS = [Turn(5, 7, *flags) for flags in itertools.product((False, True), repeat=3)]
CUTS = [replace(turn, cut=Cut(1, 0, 2, 3)) for turn in TURNS]
cuts = st.tuples(*[st.floats(0, 0.24)] * 4)
"""Parts of the rows above and below, of the columns to the left and right."""


def cut_of(rows: int, columns: int, parts: tuple[float, ...]) -> Cut:
    sides = (rows, rows, columns, columns)
    return Cut(*(int(part * side) for part, side in zip(parts, sides, strict=True)))


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_a_turn_and_its_way_back_change_nothing(turn: Turn) -> None:
    stored = np.arange(35).reshape(5, 7)
    displayed = turn.apply(stored)
    assert displayed.shape == turn.displayed
    np.testing.assert_array_equal(turn.undo(displayed), stored)


@pytest.mark.parametrize("turn", CUTS, ids=str)
def test_a_cut_image_comes_back_to_its_own_place_and_nothing_stands_around_it(turn: Turn) -> None:
    stored = np.arange(1, 36).reshape(5, 7)
    displayed = turn.apply(stored)
    assert displayed.shape == turn.displayed
    wanted = np.zeros_like(stored)
    wanted[1:, 2:4] = stored[1:, 2:4]
    back = turn.undo(displayed)
    np.testing.assert_array_equal(back, wanted)
    assert back.dtype == stored.dtype
    colour = np.repeat(stored[..., np.newaxis], 3, axis=2)
    np.testing.assert_array_equal(turn.undo(turn.apply(colour))[..., 2], wanted)


@pytest.mark.parametrize("turn", TURNS + CUTS, ids=str)
def test_a_point_comes_back_to_its_own_pixel(turn: Turn) -> None:
    stored = np.arange(35).reshape(5, 7)
    displayed = turn.apply(stored)
    for row, column in itertools.product(*map(range, displayed.shape)):
        x, y = turn.undo_point(column + 0.5, row + 0.5)
        assert stored[int(y), int(x)] == displayed[row, column]


@given(rows=st.integers(1, 90), columns=st.integers(1, 90))
def test_padding_is_centred_and_complete_for_any_size(rows: int, columns: int) -> None:
    placement = Placement(rows, columns, max(rows, columns))
    image = np.full((rows, columns), 200, np.uint8)
    square = placement.apply(image)
    assert square.shape == (placement.side, placement.side)
    assert int((square == 200).sum()) == rows * columns
    below = placement.side - rows - placement.top
    beside = placement.side - columns - placement.left
    assert 0 <= below - placement.top <= 1
    assert 0 <= beside - placement.left <= 1
    np.testing.assert_array_equal(placement.undo(square), image.astype(np.float32))


@pytest.mark.parametrize(("rows", "columns"), [(2128, 2000), (301, 440), (440, 301), (997, 1024)])
def test_a_mask_comes_back_through_resizing_onto_the_same_pixels(rows: int, columns: int) -> None:
    placement = Placement(rows, columns, 1024)
    mask = np.zeros((rows, columns), bool)
    mask[rows // 7 : rows // 3, columns // 5 : columns // 2] = True
    back = placement.undo(placement.apply(mask.astype(np.uint8) * 255)) > 127.5
    union = (mask | back).sum()
    assert (mask & back).sum() / union > 0.99
    centre = [axis.mean() for axis in np.nonzero(mask)]
    assert np.allclose(centre, [axis.mean() for axis in np.nonzero(back)], atol=0.3)


@pytest.mark.parametrize(("rows", "columns"), [(2001, 1500), (301, 440)])
def test_a_point_of_the_square_comes_back_to_the_image(rows: int, columns: int) -> None:
    placement = Placement(rows, columns, 1024)
    image = np.zeros((rows, columns), np.uint8)
    image[rows // 3 : rows // 3 + 9, columns // 4 : columns // 4 + 9] = 255
    x, y = _centre(placement.apply(image))
    back = placement.undo_point(x + 0.5, y + 0.5)
    assert back == pytest.approx((columns // 4 + 4.5, rows // 3 + 4.5), abs=0.2)


sizes = st.integers(1, 3000)
aspects = st.floats(0.2, 5.0)


@given(
    rows=sizes,
    columns=sizes,
    aspect=aspects,
    size=st.sampled_from([512, 1024]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    parts=cuts,
    where=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_a_stored_pixel_s_point_comes_back_to_that_pixel(
    rows: int,
    columns: int,
    aspect: float,
    size: int,
    flags: tuple[bool, bool, bool],
    parts: tuple[float, ...],
    where: tuple[float, float],
) -> None:
    cut = cut_of(rows, columns, parts)
    turn = Turn(rows, columns, *flags, cut)
    placement = Placement(*turn.displayed, size, aspect)
    column = cut.left + int(where[0] * (columns - cut.left - cut.right))
    row = cut.top + int(where[1] * (rows - cut.top - cut.bottom))
    x, y = placement.apply_point(*turn.apply_point(column + 0.5, row + 0.5))
    assert 0 <= x <= size
    assert 0 <= y <= size
    back = turn.undo_point(*placement.undo_point(x, y))
    assert back == pytest.approx((column + 0.5, row + 0.5), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(17, 100),
    columns=st.integers(17, 100),
    aspect=st.floats(0.5, 2.0),
    size=st.integers(100, 250),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    parts=cuts,
    where=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_target_of_one_pixel_comes_back_onto_the_same_pixel(
    rows: int,
    columns: int,
    aspect: float,
    size: int,
    flags: tuple[bool, bool, bool],
    parts: tuple[float, ...],
    where: tuple[float, float],
) -> None:
    cut = cut_of(rows, columns, parts)
    turn = Turn(rows, columns, *flags, cut)
    placement = Placement(*turn.displayed, size, aspect)
    # At the very edge a part of the target's blur falls off the image and moves its centre.
    row = cut.top + 3 + int(where[0] * (rows - cut.top - cut.bottom - 7))
    column = cut.left + 3 + int(where[1] * (columns - cut.left - cut.right - 7))
    stored = np.zeros((rows, columns), np.uint8)
    stored[row, column] = 255
    square = placement.apply(turn.apply(stored))
    back = turn.undo(placement.undo(square))
    assert _centre(back) == pytest.approx((column, row), abs=0.5)
    x, y = _centre(square)
    seen = turn.undo_point(*placement.undo_point(x + 0.5, y + 0.5))
    assert seen == pytest.approx((column + 0.5, row + 0.5), abs=0.3)


def _centre(image: NDArray[Any]) -> tuple[float, float]:
    """Return the column and row of an image's centre of mass."""
    weights = image.astype(np.float64)
    row, column = ((weights * grid).sum() / weights.sum() for grid in np.indices(image.shape))
    return float(column), float(row)


@given(rows=st.integers(1, 300), columns=st.integers(1, 300), parts=cuts)
def test_the_middle_of_a_cut_image_loses_no_more_of_it_than_the_whole_image_did(
    rows: int, columns: int, parts: tuple[float, ...]
) -> None:
    cut = cut_of(rows, columns, parts)
    kept = cut.towards_square(rows, columns)
    content, before, after = (
        np.zeros((rows, columns), bool),
        np.zeros((rows, columns), bool),
        np.zeros((rows, columns), bool),
    )
    content[cut.inside(rows, columns)] = True
    before[_middle(Cut(), rows, columns)] = True
    after[_middle(kept, rows, columns)] = True
    assert (content & after).sum() >= (content & before).sum()
    assert all(
        0 <= new <= old
        for new, old in zip(
            (kept.top, kept.bottom, kept.left, kept.right),
            (cut.top, cut.bottom, cut.left, cut.right),
            strict=True,
        )
    )
    if content.any(axis=1).sum() <= columns and content.any(axis=0).sum() <= rows:
        assert (content & after).sum() == content.sum()


def _middle(cut: Cut, rows: int, columns: int) -> tuple[slice, slice]:
    """Return the square in the middle of what a cut leaves, as the report model takes it."""
    down, across = (range(one.stop)[one] for one in cut.inside(rows, columns))
    side = min(len(down), len(across))
    first, left = (one[(len(one) - side) // 2] for one in (down, across))
    return slice(first, first + side), slice(left, left + side)


def test_pixels_that_are_not_square_become_square() -> None:
    flat = Placement(100, 100, 200, aspect=0.5)
    assert (flat.tall, flat.wide, flat.top, flat.left) == (100, 200, 50, 0)
    tall = Placement(100, 101, 200, aspect=2.0)
    assert (tall.tall, tall.wide, tall.top, tall.left) == (200, 101, 0, 49)
    circle = np.hypot(*(np.indices((100, 101)) - 50) * np.array([2, 1])[:, None, None]) < 40
    square = tall.apply(circle.astype(np.uint8) * 255) > 127
    down, across = (int(square.any(axis=axis).sum()) for axis in (1, 0))
    assert abs(down - across) <= 2


def test_colour_is_placed_as_grey_is() -> None:
    placement = Placement(31, 47, 64, 1.3)
    grey = np.random.default_rng(1).integers(0, 255, (31, 47)).astype(np.uint8)
    square = placement.apply(np.repeat(grey[..., np.newaxis], 3, axis=2))
    for index in range(3):
        np.testing.assert_array_equal(square[..., index], placement.apply(grey))


def test_an_array_of_another_shape_does_not_pass() -> None:
    placement = Placement(3, 5, 8)
    with pytest.raises(ValueError, match="belongs here"):
        placement.apply(np.zeros((5, 3), np.uint8))
    with pytest.raises(ValueError, match="belongs here"):
        placement.undo(np.zeros((5, 5), np.float32))
