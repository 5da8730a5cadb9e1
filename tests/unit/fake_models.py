"""Models for tests of the gateway: rows of MODELS that answer without an endpoint."""

from __future__ import annotations

import numpy as np

from pacs_ai.errors import InferenceError, InferenceUnavailableError
from pacs_ai.models.seats import Seats
from pacs_ai.results import (
    Assertion,
    Done,
    Finding,
    Held,
    NothingFound,
    NotSuitable,
    Outcome,
    Segmentation,
)
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job

calls: list[Job] = []


def lungs(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    """A left lung on the frontal image."""
    calls.append(job)
    (frontal,) = job.inputs["frontal"]
    mask = np.zeros((frontal.header.Rows, frontal.header.Columns), bool)
    mask[100:200, 300:350] = True
    return Done((Segmentation("left lung", mask, (frontal.SOPInstanceUID,), "left lung"),))


def opacity(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    """A lung opacity that is not grounded."""
    calls.append(job)
    sources = tuple(one.SOPInstanceUID for one in job.inputs["frontal"])
    return Done((Finding("lung opacity", Assertion.PRESENT, sources, sentence="An opacity."),))


def nothing(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    """No finding."""
    calls.append(job)
    sources = tuple(one.SOPInstanceUID for one in job.inputs["frontal"])
    return NothingFound(
        (Finding("lung opacity", Assertion.ABSENT, sources, sentence="No opacity."),)
    )


def unsuitable(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    """A refusal with a reason."""
    return NotSuitable("Instance 1.2 is a picture of a cat: send a radiograph")


def held(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    """A hold with a reason."""
    return Held("the endpoint states another model version: look at the deployment")


def broken(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    """An error that time does not heal."""
    raise InferenceError("the endpoint answered 400")


def away(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    """An error that may pass."""
    raise InferenceUnavailableError("the endpoint answered 503")
