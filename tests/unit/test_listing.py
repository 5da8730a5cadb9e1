"""The worklist says what is so now: of the right patient, by the newest look, with what can be retrieved."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pydicom
import pytest

from pacs_ai import commits, models
from pacs_ai.delivery import Answer, Outgoing, Receipt
from pacs_ai.ledger import work
from pacs_ai.worklist import rules
from pacs_ai.worklist.workitem import OUTLIVED
from tests.unit.test_gateway import Driver, driver, radiographs

__all__ = ["driver", "radiographs"]

pytestmark = pytest.mark.usefixtures("one_decoder")

Films = tuple[pydicom.Dataset, ...]
WORKLIST = [
    {
        "when": {"finding": "lung opacity", "assertion": "present"},
        "label": "AI-CXR-REVIEW",
        "priority": "HIGH",
        "performers": ["thoracic"],
    },
    {"when": {"state": ["failed"]}, "label": "AI-STATUS", "audience": "imaging-it"},
]


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    """Return one ledger's URL: nothing here asks a database for more than another."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


def _renamed(films: Films, name: str) -> Films:
    copies = deepcopy(films)
    for copy in copies:
        copy.PatientName = name
    return copies


def _says(monkeypatch: pytest.MonkeyPatch, cxrreport: str) -> None:
    monkeypatch.setitem(models.MODELS, "cxrreport", f"tests.unit.fake_models:{cxrreport}")


def _items(one: Driver, films: Films) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = one.timeline(str(films[0].StudyInstanceUID))["workitems"]
    return found


def test_a_study_that_nothing_lists_any_more_stays_listed_under_its_patient_and_says_so(
    driver: Callable[..., Driver], radiographs: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = driver(cxrreport="opacity", worklist=WORKLIST)
    one.receive(*radiographs)
    one.carry_out()
    _says(monkeypatch, "nothing")
    one.receive(*_renamed(radiographs, "Phantom^Corrected"))
    one.carry_out()
    (item,) = _items(one, radiographs)
    assert (item["state"], item["priority"]) == ("SCHEDULED", "HIGH")
    assert item["comments"].endswith(OUTLIVED)
    (listed,) = one.views.workitems()
    assert listed["00100010"]["Value"] == [{"Alphabetic": "Phantom^Corrected"}]


def test_a_failure_that_is_over_ends_its_workitem_and_the_next_one_has_another(
    driver: Callable[..., Driver], radiographs: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = driver(cxrreport="broken", worklist=WORKLIST)
    one.receive(*radiographs)
    one.carry_out()
    assert [item["state"] for item in _items(one, radiographs)] == ["SCHEDULED"]
    _says(monkeypatch, "nothing")
    assert one.gateway.ledger.release(str(radiographs[0].StudyInstanceUID), actor="anna")
    one.carry_out()
    assert [item["state"] for item in _items(one, radiographs)] == ["CANCELED"]
    _says(monkeypatch, "broken")
    one.receive(*_renamed(radiographs, "Phantom^Corrected"))
    one.carry_out()
    first, second = _items(one, radiographs)
    assert (first["state"], second["state"]) == ("CANCELED", "SCHEDULED")
    assert {item["00080018"]["Value"][0] for item in one.views.workitems()} == {
        first["uid"],
        second["uid"],
    }


def test_who_looked_first_writes_nothing_over_what_a_later_look_found(
    driver: Callable[..., Driver], radiographs: Films
) -> None:
    one = driver(cxrreport="opacity", worklist=WORKLIST)
    one.receive(*radiographs)
    while any(one.gateway.carry_out(queue) for queue in ("assemble", "route", "infer.cxrreport")):
        pass
    with one.gateway.ledger.claim("worklist") as slow:
        assert slow is not None
        study = slow.claimed.study
        with one.gateway.ledger.database.read() as connection:
            looks = work.looks(connection, study)
        facts = one.gateway.records.facts(study)
        decisions = rules.decide(one.gateway.worklist_rules, facts)
        listing = one.gateway.records.listing(slow.claimed, decisions, facts.state)
        one.receive(*_renamed(radiographs, "Phantom^Corrected"))
        one.carry_out()
        with slow.commit() as commit:
            commits.listed(commit, study, listing, looks)
    one.carry_out()
    (listed,) = one.views.workitems()
    assert listed["00100010"]["Value"] == [{"Alphabetic": "Phantom^Corrected"}]


def test_a_study_that_nothing_lists_is_not_read_for_the_worklist(
    driver: Callable[..., Driver], radiographs: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = driver(worklist=[])
    read: list[object] = []
    monkeypatch.setattr(one.gateway.records, "listing", lambda *asked: read.append(asked))
    one.receive(*radiographs)
    one.carry_out()
    assert not read


def test_who_a_workitem_is_for_follows_the_rule(
    driver: Callable[..., Driver], radiographs: Films
) -> None:
    before = driver(cxrreport="opacity", worklist=[{**WORKLIST[0], "priority": "unchanged"}])
    before.receive(*radiographs)
    before.carry_out()
    before.gateway.close()
    rule = {
        "when": {"state": ["done"]},
        "label": "AI-CXR-REVIEW",
        "audience": "imaging-it",
    }
    after = driver(cxrreport="opacity", worklist=[rule])
    after.receive(*_renamed(radiographs, "Phantom^Corrected"))
    after.carry_out()
    (item,) = _items(after, radiographs)
    assert item["audience"] == "imaging-it"


def test_a_workitem_refers_to_results_where_they_are_stored_and_to_no_others(
    driver: Callable[..., Driver], radiographs: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store(batch: tuple[Outgoing, ...], _: object) -> tuple[Receipt, ...]:
        return tuple(Receipt(each.SOPInstanceUID, Answer.STORED) for each in batch)

    monkeypatch.setattr("pacs_ai.gateway.sender", lambda _: store)
    archive = {"kind": "dicom", "host": "127.0.0.1", "port": 1, "ae_title": "ARCHIVE"}
    one = driver(
        cxrreport="opacity",
        worklist=WORKLIST,
        destinations={"archive": archive},
        delivery=["archive"],
    )
    one.gateway.ledger.set_switch("delivery", actor="anna", paused=True)
    one.receive(*radiographs)
    one.carry_out()
    assert _retrieved(one) == {("DEMO", str(film.SOPInstanceUID)) for film in radiographs}
    one.gateway.ledger.set_switch("delivery", actor="anna", paused=False)
    one.carry_out()
    timeline = one.timeline(str(radiographs[0].StudyInstanceUID))
    stored = {("ARCHIVE", each["SOPInstanceUID"]) for each in timeline["deliveries"]}
    assert {each["kind"] for each in timeline["deliveries"]} == {"capture"}
    assert len(timeline["objects"]) > len(stored)
    assert {each for each in _retrieved(one) if each[0] == "ARCHIVE"} == stored


def _retrieved(one: Driver) -> set[tuple[str, str]]:
    (listed,) = one.views.workitems()
    data_set = pydicom.Dataset.from_json(json.dumps(listed))
    return {
        (item.DICOMRetrievalSequence[0].RetrieveAETitle, instance.ReferencedSOPInstanceUID)
        for item in data_set.InputInformationSequence
        for instance in item.ReferencedSOPSequence
    }
