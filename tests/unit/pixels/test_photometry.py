"""Every way in which a header says what its pixels look like ends as the picture that it means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pack_bits
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from pacs_ai.errors import PixelError
from pacs_ai.pixels.decode import stored_frames
from pacs_ai.pixels.description import ENCAPSULATED_UNCOMPRESSED
from pacs_ai.pixels.display import View, display_image
from pacs_ai.pixels.modality import frames
from pacs_ai.results import PIXEL_PATH
from pacs_ai.settings import Window
from pacs_ai.study import Instance
from tests.unit.pixels.made import grey, image, written

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
GREYS = np.arange(24, dtype=np.uint16).reshape(4, 6) * 100
WINDOW = {"WindowCenter": 1000, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"}


def colour(
    folder: Path, raw: bytes, photometric: str, *, syntax: str = ExplicitVRLittleEndian, **more: Any
) -> Instance:
    """Return a colour image of 4 rows and 6 columns, eight bits."""
    elements = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, **more}
    dataset = grey(np.zeros((4, 6), np.uint8), uid="2.25.30")
    dataset.PhotometricInterpretation, dataset.PixelData = photometric, raw
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return written(folder, dataset, syntax=syntax)


def only(instance: Instance) -> NDArray[Any]:
    (found,) = stored_frames(instance)
    return found


def ybr(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Y, Cb and Cr of full range (PS3.3 C.7.6.3.1.2)."""
    matrix = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    found: NDArray[np.float64] = rgb @ matrix.T + (0, 128, 128)
    return found


def test_samples_lie_pixel_by_pixel_or_plane_by_plane(tmp_path: Path) -> None:
    by_pixel = colour(tmp_path, RGB.tobytes(), "RGB")
    np.testing.assert_array_equal(only(by_pixel), RGB)
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1)).tobytes()
    by_plane = colour(tmp_path, planes, "RGB", PlanarConfiguration=1)
    np.testing.assert_array_equal(only(by_plane), RGB)


def test_full_and_partial_range_become_the_same_colours(tmp_path: Path) -> None:
    full = ybr(RGB)
    rounded = np.clip(np.rint(full), 0, 255).astype(np.uint8)
    found = only(colour(tmp_path, rounded.tobytes(), "YBR_FULL"))
    assert np.abs(found.astype(int) - RGB).max() <= 2
    pairs = np.repeat(RGB[:, ::2], 2, axis=1)  # two and two alike: half chroma loses nothing
    squeezed = (ybr(pairs) - (0, 128, 128)) * (219 / 255, 224 / 255, 224 / 255) + (16, 128, 128)
    for name, samples in (("YBR_FULL_422", ybr(pairs)), ("YBR_PARTIAL_422", squeezed)):
        eight = np.clip(np.rint(samples), 0, 255).astype(np.uint8).reshape(-1, 2, 3)
        packed = np.stack([eight[:, 0, 0], eight[:, 1, 0], eight[:, 0, 1], eight[:, 0, 2]], axis=-1)
        found = only(colour(tmp_path, packed.tobytes(), name))
        assert np.abs(found.astype(int) - pairs).max() <= 3, name


