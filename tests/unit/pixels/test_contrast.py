"""Without a window in the header: one contrast for all frames of an Instance, its own for one alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_ai.errors import PixelError
from pacs_ai.pixels import contrast
from pacs_ai.pixels.display import View, display_image
from pacs_ai.pixels.histogram import Histogram
from pacs_ai.settings import Window
from pacs_ai.study import Instance
from tests.unit.pixels.made import functional_group, grey, written

FRAMES = np.random.default_rng(1).integers(20, 180, (5, 40, 30)).astype(np.uint8)
FRAMES[2] += 60


def cine(folder: Path, frames: NDArray[Any], **elements: Any) -> Instance:
    dataset = grey(
        frames[0], uid="2.25.61", Modality="US", SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1"
    )
    raw = frames.tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset.NumberOfFrames = len(frames)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return written(folder, dataset)


def ends(window: Window | None) -> tuple[float, float]:
    assert window is not None
    return window.level - window.width / 2, window.level + window.width / 2


def test_all_frames_have_the_percentiles_of_all_their_values(tmp_path: Path) -> None:
    found = ends(contrast.common(cine(tmp_path, FRAMES)))
    assert found == pytest.approx(np.percentile(FRAMES, (1, 99)), abs=1)


@pytest.mark.parametrize(("least", "spread"), [(4000, 500), (30000, 500), (32788, 8), (65000, 30)])
def test_the_percentiles_of_sixteen_bits_are_exact(tmp_path: Path, least: int, spread: int) -> None:
    frames = (np.random.default_rng(2).normal(least, spread, (4, 60, 60))).astype(np.uint16)
    found = ends(contrast.common(cine(tmp_path, frames)))
    assert found == pytest.approx(np.percentile(frames, (1, 99)), rel=1e-9)


def test_one_value_is_one_grey_on_every_frame(tmp_path: Path) -> None:
    one = cine(tmp_path, FRAMES)
    common = contrast.common(one)
    greys = set()
    for index, stored in enumerate(FRAMES):
        shown = display_image(one, view=View.ANY, frame=index, common=common).pixels
        greys |= set(shown[stored == 130].tolist())
    assert len(greys) == 1


def test_a_frame_that_is_looked_at_alone_has_the_contrast_of_its_own_values(tmp_path: Path) -> None:
    one = cine(tmp_path, FRAMES)
    shown = display_image(one, view=View.ANY, frame=2).pixels
    low, high = np.percentile(FRAMES[2], (1, 99))
    expected = np.rint(np.clip((FRAMES[2] - low) / (high - low), 0, 1) * 255)
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("value", [0, 255])
def test_a_frame_of_one_value_has_no_say_in_the_contrast_of_the_others(
    tmp_path: Path, value: int
) -> None:
    with_blank = FRAMES.copy()
    with_blank[0] = value
    (tmp_path / "without").mkdir()
    without = cine(tmp_path / "without", FRAMES[1:])
    assert contrast.common(cine(tmp_path, with_blank)) == contrast.common(without)


def test_padding_has_no_say(tmp_path: Path) -> None:
    padded = FRAMES.copy()
    padded[:, :20] = 255
    found = ends(contrast.common(cine(tmp_path, padded, PixelPaddingValue=255)))
    assert found == pytest.approx(np.percentile(FRAMES[:, 20:], (1, 99)), abs=1)


def test_the_border_of_a_radiograph_has_no_say(tmp_path: Path) -> None:
    bordered = FRAMES.copy()
    bordered[:, :, :10] = 255
    found = ends(contrast.common(cine(tmp_path, bordered, Modality="XA")))
    assert found == pytest.approx(np.percentile(FRAMES[:, :, 10:], (1, 99)), abs=1)


def test_where_the_header_has_a_window_nothing_is_decoded_for_it(tmp_path: Path) -> None:
    one = cine(tmp_path, FRAMES, WindowCenter=100, WindowWidth=50)
    one.path.unlink()
    assert contrast.common(one) is None


def test_colour_has_no_contrast_of_its_own(tmp_path: Path) -> None:
    frames = np.repeat(FRAMES[..., np.newaxis], 3, axis=3)
    one = cine(
        tmp_path,
        frames[..., 0],
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        PixelData=frames.tobytes(),
    )
    assert contrast.common(one) is None


def test_a_frame_with_a_window_of_its_own_keeps_it_and_has_no_say(tmp_path: Path) -> None:
    own = {"FrameVOILUTSequence": {"WindowCenter": 100, "WindowWidth": 40}}
    groups = [functional_group(own), *(Dataset() for _ in FRAMES[1:])]
    one = cine(tmp_path, FRAMES, PerFrameFunctionalGroupsSequence=groups)
    common = contrast.common(one)
    assert ends(common) == pytest.approx(np.percentile(FRAMES[1:], (1, 99)), abs=1)
    alone = display_image(one, view=View.ANY, frame=0).pixels
    among = display_image(one, view=View.ANY, frame=0, common=common).pixels
    np.testing.assert_array_equal(among, alone)
    other = display_image(one, view=View.ANY, frame=2, common=common).pixels
    assert (other != display_image(one, view=View.ANY, frame=2).pixels).any()


def test_a_frame_of_one_value_alone_is_refused_and_among_others_is_blank(tmp_path: Path) -> None:
    frames = FRAMES.copy()
    frames[1] = 77
    one = cine(tmp_path, frames)
    with pytest.raises(PixelError, match="one value in all its PixelData"):
        display_image(one, view=View.ANY, frame=1)
    common = contrast.common(one)
    blank = [display_image(one, view=View.ANY, frame=i, common=common).blank for i in range(5)]
    assert blank == [False, True, False, False, False]


def test_an_instance_of_blank_frames_has_a_contrast_that_shows_nothing(tmp_path: Path) -> None:
    frames = np.repeat(np.arange(3, dtype=np.uint8) * 100, 1200).reshape(3, 40, 30)
    one = cine(tmp_path, frames)
    common = contrast.common(one)
    shown = [display_image(one, view=View.ANY, frame=i, common=common) for i in range(3)]
    assert all(image.blank for image in shown)
    assert all(len(np.unique(image.pixels)) == 1 for image in shown)


def test_percentiles_of_mostly_one_value_are_the_least_and_the_most() -> None:
    found = Histogram()
    assert found.empty
    found.add(np.array([5, 5, 5], np.float32), np.array([1000, 1000, 1000]))
    found.add(np.array([-3, 9], np.float32))
    assert found.range(1, 99) == (-3, 9)


def test_more_than_a_million_values_are_right_to_a_2048th_in_the_same_memory() -> None:
    found = Histogram()
    values = np.random.default_rng(3).normal(0, 10.0 ** np.arange(12)[:, np.newaxis], (12, 250_000))
    for frame in values.astype(np.float32):
        found.add(frame)
    low, high = found.range(1, 99)
    exact = np.percentile(values, (1, 99))
    assert (low, high) == pytest.approx(exact, rel=1 / 2048)
    assert low <= exact[0] < exact[1] <= high
    assert len(found._keys) <= 2**20
