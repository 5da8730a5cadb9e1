"""What every test may rely on: strict writing of DICOM, and the shared images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import config

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _strict_writing() -> Iterator[None]:
    """A value that its VR forbids cannot be written anywhere in the session (PS3.5 section 6.2)."""
    former = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.RAISE
    yield
    config.settings.writing_validation_mode = former


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images beside the checkout; its absence is a failure, never a skip."""
    if not (SHARED_DATA / "README.md").is_file():
        pytest.fail("the shared images are not beside the checkout: put them at ../shared/data")
    return SHARED_DATA
