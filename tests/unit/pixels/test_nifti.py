"""A NIfTI file that comes back damaged, or that claims to be huge, is refused by name and never read."""

from __future__ import annotations

import gzip
import random
import struct
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pacs_ai.errors import PixelError
from pacs_ai.pixels.nifti import from_nifti, to_nifti
from pacs_ai.pixels.volume import Volume, assemble
from tests.unit.pixels.made import slices

SHAPE = (5, 8, 9)
HEADER = 348
DIMENSIONS, OFFSET, SLOPE = 40, 108, 112
"""Where dim, vox_offset and scl_slope stand in a header (NIfTI-1)."""


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    folder: Path = tmp_path_factory.mktemp("volume")
    return assemble(slices(folder, np.zeros(SHAPE, np.uint16), step=(0, 0, 2.5)))


@pytest.fixture(scope="module")
def answer(volume: Volume) -> bytes:
    """A label map as it should come back, without compression."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:5, 3:9] = 1
    return gzip.decompress(to_nifti(volume, labels, most=10**6))


def changed(answer: bytes, place: int, form: str, *values: float) -> bytes:
    data = bytearray(answer)
    struct.pack_into(form, data, place, *values)
    return bytes(data)


@pytest.mark.parametrize(
    "size", [(1000, 1000, 1000), (32767, 32767, 32767), (0, 8, 5), (9, 8, 6), (-9, 8, 5)]
)
def test_a_header_that_claims_another_size_is_refused_before_a_voxel_is_read(
    volume: Volume, answer: bytes, size: tuple[int, int, int]
) -> None:
    data = gzip.compress(changed(answer, DIMENSIONS, "<8h", 3, *size, 1, 1, 1, 1))
    tracemalloc.start()
    try:
        with pytest.raises(PixelError):
            from_nifti(data, volume)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("left", [200, 400])
def test_a_file_that_is_cut_off_is_refused(
    volume: Volume,
    answer: bytes,
    left: int,
    packed: bool,  # noqa: FBT001 - parameter
) -> None:
    data = answer[:left]
    with pytest.raises(PixelError, match=r"not a NIfTI-1 file|broken header"):
        from_nifti(gzip.compress(data) if packed else data, volume)


@pytest.mark.parametrize("offset", [1e9, -1e9, float("nan"), float("inf")])
def test_a_file_whose_voxels_begin_nowhere_is_refused(
    volume: Volume, answer: bytes, offset: float
) -> None:
    with pytest.raises(PixelError):
        from_nifti(changed(answer, OFFSET, "<f", offset), volume)


def test_a_scale_that_makes_values_infinite_is_refused(volume: Volume, answer: bytes) -> None:
    data = bytearray(nibabel.Nifti1Image(np.full((9, 8, 5), 1e300), np.eye(4)).to_bytes())
    struct.pack_into("<f", data, SLOPE, 3e38)
    with pytest.raises(PixelError, match="not finite"):
        from_nifti(bytes(data), volume)


def test_trailing_dimensions_of_one_are_no_dimensions(volume: Volume, answer: bytes) -> None:
    data = changed(answer, DIMENSIONS, "<8h", 6, 9, 8, 5, 1, 1, 1, 0)
    np.testing.assert_array_equal(from_nifti(data, volume), from_nifti(answer, volume))


def test_a_damaged_header_gives_the_volume_s_grid_or_is_refused_by_name(
    volume: Volume, answer: bytes
) -> None:
    draw = random.Random(1)
    refused = 0
    for _ in range(4000):
        data = bytearray(answer)
        for _ in range(draw.choice((1, 1, 2, 3))):
            at = draw.randrange(HEADER)
            data[at] = draw.choice((0, 1, 2, 16, 64, 127, 128, 255, draw.randrange(256)))
        try:
            assert from_nifti(bytes(data), volume).shape == SHAPE
        except PixelError:
            refused += 1
    assert 500 < refused < 3500
