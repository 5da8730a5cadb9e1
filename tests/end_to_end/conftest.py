"""What every whole run shares: the reference models, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.running import Models, running_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    with running_models(tmp_path_factory.mktemp("models")) as started:
        yield started
