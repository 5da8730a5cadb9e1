"""The 2-D model on a volume: every slice asked, in its place, and put together on the volume's grid."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from pacs_ai.models import parse2d, stacked
from pacs_ai.pixels.decoder import Decoder
from pacs_ai.results import Done, NothingFound, NotSuitable, Segmentation
from pacs_ai.study import Instance, Job
from tests.unit.models.fake_endpoint import Asked, endpoint
from tests.unit.pixels.made import slices

# Soft tissue in another corner of each slice, so that a slice or a side that is exchanged is seen.
CT = np.zeros((11, 40, 60), np.uint16)
for _index in range(11):
    CT[_index, 4 : 14 + _index, 5:20] = 1024 + 150
CT[3] = 0


def sent(asked: Asked) -> list[NDArray[np.uint8]]:
    pictures = []
    for image, _ in asked.body["input_data"]["data"]:
        with PIL.Image.open(io.BytesIO(base64.b64decode(image))) as opened:
            pictures.append(np.asarray(opened))
    return pictures


def bright(asked: Asked) -> Any:
    """Find the first prompt where a slice is bright, on every row of the call."""
    records = []
    count = asked.row()["text"].count(" & ") + 1
    for picture in sent(asked):
        masks = np.full((count, 1024, 1024), 3, np.uint8)
        masks[0] = np.where(picture > 128, 250, 3)
        data = base64.b64encode(masks.tobytes()).decode()
        features = {"data": data, "shape": list(masks.shape), "dtype": "uint8"}
        records.append({"image_features": json.dumps(features), "text_features": ["x"] * count})
    return records


def job(made: list[Instance], *prompts: str) -> Job:
    return Job("a-rule", "e", "parse2d", {"volume": tuple(made)}, {"prompts": list(prompts)})


@pytest.mark.parametrize("spacing", [(0.7, 0.7), (0.7, 1.4), (1.5, 0.5)])
def test_each_slice_comes_back_in_its_place(tmp_path: Path, spacing: tuple[float, float]) -> None:
    made = slices(tmp_path, CT, step=(0, 0, -2.5), spacing=spacing)
    with endpoint(bright) as fake:
        outcome = parse2d.infer(job(made, "liver"), fake.settings("parse2d"))
    assert isinstance(outcome, Done)
    (found,) = (one for one in outcome.results if isinstance(one, Segmentation))
    assert isinstance(found, Segmentation)
    # The Series descends, so the Volume runs the other way: sources say which slice is which.
    assert found.sources == tuple(one.SOPInstanceUID for one in reversed(made))
    assert (found.label, found.prompt) == ("liver", "liver in abdomen CT")
    truth = (CT > 1024)[::-1]
    for index, plane in enumerate(truth):
        seen = found.mask[index]
        union = (seen | plane).sum()
        assert (not plane.any() and not seen.any()) or (seen & plane).sum() / union > 0.9


@pytest.mark.parametrize("spacing", [(0.7, 1.4), (1.5, 0.5)])
def test_the_model_sees_a_slice_in_its_true_proportions(
    tmp_path: Path, spacing: tuple[float, float]
) -> None:
    with endpoint(bright) as fake:
        parse2d.infer(job(slices(tmp_path, CT, spacing=spacing), "liver"), fake.settings("parse2d"))
    seen = sent(fake.asked[-1])[-1] > 128  # 20 rows and 15 columns of it are bright
    tall, wide = seen.any(axis=1).sum(), seen.any(axis=0).sum()
    assert tall / wide == pytest.approx(20 * spacing[0] / (15 * spacing[1]), rel=0.05)


def test_slices_share_calls_and_an_answer_stays_small(tmp_path: Path) -> None:
    made = slices(tmp_path, CT)
    with endpoint(bright) as fake:
        parse2d.infer(job(made, "liver", "spleen", "pancreas"), fake.settings("parse2d"))
        parse2d.infer(job(made, "kidney"), fake.settings("parse2d"))
    counts = [len(asked.body["input_data"]["data"]) for asked in fake.asked]
    # Three prompts lie apart and share a call: four slices of three masks make one answer's twelve.
    assert counts == [4, 4, 3, 8, 3]
    assert [asked.row()["text"].count(" & ") for asked in fake.asked] == [2, 2, 2, 0, 0]


def test_a_slice_is_decoded_once_however_many_calls_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is found in it, so that nothing is measured: that would decode it once more.
    made = slices(tmp_path, np.where(CT == 0, 0, 900).astype(np.uint16))
    decoded = []
    frame = Decoder.frame

    def counting(decoder: Decoder, path: Path, number: int, shape: tuple[int, ...]) -> Any:
        decoded.append(path.name)
        return frame(decoder, path, number, shape)

    monkeypatch.setattr(Decoder, "frame", counting)
    with endpoint(bright) as fake:
        parse2d.infer(job(made, "liver", "kidney tumor"), fake.settings("parse2d", reference=True))
    assert {asked.row()["text"].count(" & ") for asked in fake.asked} == {0}
    assert len({asked.row()["text"] for asked in fake.asked}) == 2
    assert sorted(decoded) == sorted(one.path.name for one in made)


def test_each_site_is_shown_in_its_own_window(tmp_path: Path) -> None:
    with endpoint(bright) as fake:
        parse2d.infer(job(slices(tmp_path, CT), "liver", "uterus"), fake.settings("parse2d"))
    levels = {}
    for asked in fake.asked:
        first = sent(asked)[0]
        levels[asked.row()["text"]] = np.median(first[first > 128])
    # 150 HU in -150..250 and in -55..200.
    assert levels["liver in abdomen CT"] == pytest.approx(300 / 400 * 255, abs=3)
    assert levels["uterus in pelvis CT"] == pytest.approx(205 / 255 * 255, abs=3)


def test_what_is_on_no_slice_is_said(tmp_path: Path) -> None:
    made = slices(tmp_path, CT)
    with endpoint(bright) as fake:
        some = parse2d.infer(job(made, "liver", "spleen"), fake.settings("parse2d"))
    assert isinstance(some, Done)
    assert [one.label for one in some.results if isinstance(one, Segmentation)] == ["liver"]
    assert some.notes == ("Not found by the model, which does not say that it is absent: spleen",)
    empty = slices(tmp_path, np.where(CT == 0, 0, 900).astype(np.uint16))
    with endpoint(bright) as fake:
        none = parse2d.infer(job(empty, "liver"), fake.settings("parse2d"))
    assert isinstance(none, NothingFound)
    assert none.notes


def test_a_hole_in_the_stack_is_not_suitable_and_nothing_is_sent(tmp_path: Path) -> None:
    made = slices(tmp_path, CT)
    with endpoint(bright) as fake:
        outcome = parse2d.infer(job([*made[:2], *made[3:]], "liver"), fake.settings("parse2d"))
    assert isinstance(outcome, NotSuitable)
    assert not fake.asked


def test_no_call_has_more_rows_than_a_call_may_have() -> None:
    assert stacked.ROWS <= 256
