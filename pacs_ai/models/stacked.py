"""The 2-D model on many pictures of one size: slices of a volume, frames of a cine, tiles of a slide.

Pictures go in rows of one call, as many as keep the answer small, and calls go side by side within the
endpoint's limit (:mod:`pacs_ai.models.seats`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacs_ai.catalogue import Prompt
from pacs_ai.distributions import Distributions
from pacs_ai.models import absence
from pacs_ai.models.seats import Seats, side_by_side
from pacs_ai.models.square import MASKS, THRESHOLD, ask
from pacs_ai.pixels.placement import Placement
from pacs_ai.settings import Endpoint

ROWS = 8
"""Most pictures of one call: 256 are allowed (model-contracts §4.3), but body and time are limited too."""

_Pictures = list[NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Asking:
    """Whom to ask, and how.

    Attributes
    ----------
    endpoint : Endpoint
    known : Distributions or None
        What masks are checked by.
    seats : Seats
    """

    endpoint: Endpoint
    known: Distributions | None
    seats: Seats


def masks(
    asking: Asking,
    planes: Iterable[NDArray[np.uint8]],
    count: int,
    placement: Placement,
    call: Sequence[Prompt],
) -> Iterator[tuple[Prompt, NDArray[np.bool_]]]:
    """Yield each of one call's prompts with its mask on all pictures, one whole mask at a time.

    Parameters
    ----------
    asking : Asking
    planes : iterable of ndarray of uint8, shape (rows, columns) or (rows, columns, 3)
        The pictures, as they are displayed; gone through once.
    count : int
        How many they are.
    placement : Placement
        Of each of them in the picture that the model sees.
    call : sequence of Prompt

    Yields
    ------
    Prompt and ndarray of bool, shape (count, rows, columns)
        Empty on a picture on which it was not found.

    Raises
    ------
    PixelError
        When a picture cannot be shown.
    InferenceError
        As :func:`pacs_ai.models.square.ask`.
    """
    shape = (count, placement.rows, placement.columns)
    # A bit a pixel until then: of a long CT the masks of one call would take gigabytes.
    empty = np.packbits(np.zeros(shape[1:], np.bool_))
    found = {one.words: [empty] * count for one in call}

    def take(batch: tuple[int, _Pictures], answers: list[NDArray[np.uint8]]) -> None:
        start, pictures = batch
        for index, answered in enumerate(answers):
            for prompt, probability in zip(call, answered, strict=True):
                if absence.found(probability, pictures[index], prompt, asking.known):
                    mask = placement.undo(probability) > THRESHOLD
                    found[prompt.words][start + index] = np.packbits(mask)

    side_by_side(
        _batches(planes, placement, size=max(1, min(ROWS, MASKS // len(call)))),
        lambda batch: ask(asking.endpoint, batch[1], call),
        take,
        asking.seats,
    )
    size = shape[1] * shape[2]
    for one in call:
        bits = np.unpackbits(np.stack(found[one.words]), axis=1, count=size)
        yield one, bits.reshape(shape).view(np.bool_)


def _batches(
    planes: Iterable[NDArray[np.uint8]], placement: Placement, *, size: int
) -> Iterator[tuple[int, _Pictures]]:
    """Yield pictures as the model sees them, some at a time, with the number of the first."""
    pictures: _Pictures = []
    start = 0
    for plane in planes:
        pictures.append(placement.apply(plane))
        if len(pictures) == size:
            yield start, pictures
            start, pictures = start + size, []
    if pictures:
        yield start, pictures
