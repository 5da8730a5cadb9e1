"""The four kinds of model against a scriptable endpoint: pixels out, results on the native grid in."""

from __future__ import annotations

import base64
import gzip
import io
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from pacs_ai.errors import InferenceError
from pacs_ai.models import MODELS, cxrreport, insight, model, parse2d, parse3d
from pacs_ai.models.seats import alone
from pacs_ai.pixels.display import View, display_image
from pacs_ai.results import (
    PIXEL_PATH,
    Assertion,
    Done,
    Embedding,
    Finding,
    Measurement,
    Narrative,
    NothingFound,
    NotSuitable,
    Segmentation,
)
from pacs_ai.study import Instance, Job, read_instance
from tests.unit.models.fake_endpoint import Answer, Asked, endpoint
from tests.unit.pixels.made import SHARED, image, slices, written
from tests.unit.pixels.made import grey as grey_image

CINE = "us/us-34frame-ybr422-jpeg.dcm"
NOT_FOUND = "Not found by the model, which does not say that it is absent: "
PA = {"view": "PA", "view_from": "ViewPosition", "measure": {"ctr": True}}


def job(kind: str, inputs: dict[str, tuple[Instance, ...]], **parameters: Any) -> Job:
    return Job("a-rule", "an-endpoint", kind, inputs, parameters)


def sent_image(asked: Asked, column: str = "image") -> NDArray[np.uint8]:
    with PIL.Image.open(io.BytesIO(base64.b64decode(asked.row()[column]))) as opened:
        assert opened.format == "PNG"
        return np.asarray(opened)


def packed(masks: NDArray[np.uint8]) -> str:
    data = base64.b64encode(masks.tobytes()).decode()
    return json.dumps({"data": data, "shape": list(masks.shape), "dtype": "uint8"})


# A radiograph of shapes: right lung, left lung and heart are told apart by their grey value.

ROWS, COLUMNS = 301, 440
GREY = {
    "right lung in chest X-Ray": 60,
    "left lung in chest X-Ray": 120,
    "heart in chest X-Ray": 200,
}


def shapes() -> NDArray[np.uint8]:
    pixels = np.zeros((ROWS, COLUMNS), np.uint8)
    pixels[40:250, 60:180] = 60
    pixels[40:250, 260:401] = 120
    pixels[120:240, 181:259] = 200
    pixels[0, 0] = pixels[-1, -1] = 1  # no edge is even, so that nothing is cut
    return pixels


EXACT = {"WindowCenter": 127.5, "WindowWidth": 255, "VOILUTFunction": "LINEAR_EXACT"}


def by_grey(asked: Asked) -> Any:
    """Answer each prompt with a probability where the picture has the grey of that prompt."""
    picture = sent_image(asked).astype(int)
    assert picture.shape == (1024, 1024)
    texts = asked.row()["text"].split(" & ")
    masks = [
        np.where(np.abs(picture - GREY[text]) < 28, 240, 9)
        if text in GREY
        else np.zeros_like(picture)
        for text in texts
    ]
    return [
        {"image_features": packed(np.array(masks, np.uint8)), "text_features": ["x"] * len(texts)}
    ]


@pytest.mark.parametrize("orientation", [["L", "F"], ["R", "F"], ["F", "L"], ["H", "R"]])
def test_mask_comes_back_on_the_stored_pixels_whatever_the_orientation(
    tmp_path: Path, orientation: list[str]
) -> None:
    stored = shapes()
    frontal = image(tmp_path, stored, PatientOrientation=orientation, **EXACT)
    with endpoint(by_grey) as fake:
        outcome = parse2d.infer(
            job("parse2d", {"frontal": (frontal,)}, prompts=["left lung", "right lung", "heart"]),
            fake.settings("parse2d"),
        )
    assert isinstance(outcome, Done)
    found = {one.label: one for one in outcome.results if isinstance(one, Segmentation)}
    assert list(found) == ["left lung", "right lung", "heart"]
    for label, grey in (("left lung", 120), ("right lung", 60), ("heart", 200)):
        segment, truth = found[label], stored == grey
        assert segment.mask.shape == (ROWS, COLUMNS)
        assert segment.sources == (frontal.SOPInstanceUID,)
        assert segment.prompt == f"{label} in chest X-Ray"
        assert (segment.mask & truth).sum() / (segment.mask | truth).sum() > 0.97


def test_prompts_that_overlap_go_in_calls_of_their_own(tmp_path: Path) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    with endpoint(by_grey) as fake:
        parse2d.infer(
            job(
                "parse2d",
                {"frontal": (frontal,)},
                prompts=["left lung", "lung", "right lung", "heart"],
            ),
            fake.settings("parse2d"),
        )
    texts = [asked.row()["text"] for asked in fake.asked]
    assert texts == [
        "left lung in chest X-Ray & right lung in chest X-Ray",
        "lung in chest X-Ray",
        "heart in chest X-Ray",
    ]


