"""Every frame of a cine is asked and gets its own mask; nothing is made of what lies between frames."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_ai import catalogue
from pacs_ai.models import parse2d
from pacs_ai.models.seats import alone
from pacs_ai.models.square import SIZE
from pacs_ai.pixels.decoder import Decoder
from pacs_ai.pixels.placement import Placement
from pacs_ai.results import (
    Axis,
    Done,
    Measurement,
    NothingFound,
    NotSuitable,
    Segmentation,
    dumps,
)
from pacs_ai.study import Instance, Job
from tests.unit.models.fake_endpoint import Asked, endpoint
from tests.unit.models.test_seats import Granted
from tests.unit.models.test_slicewise import bright, sent
from tests.unit.pixels.made import grey, written
from tests.unit.pixels.slide import corners, picture, slide

CINE = np.zeros((11, 41, 61), np.uint16)
for _index in range(11):
    CINE[_index, 4 : 14 + _index, 5:20] = 3000
CINE[:, 0, 0] = 1
CINE[3] = np.where(CINE[3] > 1, 2, CINE[3])  # dark under its own window
CINE[3, 0, 0] = 0


def cine(folder: Path, frames: NDArray[Any] = CINE, **elements: Any) -> Instance:
    dataset = grey(frames[0], uid="2.25.60")
    raw = frames.tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset.NumberOfFrames = len(frames)
    dataset.SOPClassUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.3.1", "US"
    dataset.WindowCenter, dataset.WindowWidth = 1500, 3000
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return written(folder, dataset)


def job(one: Instance, *prompts: str) -> Job:
    return Job("r", "e", "parse2d", {"image": (one,)}, {"prompts": list(prompts), "frame": "all"})


@pytest.mark.parametrize("aspect", [None, [2, 1], [1, 2]])
def test_each_frame_comes_back_in_its_place(tmp_path: Path, aspect: list[int] | None) -> None:
    more = {} if aspect is None else {"PixelAspectRatio": aspect}
    one = cine(tmp_path, **more)
    with endpoint(bright) as fake:
        outcome = parse2d.infer(
            job(one, "left heart ventricle", "left heart atrium"), fake.settings("parse2d")
        )
    assert isinstance(outcome, Done)
    (found,) = outcome.results
    assert isinstance(found, Segmentation)
    assert found.axis is Axis.FRAMES
    assert not found.volumetric
    assert found.sources == (one.SOPInstanceUID,) * 11
    assert found.frames == tuple(range(1, 12))
    for plane, seen in zip(CINE > 1000, found.mask, strict=True):
        union = (seen | plane).sum()
        assert (not plane.any() and not seen.any()) or (seen & plane).sum() / union > 0.9
    assert not found.plane(3).any()


def test_notes_say_on_how_many_frames_it_was_found(tmp_path: Path) -> None:
    with endpoint(bright) as fake:
        outcome = parse2d.infer(
            job(cine(tmp_path), "left heart ventricle", "fetal head"), fake.settings("parse2d")
        )
    assert isinstance(outcome, Done)
    assert "Left heart ventricle found on 10 of 10 frames" in outcome.notes


def test_nothing_is_measured_between_frames(tmp_path: Path) -> None:
    with endpoint(bright) as fake:
        outcome = parse2d.infer(
            job(cine(tmp_path), "left heart ventricle"), fake.settings("parse2d")
        )
    assert isinstance(outcome, Done)
    assert not [one for one in outcome.results if isinstance(one, Measurement)]


def test_frames_share_calls(tmp_path: Path) -> None:
    with endpoint(bright) as fake:
        parse2d.infer(job(cine(tmp_path), "left heart ventricle"), fake.settings("parse2d"))
    assert [len(sent(asked)) for asked in fake.asked] == [8, 2]


def test_a_small_limit_of_a_request_costs_calls_and_no_frame(tmp_path: Path) -> None:
    wanted = job(cine(tmp_path), "left heart ventricle")
    with endpoint(bright) as whole:
        expected = parse2d.infer(wanted, whole.settings("parse2d"))
    most = max(len(json.dumps(asked.body)) for asked in whole.asked)
    with endpoint(bright) as fake:
        found = parse2d.infer(wanted, fake.settings("parse2d", maximum_request=most // 2))
    assert isinstance(found, Done)
    assert isinstance(expected, Done)
    assert dumps(found.results, found.notes) == dumps(expected.results, expected.notes)
    assert len(fake.asked) > len(whole.asked)


def test_one_prompt_in_two_spellings_is_one_mask(tmp_path: Path) -> None:
    words = catalogue.find("left heart ventricle", model="parse2d", modality="US").words
    with endpoint(bright) as fake:
        outcome = parse2d.infer(
            job(cine(tmp_path), "left heart ventricle", words), fake.settings("parse2d")
        )
    assert isinstance(outcome, Done)
    assert len(outcome.results) == 1


def test_what_is_on_no_frame_is_not_found(tmp_path: Path) -> None:
    dark = np.where(CINE > 1000, 900, CINE).astype(np.uint16)
    with endpoint(bright) as fake:
        outcome = parse2d.infer(
            job(cine(tmp_path, dark), "left heart ventricle"), fake.settings("parse2d")
        )
    assert isinstance(outcome, NothingFound)
    assert "left heart ventricle" in outcome.notes[-1]


def test_a_frame_that_cannot_be_shown_refuses_the_whole_and_names_it(tmp_path: Path) -> None:
    one = cine(tmp_path, PixelAspectRatio=[0, 0])
    with endpoint(bright) as fake:
        outcome = parse2d.infer(job(one, "left heart ventricle"), fake.settings("parse2d"))
    assert isinstance(outcome, NotSuitable)
    assert one.SOPInstanceUID in outcome.reason
    assert not fake.asked


# ---------------------------------------------------------------------- blank frames and contrast

GREY = np.random.default_rng(3).integers(10, 90, (6, 40, 60)).astype(np.uint8)
"""Frames of other content: the structure grows, and behind it it becomes brighter."""
for _index in range(6):
    GREY[_index] += np.uint8(4 * _index)
    GREY[_index, 4 : 14 + 2 * _index, 5:20] = 200
GREY[0] = 0


def unwindowed(folder: Path, frames: NDArray[Any] = GREY) -> Instance:
    return cine(folder, frames, WindowCenter=None, WindowWidth=None)


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("window", [None, (128, 256)])
def test_a_blank_frame_is_left_out_and_the_others_are_looked_at(
    tmp_path: Path, value: int, window: tuple[int, int] | None
) -> None:
    frames = GREY.copy()
    frames[3] = value
    center, width = window or (None, None)
    one = cine(tmp_path, frames, WindowCenter=center, WindowWidth=width)
    with endpoint(bright) as fake:
        outcome = parse2d.infer(job(one, "left heart ventricle"), fake.settings("parse2d"))
    assert isinstance(outcome, Done)
    assert [len(sent(asked)) for asked in fake.asked] == [4]
    assert outcome.notes == (
        "4 of 6 frames were looked at; left out because all pixels of each have one value: frames 1, 4",
        "Left heart ventricle found on 4 of 4 frames",
    )
    (found,) = outcome.results
    assert isinstance(found, Segmentation)
    assert found.frames == tuple(range(1, 7))
    assert [found.plane(index).any() for index in range(6)] == [
        False,
        True,
        True,
        False,
        True,
        True,
    ]
    for index in (1, 2, 4, 5):
        seen, truth = found.plane(index), GREY[index] == 200
        assert (seen & truth).sum() / (seen | truth).sum() > 0.9


def test_many_blank_frames_are_counted_and_the_first_named(tmp_path: Path) -> None:
    frames = np.concatenate([np.zeros((11, 40, 60), np.uint8), GREY[1:]])
    with endpoint(bright) as fake:
        outcome = parse2d.infer(
            job(unwindowed(tmp_path, frames), "left heart ventricle"), fake.settings("parse2d")
        )
    assert isinstance(outcome, Done)
    assert outcome.notes[0].startswith("5 of 16 frames were looked at")
    assert outcome.notes[0].endswith("frames 1, 2, 3, 4, 5, 6, 7, 8 and 3 more")


def test_where_nothing_is_found_it_is_said_which_frames_were_not_looked_at(tmp_path: Path) -> None:
    with endpoint(nothing) as fake:
        outcome = parse2d.infer(
            job(unwindowed(tmp_path), "left heart ventricle"), fake.settings("parse2d")
        )
    assert isinstance(outcome, NothingFound)
    assert outcome.notes[0].startswith("5 of 6 frames were looked at")
    assert outcome.notes[0].endswith("frame 1")


def test_a_blank_frame_in_colour_is_left_out(tmp_path: Path) -> None:
    frames = np.repeat(GREY[..., np.newaxis], 3, axis=3)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    one = cine(tmp_path, GREY, **colour, PixelData=frames.tobytes())
    with endpoint(nothing) as fake:
        parse2d.infer(job(one, "left heart ventricle"), fake.settings("parse2d"))
    assert [len(sent(asked)) for asked in fake.asked] == [5]


@pytest.mark.parametrize("values", [(7, 7, 7), (0, 100, 200)])
@pytest.mark.parametrize("window", [None, (128, 256)])
def test_a_cine_of_blank_frames_is_not_suitable_and_nothing_is_sent(
    tmp_path: Path, values: tuple[int, ...], window: tuple[int, int] | None
) -> None:
    frames = np.stack([np.full((40, 60), value, np.uint8) for value in values])
    center, width = window or (None, None)
    one = cine(tmp_path, frames, WindowCenter=center, WindowWidth=width)
    with endpoint(bright) as fake:
        outcome = parse2d.infer(job(one, "left heart ventricle"), fake.settings("parse2d"))
    assert isinstance(outcome, NotSuitable)
    assert f"each of the 3 frames of Instance {one.SOPInstanceUID} has one value" in outcome.reason
    assert not fake.asked


def test_a_frame_that_its_window_draws_in_one_value_is_left_out_and_named(tmp_path: Path) -> None:
    one = cine(tmp_path)
    with endpoint(bright) as fake:
        outcome = parse2d.infer(job(one, "left heart ventricle"), fake.settings("parse2d"))
    assert isinstance(outcome, Done)
    assert outcome.notes[0] == (
        "10 of 11 frames were looked at; left out because all of each is black or white in its window or "
        "VOI LUT: frame 4"
    )


def test_a_frame_that_its_window_nearly_hides_is_looked_at_and_named(tmp_path: Path) -> None:
    frames = CINE.copy()
    frames[3] = np.where(CINE[0] > 1000, 200, 0)
    with endpoint(bright) as fake:
        outcome = parse2d.infer(
            job(cine(tmp_path, frames), "left heart ventricle"), fake.settings("parse2d")
        )
    assert isinstance(outcome, Done)
    assert [len(sent(asked)) for asked in fake.asked] == [8, 3]
    assert outcome.notes[0] == (
        "Next to nothing is to be seen in the window or VOI LUT that the header has for frame 4"
    )


@pytest.mark.parametrize("window", [(40000, 400), (-2000, 400), (32768, 65535)])
def test_a_cine_that_its_window_hides_is_not_suitable(
    tmp_path: Path, window: tuple[int, int]
) -> None:
    one = cine(tmp_path, WindowCenter=window[0], WindowWidth=window[1])
    with endpoint(bright) as fake:
        outcome = parse2d.infer(job(one, "left heart ventricle"), fake.settings("parse2d"))
    assert isinstance(outcome, NotSuitable)
    assert f"{one.SOPInstanceUID} has WindowCenter and WindowWidth that hide" in outcome.reason


def test_the_model_sees_one_grey_for_one_value_on_every_frame(tmp_path: Path) -> None:
    frames = GREY[1:].copy()
    frames[:, 25:36, 35:50] = 60
    with endpoint(bright) as fake:
        parse2d.infer(
            job(unwindowed(tmp_path, frames), "left heart ventricle"), fake.settings("parse2d")
        )
    (call,) = fake.asked
    patch = np.where(frames[0] == 60, np.uint8(255), np.uint8(0))
    patch[:25] = patch[:, :35] = 0
    inside = Placement(40, 60, SIZE).apply(patch) == 255
    assert inside.sum() > 10_000
    greys = [int(np.median(shown[inside])) for shown in sent(call)]
    assert len(greys) == 5
    assert len(set(greys)) == 1


class Decoded:
    """Counts the frames that the decoder hands out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: list[int] = []
        frame = Decoder.frame

        def counting(decoder: Decoder, path: Path, number: int, shape: tuple[int, ...]) -> Any:
            self.numbers.append(number)
            return frame(decoder, path, number, shape)

        monkeypatch.setattr(Decoder, "frame", counting)


