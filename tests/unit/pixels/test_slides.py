"""Tiles of a slide: each in its place on the pixel matrix, and only empty background is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest

from pacs_ai.errors import PixelError
from pacs_ai.pixels.decode import stored_frames
from pacs_ai.pixels.slides import holds_tissue, slide_of, with_tissue
from pacs_ai.study import is_slide, read_instance
from tests.unit.pixels.made import SHARED
from tests.unit.pixels.slide import GLASS, STAIN, picture, slide

REAL = SHARED / "wsi/sm-15frame-jpeg-camelyon.dcm"
MATRIX = picture(70, 130, (10, 30, 50, 90))


def test_tiles_of_a_full_grid_lie_where_highdicom_says(tmp_path: Path) -> None:
    one = slide(tmp_path, MATRIX)
    found = [(tile.column, tile.row) for tile in slide_of(one).tiles]
    source = pydicom.dcmread(one.path)
    expected = [
        (
            place[0].ColumnPositionInTotalImagePixelMatrix,
            place[0].RowPositionInTotalImagePixelMatrix,
        )
        for place in hd.utils.compute_plane_position_slide_per_frame(source)
    ]
    assert found == expected
    assert len(found) == 9


def test_the_last_tiles_of_a_grid_end_with_the_slide(tmp_path: Path) -> None:
    tiles = slide_of(slide(tmp_path, MATRIX)).tiles
    assert {(one.rows, one.columns) for one in tiles} == {(32, 48), (32, 34), (6, 48), (6, 34)}
    assert (tiles[-1].rows, tiles[-1].columns) == (6, 34)


def test_sparse_tiles_lie_where_each_says(tmp_path: Path) -> None:
    places = [(38, 82), (3, 7), (0, 48)]
    tiles = slide_of(slide(tmp_path, MATRIX, places=places)).tiles
    assert [(one.row - 1, one.column - 1) for one in tiles] == places
    assert [one.number for one in tiles] == [1, 2, 3]


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"NumberOfFrames": 8}, "has 8 tiles where 3 rows of 3"),
        ({"TotalPixelMatrixRows": 700}, "has 9 tiles where 22 rows of 3"),
        ({"TotalPixelMatrixOriginSequence": None}, "no usable XOffsetInSlideCoordinateSystem"),
        ({"ImageOrientationSlide": [1, 0, 0, 1, 0, 0]}, "no pair of directions"),
        ({"ImageOrientationSlide": None}, "no usable ImageOrientationSlide"),
        ({"SharedFunctionalGroupsSequence": None}, "no usable PixelSpacing"),
        ({"TotalPixelMatrixFocalPlanes": 3}, "several optical paths or focal planes"),
        ({"FrameOfReferenceUID": None}, "no valid FrameOfReferenceUID"),
        ({"TotalPixelMatrixColumns": None}, "no usable TotalPixelMatrixColumns"),
    ],
)
def test_a_slide_that_does_not_say_where_its_tiles_lie_is_refused(
    tmp_path: Path, elements: dict[str, Any], words: str
) -> None:
    one = slide(tmp_path, MATRIX, **elements)
    with pytest.raises(PixelError, match=words) as caught:
        slide_of(one)
    assert one.SOPInstanceUID in str(caught.value)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([(0, 0), (0, 0)], "two tiles in one place"),
        ([(0, 0), (70, 0)], "outside of its pixel matrix"),
    ],
)
def test_sparse_tiles_in_impossible_places_are_refused(
    tmp_path: Path, places: list[tuple[int, int]], words: str
) -> None:
    with pytest.raises(PixelError, match=words):
        slide_of(slide(tmp_path, MATRIX, places=places))


def test_only_tiles_of_glass_are_left_out(tmp_path: Path) -> None:
    one = slide(tmp_path, MATRIX)
    kept = with_tissue(one, slide_of(one).tiles)
    assert [tile.number for tile in kept] == [
        2
    ]  # the stain lies in the second tile of the first row


def test_padding_beyond_the_slide_is_no_tissue_and_hides_none(tmp_path: Path) -> None:
    one = slide(tmp_path, picture(70, 130, (68, 70, 128, 130)))
    assert [tile.number for tile in with_tissue(one, slide_of(one).tiles)] == [9]


@pytest.mark.parametrize("shade", [GLASS, (255, 255, 255), (205, 205, 205), (0, 0, 0)])
def test_a_tile_of_glass_or_of_nothing_is_empty(shade: tuple[int, int, int]) -> None:
    assert not holds_tissue(np.full((256, 256, 3), shade, np.uint8))


@pytest.mark.parametrize("shade", [STAIN, (245, 215, 225), (190, 190, 190), (60, 40, 30)])
def test_a_tile_with_one_pixel_in_a_hundred_of_anything_else_is_kept(
    shade: tuple[int, int, int],
) -> None:
    tile = np.full((100, 100, 3), GLASS, np.uint8)
    assert not holds_tissue(tile)
    tile[40:50, 40:50] = shade
    assert holds_tissue(tile)


def test_noise_of_a_lamp_is_no_tissue() -> None:
    noise = np.random.default_rng(1).normal(0, 2, (256, 256, 3))
    tile = np.clip(np.array(GLASS) + noise, 0, 255).astype(np.uint8)
    assert not holds_tissue(tile)


def test_every_tile_of_the_real_slide_that_shows_tissue_is_kept() -> None:
    """Looked at: the first fourteen tiles show tissue, the last one glass with scratches and dust."""
    one = read_instance(REAL, digest="d")
    assert is_slide(one.header)
    frames = list(stored_frames(one))
    assert all(holds_tissue(pixels) for pixels in frames[:9])
    glass = frames[0][20:50, 200:250]  # a corner in which there is only glass
    assert not holds_tissue(glass)


def test_the_real_slide_does_not_say_where_it_lies_and_is_refused() -> None:
    with pytest.raises(PixelError, match="FrameOfReferenceUID"):
        slide_of(read_instance(REAL, digest="d"))
