"""Thirty marked identifiers go the whole way, past failures too: no log, event or file name shows one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom.dataset import Dataset
from pynetdicom import _config
from sqlalchemy import select

from pacs_ai import phantom
from pacs_ai.ledger import tables
from pacs_ai.settings import load
from tests.integration import wire
from tests.integration.listening import CALLED, CT, association, encoded, send
from tests.peers import free_port
from tests.running import SHORT_TIMES, Running, running_gateway
from tests.unit.cli.conftest import write_config

KEYWORDS = (
    "AccessionNumber",
    "AdditionalPatientHistory",
    "CountryOfResidence",
    "EthnicGroup",
    "InstitutionAddress",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "IssuerOfPatientID",
    "MedicalAlerts",
    "MedicalRecordLocator",
    "MilitaryRank",
    "NameOfPhysiciansReadingStudy",
    "Occupation",
    "OperatorsName",
    "OtherPatientIDs",
    "OtherPatientNames",
    "PatientAddress",
    "PatientBirthName",
    "PatientComments",
    "PatientID",
    "PatientInsurancePlanCodeSequence",
    "PatientMotherBirthName",
    "PatientName",
    "PatientReligiousPreference",
    "PatientTelephoneNumbers",
    "PerformingPhysicianName",
    "PhysiciansOfRecord",
    "ReferringPhysicianName",
    "ReferringPhysicianTelephoneNumbers",
    "RegionOfResidence",
    "RequestingPhysician",
    "ResponsiblePerson",
    "StationName",
    "StudyID",
)
BIRTH, WEIGHT = "19370613", "71.93642"
MARKS = ("CANARY", BIRTH, WEIGHT)


def _marked() -> list[Dataset]:
    """Return a thorax CT with a mark in every identifying element; the birth date is one itself."""
    made = phantom.thorax_ct(name="canary", when=datetime.now(UTC), slices=64, rows=64)
    keywords = [one for one in KEYWORDS if not one.endswith("Sequence")]
    assert len(keywords) >= 30
    for one in made:
        for number, keyword in enumerate(keywords):
            setattr(one, keyword, f"CANARY{number:02d}")
        one.PatientBirthDate = BIRTH
        one.PatientWeight = WEIGHT
    return list(made)


def _send(data_sets: list[Dataset], port: int, *, broken: bool) -> list[int]:
    """C-STORE Instances, with a date and a number that are none when ``broken``; return statuses."""
    with association(port, calling="DEMO") as opened:
        assert opened.is_established
        answers = []
        for one in data_sets:
            data = encoded(one)
            if broken:
                data = data.replace(BIRTH.encode(), b"CANARY98")
                data = data.replace(WEIGHT.encode(), b"CANARY99")
            answers.append(send(opened, data, sop_instance=str(one.SOPInstanceUID)).Status)
    return answers


def _written(folder: Path, **sections: Any) -> Path:
    demo = yaml.safe_load(write_config(folder).read_text())
    parse3d = {**demo["endpoints"]["parse3d"], **sections.pop("parse3d", {})}
    return write_config(
        folder,
        endpoints={"parse3d": parse3d},
        rules=[one for one in demo["rules"] if one["name"] == "ct-chest"],
        peers={"demo": {**demo["peers"]["demo"], "quiet": "500ms"}},
        work={**SHORT_TIMES, "strikes": 1},
        worker_processes=2,
        **sections,
    )


def _shown(gateway: Running, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield where a mark is shown that must not be."""
    # Accession Numbers and Workitems are what the ledger is asked for: their own tables hold them.
    for table in tables.metadata.sorted_tables:
        if table.name in ("studies", "workitems"):
            continue
        with gateway.ledger.database.read() as connection:
            for row in connection.execute(select(table)):
                yield table.name, str(tuple(row))
    for path in folder.rglob("*"):
        yield "file name", str(path.relative_to(folder))
        if path.suffix == ".log":
            yield path.name, path.read_text()


def _assert_no_mark(gateway: Running, folder: Path) -> None:
    seen = [*_shown(gateway, folder)]
    assert len(seen) > 100
    assert [one for one in seen if any(mark in one[1] for mark in MARKS)] == []


def test_nothing_is_shown_when_destination_and_headers_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "no-folder").touch()
    wrong = {"kind": "folder", "path": str(tmp_path / "no-folder" / "results"), "profile": "all"}
    config = _written(
        tmp_path,
        destinations={"results": wrong},
        defaults={"max_age": "off", "delivery_deadline": "2s"},
    )
    data_sets = _marked()
    study = str(data_sets[0].StudyInstanceUID)
    with running_gateway(config, roles=("model-parse3d", "worker", "listener")) as gateway:
        port = load(config).listener.port
        assert set(_send(data_sets, port, broken=True)) == {0x0000}
        assert gateway.wait_ended(study)["state"] == "failed"
        assert _send(data_sets[:1], port, broken=False) == [0x0000]  # the same UID, other bytes
        gateway.wait(
            lambda: "held" in [one["state"] for one in gateway.views.timeline(study)["work"]]
        )
        _assert_no_mark(gateway, tmp_path)


def test_nothing_is_shown_when_instances_are_refused_and_an_endpoint_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_config, "ENFORCE_UID_CONFORMANCE", False)  # of this side of the wire
    config = _written(
        tmp_path,
        parse3d={"url": f"http://127.0.0.1:{free_port()}/score"},
        defaults={"max_age": "off", "deadline": "2s"},
    )
    data_sets = _marked()
    study = str(data_sets[0].StudyInstanceUID)
    with running_gateway(config) as gateway:
        port = load(config).listener.port
        uid = str(data_sets[0].SOPInstanceUID)
        with association(port, calling="DEMO") as opened:
            broken = encoded(data_sets[0]).replace(study[:8].encode(), b"CANARY00")
            assert send(opened, broken, sop_instance=uid).Status == 0xC000
            assert send(opened, encoded(data_sets[1]), sop_instance=uid).Status == 0xA900
        with association(port, calling="DEMO") as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on this side of the wire it is seen as well
            no_uid = send(opened, encoded(data_sets[0]), sop_instance="CANARY.1.2")
            assert no_uid.Status == 0xA900
        assert wire.rejection(port, "CANARY-AE", CALLED) == wire.CALLING_NOT_RECOGNISED
        assert set(_send(data_sets, port, broken=False)) == {0x0000}
        assert gateway.wait_ended(study)["state"] == "failed"
        _assert_no_mark(gateway, tmp_path)
        refused = (tmp_path / "log" / "listener.log").read_text()
        assert "instance refused" in refused
        assert "association rejected" in refused
        assert "a UID of its command is none" in refused


def test_the_marks_are_really_sent() -> None:
    data = encoded(_marked()[0])
    assert data.count(b"CANARY") >= 30
    assert BIRTH.encode() in data
    assert CT.encode() in data