def test_cardiothoracic_ratio_is_measured_on_pa(tmp_path: Path) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    inputs = {"frontal": (frontal,)}
    with endpoint(by_grey) as fake:
        outcome = parse2d.infer(
            job("parse2d", inputs, prompts=["left lung", "right lung", "heart"], **PA),
            fake.settings("parse2d"),
        )
    assert isinstance(outcome, Done)
    (measured,) = [one for one in outcome.results if isinstance(one, Measurement)]
    assert measured.label == "cardiothoracic ratio"
    assert measured.unit == "1"
    assert measured.value == pytest.approx(78 / 341, abs=0.01)


@pytest.mark.parametrize(
    ("prompts", "parameters"),
    [
        (["left lung", "right lung", "heart"], PA | {"view": "AP"}),
        (["left lung", "right lung", "heart"], PA | {"view_from": "pixels 0.98"}),
        (["left lung", "right lung", "heart"], PA | {"view_from": ""}),
        (["left lung", "right lung", "heart"], PA | {"measure": {"ctr": False}}),
        (["left lung", "heart"], PA),
    ],
)
def test_cardiothoracic_ratio_is_not_measured_where_it_would_not_mean_it(
    tmp_path: Path, prompts: list[str], parameters: dict[str, Any]
) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    with endpoint(by_grey) as fake:
        outcome = parse2d.infer(
            job("parse2d", {"frontal": (frontal,)}, prompts=prompts, **parameters),
            fake.settings("parse2d"),
        )
    assert isinstance(outcome, Done)
    assert not [one for one in outcome.results if isinstance(one, Measurement)]


def test_empty_masks_are_nothing_found_and_faint_ones_are_empty(tmp_path: Path) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    faint = [{"image_features": packed(np.full((1, 1024, 1024), 127, np.uint8))}]
    with endpoint(Answer(faint)) as fake:
        outcome = parse2d.infer(
            job("parse2d", {"frontal": (frontal,)}, prompts=["heart"]), fake.settings("parse2d")
        )
    assert outcome == NothingFound(notes=(NOT_FOUND + "heart",))


GOOD = {
    "data": base64.b64encode(bytes(1024 * 1024)).decode(),
    "shape": [1, 1024, 1024],
    "dtype": "uint8",
}


@pytest.mark.parametrize(
    "features",
    [
        json.dumps(GOOD | {"shape": [2, 1024, 1024]}),
        json.dumps(GOOD | {"shape": [1, 1024, 1023]}),
        json.dumps(GOOD | {"shape": [1024, 1024]}),
        json.dumps(GOOD | {"shape": [1, -1024, -1024]}),
        json.dumps(GOOD | {"shape": [1, 1024, True]}),
        json.dumps(GOOD | {"dtype": "float32"}),
        json.dumps(GOOD | {"data": "not base64!"}),
        json.dumps(GOOD | {"data": 7}),
        json.dumps({"data": ""}),
        "not json",
        None,
        [1, 2],
    ],
)
def test_masks_that_are_not_what_was_asked_for_are_refused(tmp_path: Path, features: Any) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    with endpoint(Answer([{"image_features": features}])) as fake, pytest.raises(InferenceError):
        parse2d.infer(
            job("parse2d", {"frontal": (frontal,)}, prompts=["heart"]), fake.settings("parse2d")
        )


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    other = [{"image_features": packed(np.zeros((1, ROWS, COLUMNS), np.uint8))}]
    with endpoint(Answer(other)) as fake, pytest.raises(InferenceError, match="shape"):
        parse2d.infer(
            job("parse2d", {"frontal": (frontal,)}, prompts=["heart"]), fake.settings("parse2d")
        )


@pytest.mark.parametrize("kind", ["insight", "parse2d", "cxrreport"])
def test_image_that_cannot_be_shown_is_not_suitable_and_nothing_is_sent(
    tmp_path: Path, kind: str
) -> None:
    colour = image(tmp_path, shapes(), PhotometricInterpretation="YBR_FULL", PatientName="DOE^JANE")
    with endpoint(Answer([{}])) as fake:
        outcome = model(kind)(
            job(kind, {"frontal": (colour,)}, prompts=["heart"]),
            fake.settings(kind),  # type: ignore[arg-type]  # a row of MODELS
            alone,
        )
    assert isinstance(outcome, NotSuitable)
    assert colour.SOPInstanceUID in outcome.reason
    assert "DOE" not in outcome.reason
    assert not fake.asked


