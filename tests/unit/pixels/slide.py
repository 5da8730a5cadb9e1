"""Whole-slide images made for tests: a picture cut into tiles, on a grid or here and there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from pacs_ai.study import Instance
from tests.unit.pixels.made import grey, written

GLASS = (226, 220, 228)
STAIN = (120, 60, 150)
SPACING = (0.004, 0.002)
ORIGIN = (21.5, 40.25)
ORIENTATION = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0)
"""As the shared slide lies: columns run to falling y, rows to falling x."""


def picture(rows: int, columns: int, *spots: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Return glass with stained rectangles: first and past last row, first and past last column."""
    made = np.empty((rows, columns, 3), np.uint8)
    made[:] = GLASS
    for top, bottom, left, right in spots:
        made[top:bottom, left:right] = STAIN
    return made


def corners(matrix: tuple[int, int], tile: tuple[int, int]) -> list[tuple[int, int]]:
    """Return row and column (from 0) of each tile of a grid, in the order of reading."""
    return [
        (row, column)
        for row in range(0, matrix[0], tile[0])
        for column in range(0, matrix[1], tile[1])
    ]


def slide(
    folder: Path,
    pixels: NDArray[np.uint8],
    *,
    tile: tuple[int, int] = (32, 48),
    places: Sequence[tuple[int, int]] | None = None,
    uid: str = "2.25.70",
    **elements: Any,
) -> Instance:
    """Return a level of a slide; with ``places`` (rows and columns from 0) it has those tiles only."""
    matrix = pixels.shape[:2]
    padded = np.zeros((matrix[0] + tile[0], matrix[1] + tile[1], 3), np.uint8)
    padded[: matrix[0], : matrix[1]] = pixels
    at = corners(matrix, tile) if places is None else places
    frames = np.stack([padded[r : r + tile[0], c : c + tile[1]] for r, c in at])
    dataset = grey(np.zeros(tile, np.uint16), uid=uid)
    for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"):
        dataset.pop(keyword, None)
    dataset.Rows, dataset.Columns = tile
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    raw = frames.tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB"
    dataset.NumberOfFrames = len(at)
    dataset.SOPClassUID, dataset.Modality = VLWholeSlideMicroscopyImageStorage, "SM"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.FrameOfReferenceUID = "2.25.71"
    dataset.PositionReferenceIndicator = "SLIDE_CORNER"
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = matrix
    dataset.ImageOrientationSlide = list(ORIENTATION)
    dataset.TotalPixelMatrixOriginSequence = [
        _item(XOffsetInSlideCoordinateSystem=ORIGIN[0], YOffsetInSlideCoordinateSystem=ORIGIN[1])
    ]
    dataset.OpticalPathSequence = [_item(OpticalPathIdentifier="1")]
    dataset.TotalPixelMatrixFocalPlanes = 1
    measures = _item(PixelSpacing=list(SPACING), SliceThickness=0.001)
    dataset.SharedFunctionalGroupsSequence = [_item(PixelMeasuresSequence=[measures])]
    dataset.DimensionOrganizationType = "TILED_FULL" if places is None else "TILED_SPARSE"
    if places is not None:
        dataset.PerFrameFunctionalGroupsSequence = [_position(*one) for one in places]
    _specimen(dataset)
    for keyword, value in elements.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    return written(folder, dataset)


def _position(row: int, column: int) -> Dataset:
    place = _item(
        RowPositionInTotalImagePixelMatrix=row + 1,
        ColumnPositionInTotalImagePixelMatrix=column + 1,
        XOffsetInSlideCoordinateSystem=0,
        YOffsetInSlideCoordinateSystem=0,
        ZOffsetInSlideCoordinateSystem=0,
    )
    return _item(PlanePositionSlideSequence=[place])


def _specimen(dataset: Dataset) -> None:
    dataset.ContainerIdentifier = "S-1"
    dataset.IssuerOfTheContainerIdentifierSequence = []
    dataset.ContainerTypeCodeSequence = []
    dataset.SpecimenDescriptionSequence = [
        _item(
            SpecimenIdentifier="S-1",
            SpecimenUID="2.25.72",
            IssuerOfTheSpecimenIdentifierSequence=[],
            SpecimenPreparationSequence=[],
        )
    ]


def _item(**elements: Any) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made
