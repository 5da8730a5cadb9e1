"""MedImageParse on one projection image: prompts in, masks on the stored grid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import InferenceError, PixelError
from pacs_ai.models import answer, cardiothoracic
from pacs_ai.models.endpoint import score
from pacs_ai.models.inputs import base64_text, projection
from pacs_ai.models.prompts import BESIDE_IN_PROJECTION, groups, wire
from pacs_ai.pixels.display import DisplayImage, png
from pacs_ai.pixels.placement import Placement
from pacs_ai.results import Done, NothingFound, NotSuitable, Outcome, Result, Segmentation
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job

SIZE = 1024
"""Side of the square that the model takes (model-contracts §4.3)."""

THRESHOLD = 127.5
"""Probability 0.5, as the model's eight bits say it (model-contracts §4.4)."""

_Masks = Mapping[str, NDArray[np.bool_]]


def infer(job: Job, endpoint: Endpoint) -> Outcome:
    """Segment the Job's prompts on its frontal image.

    Returns
    -------
    Done
        One Segmentation for each prompt whose mask is not empty, on (Rows, Columns) of the source,
        and the cardiothoracic ratio where it is asked for and may be measured.
    NothingFound
        When every mask is empty.
    NotSuitable
        When the image cannot be shown without guessing.

    Raises
    ------
    InferenceError
        When the endpoint refuses, or its masks are not what was asked for.
    """
    try:
        image = projection(job, "frontal", "image")
    except PixelError as error:
        return NotSuitable(str(error))
    instance = next(one for one in job.instances if one.SOPInstanceUID == image.source)
    labels = [str(label) for label in job.parameters.get("prompts", ())]
    if not labels:
        return NotSuitable(f"rule {job.rule} names no prompts for {job.kind}: name some")
    texts = {label: wire(label, modality=instance.Modality) for label in labels}
    masks = _masks(endpoint, image, texts)
    results: list[Result] = [
        Segmentation(label, image.turn.undo(mask), (image.source,), texts[label])
        for label, mask in masks.items()
        if mask.any()
    ]
    if cardiothoracic.wanted(job.parameters):
        results.extend(cardiothoracic.measure(masks, source=image.source))
    return Done(tuple(results)) if results else NothingFound()


def _masks(endpoint: Endpoint, image: DisplayImage, texts: Mapping[str, str]) -> _Masks:
    """Ask for every label and return its mask on the displayed image, in the order of the rule."""
    rows, columns = image.pixels.shape[:2]
    placement = Placement(rows, columns, SIZE, image.aspect)
    encoded = base64_text(png(placement.apply(image.pixels)))
    masks: dict[str, NDArray[np.bool_]] = {}
    for group in groups(list(texts), beside=BESIDE_IN_PROJECTION):
        square = _probabilities(endpoint, encoded, [texts[label] for label in group])
        for label, probability in zip(group, square, strict=True):
            # The threshold comes last: a mask that is resampled has steps, a probability has not.
            masks[label] = placement.undo(probability) > THRESHOLD
    return {label: masks[label] for label in texts}


def _probabilities(endpoint: Endpoint, encoded: str, texts: Sequence[str]) -> NDArray[np.uint8]:
    """Make one call; return probability × 255, shape (prompts, SIZE, SIZE)."""
    rows = [(encoded, " & ".join(texts))]
    record = score(endpoint, ("image", "text"), rows, params={})[0]
    if "image_features" not in record:
        raise InferenceError(f"{endpoint.name} answered without image_features")
    found = answer.array(record["image_features"], dimensions=3, what="image_features")
    if found.shape != (len(texts), SIZE, SIZE):
        raise InferenceError(
            f"{endpoint.name} answered masks of shape {found.shape} to {len(texts)} prompts on "
            f"{SIZE} x {SIZE} pixels"
        )
    return found
