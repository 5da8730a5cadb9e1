"""A gateway that a test steps through in its own process: as far as it likes, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from pacs_ai.cli.files import PEER, take_in
from pacs_ai.gateway import Gateway
from pacs_ai.intake import Stored
from pacs_ai.ledger import work
from pacs_ai.ledger.views import Views
from pacs_ai.settings import load
from tests.running import Models, write_settings

QUIET_PEER = {PEER: {"ae_titles": ["FILE"], "quiet": "0s"}}


@contextmanager
def stepped(folder: Path, models: Models, **sections: Any) -> Iterator[Gateway]:
    """Open a gateway on a folder; nothing runs until it is told to."""
    folder.mkdir(parents=True, exist_ok=True)
    gateway = Gateway(load(write_settings(folder, models, peers=QUIET_PEER, **sections)))
    try:
        yield gateway
    finally:
        gateway.close()


def receive(gateway: Gateway, data_sets: Sequence[Dataset], folder: Path) -> None:
    """Take Instances in as if a peer had sent them."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in data_sets:
        path = folder / f"{one.SOPInstanceUID}.dcm"
        one.save_as(path, enforce_file_format=True)
        assert isinstance(take_in(gateway, path), Stored)


def infer(gateway: Gateway, *endpoints: str) -> None:
    """Carry out everything up to the answers of the models, or of those named, and nothing after."""
    while gateway.assemble() or gateway.route():
        pass
    for name in endpoints or gateway.settings.endpoints:
        while gateway.carry_out(work.infer_queue(name)):
            pass


def encode(gateway: Gateway) -> None:
    """Write every SOP Instance that is asked for."""
    while gateway.encode():
        pass


def made(gateway: Gateway, study: str) -> dict[str, list[Path]]:
    """Return where a Study's SOP Instances rest, by kind."""
    known = timeline(gateway, study)
    troubled = [one for one in known["work"] if one["state"] in ("held", "failed")]
    assert not troubled, troubled
    found: dict[str, list[Path]] = {}
    for one in known["objects"]:
        (path,) = (gateway.spool.path / "instances").glob(f"*/{one['digest']}.*.dcm")
        found.setdefault(one["kind"], []).append(path)
    return found


def timeline(gateway: Gateway, study: str) -> dict[str, Any]:
    """Return everything that the ledger knows of a Study."""
    return Views(gateway.ledger.database).timeline(study)