PROMPTS = ("breast tumor", "left heart ventricle", "left heart atrium")
"""The tumor goes alone, the other two lie apart and share a call."""


@pytest.mark.parametrize(("window", "passes"), [(1500, 1), (None, 2)])
def test_a_frame_is_decoded_once_however_many_calls_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int | None, passes: int
) -> None:
    one = cine(tmp_path, WindowCenter=window)
    decoded = Decoded(monkeypatch)
    with endpoint(nothing) as fake:
        parse2d.infer(job(one, *PROMPTS), fake.settings("parse2d", reference=True))
    assert len({asked.row()["text"] for asked in fake.asked}) > 1
    assert decoded.numbers == [*range(11)] * passes


def test_results_are_the_same_and_in_the_prompts_order_however_calls_are_answered(
    tmp_path: Path,
) -> None:
    one = cine(tmp_path)
    outcomes = []
    for seats in (alone, Granted(4)):
        with endpoint(everything) as fake:
            outcomes.append(
                parse2d.infer(job(one, *PROMPTS), fake.settings("parse2d", reference=True), seats)
            )
            assert (fake.most > 1) is (seats is not alone)
    first, second = outcomes
    assert isinstance(first, Done)
    assert isinstance(second, Done)
    assert [one.label for one in first.results if isinstance(one, Segmentation)] == [*PROMPTS]
    assert dumps(first.results, first.notes) == dumps(second.results, second.notes)