@pytest.mark.parametrize(
    ("kind", "role"),
    [(kind, "frontal") for kind in ("insight", "parse2d", "cxrreport")]
    + [("cxrreport", "lateral")],
)
@pytest.mark.parametrize("center", [40000, 300])
def test_an_image_that_its_window_hides_is_not_suitable_and_nothing_is_sent(
    tmp_path: Path, kind: str, role: str, center: int
) -> None:
    hidden = image(tmp_path, shapes(), WindowCenter=center, WindowWidth=50)
    images = {"frontal": (hidden,)}
    if role == "lateral":
        images = {"frontal": (image(tmp_path, shapes(), uid="2.25.11", **EXACT),), role: (hidden,)}
    work = job(kind, images, prompts=["heart"])
    with endpoint(Answer([{}])) as fake:
        outcome = model(kind)(work, fake.settings(kind), alone)  # type: ignore[arg-type]
    assert isinstance(outcome, NotSuitable)
    assert "Instance 2.25.10 has WindowCenter and WindowWidth that hide" in outcome.reason
    assert not fake.asked


def test_a_ct_slice_in_the_window_of_a_prompt_needs_none_of_its_header(tmp_path: Path) -> None:
    stored = np.where(shapes() > 0, 1064, 0).astype(np.uint16)
    units = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    hidden = image(tmp_path, stored, Modality="CT", WindowCenter=40000, WindowWidth=50, **units)
    with endpoint(
        lambda asked: [{"image_features": packed(np.zeros((1, 1024, 1024), np.uint8))}]
    ) as fake:
        outcome = parse2d.infer(
            job("parse2d", {"image": (hidden,)}, prompts=["liver"]), fake.settings("parse2d")
        )
    assert isinstance(outcome, NothingFound)
    assert len(fake.asked) == 1


@pytest.mark.parametrize("kind", ["parse2d", "parse3d"])
def test_rule_without_prompts_is_not_suitable(tmp_path: Path, kind: str) -> None:
    inputs = {"frontal": (image(tmp_path, shapes(), **EXACT),)}
    with endpoint(Answer([{}])) as fake:
        outcome = model(kind)(job(kind, inputs), fake.settings(kind), alone)  # type: ignore[arg-type]  # a row of MODELS
    assert isinstance(outcome, NotSuitable)


def test_every_row_of_the_table_is_a_function() -> None:
    assert all(callable(model(kind)) for kind in MODELS)


# Volumes.

CT = np.full((5, 8, 9), 0, np.uint16)
CT[1:4, 2:5, 1:4] = 1024 + 100
CT[2, 6, 7] = 1024 + 500

LARGE = (20, 20)
"""Pixel Spacing at which one voxel is as large as an organ must be at least."""


def boxes(asked: Asked, *, as_probability: bool = False) -> tuple[Any, NDArray[np.uint8]]:
    """Return the image that was sent and a map of it: 1 where soft, 2 where dense."""
    data = gzip.decompress(base64.b64decode(asked.row()["image"]))
    sent = nibabel.Nifti1Image.from_bytes(data)
    values = np.asarray(sent.dataobj)
    labels = np.where(values == values.max(), 2, np.where(values > 100, 1, 0)).astype(np.uint8)
    return sent, labels * 120 if as_probability else labels


def label_map(asked: Asked) -> Any:
    sent, labels = boxes(asked)
    count = len(asked.row()["text"].split(" & "))
    labels[labels > count] = 0
    data = gzip.compress(nibabel.Nifti1Image(labels, sent.affine).to_bytes())
    return [{"nifti_file": json.dumps({"data": base64.encodebytes(data).decode()})}]


def turned_label_map(asked: Asked) -> Any:
    sent, labels = boxes(asked)
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(labels, sent.affine))
    data = gzip.compress(turned.to_bytes())
    return [{"nifti_file": json.dumps({"data": base64.b64encode(data).decode()})}]


def shape_b(asked: Asked) -> Any:
    _, labels = boxes(asked)
    planes = labels.transpose(2, 1, 0)
    masks = np.array([np.where(planes == number, 200, 20) for number in (1, 2)], np.uint8)
    return [{"image_features": packed(masks), "text_features": ["a", "b"]}]


@pytest.mark.parametrize("answer", [label_map, turned_label_map, shape_b])
def test_volume_masks_lie_on_the_slices_in_the_volume_s_order(tmp_path: Path, answer: Any) -> None:
    made = slices(tmp_path, CT, step=(0, 0, -2.5), spacing=LARGE)
    with endpoint(answer) as fake:
        outcome = parse3d.infer(
            job("parse3d", {"volume": tuple(made)}, prompts=["liver", "left kidney"]),
            fake.settings("parse3d"),
        )
    assert isinstance(outcome, Done)
    liver, kidney = (one for one in outcome.results if isinstance(one, Segmentation))
    assert isinstance(liver, Segmentation)
    assert isinstance(kidney, Segmentation)
    # The Series descends, so the Volume runs the other way: sources say which slice is which.
    assert liver.sources == tuple(one.SOPInstanceUID for one in reversed(made))
    np.testing.assert_array_equal(liver.mask, (CT == 1124)[::-1])
    np.testing.assert_array_equal(kidney.mask, (CT == 1524)[::-1])
    assert liver.prompt == "liver in abdomen CT"
    (asked,) = fake.asked
    assert asked.row()["text"] == "liver in abdomen CT & left kidney in abdomen CT"


