"""The 2-D model on a volume: slice by slice, put together again on the volume's grid."""

from __future__ import annotations

import numpy as np

from pacs_ai.models.inputs import EMBEDDING_WINDOW, volume_of
from pacs_ai.models.measures import outcome
from pacs_ai.models.prompts import asked, by_window, calls
from pacs_ai.models.seats import Seats
from pacs_ai.models.square import MASKS, SIZE
from pacs_ai.models.stacked import Asking, masks
from pacs_ai.pixels.placement import Placement
from pacs_ai.pixels.volume import Volume, grey
from pacs_ai.results import Outcome, Segmentation
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job


def segment(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
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
    asking = Asking(endpoint, known, seats)
    count, rows, columns = volume.shape
    placement = Placement(rows, columns, SIZE, _aspect(volume))
    found: dict[str, Segmentation] = {}
    for window, members in by_window(prompts, endpoint):
        drawn = grey(volume, window or EMBEDDING_WINDOW)
        shown = enumerate(drawn.planes())
        for one, mask in masks(asking, shown, count, placement, calls(members, most=MASKS)):
            if mask.any():
                found[one.words] = Segmentation(
                    one.label, mask, volume.order, one.words, volume.frames
                )
    return outcome(volume, prompts, found)


def _aspect(volume: Volume) -> float:
    """Return height over width of a pixel, from the distances between rows and between columns."""
    across, down = np.linalg.norm(volume.affine[:3, :2], axis=0)
    return float(down / across)
