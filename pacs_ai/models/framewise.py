"""The 2-D model on every frame of a multi-frame Instance: one mask a frame, and nothing between them.

The frames are a sequence and no volume: each is shown and asked for as it would be alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pacs_ai.models.inputs import single
from pacs_ai.models.prompts import asked, by_window, calls, remark
from pacs_ai.models.seats import Seats
from pacs_ai.models.square import MASKS, SIZE
from pacs_ai.models.stacked import Asking, masks
from pacs_ai.pixels.description import describe
from pacs_ai.pixels.display import View, display_image
from pacs_ai.pixels.placement import Placement
from pacs_ai.results import Axis, Done, NothingFound, Outcome, Segmentation
from pacs_ai.settings import Endpoint, Window
from pacs_ai.study import Instance, Job

ALL = "all"
"""Value of a Job's ``frame`` that asks for every frame."""


def segment(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    """Segment the Job's prompts on each frame of its image.

    Returns
    -------
    Done
        One Segmentation for each prompt that was found: shape (frames, Rows, Columns), in the order of the
        frames. On a frame on which it was not found, the mask is empty. Notes say on how many it was found.
    NothingFound
        When nothing was found on any frame.

    Raises
    ------
    PixelError
        When a frame cannot be shown.
    RefusedPromptError, InferenceError
        As :func:`pacs_ai.models.parse2d.infer` says.
    """
    instance = single(job, "image")
    prompts, known = asked(job, endpoint, modality=instance.Modality)
    count = describe(instance.header, instance.transfer_syntax_uid).frames
    numbers = range(1, count + 1)
    first = display_image(instance, view=View.ANY, frame=0)
    rows, columns = first.pixels.shape[:2]
    placement = Placement(rows, columns, SIZE, first.aspect)
    found: dict[str, Segmentation] = {}
    for window, members in by_window(prompts, endpoint):
        for call in calls(members, most=MASKS):
            pictures = _shown(instance, numbers, window)
            asking = Asking(endpoint, known, seats)
            for one, mask in masks(asking, pictures, count, placement, call):
                if mask.any():
                    uids = (instance.SOPInstanceUID,) * count
                    found[one.words] = Segmentation(
                        one.label, mask, uids, one.words, tuple(numbers), Axis.FRAMES
                    )
    results = tuple(found[one.words] for one in prompts if one.words in found)
    missing = remark([one for one in prompts if one.words not in found])
    notes = (*(_on_frames(one) for one in results), *missing)
    return Done(results, notes) if results else NothingFound(notes=notes)


def _shown(
    instance: Instance, numbers: Sequence[int], window: Window | None
) -> Iterator[NDArray[np.uint8]]:
    for number in numbers:
        yield display_image(instance, view=View.ANY, frame=number - 1, window=window).pixels


def _on_frames(mask: Segmentation) -> str:
    count = mask.shape[0]
    where = sum(bool(mask.plane(index).any()) for index in range(count))
    return f"{mask.label[:1].upper()}{mask.label[1:]} found on {where} of {count} frames"
