"""The breast on a mammogram: where it is, and nowhere when there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom

from pacs_ai.reference import projection
from tests.unit.reference.pictures import shown


def test_the_breast_is_found_on_a_mammogram_and_on_nothing_else(
    shared_data: Path,
) -> None:
    asked = ["breast in breast mammography", "heart in breast mammography"]
    name = "mg/mg-mlo-12bit-jpeglossless.dcm"
    seen = shown(pydicom.dcmread(shared_data / name, force=True))
    breast, heart = projection.segment(seen, asked) > 127
    assert not heart.any()
    # The breast hangs on the right; its skin line leaves a fifth of air on the left.
    assert 0.3 < breast.mean() < 0.8
    assert breast[:, -1].mean() > 0.5
    assert not breast[:, : breast.shape[1] // 20].any()
    disc = np.hypot(*np.mgrid[-150:150, -150:150]) < 80
    for picture in (np.full((64, 200), 90, np.uint8), np.where(disc, 200, 10).astype(np.uint8)):
        assert projection.segment(picture, asked).max() <= 127
