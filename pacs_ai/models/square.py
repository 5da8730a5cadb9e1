"""One call to the 2-D model: pictures on its square and prompts in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pacs_ai.catalogue import Prompt
from pacs_ai.errors import InferenceError
from pacs_ai.models import answer
from pacs_ai.models.endpoint import score
from pacs_ai.models.inputs import base64_text
from pacs_ai.pixels.display import png
from pacs_ai.settings import Endpoint

SIZE = 1024
"""Side of the square that the model takes (model-contracts §4.3)."""

THRESHOLD = 127.5
"""Probability 0.5, as the model's eight bits say it (model-contracts §4.4)."""

MASKS = 12
"""Most masks of one answer: 17 MB of text, some seconds at the bandwidth of a managed endpoint (§1.3)."""


def ask(
    endpoint: Endpoint, pictures: Sequence[NDArray[np.uint8]], prompts: Sequence[Prompt]
) -> list[NDArray[np.uint8]]:
    """Ask for the same prompts on each picture, in as many requests as its ``maximum_request`` wants.

    Parameters
    ----------
    endpoint : Endpoint
    pictures : sequence of ndarray of uint8, shape (SIZE, SIZE) or (SIZE, SIZE, 3)
    prompts : sequence of Prompt

    Returns
    -------
    list of ndarray of uint8, shape (prompts, SIZE, SIZE)
        Probability × 255, one array for each picture.

    Raises
    ------
    InferenceError
        When the endpoint refuses, or answers masks of another shape.
    """
    text = " & ".join(one.words for one in prompts)
    rows = [(base64_text(png(picture)), text) for picture in pictures]
    records = score(endpoint, ("image", "text"), rows, params={})
    return [_masks(endpoint, record, len(prompts)) for record in records]


def _masks(endpoint: Endpoint, record: dict[str, object], count: int) -> NDArray[np.uint8]:
    if "image_features" not in record:
        raise InferenceError(f"{endpoint.name} answered without image_features")
    found = answer.array(record["image_features"], dimensions=3, what="image_features")
    if found.shape != (count, SIZE, SIZE):
        raise InferenceError(
            f"{endpoint.name} answered masks of shape {found.shape} to {count} prompts on "
            f"{SIZE} x {SIZE} pixels"
        )
    return found
