"""Secondary Capture: one page of a Study's results, because many viewers show nothing else.

PS3.3 A.8.1. The page shows source images with masks and boxes, what was found and measured, and
one line for each model with what came of it. It holds no patient identifier and no sentence of a
draft report, and says on top that nobody verified it.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pacs_ai.encoding import Encoding
from pacs_ai.encoding.canvas import AMBER, BLACK, FAINT, RED, TEXT, WHITE, Canvas, wrapped
from pacs_ai.encoding.document import done_without, no_finding
from pacs_ai.encoding.equipment import (
    MODEL_NAME,
    NOT_VERIFIED,
    REFERENCE_NOTE,
    Place,
    code_item,
    finish,
    mark_lossy,
    models_of,
    plain,
)
from pacs_ai.encoding.identity import identity_of
from pacs_ai.encoding.scenes import (
    Colour,
    Scene,
    colour_of,
    instances_shown,
    left_out,
    marks_of,
    masks_of,
    results_of,
    scenes,
)
from pacs_ai.encoding.volumes import millilitres
from pacs_ai.pixels.decoder import one_job
from pacs_ai.results import (
    HOUNSFIELD,
    Assertion,
    Embedding,
    Failed,
    Finding,
    Held,
    JobResults,
    Measurement,
    Narrative,
    NothingFound,
    NotSuitable,
    Segmentation,
)
from pacs_ai.study import MANUFACTURER
from pacs_ai.terms import CONTRADICTIONS, Code

KIND = "capture"

WIDTH = 1600
_MARGIN = 16
_BANNER = 52
_ROW = 900
_LINE = 28
_SIZE = 20
_WORDS: dict[type[Any], str] = {
    Segmentation: "outline",
    Finding: "statement",
    Measurement: "measurement",
    Narrative: "draft report",
    Embedding: "embedding",
}
_SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of text, with a colour before it where it explains one in the picture."""

    text: str
    colour: Colour = TEXT
    swatch: Colour | None = None
    heading: bool = False


def encode(work: Encoding) -> tuple[Dataset, ...]:
    """Write the page of a Study; an empty tuple when no model has anything to show.

    Raises
    ------
    EncodingError
        When the Study has no Study Instance UID to belong to.
    """
    if not _has_something(work):
        return ()
    page = render(work)
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = None
    dataset.BurnedInAnnotation = "YES"
    dataset.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    dataset.SecondaryCaptureDeviceManufacturerModelName = MODEL_NAME
    dataset.SecondaryCaptureDeviceSoftwareVersions = plain(work.stamp.software_version)
    _set_pixels(dataset, page)
    _set_sources(dataset, work)
    finish(dataset, work, Place(KIND), "results page, not verified")
    dataset.DateOfSecondaryCapture = dataset.ContentDate
    dataset.TimeOfSecondaryCapture = dataset.ContentTime
    return (dataset,)