def test_a_volume_larger_than_a_request_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 4000, (5, 64, 64), np.uint16)
    made = slices(tmp_path, noise)
    with endpoint(label_map) as fake:
        outcome = parse3d.infer(
            job("parse3d", {"volume": tuple(made)}, prompts=["liver"]),
            fake.settings("parse3d", maximum_request=24_000),
        )
    assert isinstance(outcome, NotSuitable)
    assert "maximum_request" in outcome.reason
    assert not fake.asked


def test_volume_prompts_that_overlap_go_in_calls_of_their_own(tmp_path: Path) -> None:
    made = slices(tmp_path, CT)
    with endpoint(label_map) as fake:
        parse3d.infer(
            job(
                "parse3d",
                {"volume": tuple(made)},
                prompts=["body", "left lung", "bone", "right lung"],
            ),
            fake.settings("parse3d", reference=True),
        )
    assert [asked.row()["text"].count(" & ") for asked in fake.asked] == [0, 1, 0]


def test_single_prompt_with_a_probability_is_thresholded(tmp_path: Path) -> None:
    def probability(asked: Asked) -> Any:
        sent, labels = boxes(asked, as_probability=True)
        data = nibabel.Nifti1Image(labels, sent.affine).to_bytes()
        return [{"nifti_file": json.dumps({"data": base64.b64encode(data).decode()})}]

    with endpoint(probability) as fake:
        volume = tuple(slices(tmp_path, CT, spacing=LARGE))
        outcome = parse3d.infer(
            job("parse3d", {"volume": volume}, prompts=["liver"]), fake.settings("parse3d")
        )
    assert isinstance(outcome, Done)
    (liver,) = (one for one in outcome.results if isinstance(one, Segmentation))
    assert isinstance(liver, Segmentation)
    np.testing.assert_array_equal(liver.mask, CT == 1524)  # 240 is above 127.5, 120 is not


DOUBTFUL = "Read as a mask, not as a probability out of 255, because no value is above 1: liver"


def answered_with(values: NDArray[Any]) -> Any:
    """Answer a label map of these values: of what is soft, of what is dense; the rest is 0."""

    def answer(asked: Asked) -> Any:
        sent, labels = boxes(asked)
        data = gzip.compress(nibabel.Nifti1Image(values[labels], sent.affine).to_bytes())
        return [{"nifti_file": json.dumps({"data": base64.b64encode(data).decode()})}]

    return answer


def of_one_prompt(folder: Path, values: NDArray[Any]) -> Any:
    with endpoint(answered_with(values)) as fake:
        return parse3d.infer(
            job(
                "parse3d",
                {"volume": tuple(slices(folder, CT, spacing=LARGE))},
                prompts=["liver"],
            ),
            fake.settings("parse3d"),
        )


@pytest.mark.parametrize(
    ("values", "notes"),
    [
        pytest.param(np.uint8([0, 1, 1]), (DOUBTFUL,), id="whole, none above 1"),
        pytest.param(np.float32([0, 1, 1]), (DOUBTFUL,), id="float, none above 1"),
        pytest.param(np.float32([0.1, 0.9, 0.6]), (DOUBTFUL,), id="fraction"),
        pytest.param(np.uint8([0, 255, 255]), (), id="255 alone"),
        pytest.param(np.uint8([3, 250, 140]), (), id="whole"),
        pytest.param(np.float32([0.5, 254.5, 128]), (), id="float"),
    ],
)
def test_a_single_prompt_s_answer_says_how_it_was_read_where_no_value_is_above_1(
    tmp_path: Path, values: NDArray[Any], notes: tuple[str, ...]
) -> None:
    outcome = of_one_prompt(tmp_path, values)
    assert isinstance(outcome, Done)
    (liver,) = (one for one in outcome.results if isinstance(one, Segmentation))
    np.testing.assert_array_equal(liver.mask, CT > 0)
    assert outcome.notes == notes


@pytest.mark.parametrize("value", [2, 5, 127, 200, 254])
def test_a_single_prompt_s_answer_of_one_value_that_is_neither_label_nor_probability_is_refused(
    tmp_path: Path, value: int
) -> None:
    with pytest.raises(
        InferenceError, match=rf"no value but 0 and {value},.*number prompts from 1"
    ):
        of_one_prompt(tmp_path, np.uint8([0, value, value]))


