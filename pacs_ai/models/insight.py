"""MedImageInsight: pictures in, one unit vector out; kept in the gateway, never sent as DICOM."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from pacs_ai.errors import InferenceError, PixelError
from pacs_ai.models import answer, likeness
from pacs_ai.models.endpoint import score
from pacs_ai.models.inputs import base64_text
from pacs_ai.models.pictures import pictures_of
from pacs_ai.models.seats import Seats, alone
from pacs_ai.pixels.display import png
from pacs_ai.prototypes import prototypes_of
from pacs_ai.results import EMBEDDING_RECIPE, Done, Embedding, NotSuitable, Outcome
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job

SIZE = 512
"""Side of the picture; the aspect is not kept, as the model's own server does (§3.6)."""

LENGTH = 1024


def infer(job: Job, endpoint: Endpoint, seats: Seats = alone) -> Outcome:
    """Embed the Job's image, or the slices in the middle of its volume.

    Returns
    -------
    Done
        One Embedding, with what of the source it stands for and what its pixels are like; and a Finding
        for each element of the header that says otherwise.
    NotSuitable
        When the image or volume cannot be shown without guessing.

    Raises
    ------
    InferenceError
        When the endpoint refuses, or its answer is not a vector of 1024 finite numbers.
    """
    try:
        made = embedding(job, endpoint)
    except PixelError as error:
        return NotSuitable(str(error))
    known = prototypes_of(endpoint)
    if known is None or endpoint.prototypes is None:
        return Done((made,))
    made = likeness.with_likenesses(made, known, certainty=endpoint.prototypes.certainty)
    return Done((made, *likeness.contradictions(made, known, job)))


def embedding(job: Job, endpoint: Endpoint) -> Embedding:
    """Ask for the vector of each picture in one call, and return the one that stands for them.

    Raises
    ------
    PixelError
        When the image or volume cannot be shown without guessing.
    InferenceError
        As :func:`infer`.
    """
    chosen = pictures_of(job, endpoint.window)
    rows = [(base64_text(_sized(one)), "") for one in chosen.pixels]
    records = score(endpoint, ("image", "text"), rows, params={"get_scaling_factor": True})
    vectors = [_vector(record, endpoint) for record in records]
    mean = _unit(np.mean(vectors, axis=0), endpoint).astype(np.float32)
    return Embedding(mean, chosen.source, f"{EMBEDDING_RECIPE} {chosen.recipe}", chosen.stated)


def _sized(pixels: NDArray[np.uint8]) -> bytes:
    picture = PIL.Image.fromarray(pixels).resize((SIZE, SIZE), PIL.Image.Resampling.BICUBIC)
    return png(np.asarray(picture, np.uint8))


def _vector(record: dict[str, Any], endpoint: Endpoint) -> NDArray[np.float64]:
    """Return the unit vector; it comes flat or nested once (model-contracts §3.4)."""
    value = answer.nested(record.get("image_features"), what="image_features")
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    numbers = answer.numbers(value, length=LENGTH, what="image_features")
    return _unit(np.array(numbers, np.float64), endpoint)


def _unit(vector: NDArray[np.float64], endpoint: Endpoint) -> NDArray[np.float64]:
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or norm < 1e-6:
        raise InferenceError(f"{endpoint.name} answered a vector without a direction")
    return vector / norm
