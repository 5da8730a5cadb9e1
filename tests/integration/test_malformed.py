"""Malformed files sent as they are, by C-STORE and STOW-RS: the outcome of ``tests/data/expected.yaml``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom.filereader import read_file_meta_info
from pynetdicom import build_context

from listener.ae import storage_classes
from tests.fuzz.findings import watched
from tests.integration.listening import CT, Listening, association, listening, make_settings, send
from tests.integration.test_stow import Web, body_of, running_web

EXPECTED: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "expected.yaml").read_text()
)
MALFORMED = {name: told["received"] for name, told in EXPECTED.items() if "received" in told}
NOBODY = "1.2.826.0.1.3680043.10.999.9"
"""SOP Instance UID in the command for a file that names none."""


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Listening]:
    folder = tmp_path_factory.mktemp("malformed")
    with listening(make_settings(folder, transport=transport)) as started:
        yield started


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with running_web(tmp_path_factory.mktemp("malformed-web"), listener={}) as made:
        yield made


def announced(path: Path, syntax: str) -> tuple[str, str, str, bytes]:
    """Return SOP Class, SOP Instance and transfer syntax of the command, and the bytes to send.

    They are those of the File Meta Information. A file that has none is sent whole, as a CT image in
    the syntax that ``expected.yaml`` names.
    """
    data = path.read_bytes()
    if data[128:140] != b"DICM\x02\0\0\0UL\x04\0":
        return CT, NOBODY, syntax, data
    meta = read_file_meta_info(path)
    end = 144 + int.from_bytes(data[140:144], "little")
    sop_class = str(meta.get("MediaStorageSOPClassUID", ""))
    return (
        sop_class if sop_class in storage_classes() else CT,
        str(meta.get("MediaStorageSOPInstanceUID", "")) or NOBODY,
        str(meta.get("TransferSyntaxUID", syntax)),
        data[end:],
    )


def test_every_malformed_file_has_an_outcome(shared_data: Path) -> None:
    found = {f"malformed/{one.name}" for one in (shared_data / "malformed").iterdir()}
    assert found == set(MALFORMED)


@pytest.mark.parametrize("name", MALFORMED)
def test_by_c_store(name: str, listener: Listening, shared_data: Path) -> None:
    told = MALFORMED[name]
    sop_class, uid, syntax, data = announced(shared_data / name, told.get("syntax", ""))
    before = set(listener.files())
    with (
        watched() as findings,
        association(listener.port, [build_context(sop_class, syntax)]) as opened,
    ):
        status = send(opened, data, sop_class=sop_class, sop_instance=uid, syntax=syntax).Status
    assert status == told["c_store"]
    assert findings.found == []
    assert listener.left() == []
    made = {path.name.partition(".")[0] for path in set(listener.files()) - before}
    assert made == ({hashlib.sha256(data).hexdigest()} if status == 0 else set())


@pytest.mark.parametrize("name", MALFORMED)
def test_by_stow_rs(name: str, web: Web, shared_data: Path) -> None:
    told = MALFORMED[name]
    answer = web.post(body_of((shared_data / name).read_bytes()))
    assert (answer.status_code == 200) is (told["stow"] == 0)
    items = [
        one["00081197"]["Value"][0]
        for sequence in ("00081198", "0008119A")
        for one in answer.json().get(sequence, {}).get("Value", [])
    ]
    assert items == ([told["stow"]] if told["stow"] else [])
    assert web.temporary() == []
    assert "Traceback" not in web.log()
