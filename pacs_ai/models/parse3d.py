"""MedImageParse 3D on a Volume: prompts in, masks on the slices' own grid out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import InferenceError, PixelError
from pacs_ai.models import answer
from pacs_ai.models.endpoint import score
from pacs_ai.models.inputs import base64_text, volume_of
from pacs_ai.models.prompts import BESIDE_IN_VOLUME, groups, wire
from pacs_ai.pixels.nifti import from_nifti, to_nifti
from pacs_ai.pixels.volume import Volume, grey
from pacs_ai.results import Done, NothingFound, NotSuitable, Outcome, Segmentation
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job

_THRESHOLD = 127.5
_Mask = NDArray[np.bool_]


def infer(job: Job, endpoint: Endpoint) -> Outcome:
    """Segment the Job's prompts on its volume.

    Returns
    -------
    Done
        One Segmentation for each prompt whose mask is not empty: shape (slices, Rows, Columns), in
        the order of its sources.
    NothingFound
        When every mask is empty.
    NotSuitable
        When the Instances are not one regular grid, or cannot be decoded.

    Raises
    ------
    InferenceError
        When the endpoint refuses, or its label map is not one for this volume.
    """
    labels = [str(label) for label in job.parameters.get("prompts", ())]
    if not labels:
        return NotSuitable(f"rule {job.rule} names no prompts for {job.kind}: name some")
    try:
        volume = volume_of(job)
        encoded = base64_text(to_nifti(volume, grey(volume, endpoint.window).planes()))
    except PixelError as error:
        return NotSuitable(str(error))
    texts = {label: wire(label, modality=volume.modality) for label in labels}
    found: dict[str, Segmentation] = {}
    for group in groups(labels, beside=BESIDE_IN_VOLUME):
        masks = _ask(endpoint, volume, encoded, [texts[label] for label in group])
        for label, mask in zip(group, masks, strict=True):
            if mask.any():
                found[label] = Segmentation(label, mask, volume.order, texts[label], volume.frames)
    results = tuple(found[label] for label in texts if label in found)
    return Done(results) if results else NothingFound()


def _ask(endpoint: Endpoint, volume: Volume, encoded: str, texts: Sequence[str]) -> Iterator[_Mask]:
    """Make one call; yield one mask for each prompt, shape (slices, Rows, Columns)."""
    record = score(endpoint, ("image", "text"), [(encoded, " & ".join(texts))])[0]
    if "nifti_file" in record:
        labels = _label_map(record, volume)
        yield from _from_labels(labels, count=len(texts))
    elif "image_features" in record:
        yield from _from_probabilities(record, volume, count=len(texts))
    else:
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


def _from_labels(labels: NDArray[Any], *, count: int) -> Iterator[_Mask]:
    """Tell a label map (1 is the first prompt) from the probability of a single prompt."""
    low, high = float(labels.min()), float(labels.max())
    whole = np.issubdtype(labels.dtype, np.integer) or bool((labels == np.rint(labels)).all())
    if whole and low >= 0 and high <= count:
        for number in range(1, count + 1):
            yield labels == number
    elif count == 1 and low >= 0 and high <= 255:
        yield labels > (0.5 if high <= 1 else _THRESHOLD)
    else:
        raise InferenceError(
            f"the label map that came back has values from {low:g} to {high:g} for {count} prompts"
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
