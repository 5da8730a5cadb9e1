"""What highdicom needs of a whole-slide image: some of its tiles, each where it lies on the slide."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from pacs_ai.encoding.identity import light_source, valid
from pacs_ai.errors import EncodingError, PixelError
from pacs_ai.pixels.slides import Slide, Tile, slide_of
from pacs_ai.study import Instance

_SPECIMEN = (
    "ContainerIdentifier",
    "IssuerOfTheContainerIdentifierSequence",
    "ContainerTypeCodeSequence",
    "SpecimenDescriptionSequence",
)
"""The Specimen module (PS3.3 C.7.6.22), which everything made of a slide has too."""


def light_tiles(instance: Instance, numbers: Sequence[int]) -> Dataset:
    """Return :func:`light_source` of a whole-slide image that has only some of its tiles (TILED_SPARSE).

    Parameters
    ----------
    instance : Instance
    numbers : sequence of int
        Of its frames, from 1. The first frame of what is returned is the first of these.

    Raises
    ------
    EncodingError
        As :func:`light_source`, and where the slide does not say where its tiles lie.
    """
    try:
        slide = slide_of(instance)
    except PixelError as error:
        raise EncodingError(str(error)) from error
    source = light_source(instance)
    source.FrameOfReferenceUID = instance.header.FrameOfReferenceUID
    corner = valid(instance.header, "PositionReferenceIndicator")
    source.PositionReferenceIndicator = None if corner is None else corner.value
    source.TotalPixelMatrixRows, source.TotalPixelMatrixColumns = slide.rows, slide.columns
    source.ImageOrientationSlide = list(slide.orientation)
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = slide.origin[:2]
    source.TotalPixelMatrixOriginSequence = [origin]
    source.NumberOfFrames = len(numbers)
    source.DimensionOrganizationType = "TILED_SPARSE"
    group = Dataset()
    shared = instance.header.SharedFunctionalGroupsSequence[0]
    group.PixelMeasuresSequence = copy.deepcopy(shared.PixelMeasuresSequence)
    source.SharedFunctionalGroupsSequence = [group]
    tiles = {one.number: one for one in slide.tiles}
    source.PerFrameFunctionalGroupsSequence = [_position(slide, tiles[one]) for one in numbers]
    for keyword in _SPECIMEN:
        element = valid(instance.header, keyword)
        if element is not None:
            source.add(copy.deepcopy(element))
    return source


def _position(slide: Slide, tile: Tile) -> Dataset:
    across, down = np.array(slide.orientation[:3]), np.array(slide.orientation[3:])
    place = (
        np.array(slide.origin)
        + across * slide.spacing[1] * (tile.column - 1)
        + down * slide.spacing[0] * (tile.row - 1)
    )
    group = Dataset()
    group.PlanePositionSlideSequence = hd.PlanePositionSequence(
        coordinate_system=hd.CoordinateSystemNames.SLIDE,
        image_position=[float(one) for one in place],
        pixel_matrix_position=(tile.column, tile.row),
    )
    return group
