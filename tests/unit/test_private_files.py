"""What names patients is for the gateway's own user only, whatever the umask of whoever started it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_ai.gateway import Gateway
from pacs_ai.settings import loads

SETTINGS = """
site: {{name: Test, time_zone: Etc/UTC, use: research, responsible: nobody}}
data: {data}
"""


@pytest.fixture(autouse=True)
def _wide_umask() -> Iterator[None]:
    former = os.umask(0)
    yield
    os.umask(former)


def test_nobody_else_can_read_what_the_gateway_makes(tmp_path: Path) -> None:
    data = tmp_path / "made"
    gateway = Gateway(loads(SETTINGS.format(data=data)))
    try:
        modes = {
            path.relative_to(tmp_path): path.stat().st_mode & 0o777
            for path in (data, *data.rglob("*"))
        }
    finally:
        gateway.close()
    assert Path("made/ledger.sqlite") in modes
    assert {str(path): oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


def test_the_ledger_is_private_in_a_folder_that_is_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Gateway(loads(SETTINGS.format(data=tmp_path))).close()
    assert (tmp_path / "ledger.sqlite").stat().st_mode & 0o777 == 0o600
