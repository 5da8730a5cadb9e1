"""What a Job hands to a model: its images by role, and base64 for the wire."""

from __future__ import annotations

import base64

from pacs_ai.errors import PixelError
from pacs_ai.pixels.display import DisplayImage, View, display_image
from pacs_ai.pixels.volume import Volume, assemble
from pacs_ai.settings import Window
from pacs_ai.study import Instance, Job

EMBEDDING_WINDOW = Window(width=1500, level=-160)
"""Of CT where no prompt has a window of its own: lungs, mediastinum and bone in one picture (HU)."""

_VIEWS = {"frontal": View.FRONTAL, "lateral": View.LATERAL, "image": View.ANY}


def projection(job: Job, *roles: str, window: Window | None = None) -> DisplayImage:
    """Return the one image of the first of these roles that the Job has, as it is displayed.

    Of a multi-frame Instance it is the frame that the rule chose. A window, in modality values, takes the
    place of the header's own.

    Raises
    ------
    PixelError
        When the Job has none of them, has several images in it, or its image cannot be shown or shows
        nothing.
    """
    number = job.parameters.get("frame")
    frame = None if number is None else int(number) - 1
    role = _first(job, *roles)
    shown = display_image(single(job, role), view=_VIEWS[role], frame=frame, window=window)
    return shown.seen()


def image_of(job: Job, *roles: str) -> Instance:
    """Return the Instance that :func:`projection` shows.

    Raises
    ------
    PixelError
        When the Job has none of the roles, or several images in the first.
    """
    return single(job, _first(job, *roles))


def _first(job: Job, *roles: str) -> str:
    for role in roles:
        if role in job.inputs:
            return role
    raise PixelError(
        f"rule {job.rule} hands no image to the model ({' or '.join(roles)}): "
        "name the view in the rule"
    )


def single(job: Job, role: str) -> Instance:
    """Return the one Instance of a role.

    Raises
    ------
    PixelError
        When there is none or more than one.
    """
    instances = job.inputs.get(role, ())
    if len(instances) != 1:
        raise PixelError(
            f"rule {job.rule} hands {len(instances)} Instances as {role} where one is wanted: "
            "let its selection take one"
        )
    return instances[0]


def frames_of(job: Job) -> tuple[int, ...]:
    """Return the number of the frame that a Job's image is, where it is one of several; else nothing."""
    number = job.parameters.get("frame")
    return () if number is None else (int(number),)


def volume_of(job: Job) -> Volume:
    """Return the volume of a Job: its Instances, and the frames of them that the rule chose.

    Raises
    ------
    PixelError
        As :func:`pacs_ai.pixels.volume.assemble`.
    """
    return assemble(job.inputs.get("volume", ()), frames=job.parameters.get("frames", ()))


def base64_text(data: bytes) -> str:
    """Return bytes as base64 without line breaks."""
    return base64.b64encode(data).decode("ascii")
