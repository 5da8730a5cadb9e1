"""Whole-slide images: where each tile lies on the slide's pixel matrix, and which of them hold tissue.

A slide comes as one Instance a level, its tiles as frames (PS3.3 A.32.8): on a grid in the order of reading
(TILED_FULL), or each where its functional group says (TILED_SPARSE).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_ai.errors import PixelError
from pacs_ai.pixels.decode import stored_frames
from pacs_ai.pixels.description import describe, named
from pacs_ai.study import Instance, items, values
from pacs_ai.uids import is_uid

GLASS_SHARE = 0.995
"""Share of a tile's pixels that must be glass, or nothing, for the tile to be left out."""

_BRIGHT = 200
"""Least red, green and blue of glass: of unstained pixels that the scanner's lamp shines through."""

_COLOURLESS = 20
"""Most difference of a glass pixel's red, green and blue."""

_NOTHING = 4
"""Most of what a scanner writes where it did not look; not quite 0 after lossy compression."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One frame of a whole-slide image.

    Attributes
    ----------
    number : int
        Of the frame, from 1.
    column, row : int
        Of its top left pixel in the slide's pixel matrix, from 1.
    rows, columns : int
        How much of it lies within the matrix: the last ones of a grid reach beyond it.
    """

    number: int
    column: int
    row: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Slide:
    """The geometry of a whole-slide image (PS3.3 C.8.12.4).

    Attributes
    ----------
    tiles : tuple of Tile
        In the order of the frames.
    rows, columns : int
        Of the slide's pixel matrix.
    origin : tuple of float
        Centre of its top left pixel in the slide's coordinates, mm.
    orientation : tuple of float
        Direction of rising columns, then of rising rows.
    spacing : tuple of float
        Between rows, between columns, mm.
    """

    tiles: tuple[Tile, ...]
    rows: int
    columns: int
    origin: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]


def slide_of(instance: Instance) -> Slide:
    """Return the geometry of a whole-slide image; decodes nothing.

    Raises
    ------
    PixelError
        When it is not one focal plane in colour, or does not say where its tiles lie.
    """
    header = instance.header
    description = describe(header, instance.transfer_syntax_uid)
    if not description.colour:
        raise _refusal(instance, "is not in colour: only stained slides are read")
    if len(items(header, "OpticalPathSequence")) > 1 or _planes(header) > 1:
        raise _refusal(
            instance,
            "has several optical paths or focal planes: send an Instance of one focal plane and path",
        )
    if not is_uid("".join(values(header, "FrameOfReferenceUID")).encode()):
        raise _refusal(instance, "has no valid FrameOfReferenceUID: correct it at its source")
    shared = next(iter(items(header, "SharedFunctionalGroupsSequence")), Dataset())
    measures = next(iter(items(shared, "PixelMeasuresSequence")), Dataset())
    origin = next(iter(items(header, "TotalPixelMatrixOriginSequence")), Dataset())
    rows, columns = (
        int(_numbers(instance, header, f"TotalPixelMatrix{one}", 1)[0])
        for one in ("Rows", "Columns")
    )
    place = tuple(
        _numbers(instance, origin, f"{axis}OffsetInSlideCoordinateSystem", 1)[0] for axis in "XY"
    )
    orientation = _numbers(instance, header, "ImageOrientationSlide", 6)
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.array([across @ across, down @ down, across @ down])
    if not np.allclose(lengths, (1, 1, 0), rtol=0, atol=1e-3):
        raise _refusal(
            instance,
            "has an ImageOrientationSlide that is no pair of directions: correct it at its source",
        )
    spacing = _numbers(instance, measures, "PixelSpacing", 2)
    if min(*spacing, rows, columns) <= 0:
        raise _refusal(
            instance,
            "has a PixelSpacing or TotalPixelMatrixRows or Columns of zero or less: correct it at its "
            "source",
        )
    shape = (description.rows, description.columns)
    tiles = _tiles(instance, description.frames, shape, (rows, columns))
    return Slide(tiles, rows, columns, (*place, 0.0), orientation, spacing)


