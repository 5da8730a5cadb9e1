"""The 2-D model on many pictures of one size: slices of a volume, frames of a cine, tiles of a slide.

Pictures go in rows of one call, as many as keep the answer small, and calls go side by side within the
endpoint's limit (:mod:`pacs_ai.models.seats`). Where prompts need several calls, each picture is made
once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

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

Numbered = tuple[int, NDArray[np.uint8]]
"""A picture and its place among all of them, from 0."""


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


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one call asks: its prompts on some pictures, each as the model sees it."""

    prompts: Sequence[Prompt]
    pictures: list[Numbered] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.pictures) == max(1, min(ROWS, MASKS // len(self.prompts)))


def masks(
    asking: Asking,
    planes: Iterable[Numbered],
    count: int,
    placement: Placement,
    calls: Sequence[Sequence[Prompt]],
) -> Iterator[tuple[Prompt, NDArray[np.bool_]]]:
    """Yield each prompt with its mask on all pictures, one whole mask at a time.

    Parameters
    ----------
    asking : Asking
    planes : iterable of int and ndarray of uint8, shape (rows, columns) or (rows, columns, 3)
        The pictures to look at, as they are displayed, with their places; gone through once.
    count : int
        How many places there are.
    placement : Placement
        Of each picture in the one that the model sees.
    calls : sequence of sequence of Prompt
        The prompts that share a call, for each call on the same pictures.

    Yields
    ------
    Prompt and ndarray of bool, shape (count, rows, columns)
        In the order of the calls. Empty on a picture on which it was not found, and in a place without one.

    Raises
    ------
    PixelError
        When a picture cannot be shown.
    InferenceError
        As :func:`pacs_ai.models.square.ask`.
    """
    shape = (count, placement.rows, placement.columns)
    prompts = [one for call in calls for one in call]
    # A bit a pixel until then: of a long CT the masks of one call would take gigabytes.
    empty = np.packbits(np.zeros(shape[1:], np.bool_))
    found = {one.words: [empty] * count for one in prompts}

    def take(batch: _Batch, answers: list[NDArray[np.uint8]]) -> None:
        for (place, picture), answered in zip(batch.pictures, answers, strict=True):
            for prompt, probability in zip(batch.prompts, answered, strict=True):
                if absence.found(probability, picture, prompt, asking.known):
                    mask = placement.undo(probability) > THRESHOLD
                    found[prompt.words][place] = np.packbits(mask)

    side_by_side(
        _batches(planes, placement, calls),
        lambda batch: ask(
            asking.endpoint, [picture for _, picture in batch.pictures], batch.prompts
        ),
        take,
        asking.seats,
    )
    size = shape[1] * shape[2]
    for one in prompts:
        # Let go of as it is handed out: whoever takes it keeps bits of his own.
        bits = np.unpackbits(np.stack(found.pop(one.words)), axis=1, count=size)
        yield one, bits.reshape(shape).view(np.bool_)


def _batches(
    planes: Iterable[Numbered], placement: Placement, calls: Sequence[Sequence[Prompt]]
) -> Iterator[_Batch]:
    """Yield calls as soon as they have as many pictures as one may have, then the rest."""
    filling = [_Batch(prompts) for prompts in calls]
    for place, plane in planes:
        picture = placement.apply(plane)
        for index, batch in enumerate(filling):
            batch.pictures.append((place, picture))
            if batch.full:
                filling[index] = _Batch(batch.prompts)
                yield batch
    yield from (batch for batch in filling if batch.pictures)
