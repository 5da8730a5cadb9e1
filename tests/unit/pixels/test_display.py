"""The displayed image: polarity, window, orientation, padding."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_ai.errors import PixelError
from pacs_ai.pixels.display import DisplayImage, View, display_image, png
from pacs_ai.study import read_instance
from tests.unit.pixels.made import SHARED, image

RAMP = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (8, 1))  # 8 rows, 64 columns
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def pixels(folder: Path, stored: NDArray[Any], **elements: Any) -> NDArray[np.uint8]:
    return display_image(image(folder, stored, **elements), view=View.FRONTAL).pixels


def test_monochrome1_is_the_inverse_of_monochrome2(tmp_path: Path) -> None:
    plain = pixels(tmp_path, RAMP, **WINDOW)
    inverse = pixels(tmp_path, RAMP, PhotometricInterpretation="MONOCHROME1", **WINDOW)
    np.testing.assert_array_equal(inverse, 255 - plain)
    assert plain[0, 0] < plain[0, -1]


def test_inverse_shape_of_monochrome1_does_not_invert_twice(tmp_path: Path) -> None:
    once = pixels(tmp_path, RAMP, PhotometricInterpretation="MONOCHROME1", **WINDOW)
    both = pixels(
        tmp_path,
        RAMP,
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE",
        **WINDOW,
    )
    np.testing.assert_array_equal(once, both)


@pytest.mark.parametrize(
    ("photometric", "shape"), [("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")]
)
def test_contradictory_polarity_is_refused(tmp_path: Path, photometric: str, shape: str) -> None:
    with pytest.raises(PixelError, match=r"PresentationLUTShape.*contradicts"):
        pixels(tmp_path, RAMP, PhotometricInterpretation=photometric, PresentationLUTShape=shape)


def test_linear_window_is_that_of_the_standard(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.2.1: centre 2048, width 4096 takes 0 to 0 and 4095 to the maximum."""
    stored = np.array([[0, 1023, 2047, 4095]], np.uint16)
    shown = pixels(tmp_path, stored, **WINDOW)
    assert shown.tolist() == [[0, 64, 127, 255]]


def test_linear_window_clips_outside_and_takes_the_first_of_several(tmp_path: Path) -> None:
    shown = pixels(tmp_path, RAMP, WindowCenter=[1000, 2048], WindowWidth=[100, 4096])
    assert set(np.unique(shown[:, :14])) == {0}
    assert set(np.unique(shown[:, 17:])) == {255}


def test_linear_exact_and_sigmoid_follow_their_own_formula(tmp_path: Path) -> None:
    stored = np.array([[1000, 1500, 2000, 2500]], np.uint16)
    window = {"WindowCenter": 2000, "WindowWidth": 2000}
    exact = pixels(tmp_path, stored, VOILUTFunction="LINEAR_EXACT", **window)
    assert exact.tolist() == [[0, 64, 128, 191]]
    sigmoid = pixels(tmp_path, stored, VOILUTFunction="SIGMOID", **window)
    expected = [round(255 / (1 + np.exp(-4 * (v - 2000) / 2000))) for v in stored[0].astype(float)]
    assert sigmoid.tolist() == [expected]


@pytest.mark.parametrize("window", [{"WindowWidth": 0}, {"WindowWidth": -5}])
def test_window_width_that_the_standard_forbids_is_refused(
    tmp_path: Path, window: dict[str, Any]
) -> None:
    with pytest.raises(PixelError, match="WindowWidth"):
        pixels(tmp_path, RAMP, WindowCenter=100, **window)


def test_without_a_window_the_percentiles_decide(tmp_path: Path) -> None:
    stored = np.linspace(1000, 2000, 10000).astype(np.uint16).reshape(100, 100)
    stored[0, 0], stored[0, 1] = 0, 65535  # a dead and a hot pixel change nothing
    shown = pixels(tmp_path, stored)
    assert shown[50, 50] == pytest.approx(129, abs=3)
    assert shown[0, 5] == 0
    assert shown[-1, -1] == 255


def test_modality_lut_and_voi_lut_of_the_header_are_applied(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2, 3]], np.uint8)
    modality, voi = Dataset(), Dataset()
    modality.LUTDescriptor, modality.LUTData = [4, 0, 16], [40, 30, 20, 10]
    modality.ModalityLUTType = "US"
    voi.LUTDescriptor, voi.LUTData = [31, 10, 8], list(range(0, 248, 8))
    for item in (modality, voi):
        item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    shown = pixels(tmp_path, stored, ModalityLUTSequence=[modality], VOILUTSequence=[voi])
    assert shown.tolist() == [[240, 160, 80, 0]]


def test_lut_that_does_not_fit_its_descriptor_is_refused(tmp_path: Path) -> None:
    voi = Dataset()
    voi.LUTDescriptor, voi.LUTData = [4, 0, 8], [1, 2, 3]
    for keyword in ("LUTDescriptor", "LUTData"):
        voi[keyword].VR = "US"
    with pytest.raises(PixelError, match="LUTDescriptor"):
        pixels(tmp_path, RAMP, VOILUTSequence=[voi])


def test_signed_values_and_rescale_reach_the_window(tmp_path: Path) -> None:
    stored = np.array([[-1000, 0, 1000]], np.int16)
    shown = pixels(
        tmp_path,
        stored,
        RescaleSlope=2,
        RescaleIntercept=100,
        WindowCenter=100,
        WindowWidth=4000,
        VOILUTFunction="LINEAR_EXACT",
    )
    assert shown.tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(("slope", "reason"), [(0, "RescaleSlope 0")])
