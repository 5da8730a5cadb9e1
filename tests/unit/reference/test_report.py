"""The draft report: it says what was found, on the right side, with a box that fits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_ai import phantom
from pacs_ai.reference.report import report

Pictures = dict[str, NDArray[np.uint8]]
Box = tuple[float, float, float, float]


def on_picture(box: list[float], shape: tuple[int, ...]) -> Box:
    """Bring a box of the centre square to columns and rows of the picture."""
    side = min(shape)
    down, across = ((edge - side) // 2 for edge in shape)
    left, top, right, bottom = (value * side for value in box)
    return (left + across, top + down, right + across, bottom + down)


def overlap(one: Box, other: Box) -> float:
    """Return intersection over union."""
    width = max(min(one[2], other[2]) - max(one[0], other[0]), 0)
    height = max(min(one[3], other[3]) - max(one[1], other[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


@pytest.fixture(scope="module")
def abnormal(frontals: Pictures) -> list[list[object]]:
    return report(frontals["abnormal"])


def test_an_opacity_is_said_with_side_zone_and_box(
    abnormal: list[list[object]], frontals: Pictures
) -> None:
    grounded = [(text, boxes) for text, boxes in abnormal if boxes]
    assert [text for text, _ in grounded] == [
        "There is a dense opacity in the right lower lung zone."
    ]
    (box,) = grounded[0][1]
    found = on_picture(box, frontals["abnormal"].shape)
    assert overlap(found, phantom.opacity_box()) > 0.5


def test_box_values_are_centres_of_hundredths(abnormal: list[list[object]]) -> None:
    values = [value for _, boxes in abnormal for box in boxes or [] for value in box]
    assert values
    for value in values:
        assert (value - 0.005) * 100 == pytest.approx(round((value - 0.005) * 100), abs=1e-6)


def test_a_normal_chest_gets_no_finding(frontals: Pictures) -> None:
    sentences = report(frontals["normal"])
    assert all(boxes is None for _, boxes in sentences)
    assert [text for text, _ in sentences] == [
        "No dense opacity is seen in the right lung.",
        "No dense opacity is seen in the left lung.",
        "The cardiac silhouette is not enlarged.",
    ]


def test_a_mirrored_picture_has_its_finding_on_the_other_side(frontals: Pictures) -> None:
    mirrored = np.ascontiguousarray(frontals["abnormal"][:, ::-1])
    grounded = [text for text, boxes in report(mirrored) if boxes]
    assert grounded == ["There is a dense opacity in the left lower lung zone."]


def test_a_picture_without_lungs_is_no_normal_chest() -> None:
    noise = np.random.default_rng(5).integers(0, 256, (256, 256), dtype=np.uint8)
    assert report(noise) == [["The lung fields could not be delineated on this image.", None]]
