"""The two ways in which the listener can be run."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", params=["hardened", "plain"])
def transport(request: pytest.FixtureRequest) -> str:
    """``listener.transport``: what a peer sees is the same on both."""
    return str(request.param)