@pytest.mark.parametrize("values", [np.int16([0, -1, 1]), np.int16([0, 255, 256])])
def test_a_single_prompt_s_answer_beyond_a_probability_is_refused(
    tmp_path: Path, values: NDArray[Any]
) -> None:
    with pytest.raises(InferenceError, match=r"for 1 prompt$"):
        of_one_prompt(tmp_path, values)


def test_several_prompts_answers_are_a_label_map_without_doubt(tmp_path: Path) -> None:
    with endpoint(label_map) as fake:
        outcome = parse3d.infer(
            job(
                "parse3d",
                {"volume": tuple(slices(tmp_path, CT, spacing=LARGE))},
                prompts=["liver", "left kidney"],
            ),
            fake.settings("parse3d"),
        )
    assert isinstance(outcome, Done)
    assert outcome.notes == ()


def test_label_beyond_the_prompts_is_refused(tmp_path: Path) -> None:
    def three(asked: Asked) -> Any:
        sent, labels = boxes(asked)
        data = nibabel.Nifti1Image(labels + 1, sent.affine).to_bytes()
        return [{"nifti_file": json.dumps({"data": base64.b64encode(data).decode()})}]

    with endpoint(three) as fake, pytest.raises(InferenceError, match="2 prompts"):
        parse3d.infer(
            job("parse3d", {"volume": tuple(slices(tmp_path, CT))}, prompts=["liver", "spleen"]),
            fake.settings("parse3d"),
        )


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"nifti_file": "{}"},
        {"nifti_file": '{"data": "AAAA"}'},
        {"nifti_file": 3},
        {"image_features": packed(np.zeros((1, 8, 9, 5), np.uint8))},
    ],
)
def test_answer_that_is_no_volume_is_refused(tmp_path: Path, record: Any) -> None:
    with endpoint(Answer([record])) as fake, pytest.raises(InferenceError):
        parse3d.infer(
            job("parse3d", {"volume": tuple(slices(tmp_path, CT))}, prompts=["liver"]),
            fake.settings("parse3d"),
        )


def test_empty_label_map_is_nothing_found(tmp_path: Path) -> None:
    zeros = [{"image_features": packed(np.zeros((1, 5, 8, 9), np.uint8))}]
    with endpoint(Answer(zeros)) as fake:
        outcome = parse3d.infer(
            job("parse3d", {"volume": tuple(slices(tmp_path, CT))}, prompts=["liver"]),
            fake.settings("parse3d"),
        )
    assert outcome == NothingFound(notes=(NOT_FOUND + "liver",))


def test_a_volume_below_the_least_size_is_not_found(tmp_path: Path) -> None:
    made = tuple(
        slices(tmp_path, CT, spacing=(14, 14))
    )  # a voxel of 0.39 ml, and half a ml is asked
    with endpoint(label_map) as fake:
        outcome = parse3d.infer(
            job("parse3d", {"volume": made}, prompts=["liver", "left kidney"]),
            fake.settings("parse3d"),
        )
    assert isinstance(outcome, Done)
    assert [one.label for one in outcome.results if isinstance(one, Segmentation)] == ["liver"]
    assert outcome.notes == (NOT_FOUND + "left kidney",)


def test_a_volume_goes_out_in_the_window_of_each_prompt(tmp_path: Path) -> None:
    made = tuple(slices(tmp_path, CT, spacing=LARGE))
    prompts = ["liver", "vertebra l1", "spleen"]
    with endpoint(label_map) as fake:
        parse3d.infer(job("parse3d", {"volume": made}, prompts=prompts), fake.settings("parse3d"))
    asked = [(one.row()["text"], int(np.unique(boxes(one)[0].dataobj)[1])) for one in fake.asked]
    # 100 HU in W 400 L 40 and in W 1800 L 400.
    assert asked == [
        ("liver in abdomen CT & spleen in abdomen CT", round(260 / 400 * 255)),
        ("vertebra l1 in spine CT", round(600 / 1800 * 255)),
    ]


@pytest.mark.parametrize("kind", ["parse2d", "parse3d", "insight"])
def test_a_ct_without_hounsfield_units_is_not_suitable_and_nothing_is_sent(
    tmp_path: Path, kind: str
) -> None:
    made = slices(tmp_path, CT, RescaleIntercept=None, RescaleSlope=None)
    work = job(kind, {"volume": tuple(made)}, prompts=["liver"])
    with endpoint(Answer([{}])) as fake:
        outcome = model(kind)(work, fake.settings(kind), alone)  # type: ignore[arg-type]
    assert isinstance(outcome, NotSuitable)
    assert "2.25.100 is CT and has no RescaleSlope and no RescaleIntercept" in outcome.reason
    assert not fake.asked


