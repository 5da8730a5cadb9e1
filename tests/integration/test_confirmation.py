"""Right before sending, a real PACS is asked whether it holds the Study under the same identity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests

from pacs_ai import models, phantom
from pacs_ai.errors import TransientError
from pacs_ai.peers import find, qido
from pacs_ai.settings import DicomDestination
from tests.peers import free_port
from tests.peers.orthanc import Orthanc, orthanc
from tests.unit.test_gateway import Driver

Make = Callable[..., Driver]
WAYS = ("c-find", "qido")


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def radiographs(request: pytest.FixtureRequest) -> tuple[pydicom.Dataset, ...]:
    return phantom.chest_radiographs(name=request.node.name, when=datetime.now(UTC), opacity=False)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pacs: Orthanc, way: str
) -> Iterator[Make]:
    made: list[Driver] = []

    def make(**peer: Any) -> Driver:
        monkeypatch.setitem(models.MODELS, "parse2d", "tests.unit.fake_models:lungs")
        monkeypatch.setitem(models.MODELS, "cxrreport", "tests.unit.fake_models:nothing")
        values = {
            "ae_titles": ["DEMO"],
            "quiet": "0s",
            "host": "127.0.0.1",
            "port": pacs.dicom_port,
            "called_ae_title": pacs.ae_title,
            "confirm": way,
            "qido_url": f"{pacs.url}/dicom-web",
            **peer,
        }
        ledger = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
        made.append(Driver(tmp_path, ledger, peers={"demo": values}, delivery="origin"))
        return made[-1]

    yield make
    for one in made:
        one.gateway.close()


def _put(pacs: Orthanc, data_sets: Sequence[pydicom.Dataset]) -> None:
    for data_set in data_sets:
        buffer = BytesIO()
        data_set.save_as(buffer, enforce_file_format=True)
        answer = requests.post(f"{pacs.url}/instances", data=buffer.getvalue(), timeout=10)
        answer.raise_for_status()


def _study(data_sets: Sequence[pydicom.Dataset]) -> str:
    return str(data_sets[0].StudyInstanceUID)


def _resource(pacs: Orthanc, study: str) -> str:
    found = requests.post(f"{pacs.url}/tools/lookup", data=study, timeout=10).json()
    (one,) = [row["ID"] for row in found if row["Type"] == "Study"]
    return f"{pacs.url}/studies/{one}"


def _delete(pacs: Orthanc, study: str) -> None:
    requests.delete(_resource(pacs, study), timeout=10).raise_for_status()


def _deliver(one: Driver, data_sets: Sequence[pydicom.Dataset]) -> dict[str, Any]:
    one.receive(*data_sets)
    one.carry_out()
    return one.timeline(_study(data_sets))


def _work(timeline: dict[str, Any]) -> tuple[str, str]:
    (row,) = [work for work in timeline["work"] if work["queue"] == "deliver.demo"]
    return str(row["state"]), str(row["reason"])


def test_a_study_under_the_same_identity_gets_its_results(
    gateway: Make, pacs: Orthanc, radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    _put(pacs, radiographs)
    timeline = _deliver(gateway(), radiographs)
    assert {one["state"] for one in timeline["deliveries"]} == {"stored"}
    sent = {one["SOPInstanceUID"] for one in timeline["deliveries"]}
    assert sent < pacs.instances(_study(radiographs))


def test_a_study_that_was_moved_to_another_patient_is_held_and_released_when_it_is_put_right(
    gateway: Make, pacs: Orthanc, radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    _put(pacs, radiographs)
    change = {
        "Replace": {"PatientID": "MERGED-INTO"},
        "Keep": ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"],
        "KeepSource": False,
        "Force": True,
    }
    # Orthanc 1.10 changes a PatientID at the level of the patient only.
    parent = requests.get(_resource(pacs, _study(radiographs)), timeout=10).json()["ParentPatient"]
    answer = requests.post(f"{pacs.url}/patients/{parent}/modify", json=change, timeout=10)
    answer.raise_for_status()
    one = gateway()
    timeline = _deliver(one, radiographs)
    state, reason = _work(timeline)
    assert state == "held"
    assert "ORTHANC holds the Study with another PatientID:" in reason
    assert timeline["state"] == "held"
    assert "MERGED-INTO" not in str(timeline)
    assert len(pacs.instances(_study(radiographs))) == len(radiographs)

    _delete(pacs, _study(radiographs))
    _put(pacs, radiographs)
    one.gateway.ledger.release(_study(radiographs), actor="anna")
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert {one["state"] for one in timeline["deliveries"]} == {"stored"}


def test_a_study_whose_patient_was_renamed_is_held(
    gateway: Make, pacs: Orthanc, radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    renamed = deepcopy(radiographs)
    for data_set in renamed:
        data_set.PatientName = "Someone^Else"
        data_set.PatientSex = "M"
    _put(pacs, renamed)
    timeline = _deliver(gateway(), radiographs)
    state, reason = _work(timeline)
    assert (state, "another PatientName, PatientSex:" in reason) == ("held", True)
    assert "Someone" not in str(timeline)


def test_a_study_that_was_deleted_is_held(
    gateway: Make, pacs: Orthanc, radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    _put(pacs, radiographs)
    _delete(pacs, _study(radiographs))
    state, reason = _work(_deliver(gateway(), radiographs))
    assert state == "held"
    assert "does not have the Study (any more)" in reason
    assert not pacs.instances(_study(radiographs))


def test_a_pacs_that_does_not_answer_is_asked_again_later(
    gateway: Make, pacs: Orthanc, radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    _put(pacs, radiographs)
    away = free_port()
    one = gateway(port=away, qido_url=f"http://127.0.0.1:{away}/dicom-web")
    one.receive(*radiographs)
    ends = datetime.now(UTC) + timedelta(seconds=1)
    while datetime.now(UTC) < ends:
        one.carry_out()
    state, reason = _work(one.timeline(_study(radiographs)))
    assert state == "ready"
    assert "answer" in reason
    deliveries = one.timeline(_study(radiographs))["deliveries"]
    assert [one["receipts"] for one in deliveries] == [[]] * len(deliveries)


def _destination(pacs: Orthanc, **values: Any) -> DicomDestination:
    return DicomDestination(
        host="127.0.0.1",
        port=pacs.dicom_port,
        ae_title=pacs.ae_title,
        **{"qido_url": f"{pacs.url}/dicom-web", **values},
    )


@pytest.mark.parametrize("ask", [find.find_study, qido.find_study])
def test_a_pacs_says_who_the_patient_is(
    pacs: Orthanc, radiographs: tuple[pydicom.Dataset, ...], ask: Any
) -> None:
    other = deepcopy(radiographs)
    for data_set in other:
        data_set.PatientID = "LATIN"
        data_set.SpecificCharacterSet = "ISO_IR 100"
        data_set.PatientName = "Müller^Jürgen"
    _put(pacs, other)
    (found,) = ask(_study(radiographs), _destination(pacs))
    assert (found.PatientID, str(found.PatientName)) == ("LATIN", "Müller^Jürgen")
    assert found.PatientBirthDate == radiographs[0].PatientBirthDate
    assert found.AccessionNumber == radiographs[0].AccessionNumber


def test_a_wrong_dicomweb_address_is_no_study_that_is_gone(pacs: Orthanc) -> None:
    with pytest.raises(TransientError, match="HTTP status 404"):
        qido.find_study("1.2.3", _destination(pacs, qido_url=f"{pacs.url}/elsewhere"))
    with pytest.raises(TransientError, match="cannot be read"):
        qido.find_study("1.2.3", _destination(pacs, qido_url=f"{pacs.url}/app/explorer.html?"))
