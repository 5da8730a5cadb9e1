"""The benchmark of pixels compares like with like, and a long CT passes within its memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import pixels


def test_both_ways_send_the_same_picture(tmp_path: Path) -> None:
    found = pixels.speed(pixels.write_scan(tmp_path, 3, rows=64), runs=1)
    assert found["grey levels"] <= 1
    assert found["ours"] > 0 < found["plain"]


@pytest.mark.soak
def test_a_ct_of_600_slices_is_segmented_in_under_a_gigabyte(tmp_path: Path) -> None:
    pixels.write_scan(tmp_path, 600)
    found = pixels.memory(tmp_path)
    assert max(found["infer"], found["encode"]) * 1024**2 < 1e9
