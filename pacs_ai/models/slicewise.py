"""The 2-D model on a volume: slice by slice, put together again on the volume's grid.

Slices go in rows of one call, as many as keep the answer small. A Job has one call under way: it holds one
of the endpoint's places (``concurrency``), and several Jobs share the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pacs_ai.catalogue import Prompt
from pacs_ai.distributions import Distributions
from pacs_ai.models import absence
from pacs_ai.models.inputs import EMBEDDING_WINDOW, volume_of
from pacs_ai.models.measures import outcome
from pacs_ai.models.prompts import asked, by_window, calls
from pacs_ai.models.square import MASKS, SIZE, THRESHOLD, ask
from pacs_ai.pixels.placement import Placement
from pacs_ai.pixels.volume import Grey, Volume, grey
from pacs_ai.results import Outcome, Segmentation
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job

ROWS = 8
"""Most slices of one call: 256 are allowed (model-contracts §4.3), but deadline and body have limits too."""


def segment(job: Job, endpoint: Endpoint) -> Outcome:
    """Segment the Job's prompts on each slice of its volume.

    Returns
    -------
    Done
        One Segmentation for each prompt that was found: shape (slices, Rows, Columns), in the order of its
        sources, and what is measured in them. On a slice on which it was not found, the mask is empty.
    NothingFound
        When nothing was found on any slice.

    Raises
    ------
    PixelError
        When the Instances are not one regular grid, or cannot be decoded.
    RefusedPromptError, InferenceError
        As :func:`pacs_ai.models.parse2d.infer` says.
    """
    volume = volume_of(job)
    prompts, known = asked(job, endpoint, modality=volume.modality)
    found: dict[str, Segmentation] = {}
    for window, members in by_window(prompts, endpoint):
        drawn = grey(volume, window or EMBEDDING_WINDOW)
        for call in calls(members, most=MASKS):
            for one, mask in _stacked(endpoint, drawn, call, known):
                if mask.any():
                    found[one.words] = Segmentation(
                        one.label, mask, volume.order, one.words, volume.frames
                    )
    return outcome(volume, prompts, found)


def _stacked(
    endpoint: Endpoint, drawn: Grey, call: Sequence[Prompt], known: Distributions | None
) -> Iterator[tuple[Prompt, NDArray[np.bool_]]]:
    """Yield each of one call's prompts with its mask on all slices, one whole mask at a time."""
    shape = drawn.volume.shape
    placement = Placement(shape[1], shape[2], SIZE, _aspect(drawn.volume))
    # A bit a pixel until then: of a long CT the masks of one call would take gigabytes.
    empty = np.packbits(np.zeros(shape[1:], np.bool_))
    planes = {one.words: [empty] * shape[0] for one in call}
    for start, pictures in _batches(drawn, placement, size=max(1, min(ROWS, MASKS // len(call)))):
        for index, answered in enumerate(ask(endpoint, pictures, call)):
            for prompt, probability in zip(call, answered, strict=True):
                if absence.found(probability, pictures[index], prompt, known):
                    mask = placement.undo(probability) > THRESHOLD
                    planes[prompt.words][start + index] = np.packbits(mask)
    count = shape[1] * shape[2]
    for one in call:
        bits = np.unpackbits(np.stack(planes[one.words]), axis=1, count=count)
        yield one, bits.reshape(shape).view(np.bool_)


def _batches(
    drawn: Grey, placement: Placement, *, size: int
) -> Iterator[tuple[int, list[NDArray[np.uint8]]]]:
    """Yield slices as the model sees them, some at a time, with the number of the first."""
    pictures: list[NDArray[np.uint8]] = []
    start = 0
    for plane in drawn.planes():
        pictures.append(placement.apply(plane))
        if len(pictures) == size:
            yield start, pictures
            start, pictures = start + size, []
    if pictures:
        yield start, pictures


def _aspect(volume: Volume) -> float:
    """Return height over width of a pixel, from the distances between rows and between columns."""
    across, down = np.linalg.norm(volume.affine[:3, :2], axis=0)
    return float(down / across)
