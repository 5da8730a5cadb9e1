"""Every frame of a cine is asked and gets its own mask; nothing is made of what lies between frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_ai.models import parse2d
from pacs_ai.results import Axis, Done, Measurement, NothingFound, NotSuitable, Segmentation
from pacs_ai.study import Instance, Job
from tests.unit.models.fake_endpoint import endpoint
from tests.unit.models.test_slicewise import bright, sent
from tests.unit.pixels.made import grey, written

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
