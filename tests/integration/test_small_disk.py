"""A listener whose spool and ledger are on a small file system of their own, which C-STOREs fill up."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs_ai.cli.files import data_set_bytes
from pacs_ai.ledger.engine import Database
from pacs_ai.ledger.views import Views
from pacs_ai.settings import loads
from tests.integration.listening import association, encoded, image, send, write_settings
from tests.peers import missing, require
from tests.unfinished import unfinished

SIZE = "8m"
SPARE = 2 << 20


@dataclass
class SmallDisk:
    """The listener, and its folder as this process sees it: the file system is mounted for it alone."""

    port: int
    data: Path

    def store(self, *data_sets: Dataset) -> list[int]:
        """Send Instances on one association; its statuses."""
        with association(self.port) as opened:
            assert opened.is_established
            return [
                int(send(opened, encoded(one), sop_instance=str(one.SOPInstanceUID)).Status)
                for one in data_sets
            ]

    def instances(self, copy: Path) -> list[dict[str, Any]]:
        """Return what the ledger says; of a copy, because SQLite follows paths its own way."""
        for file in self.data.glob("ledger.sqlite*"):
            shutil.copy(file, copy)
        database = Database(f"sqlite:///{copy / 'ledger.sqlite'}")
        try:
            return Views(database).instances(None)
        finally:
            database.close()

    def temporary(self) -> list[Path]:
        return unfinished(self.data / "spool" / "tmp")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    text = write_settings(tmp_path)
    settings = loads(text)
    settings.data.mkdir()
    config = tmp_path / "settings.yaml"
    config.write_text(text)
    mount = (
        f'mount -t tmpfs -o size={SIZE} tmpfs "$1" && head -c {SPARE} /dev/zero > "$1/spare" && '
    )
    command = [sys.executable, "-m", "pacs_ai.cli", "listener", "--config", str(config)]
    own_mounts = [str(require("unshare")), "--map-root-user", "--mount"]
    shell = ["sh", "-c", mount + 'shift && exec "$@"', "sh", str(settings.data)]
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen(
            [*own_mounts, *shell, *command], stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        assert process.stdout is not None
        if b"ready" not in process.stdout.readline():
            log.seek(0)
            missing(f"a file system of the test's own ({log.read().strip()})")
        try:
            yield SmallDisk(
                settings.listener.port, Path(f"/proc/{process.pid}/root{settings.data}")
            )
        finally:
            process.terminate()


def test_a_disk_that_fills_up_loses_nothing_acknowledged_and_goes_on_with_space(
    small: SmallDisk, tmp_path: Path
) -> None:
    sent = [image(PixelData=bytes([n]) * 400_000, BitsAllocated=8) for n in range(24)]
    statuses = small.store(*sent)
    assert set(statuses) == {0x0000, 0xA700}
    assert statuses[0] == 0x0000
    tiny = [image() for _ in range(40)]
    answers = small.store(*tiny)  # the ledger is on the same disk, and finds no room either
    assert set(answers) <= {0x0000, 0xA700}
    assert small.temporary() == []

    (small.data / "spare").unlink()
    _assert_kept(small, tmp_path, [*sent, *tiny], [*statuses, *answers])
    refused = [one for one, status in zip(sent, statuses, strict=True) if status != 0x0000]
    again = small.store(*refused[:3])
    assert again == [0x0000] * 3
    _assert_kept(small, tmp_path, [*sent, *tiny, *refused[:3]], [*statuses, *answers, *again])


def _assert_kept(small: SmallDisk, copy: Path, sent: list[Dataset], statuses: list[int]) -> None:
    """What was acknowledged is there, byte for byte; of the rest there is no row and no half file."""
    acknowledged = {
        str(one.SOPInstanceUID): hashlib.sha256(encoded(one)).hexdigest()
        for one, status in zip(sent, statuses, strict=True)
        if status == 0x0000
    }
    rows = small.instances(copy)
    assert {one["SOPInstanceUID"]: one["digest"] for one in rows} == acknowledged
    held = {}
    for path in (small.data / "spool" / "instances").rglob("*.dcm"):
        held[path.name[:64]] = hashlib.sha256(data_set_bytes(path.read_bytes())).hexdigest()
    assert all(name == digest for name, digest in held.items()), "what has its name is whole"
    assert held.keys() >= {*acknowledged.values()}
    assert small.temporary() == []
