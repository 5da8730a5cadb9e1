"""A box that the model draws on what it saw lies on the same thing in the stored image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_ai.errors import InferenceError
from pacs_ai.models import cxrreport
from pacs_ai.results import Done, Finding
from tests.unit.models.fake_endpoint import Answer, Asked, endpoint
from tests.unit.models.test_models import EXACT, job, sent_image
from tests.unit.pixels.made import image

ROWS, COLUMNS = 161, 118
MARK = (slice(50, 71), slice(20, 33))  # stored rows and columns, inside of every centre crop
FRONTAL = ("LF", "RF", "LH", "RH", "FL", "FR", "HL", "HR")
LATERAL = ("AF", "PF", "AH", "PH", "FA", "FP", "HA", "HP")


def marked() -> NDArray[np.uint8]:
    pixels = np.full((ROWS, COLUMNS), 40, np.uint8)
    pixels[0, 0] = pixels[-1, -1] = 41  # no edge is even, so that nothing is cut
    pixels[MARK] = 240
    return pixels


def framed(value: int = 0) -> NDArray[np.uint8]:
    """Return the same in the middle of an even border, wider than the image is high."""
    return np.pad(marked(), ((8, 15), (55, 62)), constant_values=value)


def pointing(asked: Asked) -> Any:
    """Answer the box of what is bright, as the model counts: in the centre square (§6.5)."""
    picture = sent_image(asked, "frontal_image")
    side = min(picture.shape)
    top, left = ((size - side) // 2 for size in picture.shape)
    rows, columns = np.nonzero(picture[top : top + side, left : left + side] > 128)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return [{"output": json.dumps([["Lung opacity.", [[int(one) / side for one in box]]]])}]


@pytest.mark.parametrize("orientation", FRONTAL)
@pytest.mark.parametrize("lying", ["portrait", "landscape"])
def test_a_box_lies_on_the_stored_mark_however_the_image_is_stored(
    tmp_path: Path, orientation: str, lying: str
) -> None:
    stored, (rows, columns) = marked(), MARK
    if lying == "landscape":  # wider than high, so that the crop takes from the other side
        stored, rows, columns = stored.T.copy(), columns, rows
    frontal = image(tmp_path, stored, PatientOrientation=[*orientation], **EXACT)
    with endpoint(pointing) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    assert isinstance(outcome, Done)
    (finding,) = (one for one in outcome.results if isinstance(one, Finding))
    (box,) = finding.boxes
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx(
        (columns.start, rows.start, columns.stop, rows.stop), abs=1e-6
    )


@pytest.mark.parametrize("orientation", FRONTAL)
@pytest.mark.parametrize("spacing", [["0.2", "0.1"], ["0.1", "0.3"]])
def test_pixels_that_are_not_square_reach_the_model_square_and_the_box_lies_on_the_stored_mark(
    tmp_path: Path, orientation: str, spacing: list[str]
) -> None:
    frontal = image(
        tmp_path, marked(), PatientOrientation=[*orientation], ImagerPixelSpacing=spacing, **EXACT
    )
    with endpoint(pointing) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    seen = sent_image(fake.asked[0], "frontal_image") > 128
    high, wide = np.ptp(np.nonzero(seen), axis=1) + 1
    rows, columns = MARK
    down = (rows.stop - rows.start) * float(spacing[0])
    across = (columns.stop - columns.start) * float(spacing[1])
    shape = down / across if orientation[0] in "LR" else across / down
    assert high / wide == pytest.approx(shape, rel=0.06)
    assert isinstance(outcome, Done)
    (finding,) = (one for one in outcome.results if isinstance(one, Finding))
    (box,) = finding.boxes
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx(
        (columns.start, rows.start, columns.stop, rows.stop), abs=0.5
    )


@pytest.mark.parametrize("orientation", FRONTAL)
def test_a_border_is_cut_until_the_picture_is_square_and_the_box_lies_on_the_stored_mark(
    tmp_path: Path, orientation: str
) -> None:
    frontal = image(tmp_path, framed(), PatientOrientation=[*orientation], **EXACT)
    with endpoint(pointing) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    seen = sent_image(fake.asked[0], "frontal_image")
    assert seen.shape == (ROWS, ROWS)
    # Nothing of the image is lost to the square in the middle: both of its corners are there.
    assert np.count_nonzero(seen) == ROWS * COLUMNS
    assert isinstance(outcome, Done)
    (finding,) = (one for one in outcome.results if isinstance(one, Finding))
    (box,) = finding.boxes
    rows, columns = MARK
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx(
        (columns.start + 55, rows.start + 8, columns.stop + 55, rows.stop + 8), abs=1e-6
    )


def test_a_box_ends_where_the_border_was_cut(tmp_path: Path) -> None:
    answered = Answer([{"output": json.dumps([["Lung opacity.", [[0.0, 0.0, 1.0, 1.0]]]])}])
    frontal = image(tmp_path, framed(), ImagerPixelSpacing=["0.2", "0.1"], **EXACT)
    with endpoint(answered) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    assert isinstance(outcome, Done)
    (finding,) = (one for one in outcome.results if isinstance(one, Finding))
    (box,) = finding.boxes
    # 161 rows of the image; of its columns as many were kept as make a square of stored pixels.
    assert (box.left, box.top, box.right, box.bottom) == (34, 8, 195, 169)


@pytest.mark.parametrize(
    ("spacing", "padding"),
    [
        (["0.2", "0.1"], [[0.0, 0.1, 0.2, 0.9], [0.8, 0.1, 1.0, 0.9]]),
        (["0.1", "0.3"], [[0.1, 0.0, 0.9, 0.2], [0.1, 0.8, 0.9, 1.0]]),
    ],
    ids=["high", "wide"],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_box_that_lies_in_the_padding_alone_is_refused(
    tmp_path: Path, spacing: list[str], padding: list[list[float]], which: int
) -> None:
    drawn = [["Lung opacity.", [[0.4, 0.4, 0.6, 0.6], padding[which]]]]
    frontal = image(tmp_path, marked(), ImagerPixelSpacing=spacing, **EXACT)
    answered = Answer([{"output": json.dumps(drawn)}])
    with (
        endpoint(answered) as fake,
        pytest.raises(InferenceError, match="not within the image"),
    ):
        cxrreport.infer(job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport"))


def test_a_box_ends_where_the_image_does_and_not_in_the_padding(tmp_path: Path) -> None:
    drawn = [["Lung opacity.", [[0.0, 0.25, 0.5, 1.0]]]]
    frontal = image(tmp_path, marked(), ImagerPixelSpacing=["0.2", "0.1"], **EXACT)
    with endpoint(Answer([{"output": json.dumps(drawn)}])) as fake:
        outcome = cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport")
        )
    assert isinstance(outcome, Done)
    (finding,) = (one for one in outcome.results if isinstance(one, Finding))
    (box,) = finding.boxes
    assert (box.left, box.bottom) == (0, ROWS)
    assert (box.right, box.top) == (COLUMNS / 2, ROWS / 4)


def test_a_header_s_rounding_does_not_change_what_is_sent(tmp_path: Path) -> None:
    frontal = image(tmp_path, marked(), ImagerPixelSpacing=["0.14300", "0.14301"], **EXACT)
    with endpoint(pointing) as fake:
        cxrreport.infer(job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport"))
    np.testing.assert_array_equal(sent_image(fake.asked[0], "frontal_image"), marked())


@pytest.mark.parametrize("orientation", FRONTAL)
def test_the_patient_s_left_is_on_the_right_of_what_the_model_sees(
    tmp_path: Path, orientation: str
) -> None:
    stored = marked()
    # The side of the stored image that its header calls left, and the one that it calls the feet.
    across, down = (("LR", 1), ("FH", 0)) if orientation[0] in "LR" else (("LR", 0), ("FH", 1))
    for (letters, axis), grey in ((across, 120), (down, 70)):
        index: list[slice] = [slice(None), slice(None)]
        towards = letters[0] in orientation
        index[axis] = slice(-9, None) if towards else slice(9)
        stored[tuple(index)] += np.uint8(grey)
    frontal = image(tmp_path, stored, PatientOrientation=[*orientation], **EXACT)
    with endpoint(Answer([{"output": "[]"}])) as fake:
        cxrreport.infer(job("cxrreport", {"frontal": (frontal,)}), fake.settings("cxrreport"))
    seen = sent_image(fake.asked[0], "frontal_image").astype(int)
    middle_row, middle_column = (size // 2 for size in seen.shape)
    assert (seen[middle_row, 0], seen[middle_row, -1]) == (40, 160)
    assert (seen[0, middle_column], seen[-1, middle_column]) == (40, 110)


@pytest.mark.parametrize("orientation", LATERAL)
def test_a_lateral_reaches_the_model_head_up_and_never_mirrored(
    tmp_path: Path, orientation: str
) -> None:
    stored = marked()
    down_axis = 0 if orientation[1] in "FH" else 1
    head: list[slice] = [slice(None), slice(None)]
    head[down_axis] = slice(9) if "F" in orientation else slice(-9, None)
    stored[tuple(head)] = 200
    stored[:5, :7] = 90  # in one corner, so that a mirrored image is none of the turned ones
    frontal = image(tmp_path, marked(), **EXACT)
    lateral = image(tmp_path, stored, uid="2.25.11", PatientOrientation=[*orientation], **EXACT)
    with endpoint(pointing) as fake:
        cxrreport.infer(
            job("cxrreport", {"frontal": (frontal,), "lateral": (lateral,)}),
            fake.settings("cxrreport"),
        )
    seen = sent_image(fake.asked[0], "lateral_image")
    assert seen[0, seen.shape[1] // 2] == 200
    assert seen[-1, seen.shape[1] // 2] == 40
    assert [turn for turn in range(4) if np.array_equal(seen, np.rot90(stored, turn))] != []
