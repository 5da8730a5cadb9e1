"""MedImageParse in two dimensions: prompts in, masks on the stored grid out.

On one image (a radiograph, an ultrasound frame, a photograph), or on a volume slice by slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pacs_ai.catalogue import Prompt
from pacs_ai.distributions import Distributions
from pacs_ai.errors import PixelError
from pacs_ai.models import absence, cardiothoracic, slicewise
from pacs_ai.models.inputs import frames_of, projection
from pacs_ai.models.prompts import RefusedPromptError, asked, by_window, calls, remark
from pacs_ai.models.square import MASKS, SIZE, THRESHOLD, ask
from pacs_ai.pixels.display import DisplayImage
from pacs_ai.pixels.placement import Placement
from pacs_ai.results import Done, NothingFound, NotSuitable, Outcome, Result, Segmentation
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job


def infer(job: Job, endpoint: Endpoint) -> Outcome:
    """Segment the Job's prompts on its image, or on every slice of its volume.

    Returns
    -------
    Done
        One Segmentation for each prompt that was found, on (Rows, Columns) of the source or on all slices of
        the volume, and the cardiothoracic ratio where it is asked for and may be measured. A note says what
        was not found.
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
            return slicewise.segment(job, endpoint)
        return _image(job, endpoint)
    except (PixelError, RefusedPromptError) as error:
        return NotSuitable(str(error))


def _image(job: Job, endpoint: Endpoint) -> Outcome:
    image = projection(job, "frontal", "image").without_border()
    instance = next(one for one in job.instances if one.SOPInstanceUID == image.source)
    prompts, known = asked(job, endpoint, modality=instance.Modality)
    masks: dict[str, NDArray[np.bool_]] = {}
    for window, members in by_window(prompts, endpoint):
        shown = image
        if window is not None:
            shown = projection(job, "frontal", "image", window=window).without_border()
        masks |= _masks(endpoint, shown, members, known)
    ordered = [one for one in prompts if one.words in masks]
    results: list[Result] = [
        Segmentation(
            one.label,
            image.turn.undo(masks[one.words]),
            (image.source,),
            one.words,
            frames_of(job),
        )
        for one in ordered
    ]
    notes = remark([one for one in prompts if one.words not in masks])
    if cardiothoracic.wanted(job.parameters):
        labelled = {one.label: masks[one.words] for one in ordered}
        results.extend(cardiothoracic.measure(labelled, source=image.source))
    return Done(tuple(results), notes) if results else NothingFound(notes=notes)


def _masks(
    endpoint: Endpoint, image: DisplayImage, prompts: Sequence[Prompt], known: Distributions | None
) -> Mapping[str, NDArray[np.bool_]]:
    """Return by words the masks of what was found, on the displayed image."""
    rows, columns = image.pixels.shape[:2]
    placement = Placement(rows, columns, SIZE, image.aspect)
    picture = placement.apply(image.pixels)
    masks: dict[str, NDArray[np.bool_]] = {}
    for call in calls(prompts, most=MASKS):
        (answered,) = ask(endpoint, [picture], call)
        for prompt, probability in zip(call, answered, strict=True):
            if not absence.found(probability, picture, prompt, known):
                continue
            # The threshold comes last: a mask that is resampled has steps, a probability has not.
            mask = placement.undo(probability) > THRESHOLD
            if mask.any():
                masks[prompt.words] = mask
    return masks
