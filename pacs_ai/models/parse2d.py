"""MedImageParse in two dimensions: prompts in, masks on the stored grid out.

On one image (a radiograph, an ultrasound frame, a photograph), on all frames of one, or on a volume slice by
slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pacs_ai.catalogue import Prompt
from pacs_ai.errors import PixelError
from pacs_ai.models import cardiothoracic, framewise, slicewise
from pacs_ai.models.inputs import frames_of, image_of, projection
from pacs_ai.models.prompts import RefusedPromptError, asked, by_window, calls, remark
from pacs_ai.models.seats import Seats, alone
from pacs_ai.models.square import MASKS, SIZE
from pacs_ai.models.stacked import Asking, masks
from pacs_ai.pixels.display import DisplayImage
from pacs_ai.pixels.placement import Placement
from pacs_ai.results import Done, NothingFound, NotSuitable, Outcome, Result, Segmentation
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job

_ROLES = ("frontal", "image")


def infer(job: Job, endpoint: Endpoint, seats: Seats = alone) -> Outcome:
    """Segment the Job's prompts on its image, on every frame of it, or on every slice of its volume.

    Returns
    -------
    Done
        One Segmentation for each prompt that was found, on (Rows, Columns) of the source, on all its frames
        or on all slices of the volume, and the cardiothoracic ratio where it is asked for and may be
        measured. A note says what was not found.
    NothingFound
        When nothing was found.
    NotSuitable
        When the image cannot be shown without guessing, or a prompt may not be asked.

    Raises
    ------
    InferenceError
        When the endpoint refuses, or its masks are not what was asked for.
    """
    try:
        if "volume" in job.inputs:
            return slicewise.segment(job, endpoint, seats)
        if job.parameters.get("frame") == framewise.ALL:
            return framewise.segment(job, endpoint, seats)
        return _image(job, endpoint, seats)
    except (PixelError, RefusedPromptError) as error:
        return NotSuitable(str(error))


def _image(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    instance = image_of(job, *_ROLES)
    prompts, known = asked(job, endpoint, modality=instance.Modality)
    asking = Asking(endpoint, known, seats)
    grouped = [
        (projection(job, *_ROLES, window=window).without_border(), members)
        for window, members in by_window(prompts, endpoint)
    ]
    image = grouped[0][0]  # they differ in their greys only
    found: dict[str, NDArray[np.bool_]] = {}
    for shown, members in grouped:
        found |= _masks(asking, shown, members)
    ordered = [one for one in prompts if one.words in found]
    results: list[Result] = [
        Segmentation(
            one.label,
            image.turn.undo(found[one.words]),
            (image.source,),
            one.words,
            frames_of(job),
        )
        for one in ordered
    ]
    notes = remark([one for one in prompts if one.words not in found])
    if cardiothoracic.wanted(job.parameters):
        labelled = {one.label: found[one.words] for one in ordered}
        results.extend(cardiothoracic.measure(labelled, source=image.source))
    return Done(tuple(results), notes) if results else NothingFound(notes=notes)


def _masks(
    asking: Asking, image: DisplayImage, prompts: Sequence[Prompt]
) -> Mapping[str, NDArray[np.bool_]]:
    """Return by words the masks of what was found, on the displayed image."""
    rows, columns = image.pixels.shape[:2]
    placement = Placement(rows, columns, SIZE, image.aspect)
    grouped = calls(prompts, most=MASKS)
    found = masks(asking, [(0, image.pixels)], 1, placement, grouped)
    return {one.words: mask[0] for one, mask in found if mask.any()}
