"""The border of a radiograph: left out only where every pixel proves that it is empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_ai.errors import PixelError
from pacs_ai.pixels.border import FEATURELESS, LARGEST
from pacs_ai.pixels.display import DisplayImage, View, display_image
from pacs_ai.pixels.placement import Cut
from tests.unit.pixels.made import image

ROWS, COLUMNS = 101, 120
MASKED = Cut(7, 3, 10, 21)
EDGES = {
    "CollimatorShape": "RECTANGULAR",
    "CollimatorUpperHorizontalEdge": MASKED.top + 1,
    "CollimatorLowerHorizontalEdge": ROWS - MASKED.bottom,
    "CollimatorLeftVerticalEdge": MASKED.left + 1,
    "CollimatorRightVerticalEdge": COLUMNS - MASKED.right,
}


def anatomy() -> NDArray[np.uint16]:
    """Return grey values from 1000 to 2999 of which no row and no column is even."""
    return np.random.default_rng(7).integers(1000, 3000, (ROWS, COLUMNS)).astype(np.uint16)


def masked(value: int, cut: Cut = MASKED) -> NDArray[np.uint16]:
    stored = np.full((ROWS, COLUMNS), value, np.uint16)
    inside = cut.inside(ROWS, COLUMNS)
    stored[inside] = anatomy()[inside]
    return stored


def shown(folder: Path, stored: NDArray[Any], **elements: Any) -> DisplayImage:
    return display_image(image(folder, stored, **elements), view=View.ANY)


@pytest.mark.parametrize("value", [0, 4095])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_outermost_lines_of_one_value_are_border_and_have_no_say_in_the_contrast(
    tmp_path: Path, value: int, photometric: str
) -> None:
    found = shown(tmp_path, masked(value), PhotometricInterpretation=photometric)
    assert found.border == MASKED
    inside = MASKED.inside(ROWS, COLUMNS)
    alone = shown(tmp_path, anatomy()[inside], PhotometricInterpretation=photometric)
    np.testing.assert_array_equal(found.without_border().pixels, alone.pixels)
    # People still see all of it.
    assert found.pixels.shape == (ROWS, COLUMNS)


def test_edges_may_have_values_of_their_own(tmp_path: Path) -> None:
    stored = masked(0)
    stored[:, : MASKED.left] = 4095
    assert shown(tmp_path, stored).border == MASKED
    stored[: MASKED.top] = 77
    assert shown(tmp_path, stored).border == MASKED


def test_padding_and_what_a_shutter_hides_are_border_too(tmp_path: Path) -> None:
    # Noise in the padding range, which is not one value.
    stored = masked(0)
    outside = np.ones(stored.shape, bool)
    outside[MASKED.inside(ROWS, COLUMNS)] = False
    stored[outside] = np.arange(outside.sum()) % 30
    padded = shown(tmp_path, stored, PixelPaddingValue=0, PixelPaddingRangeLimit=29)
    assert padded.border == MASKED
    shutter = {key.replace("Collimator", "Shutter"): value for key, value in EDGES.items()}
    assert shown(tmp_path, anatomy(), **shutter).border == MASKED


CIRCLE = {
    "CollimatorShape": "CIRCULAR",
    "CenterOfCircularCollimator": [51, 60],
    "RadiusOfCircularCollimator": 39,
}
DIAMOND = {
    "CollimatorShape": "POLYGONAL",
    "VerticesOfThePolygonalCollimator": [12, 60, 51, 99, 90, 60, 51, 21],
}
BOTH = {**EDGES, **CIRCLE, "CollimatorShape": ["RECTANGULAR", "CIRCULAR"]}
ROUND = Cut(11, 11, 20, 21)
"""What is beyond rows 12 to 90 and columns 21 to 99."""


@pytest.mark.parametrize("collimator", [CIRCLE, DIAMOND, BOTH], ids=["circle", "polygon", "both"])
def test_a_round_collimator_has_four_sides_too(tmp_path: Path, collimator: dict[str, Any]) -> None:
    stored = anatomy()
    down, across = np.mgrid[1 : ROWS + 1, 1 : COLUMNS + 1]
    outside = np.hypot(down - 51, across - 60) > 39
    stored[outside] = 1000 + np.random.default_rng(2).integers(0, 10, outside.sum())
    assert shown(tmp_path, stored).border == Cut()
    assert shown(tmp_path, stored, **collimator).border == ROUND
    stored[3, 60] = 2500  # a marker above it
    assert shown(tmp_path, stored, **collimator).border == Cut(0, 11, 20, 21)


@pytest.mark.parametrize(
    "wrong",
    [
        {"CollimatorShape": "OVAL"},
        {"CollimatorShape": ["CIRCULAR", "OVAL"]},
        {"RadiusOfCircularCollimator": None},
        {"CenterOfCircularCollimator": [51]},
        {"RadiusOfCircularCollimator": -39},
    ],
)
def test_a_collimator_that_makes_no_sense_is_none(tmp_path: Path, wrong: dict[str, Any]) -> None:
    stored = masked(1000, ROUND)
    stored[0, 0] = stored[-1, -1] = stored[0, -1] = stored[-1, 0] = 1001
    assert shown(tmp_path, stored, **CIRCLE).border == ROUND
    assert shown(tmp_path, stored, **(CIRCLE | wrong)).border == Cut()


@pytest.mark.parametrize("edge", ["top", "bottom", "left", "right"])
def test_one_pixel_that_differs_ends_the_border_there(tmp_path: Path, edge: str) -> None:
    stored = masked(0)
    place = {"top": (2, 60), "bottom": (-2, 60), "left": (50, 4), "right": (50, -4)}[edge]
    stored[place] = 1
    border = shown(tmp_path, stored).border
    expected = {"top": 2, "bottom": 1, "left": 4, "right": 3}[edge]
    assert getattr(border, edge) == expected
    others = {"top", "bottom", "left", "right"} - {edge}
    assert all(getattr(border, one) == getattr(MASKED, one) for one in others)


def test_an_edge_of_grey_values_alone_is_no_border(tmp_path: Path) -> None:
    """A limb beside a bright shield: the shield is not even, and nothing else says what it is."""
    stored = anatomy()
    stored[:, -30:] = 4000 + np.random.default_rng(1).integers(0, 3, (ROWS, 30))
    assert shown(tmp_path, stored).border == Cut()


def test_more_border_than_half_an_image_is_none(tmp_path: Path) -> None:
    just = Cut(0, 0, int(LARGEST * COLUMNS), 0)
    assert shown(tmp_path, masked(0, just)).border == just
    assert shown(tmp_path, masked(0, Cut(5, 0, just.left + 1, 0))).border == Cut()


def test_an_image_of_one_value_stays_refused(tmp_path: Path) -> None:
    with pytest.raises(PixelError, match="one value in all its PixelData"):
        shown(tmp_path, np.full((ROWS, COLUMNS), 9, np.uint16))


@pytest.mark.parametrize("modality", ["MG", "CT", "US", "NM", "OP"])
def test_air_around_a_breast_or_a_slice_is_no_border(tmp_path: Path, modality: str) -> None:
    assert shown(tmp_path, masked(0), Modality=modality, **EDGES).border == Cut()


# ---------------------------------------------------------------------- the header's collimator


def scattered(level: int, spread: int) -> NDArray[np.uint16]:
    """Return an image whose border has a level and a grain, which is no proof by itself."""
    stored = anatomy()
    outside = np.ones(stored.shape, bool)
    outside[MASKED.inside(ROWS, COLUMNS)] = False
    grain = np.random.default_rng(2).integers(0, spread + 1, stored.shape)
    stored[outside] = (level + grain)[outside]
    stored[0, 0], stored[-1, -1] = level, level + spread
    return stored


SPREAD = int(FEATURELESS * 1900)
"""Less than the bound for values from 1000 to 2999, of which some are left out at either end."""


@pytest.mark.parametrize("level", [500, 960, 3000, 4000])
def test_a_collimator_that_the_pixels_confirm_is_border(tmp_path: Path, level: int) -> None:
    stored = scattered(level, SPREAD)
    assert shown(tmp_path, stored).border == Cut()
    assert shown(tmp_path, stored, **EDGES).border == MASKED


@pytest.mark.parametrize(
    "stored",
    [
        scattered(3000, 3 * SPREAD),  # structure
        scattered(2000, SPREAD),  # even, and as dense as the patient
        anatomy(),
    ],
    ids=["structure", "grey", "anatomy"],
)
def test_a_collimator_that_the_pixels_do_not_confirm_is_none(
    tmp_path: Path, stored: NDArray[np.uint16]
) -> None:
    assert shown(tmp_path, stored, **EDGES).border == Cut()


@pytest.mark.parametrize("edge", ["top", "bottom", "left", "right"])
def test_a_marker_outside_of_one_edge_keeps_that_edge_only(tmp_path: Path, edge: str) -> None:
    stored = scattered(3000, SPREAD)
    place = {"top": (2, 60), "bottom": (-2, 60), "left": (50, 4), "right": (50, -4)}[edge]
    stored[place] = 2000
    border = shown(tmp_path, stored, **EDGES).border
    assert getattr(border, edge) == 0
    others = {"top", "bottom", "left", "right"} - {edge}
    assert all(getattr(border, one) == getattr(MASKED, one) for one in others)


def test_a_mask_within_the_header_s_collimator_adds_to_it(tmp_path: Path) -> None:
    stored = scattered(3000, SPREAD)
    stored[:4] = 0
    stored[:, :15] = 0
    assert shown(tmp_path, stored, **EDGES).border == Cut(7, 3, 15, 21)


@pytest.mark.parametrize(
    "wrong",
    [
        {"CollimatorShape": ["RECTANGULAR", "CIRCULAR"]},
        {"CollimatorShape": "CIRCULAR"},
        {"CollimatorLeftVerticalEdge": None},
        {"CollimatorLeftVerticalEdge": 500, "CollimatorRightVerticalEdge": 600},
        {"CollimatorRightVerticalEdge": -5, "CollimatorLeftVerticalEdge": -9},
        {"CollimatorLeftVerticalEdge": 90, "CollimatorRightVerticalEdge": 20},
    ],
    ids=str,
)
def test_a_collimator_that_cannot_be_read_is_none(tmp_path: Path, wrong: dict[str, Any]) -> None:
    stored = scattered(3000, SPREAD)
    assert shown(tmp_path, stored, **{**EDGES, **wrong}).border == Cut()


def test_edges_beyond_the_image_say_that_nothing_is_collimated(tmp_path: Path) -> None:
    """As the mammography unit of the shared images writes them: from 0 to one more than there are."""
    edges = {
        "CollimatorShape": "RECTANGULAR",
        "CollimatorUpperHorizontalEdge": 0,
        "CollimatorLowerHorizontalEdge": ROWS + 1,
        "CollimatorLeftVerticalEdge": 0,
        "CollimatorRightVerticalEdge": COLUMNS + 1,
    }
    assert shown(tmp_path, anatomy(), **edges).border == Cut()


# ---------------------------------------------------------------------- the way to the model and back


def test_a_cut_image_is_turned_as_the_whole_one_is(tmp_path: Path) -> None:
    made = image(tmp_path, masked(0), PatientOrientation=["H", "R"])
    whole = display_image(made, view=View.FRONTAL)
    cut = whole.without_border()
    assert whole.turn.transpose
    stored = whole.turn.undo(whole.pixels)
    wanted = np.zeros_like(stored)
    inside = MASKED.inside(ROWS, COLUMNS)
    wanted[inside] = stored[inside]
    np.testing.assert_array_equal(cut.turn.undo(cut.pixels), wanted)
    assert cut.pixels.shape == cut.turn.displayed == (120 - 31, 101 - 10)


def test_a_model_that_takes_the_middle_gets_no_less_square_a_picture(tmp_path: Path) -> None:
    found = shown(tmp_path, masked(0, Cut(0, 0, 30, 29)))
    assert found.without_border().pixels.shape == (101, 61)
    assert found.towards_square().pixels.shape == (101, 101)