def with_tissue(instance: Instance, tiles: tuple[Tile, ...]) -> tuple[Tile, ...]:
    """Return the tiles that hold something else than empty background; decodes each once.

    Raises
    ------
    PixelError
        When a tile cannot be decoded.
    """
    frames = stored_frames(instance, [one.number - 1 for one in tiles])
    return tuple(
        one
        for one, pixels in zip(tiles, frames, strict=True)
        if holds_tissue(pixels[: one.rows, : one.columns])
    )


def holds_tissue(pixels: NDArray[Any]) -> bool:
    """Tell whether a tile may hold tissue: unless nearly every pixel is glass, it may.

    Glass is bright and without colour; what the scanner did not look at is black. A tile on which one pixel
    in two hundred is anything else is kept, whatever it is: pale tissue, ink, dust or the edge of the glass.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (rows, columns, 3)
        Red, green, blue.
    """
    most, least = pixels.max(axis=-1), pixels.min(axis=-1)
    glass = (least >= _BRIGHT) & (most - least <= _COLOURLESS)
    return bool((glass | (most <= _NOTHING)).mean() < GLASS_SHARE)


def _tiles(
    instance: Instance, count: int, shape: tuple[int, int], matrix: tuple[int, int]
) -> tuple[Tile, ...]:
    places = _grid(instance, count, shape, matrix)
    if len(set(places)) < len(places):
        raise _refusal(instance, "has two tiles in one place: correct it at its source")
    return tuple(
        Tile(
            number,
            column,
            row,
            rows=min(shape[0], matrix[0] - row + 1),
            columns=min(shape[1], matrix[1] - column + 1),
        )
        for number, (row, column) in enumerate(places, 1)
    )


def _grid(
    instance: Instance, count: int, shape: tuple[int, int], matrix: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return row and column of each tile's top left pixel, from 1."""
    header = instance.header
    if values(header, "DimensionOrganizationType") == ("TILED_FULL",):
        down, across = (math.ceil(whole / one) for whole, one in zip(matrix, shape, strict=True))
        if down * across != count:
            raise _refusal(
                instance,
                f"has {count} tiles where {down} rows of {across} fill its pixel matrix (TILED_FULL): "
                "send it again from its source",
            )
        return [
            (row * shape[0] + 1, column * shape[1] + 1)
            for row in range(down)
            for column in range(across)
        ]
    own = items(header, "PerFrameFunctionalGroupsSequence")
    if len(own) != count:
        raise _refusal(
            instance,
            f"has {count} tiles and {len(own)} items of PerFrameFunctionalGroupsSequence that say where "
            "they lie: send it again from its source",
        )
    places = []
    for group in own:
        position = next(iter(items(group, "PlanePositionSlideSequence")), Dataset())
        row, column = (
            int(_numbers(instance, position, f"{one}PositionInTotalImagePixelMatrix", 1)[0])
            for one in ("Row", "Column")
        )
        if not (1 <= row <= matrix[0] and 1 <= column <= matrix[1]):
            raise _refusal(
                instance, "has a tile outside of its pixel matrix: correct it at its source"
            )
        places.append((row, column))
    return places


def _planes(header: Dataset) -> int:
    given = "".join(values(header, "TotalPixelMatrixFocalPlanes")[:1]) or "1"
    return int(given) if given.isascii() and given.isdigit() else 1


def _numbers(instance: Instance, header: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    try:
        found = tuple(float(one) for one in values(header, keyword))
    except ValueError:
        found = ()
    if len(found) != count or not all(map(math.isfinite, found)):
        raise _refusal(
            instance,
            f"has no usable {keyword}, without which nobody knows where its tiles lie: send it from a "
            "system that sets it",
        )
    return found


def _refusal(instance: Instance, text: str) -> PixelError:
    return PixelError(f"{named(instance)} {text}")
