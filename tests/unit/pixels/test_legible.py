"""A window or VOI LUT of the header that hides the image is found, and no good one is taken for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_ai.errors import PixelError
from pacs_ai.pixels.display import DisplayImage, View, display_image
from pacs_ai.settings import Window
from pacs_ai.study import read_instance
from tests.unit.pixels.made import SHARED, grey, image, written

ROWS, COLUMNS = np.mgrid[0:300, 0:280]
BODY = (200 + 3 * ROWS + 2 * COLUMNS).astype(np.uint16)
"""Twelve bits: 200 to 1655."""

MARKED = BODY.copy()
MARKED[5:20, 5:20] = 4095

COLLIMATED = np.zeros((300, 280), np.uint16)
COLLIMATED[130:180, 120:180] = BODY[130:180, 120:180]
"""One part in twenty-eight is image, the rest is black."""

DARK = np.random.default_rng(3).integers(0, 4, (300, 280)).astype(np.uint16)
DARK[140:150, 140:150] = 900
"""One lesion on a scan that is nearly empty."""


def window(center: float, width: float) -> dict[str, Any]:
    return {"WindowCenter": center, "WindowWidth": width}


def shown(folder: Path, stored: NDArray[Any], **elements: Any) -> DisplayImage:
    return display_image(image(folder, stored, **elements), view=View.ANY)


def with_table(folder: Path, stored: NDArray[np.uint16], *, bits: int) -> DisplayImage:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, bits])
    table.add_new("LUTData", "OW", np.arange(4096).astype("<u2").tobytes())
    dataset = grey(stored, uid="2.25.10", VOILUTSequence=[table])
    return display_image(written(folder, dataset), view=View.ANY)


@pytest.mark.parametrize("stored", [BODY, MARKED, COLLIMATED], ids=["body", "marked", "collimated"])
@pytest.mark.parametrize(
    "said",
    [
        window(40000, 400),
        window(-2000, 400),
        window(100, 1),
        window(100, 20),
        window(3500, 300),
        window(32768, 65535),
        {**window(40000, 400), "VOILUTFunction": "SIGMOID"},
        {**window(40000, 400), "PhotometricInterpretation": "MONOCHROME1"},
    ],
    ids=["above", "below", "step", "narrow", "bright", "wide", "sigmoid", "inverted"],
)
def test_a_window_that_hides_the_image_is_named_with_a_remedy(
    tmp_path: Path, stored: NDArray[Any], said: dict[str, Any]
) -> None:
    found = shown(tmp_path, stored, **said)
    assert found.why_not.startswith("Instance 2.25.10 has WindowCenter and WindowWidth that hide")
    with pytest.raises(PixelError, match=r"correct them at its source, or send it without them"):
        found.seen()


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (BODY, window(2048, 4096)),
        (BODY, window(900, 1500)),
        (BODY, window(500, 400)),
        (BODY, {**window(900, 800), "VOILUTFunction": "SIGMOID"}),
        (MARKED, window(900, 1500)),
        (COLLIMATED, window(900, 1500)),
        (COLLIMATED, {**window(900, 1500), "PhotometricInterpretation": "MONOCHROME1"}),
        (np.where(BODY > 900, 4000, 0).astype(np.uint16), window(2048, 4096)),
    ],
)
def test_an_image_that_its_window_shows_is_seen(
    tmp_path: Path, stored: NDArray[Any], said: dict[str, Any]
) -> None:
    found = shown(tmp_path, stored, **said)
    assert found.seen() is found


def test_one_small_lesion_on_a_dark_scan_is_seen(tmp_path: Path) -> None:
    found = shown(tmp_path, DARK, Modality="NM", **window(450, 900))
    assert found.seen() is found


def test_a_marker_alone_is_no_picture_of_a_radiograph(tmp_path: Path) -> None:
    faint = (BODY // 10).astype(np.uint16)
    faint[5:20, 5:20] = 4095
    assert shown(tmp_path, faint, **window(2048, 4096)).why_not


def test_a_voi_lut_of_more_bits_than_it_uses_is_named(tmp_path: Path) -> None:
    assert with_table(tmp_path, BODY, bits=12).seen()
    found = with_table(tmp_path, BODY, bits=16)
    assert found.why_not.startswith("Instance 2.25.10 has VOILUTSequence that hide")


def test_an_image_of_one_value_says_so_whatever_its_window_is(tmp_path: Path) -> None:
    found = shown(tmp_path, np.full((9, 9), 700, np.uint16), **window(900, 1500))
    assert found.blank
    with pytest.raises(PixelError, match="has one value in all its PixelData"):
        found.seen()


@pytest.mark.parametrize("level", [-3000, -800, 0])
def test_of_a_window_that_was_asked_for_only_one_value_is_nothing(
    tmp_path: Path, level: float
) -> None:
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    slice_ = image(tmp_path, BODY, Modality="CT", **rescale)
    found = display_image(slice_, view=View.ANY, window=Window(width=150, level=level))
    if level > -1000:
        assert found.seen() is found
        return
    with pytest.raises(PixelError, match=r"width 150, level -3000\): correct its Rescale"):
        found.seen()


@pytest.mark.parametrize(
    "name",
    [
        "cxr/cr-pa-mono1-10bit-fuji.dcm",
        "cxr/dx-pa-mono1-12bit-j2k-canon.dcm",
        "mg/mg-mlo-12bit-jpeglossless.dcm",
        "radiograph-other/cr-knee-mono1-10bit-nema-rg3.dcm",
        "ct-other/ct-lung-nodule-biomedparse.dcm",
        "ct-other/ct-topogram-lateral.dcm",
        "mr-other/mr-brain-jpegll-nema.dcm",
    ],
)
@pytest.mark.parametrize("said", [None, (-20000, 400), (30000, 400)], ids=["own", "below", "above"])
def test_a_real_image_is_seen_in_its_own_window_and_not_in_a_wrong_one(
    tmp_path: Path, name: str, said: tuple[int, int] | None
) -> None:
    dataset = pydicom.dcmread(SHARED / name)
    if said is not None:
        dataset.pop("VOILUTSequence", None)
        dataset.WindowCenter, dataset.WindowWidth = said
    dataset.save_as(tmp_path / "one.dcm")
    found = display_image(read_instance(tmp_path / "one.dcm", digest=""), view=View.ANY)
    assert (found.why_not == "") is (said is None)
