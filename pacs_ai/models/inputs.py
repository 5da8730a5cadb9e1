"""What a Job hands to a model: its images by role, and base64 for the wire."""

from __future__ import annotations

import base64

from pacs_ai.errors import PixelError
from pacs_ai.pixels.display import DisplayImage, View, display_image
from pacs_ai.pixels.volume import Volume, assemble
from pacs_ai.study import Instance, Job

_VIEWS = {"frontal": View.FRONTAL, "lateral": View.LATERAL, "image": View.ANY}


def projection(job: Job, *roles: str) -> DisplayImage:
    """Return the one image of the first of these roles that the Job has, as it is displayed.

    Raises
    ------
    PixelError
        When the Job has none of them, has several images in it, or its image cannot be shown.
    """
    for role in roles:
        if role in job.inputs:
            return display_image(single(job, role), view=_VIEWS[role])
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
