"""Lung fields and heart on a frontal radiograph: where they are, and nowhere when there are none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_ai import phantom
from pacs_ai.reference import projection
from pacs_ai.reference.lungfield import find_chest
from tests.unit.reference.pictures import dice

PROMPTS = ["left lung in chest X-ray", "right lung in chest X-ray", "heart in chest X-ray"]
Pictures = dict[str, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def maps(frontals: Pictures) -> NDArray[np.uint8]:
    return projection.segment(frontals["normal"], PROMPTS)


@pytest.mark.parametrize(
    ("number", "label", "least"),
    [(0, "left lung", 0.92), (1, "right lung", 0.92), (2, "heart", 0.8)],
)
def test_masks_agree_with_the_truth(
    maps: NDArray[np.uint8], number: int, label: str, least: float
) -> None:
    assert dice(maps[number] > 127, phantom.frontal_truth()[label]) > least


def test_the_heart_is_as_wide_as_it_is(maps: NDArray[np.uint8]) -> None:
    def ratio(left: NDArray[np.bool_], right: NDArray[np.bool_], heart: NDArray[np.bool_]) -> float:
        width = [np.ptp(np.nonzero(mask.any(axis=0))[0]) for mask in (heart, left | right)]
        return float(width[0] / width[1])

    truth = phantom.frontal_truth()
    expected = ratio(truth["left lung"], truth["right lung"], truth["heart"])
    assert ratio(*(mask > 127 for mask in maps)) == pytest.approx(expected, abs=0.06)


def test_probabilities_are_smooth_across_the_border(maps: NDArray[np.uint8]) -> None:
    assert len(np.unique(maps[0])) > 50
    # A client that takes everything above zero is visibly wrong.
    assert (maps[0] > 0).sum() > 1.05 * (maps[0] > 127).sum()


def test_black_bars_round_the_picture_do_not_matter(
    frontals: Pictures, maps: NDArray[np.uint8]
) -> None:
    picture = frontals["normal"]
    side = max(picture.shape)
    before = (side - picture.shape[1]) // 2
    padded = np.zeros((side, side), np.uint8)
    padded[:, before : before + picture.shape[1]] = picture
    found = projection.segment(padded, PROMPTS[:1])[0][:, before : before + picture.shape[1]]
    assert dice(found > 127, maps[0] > 127) > 0.95


def test_a_picture_without_a_chest_has_no_lungs() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (300, 300), dtype=np.uint8)
    for picture in (noise, np.zeros((300, 300), np.uint8), np.full((64, 200), 90, np.uint8)):
        assert not find_chest(picture).found
        assert projection.segment(picture, PROMPTS).max() <= 127


def test_prompts_that_are_not_known_find_nothing(frontals: Pictures) -> None:
    unknown = ["pleural effusion in chest X-ray", "left lung in chest CT", "gibberish"]
    assert projection.segment(frontals["normal"], unknown).max() == 0


def test_every_prompt_has_a_category_of_the_contract() -> None:
    assert projection.category("left lung in chest X-ray") == "lung"
    assert projection.category("heart in chest X-ray") == "heart anatomies"
    assert projection.category("liver tumor in abdomen CT") in ("liver", "tumor")
    assert projection.category("gibberish") == "other"