def nothing(asked: Asked) -> Any:
    return answered(asked, lambda picture, index: np.full((1024, 1024), 3))


def everything(asked: Asked) -> Any:
    """Find every prompt where a picture is bright, on less of it the later the prompt stands."""
    time.sleep(0.02)
    return answered(asked, lambda picture, index: np.where(picture > 128 + 5 * index, 250, 3))


def answered(asked: Asked, mask: Callable[[NDArray[np.uint8], int], Any]) -> Any:
    records = []
    count = asked.row()["text"].count(" & ") + 1
    for shown in sent(asked):
        masks = np.stack([mask(shown, index) for index in range(count)]).astype(np.uint8)
        data = base64.b64encode(masks.tobytes()).decode()
        features = {"data": data, "shape": list(masks.shape), "dtype": "uint8"}
        records.append({"image_features": json.dumps(features), "text_features": ["x"] * count})
    return records


# ---------------------------------------------------------------------- tiles of a slide


def dark(asked: Asked) -> Any:
    """Find the first prompt where a tile is stained or black, on every row of the call."""
    records = []
    for tile in sent(asked):
        masks = np.where(tile.min(axis=2) < 128, 250, 3).astype(np.uint8)[np.newaxis]
        data = base64.b64encode(masks.tobytes()).decode()
        features = {"data": data, "shape": list(masks.shape), "dtype": "uint8"}
        records.append({"image_features": json.dumps(features), "text_features": ["x"]})
    return records


