"""How long the long form of the fuzz is."""

from __future__ import annotations

import pytest

from tests.fuzz.findings import Fuzz


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """What the command line asks for."""
    return Fuzz(request.config.getoption("--fuzz-count"), request.config.getoption("--fuzz-seed"))
