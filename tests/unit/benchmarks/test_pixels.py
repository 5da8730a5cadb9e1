"""A long CT passes within its memory, however many masks overlap on it."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from benchmarks import pixels

GIGABYTE = 1e9
BARE = 300 * 2**20
"""What a process and its decoder hold before they have seen a slice."""


def segmented(folder: Path, slices: int) -> float:
    """Return the most bytes that a CT of so many slices takes."""
    (scan := folder / "scan").mkdir()
    pixels.write_scan(scan, slices)
    peak = pixels.memory(scan, folder) * 2**20
    (written,) = (folder / "results").glob("*/segmentation-*.dcm")
    found = pydicom.dcmread(written, stop_before_pixels=True)
    assert len(found.SegmentSequence) == len(pixels.PROMPTS)
    assert found.NumberOfFrames > 2 * slices
    assert found.SegmentsOverlap == "YES"
    return peak


@pytest.mark.soak
def test_a_ct_of_600_slices_is_segmented_in_under_a_gigabyte(tmp_path: Path) -> None:
    assert segmented(tmp_path, 600) < GIGABYTE


def test_a_slice_takes_no_more_than_its_part_of_a_gigabyte(tmp_path: Path) -> None:
    peak = segmented(tmp_path, 120)
    assert peak < BARE + (GIGABYTE - BARE) * 120 / 600
