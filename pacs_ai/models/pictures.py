"""Which picture, or which slices, stand for what an embedding is made of.

An embedding is of one picture. Of a multi-frame Instance it is the frame that the rule chose, else the
middle one; of a volume the centre slice and its neighbours (model-contracts §3.9), whose vectors are
averaged. The choice is stated with every embedding, because nothing else of the source was looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import PixelError
from pacs_ai.models.inputs import EMBEDDING_WINDOW, single, volume_of
from pacs_ai.pixels.description import describe
from pacs_ai.pixels.display import View, display_image
from pacs_ai.pixels.volume import grey
from pacs_ai.settings import Window
from pacs_ai.study import Instance, Job, projection_plane

NEIGHBOURS = 10
"""Slices to either side of the centre one, as the publisher's exam-parameter demo takes them (§3.9)."""

_VOLUME_RECIPE = f"middle-slices-{NEIGHBOURS}/1"


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures that stand for a Job's input.

    Attributes
    ----------
    pixels : tuple of ndarray of uint8, each of shape (rows, columns), or with 3 for colour
        As displayed, white is dense; of a volume native slices along the normal, the centre one among
        them.
    source : str
        SOP Instance UID of the image, or of the centre slice.
    stated : str
        What of the source they are, for people.
    recipe : str
        Names and versions of the path that made them.
    """

    pixels: tuple[NDArray[np.uint8], ...] = field(repr=False)
    source: str
    stated: str
    recipe: str


def pictures_of(job: Job, window: Window | None) -> Pictures:
    """Choose and draw what stands for a Job's input.

    Parameters
    ----------
    job : Job
        With a volume, a frontal image or a single image.
    window : Window or None
        Of CT volumes, in HU; None for the one that shows lungs, mediastinum and bone.

    Raises
    ------
    PixelError
        When the Job has none of them, or it cannot be shown without guessing.
    """
    if "volume" in job.inputs:
        return _slices(job, window)
    for role in ("frontal", "image"):
        if role in job.inputs:
            return _image(single(job, role), job.parameters.get("frame"))
    raise PixelError(
        f"rule {job.rule} hands neither image nor volume to the model: add view or select to it"
    )


def _image(instance: Instance, chosen: int | None) -> Pictures:
    count = describe(instance.header, instance.transfer_syntax_uid).frames
    number = chosen or (count + 1) // 2
    shown = display_image(instance, view=_plane(instance), frame=number - 1).seen()
    which = "" if chosen else ", the middle one"
    stated = f"frame {number} of {count}{which}" if count > 1 else "the one image"
    return Pictures((shown.pixels,), shown.source, stated, shown.recipe)


def _plane(instance: Instance) -> View:
    """Return how to turn an image upright: by what its PatientOrientation says, and by nothing else.

    The same image then gives the same vector whatever a rule takes it for, and can contradict it.
    """
    plane = projection_plane(instance.header)
    return View(plane) if plane in (View.FRONTAL, View.LATERAL) else View.ANY


def _slices(job: Job, window: Window | None) -> Pictures:
    volume = volume_of(job)
    drawn = grey(volume, window or EMBEDDING_WINDOW)
    count = len(volume.order)
    middle = count // 2
    first, last = max(middle - NEIGHBOURS, 0), min(middle + NEIGHBOURS, count - 1)
    pixels = tuple(drawn.plane(index) for index in range(first, last + 1))
    stated = (
        f"slices {first + 1} to {last + 1} of {count} along the normal, around slice {middle + 1} in the "
        "middle; mean of their vectors"
    )
    recipe = f"{_VOLUME_RECIPE} {drawn.recipe}"
    return Pictures(pixels, volume.order[middle], stated, recipe)
