"""MedImageParse 3D on a Volume: prompts in, masks on the slices' own grid out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import InferenceError, PixelError
from pacs_ai.models import answer
from pacs_ai.models.endpoint import score
from pacs_ai.models.inputs import EMBEDDING_WINDOW, base64_text, volume_of
from pacs_ai.models.measures import outcome
from pacs_ai.models.prompts import RefusedPromptError, asked, by_window, calls
from pacs_ai.models.seats import Seats, alone
from pacs_ai.pixels.nifti import from_nifti, to_nifti
from pacs_ai.pixels.volume import Volume, grey
from pacs_ai.results import NotSuitable, Outcome, Segmentation
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job

MOST = 15
"""Most prompts of one call: as many as the card's own example has (model-contracts §5.2)."""

_ENVELOPE = 16 * 1024
"""Room for the JSON and the texts of a call."""

_THRESHOLD = 127.5
_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Answer:
    """One mask for each prompt, of shape (slices, Rows, Columns).

    ``doubtful`` says that no value is above 1: a mask, or a probability out of 255 that finds nothing.
    """

    masks: Iterator[_Mask]
    doubtful: bool = False


def infer(job: Job, endpoint: Endpoint, seats: Seats = alone) -> Outcome:
    """Segment the Job's prompts on its volume.

    Returns
    -------
    Done
        One Segmentation for each prompt that was found: shape (slices, Rows, Columns), in the order of its
        sources, and what is measured in them. A note says what was not found: an empty mask, or one below its
        least size.
    NothingFound
        When nothing was found.
    NotSuitable
        When the Instances are not one regular grid or cannot be decoded, or a prompt may not be asked.

    Raises
    ------
    InferenceError
        When the endpoint refuses, or its label map is not one for this volume.
    """
    try:
        return _segment(job, endpoint)
    except (PixelError, RefusedPromptError) as error:
        return NotSuitable(str(error))


def _segment(job: Job, endpoint: Endpoint) -> Outcome:
    volume = volume_of(job)
    prompts, _ = asked(job, endpoint, modality=volume.modality)
    voxel = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000  # ml
    found: dict[str, Segmentation] = {}
    doubtful: list[str] = []
    for window, members in by_window(prompts, endpoint):
        drawn = grey(volume, window or EMBEDDING_WINDOW)
        encoded = base64_text(to_nifti(volume, drawn.planes(), most=_room(endpoint)))
        for call in calls(members, most=MOST):
            given = _ask(endpoint, volume, encoded, [one.words for one in call])
            for one, mask in zip(call, given.masks, strict=True):
                if mask.any() and mask.sum() * voxel >= one.least:
                    doubtful += [one.label] if given.doubtful else []
                    found[one.words] = Segmentation(
                        one.label, mask, volume.order, one.words, volume.frames
                    )
    made = outcome(volume, prompts, found)
    return replace(made, notes=(*made.notes, *_reading(doubtful)))


def _reading(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the note on answers that could have been meant in another way."""
    if not labels:
        return ()
    said = "Read as a mask, not as a probability out of 255, because no value is above 1"
    return (f"{said}: {', '.join(labels)}",)


def _room(endpoint: Endpoint) -> int:
    """Return how many bytes of a file go into a request, in base64 and beside the prompts."""
    return max(0, endpoint.maximum_request - _ENVELOPE) * 3 // 4


def _ask(endpoint: Endpoint, volume: Volume, encoded: str, texts: Sequence[str]) -> _Answer:
    """Make one call."""
    record = score(endpoint, ("image", "text"), [(encoded, " & ".join(texts))])[0]
    if "nifti_file" in record:
        labels = _label_map(record, volume)
        return _of_one(labels) if len(texts) == 1 else _from_labels(labels, count=len(texts))
    if "image_features" in record:
        return _Answer(_from_probabilities(record, volume, count=len(texts)))
    raise InferenceError(f"{endpoint.name} answered neither nifti_file nor image_features")


def _label_map(record: Mapping[str, Any], volume: Volume) -> NDArray[Any]:
    """Read shape A (model-contracts §5.3): a gzip NIfTI file in base64 in JSON in a string."""
    field = answer.nested(record["nifti_file"], what="nifti_file")
    if not isinstance(field, dict) or "data" not in field:
        raise InferenceError("nifti_file has no data")
    try:
        return from_nifti(answer.decoded(field["data"], what="nifti_file"), volume)
    except PixelError as error:
        raise InferenceError(str(error)) from error


def _from_labels(labels: NDArray[Any], *, count: int) -> _Answer:
    """Read a label map: 1 is the first prompt."""
    whole = np.issubdtype(labels.dtype, np.integer) or bool((labels == np.rint(labels)).all())
    if not whole or labels.min() < 0 or labels.max() > count:
        raise _beyond(labels, count)
    return _Answer(labels == number for number in range(1, count + 1))


def _of_one(labels: NDArray[Any]) -> _Answer:
    """Read the answer to a single prompt: a label map, or its probability (model-contracts §5.3).

    One value beside 0 is no probability, which falls off at the edges, and a label only where it is 1.
    """
    low, high = float(labels.min()), float(labels.max())
    if low < 0 or high > 255:
        raise _beyond(labels, 1)
    if high not in (0, 1, 255) and all(((one == 0) | (one == high)).all() for one in labels):
        raise InferenceError(
            f"the answer to one prompt has no value but 0 and {high:g}, and is neither a label map nor a "
            "probability: have the server number prompts from 1"
        )
    return _Answer(
        iter([labels > (0.5 if high <= 1 else _THRESHOLD)]),
        doubtful=0 < high <= 1,
    )


def _beyond(labels: NDArray[Any], count: int) -> InferenceError:
    low, high = float(labels.min()), float(labels.max())
    prompts = "1 prompt" if count == 1 else f"{count} prompts"
    return InferenceError(
        f"the label map that came back has values from {low:g} to {high:g} for {prompts}"
    )


def _from_probabilities(
    record: Mapping[str, Any], volume: Volume, *, count: int
) -> Iterator[_Mask]:
    """Read shape B (model-contracts §5.3): probability × 255 for each prompt."""
    found = answer.array(record["image_features"], dimensions=4, what="image_features")
    if found.shape != (count, *volume.shape):
        raise InferenceError(
            f"masks of shape {found.shape} came back for {count} prompts on {volume.shape} voxels"
        )
    for probability in found:
        yield probability > _THRESHOLD
