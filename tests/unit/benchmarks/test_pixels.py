"""A long CT passes within its memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import pixels


@pytest.mark.soak
def test_a_ct_of_600_slices_is_segmented_in_under_a_gigabyte(tmp_path: Path) -> None:
    pixels.write_scan(tmp_path, 600)
    found = pixels.memory(tmp_path)
    assert max(found["infer"], found["encode"]) * 1024**2 < 1e9