@pytest.mark.parametrize("kind", ["parse3d", "insight"])
def test_series_that_is_not_one_grid_is_not_suitable(tmp_path: Path, kind: str) -> None:
    made = slices(tmp_path, CT)
    with endpoint(Answer([{}])) as fake:
        outcome = model(kind)(
            job(kind, {"volume": (*made[:2], *made[3:])}, prompts=["liver"]),
            fake.settings(kind),  # type: ignore[arg-type]  # a row of MODELS
            alone,
        )
    assert isinstance(outcome, NotSuitable)
    assert "mm apart" in outcome.reason
    assert not fake.asked


# Draft reports.


def drafted(*items: Any, nest: bool = True) -> Answer:
    return Answer([{"output": json.dumps(items) if nest else list(items)}])


def test_box_is_brought_from_the_centre_crop_to_stored_columns_and_rows(tmp_path: Path) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    draft = drafted(["Right lung opacity.", [[0.1, 0.2, 0.5, 0.6]]], ["No pneumothorax.", None])
    with endpoint(draft) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    assert isinstance(outcome, Done)
    narrative, opacity, air = outcome.results
    assert isinstance(narrative, Narrative)
    assert isinstance(opacity, Finding)
    assert isinstance(air, Finding)
    (box,) = opacity.boxes
    # 440 columns and 301 rows: the crop is 301 wide and begins at column 69.
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx(
        (69 + 30.1, 60.2, 69 + 150.5, 180.6)
    )
    assert (opacity.side, opacity.assertion) == ("right", Assertion.PRESENT)
    assert (air.label, air.assertion, air.boxes) == ("pneumothorax", Assertion.ABSENT, ())
    assert [one.text for one in narrative.sentences] == ["Right lung opacity.", "No pneumothorax."]
    assert sent_image(fake.asked[0], "frontal_image").shape == (ROWS, COLUMNS)


def test_box_of_a_mirrored_image_lands_on_the_stored_side(tmp_path: Path) -> None:
    frontal = image(tmp_path, shapes(), PatientOrientation=["R", "F"], **EXACT)
    with endpoint(drafted(["Opacity.", [[0.0, 0.0, 0.25, 1.0]]])) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    assert isinstance(outcome, Done)
    finding = outcome.results[1]
    assert isinstance(finding, Finding)
    (box,) = finding.boxes
    assert (box.left, box.right) == pytest.approx((COLUMNS - 69 - 75.25, COLUMNS - 69))


def test_draft_without_a_present_finding_is_nothing_found_with_its_sentences(
    tmp_path: Path,
) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    draft = drafted(["No effusion.", None], ["Possible nodule.", [[0.1, 0.1, 0.2, 0.2]]])
    with endpoint(draft) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    assert isinstance(outcome, NothingFound)
    assert [type(one) for one in outcome.results] == [Narrative, Finding, Finding]


@pytest.mark.parametrize(
    "text", ["No pneumothorax.", "The heart is not enlarged.", "No effusion or consolidation."]
)
def test_a_sentence_that_points_at_what_it_denies_gives_no_finding_and_a_note(
    tmp_path: Path, text: str
) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    draft = drafted(["No nodule.", None], [text, [[0.1, 0.1, 0.2, 0.2]]])
    with endpoint(draft) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    assert isinstance(outcome, NothingFound)
    narrative, nodule = outcome.results
    assert isinstance(narrative, Narrative)
    assert narrative.sentences[1].boxes
    assert isinstance(nodule, Finding)
    assert nodule.label == "lung nodule"
    (note,) = outcome.notes
    assert note.startswith("Sentence 2 of the draft says only what is absent, and points")


def test_a_box_stays_with_what_its_sentence_says_is_there_beside_an_absence(tmp_path: Path) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    draft = drafted(["No effusion, small right pneumothorax.", [[0.1, 0.1, 0.2, 0.2]]])
    with endpoint(draft) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    assert isinstance(outcome, Done)
    found = {one.label: one for one in outcome.results if isinstance(one, Finding)}
    assert found["pleural effusion"].assertion is Assertion.ABSENT
    assert found["pneumothorax"].assertion is Assertion.PRESENT
    assert len(found["pneumothorax"].boxes) == 1
    assert outcome.notes == ()


def test_a_draft_that_repeats_itself_is_coded_up_to_a_limit_and_kept_whole(tmp_path: Path) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    with endpoint(drafted(*[["No effusion.", None]] * 250, ["Opacity.", None])) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    assert isinstance(outcome, NothingFound)
    narrative, *findings = outcome.results
    assert isinstance(narrative, Narrative)
    assert len(narrative.sentences) == 251
    assert len(findings) == 200
    (note,) = outcome.notes
    assert note.startswith("The draft has 251 sentences")
    assert "only the first 200 are coded" in note


def test_comparison_with_a_prior_that_was_not_sent_is_remarked(tmp_path: Path) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    draft = drafted(
        ["New opacity since the prior exam.", None], ["Heart is normal.", None], nest=False
    )
    with endpoint(draft) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    assert isinstance(outcome, Done)
    narrative = outcome.results[0]
    assert isinstance(narrative, Narrative)
    assert [one.remark for one in narrative.sentences] == [cxrreport.PRIOR_REMARK, ""]


