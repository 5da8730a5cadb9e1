"""MedImageInsight: one image in, one unit vector out; kept in the gateway, never sent as DICOM."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from pacs_ai.errors import InferenceError, PixelError
from pacs_ai.models import answer
from pacs_ai.models.endpoint import score
from pacs_ai.models.inputs import EMBEDDING_WINDOW, base64_text, projection, volume_of
from pacs_ai.pixels.display import png
from pacs_ai.pixels.volume import grey
from pacs_ai.results import Done, Embedding, NotSuitable, Outcome
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job

SIZE = 512
"""Side of the picture; the aspect is not kept, as the model's own server does (§3.6)."""

LENGTH = 1024

RECIPE = f"insight-{SIZE}-bicubic/1"
"""Name and version of the last step; the path before it is named after it."""


def infer(job: Job, endpoint: Endpoint) -> Outcome:
    """Embed the Job's frontal or single image, or the middle slice of its volume.

    Returns
    -------
    Done
        One Embedding.
    NotSuitable
        When the image or volume cannot be shown without guessing.

    Raises
    ------
    InferenceError
        When the endpoint refuses, or its answer is not a vector of 1024 finite numbers.
    """
    try:
        pixels, source, path = _picture(job, endpoint)
    except PixelError as error:
        return NotSuitable(str(error))
    picture = PIL.Image.fromarray(pixels).resize((SIZE, SIZE), PIL.Image.Resampling.BICUBIC)
    row = (base64_text(png(np.asarray(picture, np.uint8))), "")
    record = score(endpoint, ("image", "text"), [row], params={"get_scaling_factor": True})[0]
    return Done((Embedding(_vector(record, endpoint), source, f"{RECIPE} {path}"),))


def _picture(job: Job, endpoint: Endpoint) -> tuple[NDArray[np.uint8], str, str]:
    """Return the pixels, the SOP Instance UID and the name of the path."""
    if "volume" not in job.inputs:
        image = projection(job, "frontal", "image")
        return image.pixels, image.source, image.recipe
    volume = volume_of(job)
    drawn = grey(volume, endpoint.window or EMBEDDING_WINDOW)
    middle = len(volume.order) // 2
    return drawn.plane(middle), volume.order[middle], f"middle-slice/1 {drawn.recipe}"


def _vector(record: dict[str, Any], endpoint: Endpoint) -> NDArray[np.float32]:
    """Return the unit vector; it comes flat or nested once (model-contracts §3.4)."""
    value = answer.nested(record.get("image_features"), what="image_features")
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    vector = np.array(answer.numbers(value, length=LENGTH, what="image_features"), np.float64)
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or norm < 1e-6:
        raise InferenceError(f"{endpoint.name} answered a vector without a direction")
    return (vector / norm).astype(np.float32)
