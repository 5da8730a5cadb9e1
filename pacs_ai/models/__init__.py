"""The kinds of model the gateway can call: one file and one row in :data:`MODELS` each.

Each file has one function ``infer(job, endpoint, seats) -> Outcome``: it prepares the Job's pixels, asks
the endpoint through :mod:`pacs_ai.models.endpoint`, and brings the answer back to the native grid
of the source. It has one call under way at a time, or as many as ``seats`` grants. It opens no
transaction and knows no retry: what may pass later is raised as a
:class:`~pacs_ai.errors.TransientError`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module

from pacs_ai.models.seats import Seats
from pacs_ai.results import Outcome
from pacs_ai.settings import Endpoint
from pacs_ai.study import Job

Infer = Callable[[Job, Endpoint, Seats], Outcome]

MODELS: dict[str, str] = {
    "cxrreport": "pacs_ai.models.cxrreport:infer",
    "insight": "pacs_ai.models.insight:infer",
    "parse2d": "pacs_ai.models.parse2d:infer",
    "parse3d": "pacs_ai.models.parse3d:infer",
}


def model(kind: str) -> Infer:
    """Return the function that runs a kind of model; it is imported on first use.

    A Job's pixels are decoded by a child process of its own, which ends with it.
    """
    module, _, name = MODELS[kind].partition(":")
    function: Infer = getattr(import_module(module), name)
    decoder = import_module("pacs_ai.pixels.decoder")

    @wraps(function)
    def run(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
        with decoder.one_job():
            return function(job, endpoint, seats)

    return run