PROMPT = "epithelial cells in breast pathology"
SPOTS = ((10, 30, 50, 90), (60, 70, 100, 130))


def test_tiles_with_tissue_are_asked_in_colour_and_come_back_in_their_place(
    tmp_path: Path,
) -> None:
    matrix = picture(70, 130, *SPOTS)
    one = slide(tmp_path, matrix)
    with endpoint(dark) as fake:
        outcome = parse2d.infer(job(one, PROMPT), fake.settings("parse2d"))
    assert isinstance(outcome, Done)
    (found,) = outcome.results
    assert isinstance(found, Segmentation)
    assert found.frames == (2, 6, 9)
    assert found.label == "epithelial breast cells"
    assert all(tile.shape == (1024, 1024, 3) for tile in sent(fake.asked[0]))
    assert outcome.notes == (
        "3 of 9 tiles were looked at; left out because at least 99.5% of their pixels are glass: 6",
        "Epithelial breast cells found on 3 of 3 tiles",
    )
    whole = np.zeros((96, 144), np.bool_)
    for plane, number in zip(found.mask, found.frames, strict=True):
        row, column = corners((70, 130), (32, 48))[number - 1]
        whole[row : row + 32, column : column + 48] = plane
    truth = matrix.min(axis=2) < 128
    assert (whole[:70, :130] & truth).sum() / (whole[:70, :130] | truth).sum() > 0.9
    # Beyond the slide the last tiles are black, which this endpoint takes for stain.
    assert not whole[70:].any()
    assert not whole[:, 130:].any()


def test_a_slide_of_glass_is_not_suitable_and_nothing_is_sent(tmp_path: Path) -> None:
    one = slide(tmp_path, picture(70, 130))
    with endpoint(dark) as fake:
        outcome = parse2d.infer(job(one, PROMPT), fake.settings("parse2d"))
    assert isinstance(outcome, NotSuitable)
    assert "none of the 9 tiles" in outcome.reason
    assert not fake.asked


def test_one_tile_may_be_named(tmp_path: Path) -> None:
    one = slide(tmp_path, picture(70, 130, *SPOTS))
    single = Job("r", "e", "parse2d", {"image": (one,)}, {"prompts": [PROMPT], "frame": 2})
    with endpoint(dark) as fake:
        outcome = parse2d.infer(single, fake.settings("parse2d"))
    assert isinstance(outcome, Done)
    (found,) = outcome.results
    assert isinstance(found, Segmentation)
    assert found.frames == (2,)
