"""A rule that takes one image without a view: which one, and which frame of it."""

from __future__ import annotations

from typing import Any

import pytest

from pacs_ai.routing import Outcome, Routing
from pacs_ai.study import Instance
from tests.unit.routing.studies import instance, routed

RULE = """
rules:
  - name: us
    when: {Modality: US}
    select: {take: image}
    run: [insight, {parse2d: [left heart ventricle]}]
"""


def picture(number: int, **elements: Any) -> Instance:
    given = {"Modality": "US", "AcquisitionDate": "20261123", "AcquisitionTime": f"1000{number:02}"}
    return instance(number, **{**given, **elements})


def route(*instances: Instance, select: str = "take: image") -> Routing:
    return routed(instances, RULE.replace("take: image", select))


def refused(routing: Routing) -> str:
    (verdict,) = routing.verdicts
    assert verdict.outcome is Outcome.NOT_SUITABLE
    assert not routing.jobs
    return verdict.deciding


def test_the_only_image_is_taken_and_nothing_is_said_of_frames() -> None:
    one = picture(1)
    insight, parse = route(one).jobs
    assert parse.inputs == insight.inputs == {"image": (one,)}
    assert "frame" not in parse.parameters
    assert parse.parameters["notes"] == []


def test_of_two_images_neither_is_guessed_and_both_are_named() -> None:
    one, two = picture(1), picture(2)
    reason = refused(route(one, two))
    assert "ambiguous" in reason
    assert one.SOPInstanceUID in reason
    assert two.SOPInstanceUID in reason


def test_the_latest_of_several_is_taken_where_the_rule_says_so() -> None:
    early, late = picture(1), picture(7)
    job = route(late, early, select="take: latest image").jobs[0]
    assert job.inputs == {"image": (late,)}
    assert job.parameters["notes"] == ["1 of 2 images, the latest"]


def test_images_of_the_same_time_are_ambiguous() -> None:
    one, two = picture(1), picture(2, AcquisitionTime="100001")
    reason = refused(route(one, two, select="take: latest image"))
    assert one.SOPInstanceUID in reason
    assert two.SOPInstanceUID in reason


def test_a_condition_chooses_among_images() -> None:
    small, large = picture(1, Rows=8), picture(2, Rows=900)
    job = route(small, large, select='take: image, Rows: ">=512"').jobs[0]
    assert job.inputs == {"image": (large,)}
    assert "no image suits" in refused(route(small, select='take: image, Rows: ">=512"'))


@pytest.mark.parametrize(
    ("frames", "select", "number", "which"),
    [
        (34, "take: image", 17, "in the middle"),
        (33, "take: image", 17, "in the middle"),
        (2, "take: image", 1, "in the middle"),
        (34, "take: image, frame: middle", 17, "in the middle"),
        (34, "take: image, frame: 34", 34, "that the rule names"),
    ],
)
def test_one_frame_of_a_cine_is_taken_and_said(
    frames: int, select: str, number: int, which: str
) -> None:
    for job in route(picture(1, NumberOfFrames=frames), select=select).jobs:
        assert job.parameters["frame"] == number
        assert job.parameters["notes"] == [
            f"Only frame {number} of {frames} was looked at, the one {which}"
        ]


WHOLE = "take: image, frame: all"
PARSE = RULE.replace("insight, ", "").replace("take: image", WHOLE)


def test_all_frames_of_a_cine_are_taken_where_the_rule_says_so() -> None:
    (job,) = routed([picture(1, NumberOfFrames=34, Rows=480, Columns=640)], PARSE).jobs
    assert job.parameters["frame"] == "all"
    assert job.parameters["notes"] == []


@pytest.mark.parametrize("frames", [None, 1])
def test_all_frames_of_a_single_image_are_the_image(frames: int | None) -> None:
    (job,) = routed([picture(1, NumberOfFrames=frames)], PARSE).jobs
    assert "frame" not in job.parameters


def test_more_frames_than_fit_are_refused_with_a_remedy() -> None:
    fits = picture(1, NumberOfFrames=256, Rows=1024, Columns=1024)
    assert routed([fits], PARSE).jobs
    reason = refused(routed([picture(1, NumberOfFrames=257, Rows=1024, Columns=1024)], PARSE))
    assert "257 frames of 1024 Rows and 1024 Columns" in reason
    assert "name one frame in the rule" in reason


SLIDE = """
rules:
  - name: breast slide
    when: {Modality: SM}
    select: {take: image, frame: all}
    run: [{parse2d: [epithelial breast cells]}]
"""


def level(number: int, columns: int, kind: str = "VOLUME", **elements: Any) -> Instance:
    given = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6",
        "ImageType": ["DERIVED", "PRIMARY", kind, "RESAMPLED"],
        "TotalPixelMatrixColumns": columns,
        "NumberOfFrames": (columns // 256) ** 2,
        "Rows": 256,
        "Columns": 256,
    }
    return picture(number, Modality="SM", **{**given, **elements})


@pytest.mark.parametrize("kind", ["LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER"])
def test_of_a_slide_only_its_own_pixels_are_taken(kind: str) -> None:
    slide, other = level(1, 2048), level(2, 512, kind)
    (job,) = routed([other, slide], SLIDE).jobs
    assert job.inputs == {"image": (slide,)}
    reason = refused(routed([other], SLIDE))
    assert f"ImageType says {kind} and not VOLUME" in reason


def test_a_level_of_a_slide_is_chosen_by_its_size() -> None:
    levels = [level(1, 16384), level(2, 4096), level(3, 1024)]
    assert "ambiguous" in refused(routed(levels, SLIDE))
    narrow = SLIDE.replace("all}", 'all, TotalPixelMatrixColumns: ">=2000 <=8000"}')
    (job,) = routed(levels, narrow).jobs
    assert job.inputs == {"image": (levels[1],)}


def test_a_level_that_is_too_large_is_refused_with_a_remedy() -> None:
    reason = refused(routed([level(1, 32768)], SLIDE))
    assert "select another level (TotalPixelMatrixColumns), or name one frame" in reason


@pytest.mark.parametrize("frames", [None, 1, 34])
def test_a_frame_that_is_not_there_is_refused(frames: int | None) -> None:
    reason = refused(route(picture(1, NumberOfFrames=frames), select="take: image, frame: 35"))
    assert "has no frame 35" in reason


def test_no_frames_at_all_is_refused() -> None:
    assert "has no frame" in refused(route(picture(1, NumberOfFrames=0)))


def test_a_radiograph_that_is_not_taken_by_its_view_has_none() -> None:
    text = RULE.replace("US", "DX").replace("left heart ventricle", "heart")
    (_, parse) = routed([picture(1, Modality="DX")], text).jobs
    assert "view" not in parse.parameters
    assert "measure" not in parse.parameters
