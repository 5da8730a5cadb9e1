"""Every frame of a cine is asked and gets its own mask; nothing is made of what lies between frames."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_ai.models import parse2d
from pacs_ai.results import Axis, Done, Measurement, NothingFound, NotSuitable, Segmentation
from pacs_ai.study import Instance, Job
from tests.unit.models.fake_endpoint import Asked, endpoint
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
    assert "Left heart ventricle found on 10 of 11 frames" in outcome.notes


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
    assert [len(sent(asked)) for asked in fake.asked] == [8, 3]


def test_what_is_on_no_frame_is_not_found(tmp_path: Path) -> None:
    dark = np.where(CINE > 1000, 200, CINE).astype(np.uint16)
    with endpoint(bright) as fake:
        outcome = parse2d.infer(
            job(cine(tmp_path, dark), "left heart ventricle"), fake.settings("parse2d")
        )
    assert isinstance(outcome, NothingFound)
    assert "left heart ventricle" in outcome.notes[0]


def test_a_frame_that_cannot_be_shown_refuses_the_whole_and_names_it(tmp_path: Path) -> None:
    one = cine(tmp_path, PixelAspectRatio=[0, 0])
    with endpoint(bright) as fake:
        outcome = parse2d.infer(job(one, "left heart ventricle"), fake.settings("parse2d"))
    assert isinstance(outcome, NotSuitable)
    assert one.SOPInstanceUID in outcome.reason
    assert not fake.asked


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