def test_a_palette_is_applied_whole_or_in_segments(tmp_path: Path) -> None:
    dataset = grey(np.array([[0, 1, 2, 3]], np.uint8), uid="2.25.31")
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    ramp = np.array([0, 100, 200, 255], "<u2")
    for index, name in enumerate(("Red", "Green", "Blue")):
        descriptor = f"{name}PaletteColorLookupTableDescriptor"
        setattr(dataset, descriptor, [4, 0, 16])
        dataset[descriptor].VR = "US"
        setattr(
            dataset, f"{name}PaletteColorLookupTableData", (ramp // (index + 1) * 256).tobytes()
        )
        dataset[f"{name}PaletteColorLookupTableData"].VR = "OW"
    whole = only(written(tmp_path, dataset))
    np.testing.assert_array_equal(whole[0, :, 0], ramp)
    np.testing.assert_array_equal(whole[0, :, 2], ramp // 3)
    for name in ("Red", "Green", "Blue"):
        delattr(dataset, f"{name}PaletteColorLookupTableData")
        # One discrete entry, then a line of three entries up to 0xFF00 (PS3.3 C.7.9.2).
        segments = np.array([0, 1, 0, 1, 3, 0xFF00], "<u2").tobytes()
        setattr(dataset, f"Segmented{name}PaletteColorLookupTableData", segments)
        dataset[f"Segmented{name}PaletteColorLookupTableData"].VR = "OW"
    segmented = only(written(tmp_path, dataset))
    np.testing.assert_array_equal(segmented[0, :, 0], [0, 85, 170, 255])


def test_a_palette_without_its_tables_is_refused(tmp_path: Path) -> None:
    instance = image(
        tmp_path, np.zeros((2, 2), np.uint8), PhotometricInterpretation="PALETTE COLOR"
    )
    with pytest.raises(PixelError, match=r"Instance 2\.25\.10 is PALETTE COLOR.*Descriptor"):
        only(instance)


@pytest.mark.parametrize("marker", [True, False])
def test_jpeg_that_says_rgb_is_not_taken_for_ybr(tmp_path: Path, marker: bool) -> None:  # noqa: FBT001
    import io

    import PIL.Image

    smooth = np.zeros((64, 64, 3), np.uint8)
    smooth[...] = (200, 40, 90)
    out = io.BytesIO()
    PIL.Image.fromarray(smooth).save(out, "JPEG", quality=100, keep_rgb=True)
    data = out.getvalue()
    assert b"Adobe" in data
    if not marker:
        # Without the encoder's own word the header decides; the components are then named 1, 2, 3.
        start = data.index(b"\xff\xee")
        data = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
        data = data.replace(
            b"\x03R\x11\x00G\x11\x00B\x11\x00", b"\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
        )
        scan = data.index(b"\xff\xda")
        data = data[: scan + 5] + b"\x01\x00\x02\x00\x03\x00" + data[scan + 11 :]
    instance = colour(
        tmp_path,
        encapsulate([data]),
        "RGB",
        syntax=JPEGBaseline8Bit,
        Rows=64,
        Columns=64,
    )
    assert np.abs(only(instance).astype(int) - smooth).max() <= 2


def test_single_bits_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    bits = (np.arange(3 * 15) % 3 == 0).astype(np.uint8).reshape(3, 3, 5)
    dataset = grey(bits[0], uid="2.25.32", NumberOfFrames=3)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.PixelData = pack_bits(bits.reshape(-1))
    np.testing.assert_array_equal(np.stack(list(stored_frames(written(tmp_path, dataset)))), bits)


@pytest.mark.parametrize("kind", [np.uint32, np.int32])
def test_thirty_two_bits_are_read(tmp_path: Path, kind: type[np.integer[Any]]) -> None:
    wide = (np.arange(12).reshape(3, 4) * 100_000_000 % 2**31).astype(kind)
    np.testing.assert_array_equal(only(image(tmp_path, wide)), wide)


@pytest.mark.parametrize(
    ("keyword", "kind"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")]
)
def test_float_pixel_data_is_read_and_what_is_no_number_is_padding(
    tmp_path: Path, keyword: str, kind: str
) -> None:
    numbers = np.array([[0.25, 1.5], [np.nan, -3.0]], kind)
    dataset = grey(numbers, uid="2.25.33", PixelData=None, BitsStored=None, HighBit=None)
    del dataset.PixelRepresentation
    setattr(dataset, keyword, numbers.tobytes())
    (one,) = frames(written(tmp_path, dataset))
    np.testing.assert_array_equal(one.values, numbers.astype(np.float32))
    np.testing.assert_array_equal(one.padding, [[False, False], [True, False]])


def test_uncompressed_frames_in_fragments_are_read(tmp_path: Path) -> None:
    dataset = grey(GREYS, uid="2.25.34", NumberOfFrames=2)
    dataset.PixelData = encapsulate([GREYS.tobytes(), (GREYS + 1).tobytes()])
    dataset["PixelData"].VR = "OB"
    instance = written(tmp_path, dataset, syntax=ENCAPSULATED_UNCOMPRESSED)
    np.testing.assert_array_equal(np.stack(list(stored_frames(instance))), [GREYS, GREYS + 1])


# ---------------------------------------------------------------------- as displayed


def enhanced(folder: Path) -> Instance:
    """Return two frames of the same stored values, each with its own rescale and window."""
    dataset = grey(GREYS, uid="2.25.40", NumberOfFrames=2)
    dataset.PixelData = GREYS.tobytes() * 2
    dataset.PerFrameFunctionalGroupsSequence = []
    for intercept, center in ((0, 1000), (-1000, 0)):
        rescale, voi, group = Dataset(), Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, intercept, "US"
        voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = center, 2000, "LINEAR_EXACT"
        group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [rescale], [voi]
        dataset.PerFrameFunctionalGroupsSequence.append(group)
    return written(folder, dataset)


def test_a_frame_has_its_own_rescale_and_window(tmp_path: Path) -> None:
    instance = enhanced(tmp_path)
    first, second = frames(instance)
    np.testing.assert_array_equal(first.values, second.values + 1000)
    shown = [display_image(instance, view=View.ANY, frame=number).pixels for number in (0, 1)]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert shown[0][0, 1] == round(255 * 100 / 2000)


def test_a_frame_is_never_chosen_by_itself(tmp_path: Path) -> None:
    with pytest.raises(PixelError, match=r"2 frames \(NumberOfFrames\) and none was chosen"):
        display_image(enhanced(tmp_path), view=View.ANY)


def test_a_window_that_is_asked_for_goes_before_the_header_s(tmp_path: Path) -> None:
    instance = image(tmp_path, GREYS, RescaleSlope=1, RescaleIntercept=-1000, **WINDOW)
    shown = display_image(instance, view=View.ANY, window=Window(width=1000, level=0)).pixels
    assert (shown[0, 0], shown[-1, -1]) == (0, 255)
    assert shown[1, 4] == 128  # stored 1000, value 0


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"RescaleSlope": 1}, "has no RescaleIntercept"),
        ({"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}, "RescaleType is not HU"),
        ({"table": "US"}, "ModalityLUTType is not HU"),
    ],
)
def test_a_window_in_hounsfield_units_is_for_values_in_them(
    tmp_path: Path, elements: dict[str, Any], reason: str
) -> None:
    dataset = grey(GREYS, uid="2.25.10", Modality="CT", **WINDOW)
    for keyword, value in elements.items():
        if keyword == "table":
            dataset.ModalityLUTSequence = [Dataset()]
            dataset.ModalityLUTSequence[0].ModalityLUTType = value
        else:
            setattr(dataset, keyword, value)
    instance = written(tmp_path, dataset)
    with pytest.raises(PixelError, match=reason):
        display_image(instance, view=View.ANY, window=Window(width=1000, level=0))


def test_colour_is_shown_upright_and_never_windowed(tmp_path: Path) -> None:
    instance = colour(tmp_path, RGB.tobytes(), "RGB", PatientOrientation=["R", "F"], **WINDOW)
    shown = display_image(instance, view=View.FRONTAL)
    np.testing.assert_array_equal(shown.pixels, RGB[:, ::-1])
    np.testing.assert_array_equal(shown.turn.undo(shown.pixels), RGB)
    assert shown.png()[25] == 2  # the PNG's colour type: RGB
    assert shown.recipe == PIXEL_PATH


@pytest.mark.parametrize(
    ("elements", "aspect"),
    [
        ({"PixelSpacing": [0.5, 0.25]}, 2.0),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
        ({"PixelAspectRatio": [4, 3]}, 4 / 3),
        ({"PixelSpacing": [0.5, 0.25], "PatientOrientation": ["F", "L"]}, 0.5),
        ({}, 1.0),
    ],
)
def test_the_shape_of_a_pixel_turns_with_the_image(
    tmp_path: Path, elements: dict[str, Any], aspect: float
) -> None:
    shown = display_image(image(tmp_path, GREYS, **elements), view=View.FRONTAL)
    assert shown.aspect == pytest.approx(aspect)


@pytest.mark.parametrize("spacing", [[0, 1], [-1, 1], [1, 500]])
def test_a_pixel_without_a_shape_is_refused(tmp_path: Path, spacing: list[float]) -> None:
    with pytest.raises(PixelError, match=r"Instance 2\.25\.10 has a PixelSpacing"):
        display_image(image(tmp_path, GREYS, PixelSpacing=spacing), view=View.ANY)


def _rectangle(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
    return (rows >= 2) & (rows <= 7) & (columns >= 3) & (columns <= 9)


def _circle(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
    return (rows - 5) ** 2 + (columns - 6) ** 2 <= 3**2


@pytest.mark.parametrize(
    ("elements", "inside"),
    [
        (
            {
                "ShutterShape": "RECTANGULAR",
                "ShutterLeftVerticalEdge": 3,
                "ShutterRightVerticalEdge": 9,
                "ShutterUpperHorizontalEdge": 2,
                "ShutterLowerHorizontalEdge": 7,
            },
            _rectangle,
        ),
        (
            {
                "ShutterShape": "POLYGONAL",
                "VerticesOfThePolygonalShutter": [2, 3, 2, 9, 7, 9, 7, 3],
            },
            _rectangle,
        ),
        (
            {
                "ShutterShape": "CIRCULAR",
                "CenterOfCircularShutter": [5, 6],
                "RadiusOfCircularShutter": 3,
            },
            _circle,
        ),
    ],
)
def test_what_a_shutter_hides_is_black_and_has_no_say_in_the_contrast(
    tmp_path: Path, elements: dict[str, Any], inside: Callable[..., NDArray[Any]]
) -> None:
    rows, columns = np.indices((10, 12)) + 1  # as the standard counts
    seen = inside(rows, columns)
    stored = np.where(seen, 1000 + 10 * columns + rows, 60000).astype(np.uint16)
    shown = display_image(image(tmp_path, stored, **elements), view=View.ANY).pixels
    assert shown[~seen].max() == 0
    assert shown[seen].max() == 255
    assert shown[seen].std() > 50


def test_a_shutter_without_its_edges_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PixelError, match="shutter that cannot be applied"):
        display_image(image(tmp_path, GREYS, ShutterShape="RECTANGULAR"), view=View.ANY)
