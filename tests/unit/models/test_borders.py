"""What each model sees of a radiograph with a border, and where its answer lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pacs_ai.models import parse2d, pictures
from pacs_ai.results import Done, Segmentation
from tests.unit.models.fake_endpoint import endpoint
from tests.unit.models.test_models import EXACT, by_grey, job, sent_image, shapes
from tests.unit.pixels.made import image


@pytest.mark.parametrize("orientation", ["LF", "RF", "HL", "FR"])
def test_masks_of_an_image_with_a_border_come_back_to_stored_rows_and_columns(
    tmp_path: Path, orientation: str
) -> None:
    plain = image(tmp_path, shapes(), PatientOrientation=[*orientation], **EXACT)
    border = ((40, 11), (101, 37))
    framed = image(
        tmp_path,
        np.pad(shapes(), border, constant_values=255),
        uid="2.25.11",
        PatientOrientation=[*orientation],
        **EXACT,
    )
    prompts = ["right lung", "left lung", "heart"]
    seen, masks = [], []
    for one in (plain, framed):
        with endpoint(by_grey) as fake:
            outcome = parse2d.infer(
                job("parse2d", {"frontal": (one,)}, prompts=prompts), fake.settings("parse2d")
            )
            seen.append([sent_image(asked) for asked in fake.asked])
        assert isinstance(outcome, Done)
        masks.append([one.mask for one in outcome.results if isinstance(one, Segmentation)])
    # The model gets the same pictures to the grey level, and the masks lie where the shapes are.
    np.testing.assert_array_equal(*seen)
    assert len(masks[0]) == 3
    for alone, within in zip(*masks, strict=True):
        assert alone.any()
        np.testing.assert_array_equal(within, np.pad(alone, border))


def test_an_embedding_is_of_the_whole_image_as_the_publisher_takes_it(tmp_path: Path) -> None:
    framed = image(tmp_path, np.pad(shapes(), 20), **EXACT)
    (picture,) = pictures.pictures_of(job("insight", {"frontal": (framed,)}), None).pixels
    np.testing.assert_array_equal(picture, np.pad(shapes(), 20))