def render(work: Encoding) -> NDArray[np.uint8]:
    """Draw the page.

    Parameters
    ----------
    work : Encoding
        All Jobs of a Study version.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
        sRGB, 1600 columns.
    """
    with one_job():
        rows = scenes(work)
    drawn = {frame.tag for row in rows for scene in row for frame in scene.frames}
    left, right = _columns(work, drawn)
    banners = _banners(work)
    text = max(_height(left), _height(right)) + 2 * _MARGIN
    height = len(banners) * _BANNER + len(rows) * (_ROW + _MARGIN) + text + 44
    canvas = Canvas(WIDTH, height)
    top = 0
    for number, (words, colour) in enumerate(banners):
        canvas.bar(top, _BANNER - 2, colour)
        ink = WHITE if colour == RED else BLACK
        canvas.text((_MARGIN, top + _BANNER // 2 - 1), words, 30, ink)
        if number == 0:
            made = work.stamp.when.strftime("%Y-%m-%d %H:%M %z")
            canvas.text_end((WIDTH - _MARGIN, top + _BANNER // 2), f"Made {made}", 22, ink)
        top += _BANNER
    for row in rows:
        _draw_row(canvas, row, top + _MARGIN)
        top += _ROW + _MARGIN
    _draw_lines(canvas, left, (_MARGIN, top + _MARGIN))
    _draw_lines(canvas, right, (WIDTH // 2 + _MARGIN, top + _MARGIN))
    foot = f"{MODEL_NAME} {work.stamp.software_version}. Derived picture, not for measurement."
    canvas.text((_MARGIN, height - 22), foot, 17, FAINT)
    return canvas.pixels


def _has_something(work: Encoding) -> bool:
    return any(
        isinstance(entry.outcome, NothingFound)
        or any(not isinstance(result, Embedding) for result in results_of(entry))
        for entry in work.entries
    )


def _banners(work: Encoding) -> list[tuple[str, Colour]]:
    banners: list[tuple[str, Colour]] = [("AI - NOT VERIFIED", AMBER)]
    if any(model.reference for model in models_of(work.entries)):
        banners.append(("REFERENCE MODEL - NOT FOR CLINICAL USE", RED))
    if not work.stamp.production:
        banners.append(("NOT PRODUCTION - DEMONSTRATION OR TEST", RED))
    return banners


def _draw_row(canvas: Canvas, row: tuple[Scene, ...], top: int) -> None:
    """Draw one large picture and up to two small ones beside it."""
    right, bottom = WIDTH - _MARGIN, top + _ROW
    if len(row) == 1:
        canvas.scene(row[0], (_MARGIN, top, right, bottom))
        return
    split = _MARGIN + 1000
    canvas.scene(row[0], (_MARGIN, top, split, bottom))
    each = (_ROW - _MARGIN * (len(row) - 2)) // (len(row) - 1)
    for number, scene in enumerate(row[1:]):
        start = top + number * (each + _MARGIN)
        canvas.scene(scene, (split + _MARGIN, start, right, start + each))


def _columns(work: Encoding, drawn: Set[str]) -> tuple[list[_Line], list[_Line]]:
    """Return the text; ``drawn`` holds the tags of the boxes that are on a picture."""
    left = [*_missing(work), *_legend(work), *_findings(work, drawn), *_measurements(work)]
    right = [_Line("Models", heading=True)]
    for entry in work.entries:
        right += _outcome(entry)
    notes = [one for entry in work.entries for one in entry.notes]
    notes += identity_of(work.study.instances[0]).notes
    if notes:
        right.append(_Line("Notes", heading=True))
        right += [_Line(note) for note in dict.fromkeys(notes)]
    return _wrap(left), _wrap(right)


def _missing(work: Encoding) -> Iterator[_Line]:
    count = left_out(work)
    if count:
        were = "picture was analysed and is" if count == 1 else "pictures were analysed and are"
        yield _Line(f"{count} more {were} not shown", AMBER)


def _legend(work: Encoding) -> Iterator[_Line]:
    masks = masks_of(work)
    if masks:
        yield _Line("Outlines", heading=True)
    for mask in masks:
        yield _Line(f"{_capital(mask.label)}{_size(work, mask)}", swatch=colour_of(mask.label))


def _size(work: Encoding, mask: Segmentation) -> str:
    if not mask.volumetric:
        return ""
    volume = millilitres(mask, work.study)
    said = [] if volume is None else [f"{volume:.0f} ml"]
    said += [
        f"{one.label} {one.value:.0f}{_unit(one)}"
        for one in _measured(work)
        if one.segment == mask.label and mask.sources[0] in one.sources
    ]
    return f": {', '.join(said)}" if said else ""


def _unit(one: Measurement) -> str:
    return {"1": "", HOUNSFIELD: " HU"}.get(one.unit, f" {one.unit}")


def _measured(work: Encoding) -> list[Measurement]:
    return [
        one for entry in work.entries for one in results_of(entry) if isinstance(one, Measurement)
    ]


def _findings(work: Encoding, drawn: Set[str]) -> Iterator[_Line]:
    """Yield what was found as concept, assertion and side: never the draft's own sentences."""
    tags = iter(marks_of(work))
    yield _Line("Findings", heading=True)
    flagged = False
    others: dict[Assertion, list[str]] = {}
    for entry in work.entries:
        for finding in results_of(entry):
            if not isinstance(finding, Finding):
                continue
            if finding.assertion in (Assertion.PRESENT, Assertion.UNCERTAIN):
                numbers = [next(tags).tag for _ in finding.boxes]
                flagged = True
                yield _flag(finding, numbers, drawn)
            else:
                others.setdefault(finding.assertion, []).append(_named(finding))
    for assertion, names in others.items():
        yield _Line(f"{_capital(assertion.value)}: {', '.join(dict.fromkeys(names))}", FAINT)
    for entry in work.entries:
        if isinstance(entry.outcome, NothingFound):
            flagged = True
            yield _Line(no_finding(entry))
    if not flagged:
        looked = "None flagged" if others else "No model looked for findings"
        yield _Line(f"{looked}; not a normal result")


def _named(finding: Finding) -> str:
    return f"{finding.label}, {finding.side}" if finding.side else finding.label


def _flag(finding: Finding, numbers: list[str], drawn: Set[str]) -> _Line:
    words = [f"{_capital(finding.assertion.value)}: {_named(finding)}", _where(numbers, drawn)]
    if finding.label in CONTRADICTIONS.values():
        words = [f"{_capital(_named(finding))}: {finding.sentence} (certainty {finding.score:.0%})"]
    elif finding.score is not None:
        words.append(f"certainty {finding.score:.0%} as the model gives it")
    return _Line(" ".join(words), swatch=colour_of(finding.label))


def _where(numbers: list[str], drawn: Set[str]) -> str:
    """Return which boxes to look at; none that is on no picture of the page."""
    if not numbers:
        return "(not localised)"
    seen = [number for number in numbers if number in drawn]
    said = [f"box {', '.join(seen)}"] if seen else []
    if len(seen) < len(numbers):
        said.append(f"{'also ' * bool(seen)}localised on a picture that is not shown")
    return f"({'; '.join(said)})"


def _measurements(work: Encoding) -> Iterator[_Line]:
    # What is measured in a volume's segment stands beside its outline.
    legend = {mask.label for mask in masks_of(work) if mask.volumetric}
    measured = [one for one in _measured(work) if one.segment not in legend]
    if measured:
        yield _Line("Measurements", heading=True)
    for one in measured:
        of = f" of {one.segment}" if one.segment else ""
        yield _Line(f"{_capital(one.label)}{of}: {one.value:.2f}{_unit(one)}. {one.method}")


def _outcome(entry: JobResults) -> Iterator[_Line]:
    model = entry.model
    name = f"{model.name} {model.version} ({model.manufacturer})"
    yield _Line(f"{name}: {_came_to(entry)}")
    if model.reference:
        yield _Line(f"{REFERENCE_NOTE.capitalize()}", AMBER)


def _came_to(entry: JobResults) -> str:
    outcome = entry.outcome
    if isinstance(outcome, NotSuitable):
        return f"not suitable. {outcome.reason}"
    if isinstance(outcome, Held):
        return f"held for a person. {outcome.reason}"
    if isinstance(outcome, Failed):
        return f"failed. {outcome.reason}"
    if isinstance(outcome, NothingFound):
        return done_without(entry)
    counts: dict[str, int] = {}
    for result in outcome.results:
        kind = _WORDS[type(result)]
        counts[kind] = counts.get(kind, 0) + 1
    said = ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in counts.items())
    return f"done ({said})" if said else "done"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _wrap(lines: list[_Line]) -> list[_Line]:
    made = []
    for line in lines:
        room = WIDTH // 2 - 3 * _MARGIN - (28 if line.swatch else 0)
        first, *rest = wrapped(line.text, room, _SIZE)
        made.append(_Line(first, line.colour, line.swatch, line.heading))
        made += [_Line(f"    {text}", line.colour) for text in rest]
    return made


def _height(lines: list[_Line]) -> int:
    return sum(_LINE + (14 if line.heading else 0) for line in lines)


def _draw_lines(canvas: Canvas, lines: list[_Line], where: tuple[int, int]) -> None:
    left, top = where
    for line in lines:
        x = left
        if line.heading:
            top += 14
            canvas.text((x, top + _LINE // 2), line.text, _SIZE, AMBER)
            top += _LINE
            continue
        if line.swatch is not None:
            canvas.swatch((x, top + _LINE // 2), line.swatch)
            x += 28
        canvas.text((x, top + _LINE // 2), line.text, _SIZE, line.colour)
        top += _LINE


def _set_pixels(dataset: Dataset, page: NDArray[np.uint8]) -> None:
    dataset.Rows, dataset.Columns = page.shape[:2]
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    data = page.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)


def _set_sources(dataset: Dataset, work: Encoding) -> None:
    instances = list({one.SOPInstanceUID: one for one in instances_shown(work)}.values())
    items = []
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID = instance.SOPClassUID
        item.ReferencedSOPInstanceUID = instance.SOPInstanceUID
        item.PurposeOfReferenceCodeSequence = [code_item(_SOURCE_IMAGE)]
        items.append(item)
    if items:
        dataset.SourceImageSequence = items
    mark_lossy(dataset, instances)
    names = ", ".join(model.label for model in models_of(work.entries))
    words = f"{NOT_VERIFIED}. Source images with what these models returned: {names}."
    dataset.DerivationDescription = words[:1024]