def test_lateral_goes_along_when_there_is_one_and_no_column_is_null(tmp_path: Path) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    lateral = image(tmp_path, shapes().T.copy(), uid="2.25.11", **EXACT)
    with endpoint(drafted()) as fake:
        one = cxrreport.infer(job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport"))
        two = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,), "lateral": (lateral,)}),
            fake.settings("cxrreport"),
        )
    texts = {"indication": "", "technique": "", "comparison": "None"}
    assert list(fake.asked[0].row()) == ["frontal_image", *texts]
    assert list(fake.asked[1].row()) == ["frontal_image", "lateral_image", *texts]
    assert sent_image(fake.asked[1], "lateral_image").shape == (COLUMNS, ROWS)
    assert isinstance(one, NothingFound)
    assert isinstance(two, NothingFound)
    assert one.results == (Narrative((), (frontal.SOPInstanceUID,)),)
    assert two.results == (Narrative((), (frontal.SOPInstanceUID, lateral.SOPInstanceUID)),)


@pytest.mark.parametrize(
    "item",
    [
        ["Opacity.", [[0.1, 0.1, 0.1, 0.2]]],
        ["Opacity.", [[0.3, 0.1, 0.2, 0.2]]],
        ["Opacity.", [[-0.1, 0.1, 0.2, 0.2]]],
        ["Opacity.", [[0.1, 0.1, 0.2, 1.2]]],
        ["Opacity.", [[0.1, 0.1, 0.2]]],
        ["Opacity.", [[0.1, 0.1, 0.2, "1"]]],
        ["Opacity.", "left"],
        ["Opacity."],
        [7, None],
        ["x" * 3000, None],
        ["bell \x07", None],
        "Opacity.",
    ],
)
def test_draft_that_is_not_sentences_with_boxes_is_refused(tmp_path: Path, item: Any) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    with endpoint(drafted(item)) as fake, pytest.raises(InferenceError):
        cxrreport.infer(job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport"))


# Embeddings.

VECTOR = [float(one) for one in np.random.default_rng(5).normal(size=1024)]


@pytest.mark.parametrize(
    "body",
    [
        [{"image_features": [VECTOR], "text_features": None, "scaling_factor": 4.5}],
        [{"image_features": VECTOR}],
        {"image_features": [VECTOR], "scaling_factor": 4.5},
        [{"image_features": [VECTOR]}, {"text_features": []}, {"scaling_factor": 4.5}],
    ],
    ids=["nested", "flat", "bare", "three"],
)
def test_embedding_is_a_unit_vector_in_each_documented_shape(tmp_path: Path, body: Any) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    with endpoint(Answer(body)) as fake:
        outcome = insight.infer(job("insight", {"frontal": (frontal,)}), fake.settings("insight"))
    assert isinstance(outcome, Done)
    (embedding,) = outcome.results
    assert isinstance(embedding, Embedding)
    assert embedding.vector.dtype == np.float32
    assert np.linalg.norm(embedding.vector) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(embedding.vector, VECTOR / np.linalg.norm(VECTOR), atol=1e-7)
    assert embedding.source == frontal.SOPInstanceUID
    assert embedding.recipe == f"insight-512-bicubic/1 {PIXEL_PATH}"
    assert embedding.stated == "the one image"
    asked = fake.asked[0]
    assert sent_image(asked).shape == (512, 512)
    assert asked.row()["text"] == ""
    assert asked.body["params"] == {"get_scaling_factor": True}


@pytest.mark.parametrize(
    "features", [None, [], VECTOR[:-1], [[VECTOR]], [0.0] * 1024, ["1"] * 1024, [True] * 1024]
)
def test_vector_that_is_not_1024_finite_numbers_is_refused(tmp_path: Path, features: Any) -> None:
    frontal = image(tmp_path, shapes(), **EXACT)
    with endpoint(Answer([{"image_features": features}])) as fake, pytest.raises(InferenceError):
        insight.infer(job("insight", {"frontal": (frontal,)}), fake.settings("insight"))


def each_by_its_grey(asked: Asked) -> Any:
    """Answer each row with a vector along the axis of its picture's mean grey."""
    found = []
    for row in asked.body["input_data"]["data"]:
        with PIL.Image.open(io.BytesIO(base64.b64decode(row[0]))) as opened:
            grey = round(float(np.asarray(opened).mean()))
        found.append({"image_features": [[float(at == grey) for at in range(1024)]]})
    return found


@pytest.mark.parametrize(
    ("count", "stated", "first", "last"),
    [
        (2, "slices 1 to 2 of 2 along the normal, around slice 2 in the middle", 0, 1),
        (21, "slices 1 to 21 of 21 along the normal, around slice 11 in the middle", 0, 20),
        (30, "slices 6 to 26 of 30 along the normal, around slice 16 in the middle", 5, 25),
    ],
)
def test_volume_is_embedded_by_the_mean_of_the_slices_around_its_middle(
    tmp_path: Path, count: int, stated: str, first: int, last: int
) -> None:
    # Each slice has a grey of its own: 8 HU are a bit more than one of 255 steps of the window.
    stored = np.stack([np.full((8, 9), 300 + 8 * one, np.int16) for one in range(count)])
    made = slices(tmp_path, stored)
    drawn = np.rint((stored[:, 0, 0] - 1024 + 160 + 750) / 1500 * 255).astype(int)
    assert len(set(drawn)) == count
    with endpoint(each_by_its_grey) as fake:
        outcome = insight.infer(
            job("insight", {"volume": tuple(reversed(made))}), fake.settings("insight")
        )
    assert len(fake.asked) == 1
    assert isinstance(outcome, Done)
    (embedding,) = outcome.results
    assert isinstance(embedding, Embedding)
    assert embedding.source == made[count // 2].SOPInstanceUID
    assert embedding.stated == f"{stated}; mean of their vectors"
    assert embedding.recipe.endswith(f"middle-slices-10/1 {PIXEL_PATH} W 1500 L -160")
    assert np.linalg.norm(embedding.vector) == pytest.approx(1, abs=1e-6)
    assert set(np.flatnonzero(embedding.vector)) == set(drawn[first : last + 1])


@pytest.mark.parametrize(
    ("parameters", "stated", "grey"),
    [
        ({}, "frame 3 of 5, the middle one", 30),
        ({"frame": 5}, "frame 5 of 5", 50),
    ],
)
def test_cine_is_embedded_by_one_frame_which_is_stated(
    tmp_path: Path, parameters: dict[str, Any], stated: str, grey: int
) -> None:
    cine = grey_image(np.zeros((16, 16), np.uint8), uid="2.25.77", **EXACT)
    cine.NumberOfFrames = 5
    frames = np.zeros((5, 16, 16), np.uint8)
    frames[:, :, ::2] = np.arange(20, 120, 20)[:, np.newaxis, np.newaxis]  # 10, 20, ... in the mean
    cine.PixelData = frames.tobytes()
    stored = written(tmp_path, cine)
    with endpoint(each_by_its_grey) as fake:
        outcome = insight.infer(
            job("insight", {"image": (stored,)}, **parameters), fake.settings("insight")
        )
    assert isinstance(outcome, Done)
    (embedding,) = outcome.results
    assert isinstance(embedding, Embedding)
    assert embedding.stated == stated
    assert int(np.argmax(embedding.vector)) == grey


@pytest.mark.parametrize("role", ["frontal", "image"])
def test_image_is_embedded_alike_whatever_a_rule_takes_it_for(tmp_path: Path, role: str) -> None:
    upside_down = image(tmp_path, shapes()[::-1], PatientOrientation=["L", "H"], **EXACT)
    with endpoint(Answer([{"image_features": [VECTOR]}])) as fake:
        insight.infer(job("insight", {role: (upside_down,)}), fake.settings("insight"))
    seen = sent_image(fake.asked[0]).astype(int)
    wanted = PIL.Image.fromarray(shapes()).resize((512, 512), PIL.Image.Resampling.BICUBIC)
    assert np.abs(seen - np.asarray(wanted).astype(int)).max() <= 1


def test_a_mammogram_and_one_frame_of_a_cine_are_embedded_as_single_images() -> None:
    for name, frame in (("mg/mg-mlo-12bit-jpeglossless.dcm", None), (CINE, 17), (CINE, 18)):
        one = read_instance(SHARED / name, digest="")
        told = {} if frame is None else {"frame": frame}
        with endpoint(Answer([{"image_features": [VECTOR]}])) as fake:
            outcome = insight.infer(
                job("insight", {"image": (one,)}, **told), fake.settings("insight")
            )
        assert isinstance(outcome, Done)
        index = None if frame is None else frame - 1
        shown = display_image(one, view=View.ANY, frame=index).pixels
        picture = PIL.Image.fromarray(shown).resize((512, 512), PIL.Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(sent_image(fake.asked[0]), np.asarray(picture))


def test_a_cine_of_which_no_frame_was_chosen_is_not_suitable() -> None:
    one = read_instance(SHARED / CINE, digest="")
    with endpoint(Answer([{}])) as fake:
        outcome = parse2d.infer(
            job("parse2d", {"image": (one,)}, prompts=["fetal head"]), fake.settings("parse2d")
        )
    assert isinstance(outcome, NotSuitable)
    assert "34 frames" in outcome.reason
    assert not fake.asked
