"""CXRReportGen: a frontal image (and a lateral one) in, a draft report in sentences out.

Every sentence is kept as the model wrote it. What it says is read by
:mod:`pacs_ai.models.sentences` only; where a sentence points, its boxes are brought back to the
stored grid of the frontal image.
"""

from __future__ import annotations

from typing import Any

from pacs_ai.errors import InferenceError, PixelError
from pacs_ai.models import answer, sentences
from pacs_ai.models.endpoint import score
from pacs_ai.models.inputs import base64_text, projection
from pacs_ai.models.seats import Seats, alone
from pacs_ai.pixels.display import DisplayImage, png
from pacs_ai.pixels.placement import Placement
from pacs_ai.results import (
    Assertion,
    Box,
    Done,
    Finding,
    Narrative,
    NothingFound,
    NotSuitable,
    Outcome,
    Result,
    Sentence,
)
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job

PRIOR_REMARK = "compares with a prior image that was not supplied"

_LONGEST_SENTENCE = 2000
# A longer draft is a model that repeats itself; each sentence costs time to read.
_MOST_SENTENCES = 200


def infer(job: Job, endpoint: Endpoint, seats: Seats = alone) -> Outcome:
    """Have a draft report written for the Job's frontal image.

    Returns
    -------
    Done
        When at least one finding is present: one Narrative, then the Findings in its order.
    NothingFound
        With the same results, when none is present.
    NotSuitable
        When an image cannot be shown without guessing.

    Raises
    ------
    InferenceError
        When the endpoint refuses, or its answer is not sentences with boxes.
    """
    try:
        frontal = projection(job, "frontal").towards_square()
        lateral = None
        if "lateral" in job.inputs:
            lateral = projection(job, "lateral").towards_square()
    except PixelError as error:
        return NotSuitable(str(error))
    # Nothing of the patient's or the order's text goes out: the model is given pixels only.
    row = {"frontal_image": base64_text(_picture(frontal))}
    if lateral is not None:
        row["lateral_image"] = base64_text(_picture(lateral))
    row |= {"indication": "", "technique": "", "comparison": "None"}
    record = score(endpoint, tuple(row), [tuple(row.values())])[0]
    written = _written(record, frontal, endpoint)
    sources = (frontal.source,) + ((lateral.source,) if lateral is not None else ())
    findings, notes = _coded(written, frontal.source)
    results: tuple[Result, ...] = (Narrative(written, sources), *findings)
    if any(finding.assertion is Assertion.PRESENT for finding in findings):
        return Done(results, notes)
    return NothingFound(results, notes)


def _picture(image: DisplayImage) -> bytes:
    """Return what is sent: the image as it is displayed; with square pixels, where it has others."""
    square = _squared(image)
    return image.png() if square is None else png(square.apply(image.pixels))


def _squared(image: DisplayImage) -> Placement | None:
    """Return how an image gets square pixels: enlarged along one side and padded, never cropped.

    None where its pixels are square: a difference that makes less than a line over the whole image
    is the rounding of a header.
    """
    rows, columns = image.pixels.shape[:2]
    enlarged = Placement(rows, columns, size=1, aspect=image.aspect)
    if (enlarged.tall, enlarged.wide) == (rows, columns):
        return None
    return Placement(rows, columns, size=enlarged.side, aspect=image.aspect)


def _written(
    record: dict[str, Any], frontal: DisplayImage, endpoint: Endpoint
) -> tuple[Sentence, ...]:
    """Read ``output``: a list of [sentence, boxes or null], as JSON in a string or as it is."""
    if "output" not in record:
        raise InferenceError(f"{endpoint.name} answered without output")
    items = answer.nested(record["output"], what="output")
    if not isinstance(items, list):
        raise InferenceError(f"{endpoint.name} answered something that is not a list of sentences")
    return tuple(_sentence(item, frontal) for item in items)


def _sentence(item: Any, frontal: DisplayImage) -> Sentence:
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
        raise InferenceError("a sentence of the draft is not a text with its boxes")
    text, boxes = " ".join(item[0].split()), item[1]
    if not text.isprintable() or len(text) > _LONGEST_SENTENCE:
        raise InferenceError("a sentence of the draft is not printable text of usual length")
    if boxes is not None and not isinstance(boxes, list):
        raise InferenceError("a sentence of the draft has something else than boxes")
    remark = PRIOR_REMARK if sentences.compares(text) else ""
    return Sentence(text, tuple(_box(box, frontal) for box in boxes or ()), remark)


def _box(value: Any, frontal: DisplayImage) -> Box:
    """Bring a box from the model's centre crop to stored columns and rows (§6.5).

    What of it lies in the padding around the image is cut off; one that lies there wholly is refused.
    """
    x1, y1, x2, y2 = answer.numbers(value, length=4, what="a box")
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        raise _outside()
    turn, cut = frontal.turn, frontal.turn.cut
    a, b = (turn.undo_point(*_displayed(x, y, frontal)) for x, y in ((x1, y1), (x2, y2)))
    (x_low, x_high), (y_low, y_high) = (sorted(pair) for pair in zip(a, b, strict=True))
    box = Box(
        source=frontal.source,
        left=max(x_low, float(cut.left)),
        top=max(y_low, float(cut.top)),
        right=min(x_high, float(turn.columns - cut.right)),
        bottom=min(y_high, float(turn.rows - cut.bottom)),
    )
    if not (box.left < box.right and box.top < box.bottom):
        raise _outside()
    return box


def _outside() -> InferenceError:
    return InferenceError("a box of the draft is not within the image, or has no area")


def _displayed(x: float, y: float, frontal: DisplayImage) -> tuple[float, float]:
    """Return the point of the displayed image that a share of the model's square means."""
    square = _squared(frontal)
    if square is not None:
        return square.undo_point(x * square.size, y * square.size)
    rows, columns = frontal.pixels.shape[:2]
    side = min(rows, columns)
    return x * side + (columns - side) // 2, y * side + (rows - side) // 2


def _coded(
    written: tuple[Sentence, ...], source: str
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Read the Findings of a draft, and note what is left to be read in its sentences."""
    findings: list[Finding] = []
    notes: list[str] = []
    for number, sentence in enumerate(written[:_MOST_SENTENCES], 1):
        said = _findings(sentence, source)
        # A box on an absence contradicts it: the sentence was read wrongly, or is wrong.
        if sentence.boxes and said and all(one.assertion is Assertion.ABSENT for one in said):
            notes.append(
                f"Sentence {number} of the draft says only what is absent, and points at the image:"
                " nothing of it is coded. Look at the image"
            )
            continue
        findings.extend(said)
    if len(written) > _MOST_SENTENCES:
        notes.append(
            f"The draft has {len(written)} sentences, more than a report has: only the first"
            f" {_MOST_SENTENCES} are coded. Look at the image"
        )
    return tuple(findings), tuple(notes)


def _findings(sentence: Sentence, source: str) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            label=statement.label,
            assertion=statement.assertion,
            sources=(source,),
            # What is said not to be there is not pointed at, whatever the sentence's boxes show.
            boxes=() if statement.assertion is Assertion.ABSENT else sentence.boxes,
            side=statement.side,
            sentence=sentence.text,
        )
        for statement in sentences.read(sentence.text)
    )