def test_slope_of_zero_is_refused(tmp_path: Path, slope: int, reason: str) -> None:
    with pytest.raises(PixelError, match=reason):
        pixels(tmp_path, RAMP, RescaleSlope=slope, RescaleIntercept=0)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_has_no_say_in_the_contrast(tmp_path: Path, photometric: str) -> None:
    stored = np.linspace(500, 1500, 3600).astype(np.int16).reshape(60, 60)
    stored[:, :20] = -2000
    shown = pixels(tmp_path, stored, PhotometricInterpretation=photometric, PixelPaddingValue=-2000)
    assert set(np.unique(shown[:, :20])) == {0}
    assert shown[:, 20:].std() > 60


def test_image_of_one_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PixelError, match="one value"):
        pixels(tmp_path, np.full((4, 4), 7, np.uint16))


MARKED = np.zeros((6, 8), np.uint8)
MARKED[0, 0], MARKED[0, 7], MARKED[5, 0] = 90, 180, 255  # top left, top right, bottom left


@pytest.mark.parametrize(
    ("orientation", "corners"),
    [
        # What PatientOrientation says of row and column, and the corners once it is upright.
        (["L", "F"], (90, 180, 255)),
        (["R", "F"], (180, 90, 0)),
        (["L", "H"], (255, 0, 90)),
        (["R", "H"], (0, 255, 180)),
        (["F", "L"], (90, 255, 180)),
        (["H", "L"], (180, 0, 90)),
        (["LF", "FR"], (90, 180, 255)),
        (None, (90, 180, 255)),
    ],
)
def test_frontal_image_is_turned_to_left_on_the_right_and_feet_below(
    tmp_path: Path, orientation: list[str] | None, corners: tuple[int, int, int]
) -> None:
    elements: dict[str, Any] = {
        "WindowCenter": 127.5,
        "WindowWidth": 255,
        "VOILUTFunction": "LINEAR_EXACT",
    }
    if orientation:
        elements["PatientOrientation"] = orientation
    instance = image(tmp_path, MARKED, **elements)
    shown = display_image(instance, view=View.FRONTAL)
    got = (shown.pixels[0, 0], shown.pixels[0, -1], shown.pixels[-1, 0])
    assert got == corners
    np.testing.assert_array_equal(shown.turn.undo(shown.pixels), MARKED)


@pytest.mark.parametrize("orientation", [["A", "F"], ["L", "P"], ["L", "L"], ["L"]])
def test_orientation_that_is_not_frontal_is_refused(tmp_path: Path, orientation: list[str]) -> None:
    instance = image(tmp_path, RAMP, PatientOrientation=orientation)
    with pytest.raises(PixelError, match="PatientOrientation"):
        display_image(instance, view=View.FRONTAL)


@pytest.mark.parametrize(
    "orientation", [["A", "F"], ["P", "F"], ["A", "H"], ["F", "P"], ["H", "A"]]
)
def test_lateral_image_is_turned_but_never_mirrored(tmp_path: Path, orientation: list[str]) -> None:
    turn = display_image(
        image(tmp_path, RAMP, PatientOrientation=orientation), view=View.LATERAL
    ).turn
    mirrored = (turn.transpose + turn.flip_columns + turn.flip_rows) % 2
    assert mirrored == 0
    down = orientation[0] if turn.transpose else orientation[1]
    assert {"F": not turn.flip_rows, "H": turn.flip_rows}[down]


def test_png_holds_pixels_and_nothing_of_the_header(tmp_path: Path) -> None:
    shown = display_image(
        image(tmp_path, RAMP, PatientName="DOE^JANE", PatientID="4711", **WINDOW), view=View.FRONTAL
    )
    data = shown.png()
    assert b"DOE" not in data
    with PIL.Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == "L"
        assert not opened.info
        np.testing.assert_array_equal(np.asarray(opened), shown.pixels)


def real(name: str) -> DisplayImage:
    return display_image(read_instance(SHARED / "cxr" / name, digest=""), view=View.FRONTAL)


@pytest.mark.parametrize(
    "name",
    [
        "cr-pa-mono1-10bit-fuji.dcm",
        "dx-pa-mono1-12bit-j2k-canon.dcm",
        "nih-test1-dx.dcm",
        "cr-pa-8bit-jpegbaseline-nih-siim.dcm",
    ],
)
def test_real_radiograph_shows_dark_lungs_and_a_bright_spine(name: str) -> None:
    shown = real(name).pixels
    rows, columns = shown.shape
    band = shown[int(rows * 0.45) : int(rows * 0.65)]
    spine = band[:, int(columns * 0.46) : int(columns * 0.54)].mean()
    right_lung = band[:, int(columns * 0.22) : int(columns * 0.35)].mean()
    assert spine > right_lung + 20
    assert shown.std() > 25


def test_mislabelled_polarity_is_shown_as_its_header_says() -> None:
    right, wrong = (
        real("cr-pa-8bit-jpegbaseline-nih-siim.dcm"),
        real("cr-pa-8bit-FAKE-mono1-label.dcm"),
    )
    assert np.abs((255 - wrong.pixels.astype(int)) - right.pixels).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (31, 2, 3), (9, 16, 3)])
def test_png_holds_the_pixels_and_nothing_else(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    with PIL.Image.open(io.BytesIO(png(pixels)), formats=["PNG"]) as image:
        assert image.info == {}
        image.load()  # checks every CRC
        np.testing.assert_array_equal(np.asarray(image), pixels)
