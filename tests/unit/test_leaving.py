"""What leaves the gateway is of the newest that came, of the right patient, and where the settings say."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pydicom
import pytest

from pacs_ai import commits
from pacs_ai.delivery import Answer, Outgoing, Receipt
from pacs_ai.errors import EncodingError
from tests.unit.test_gateway import Driver, driver, radiographs

__all__ = ["driver", "radiographs"]

pytestmark = pytest.mark.usefixtures("one_decoder")

RIGHT = "Phantom^Corrected"
Films = tuple[pydicom.Dataset, ...]


class Pacs:
    """Plays the folder: notes whose results it is sent, and answers as a test wishes."""

    def __init__(self, answer: Answer = Answer.STORED) -> None:
        self.answer = answer
        self.names: list[str] = []
        self.patients: list[str] = []

    def send(self, batch: tuple[Outgoing, ...], _: object) -> tuple[Receipt, ...]:
        sent = [pydicom.dcmread(one.path) for one in batch]
        self.names += [str(one.PatientName) for one in sent]
        self.patients += [str(one.PatientID) for one in sent]
        return tuple(Receipt(one.SOPInstanceUID, self.answer, None, "as played") for one in batch)


@pytest.fixture
def pacs(monkeypatch: pytest.MonkeyPatch) -> Pacs:
    """Return what every batch goes to."""
    played = Pacs()
    monkeypatch.setattr("pacs_ai.gateway.sender", lambda _: played.send)
    return played


def _changed(films: Films, **values: Any) -> Films:
    copies = deepcopy(films)
    for copy in copies:
        for keyword, value in values.items():
            setattr(copy, keyword, value)
    return copies


def _study(films: Films) -> str:
    return str(films[0].StudyInstanceUID)


def _pause(one: Driver, *, paused: bool) -> None:
    one.gateway.ledger.set_switch("delivery", actor="anna", paused=paused)


def test_a_release_sends_nothing_that_was_superseded_meanwhile(
    driver: Callable[..., Driver], radiographs: Films, pacs: Pacs
) -> None:
    one = driver()
    pacs.answer = Answer.REFUSED
    for films in (radiographs, _changed(radiographs, PatientName=RIGHT)):
        one.receive(*films)
        one.carry_out()
    pacs.names, pacs.answer = [], Answer.STORED
    assert one.gateway.ledger.release(_study(radiographs), actor="anna")
    one.carry_out()
    assert pacs.names
    assert set(pacs.names) == {RIGHT}
    assert one.timeline(_study(radiographs))["state"] == "nothing_found"


def test_results_wait_while_what_came_since_is_not_looked_at(
    driver: Callable[..., Driver], radiographs: Films, pacs: Pacs
) -> None:
    one = driver()
    _pause(one, paused=True)
    one.receive(*radiographs)
    one.carry_out()
    one.receive(*_changed(radiographs, PatientName=RIGHT))
    _pause(one, paused=False)
    assert not one.gateway.carry_out("deliver.results")
    assert one.gateway.assemble()
    assert not one.gateway.carry_out("deliver.results")
    one.carry_out()
    assert pacs.names
    assert set(pacs.names) == {RIGHT}


@pytest.mark.parametrize(("take", "patient"), [("first", "PHANTOM-1"), ("newest", "OTHER")])
def test_a_study_that_is_held_sends_nothing_until_a_person_has_settled_it(
    driver: Callable[..., Driver], radiographs: Films, pacs: Pacs, take: str, patient: str
) -> None:
    one = driver()
    _pause(one, paused=True)
    one.receive(*radiographs)
    one.carry_out()
    one.receive(*_changed(radiographs, PatientID="OTHER"))
    one.carry_out()
    _pause(one, paused=False)
    one.carry_out()
    study = _study(radiographs)
    assert one.timeline(study)["state"] == "held"
    assert not pacs.patients
    one.gateway.ledger.release(study, actor="anna", take=take)
    one.carry_out()
    assert set(pacs.patients) == {patient}


def test_results_go_to_no_destination_that_delivery_does_not_name_any_more(
    driver: Callable[..., Driver], radiographs: Films, pacs: Pacs, tmp_path: Path
) -> None:
    folders = {
        name: {"kind": "folder", "path": str(tmp_path / name), "profile": "all"}
        for name in ("results", "research")
    }
    before = driver(destinations=folders, delivery=["results", "research"])
    _pause(before, paused=True)
    before.receive(*radiographs)
    before.carry_out()
    before.gateway.close()
    after = driver(destinations=folders, delivery=["results"])
    _pause(after, paused=False)
    after.carry_out()
    states = {
        (one["destination"], one["state"])
        for one in after.timeline(_study(radiographs))["deliveries"]
    }
    assert states == {("results", "stored"), ("research", "withheld")}


def test_what_is_superseded_while_the_destination_is_asked_stays(
    driver: Callable[..., Driver],
    radiographs: Films,
    pacs: Pacs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = driver()
    corrected = [_changed(radiographs, PatientName=RIGHT)]

    def ask(*_: object) -> None:
        if corrected:
            one.receive(*corrected.pop())
            assert one.gateway.assemble()
            assert one.gateway.route()

    monkeypatch.setattr("pacs_ai.gateway.doubt", ask)
    one.receive(*radiographs)
    one.carry_out()
    assert pacs.names
    assert set(pacs.names) == {RIGHT}


def test_what_comes_into_question_while_the_destination_is_asked_waits(
    driver: Callable[..., Driver],
    radiographs: Films,
    pacs: Pacs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = driver()
    other = [_changed(radiographs, PatientID="OTHER")]
    monkeypatch.setattr("pacs_ai.gateway.doubt", lambda *_: one.receive(*other.pop()))
    one.receive(*radiographs)
    one.carry_out()
    assert not pacs.names
    assert one.timeline(_study(radiographs))["state"] == "held"
    assert not one.gateway.ledger.waits(), "a person's word is waited for, and nothing else"


def test_an_overtaken_version_that_fails_late_keeps_nothing_of_the_newer_one_in(
    driver: Callable[..., Driver], radiographs: Films, pacs: Pacs
) -> None:
    one = driver()
    one.receive(*radiographs)
    assert one.gateway.assemble()
    with one.gateway.ledger.claim("route"):
        one.receive(*_changed(radiographs, PatientName=RIGHT))
        assert one.gateway.assemble()
        assert one.gateway.route()
        raise EncodingError("as played")
    one.carry_out()
    assert pacs.names
    assert set(pacs.names) == {RIGHT}


def test_a_late_refusal_takes_nothing_back_that_is_stored(
    driver: Callable[..., Driver], radiographs: Films, pacs: Pacs
) -> None:
    one = driver()
    one.receive(*radiographs)
    one.carry_out()
    study = _study(radiographs)
    (late, *_) = one.timeline(study)["deliveries"]
    receipt = Receipt(late["SOPInstanceUID"], Answer.REFUSED, 0xA900, "as played")
    with one.gateway.ledger.database.write() as connection:
        assert commits.answered(connection, study, "results", [receipt]) is None
    (after, *_) = one.timeline(study)["deliveries"]
    assert after["state"] == "stored"
    assert [each["answer"] for each in after["receipts"]] == ["stored", "refused"]


def test_a_held_delivery_ends_when_nothing_of_it_is_asked_for_any_more(
    driver: Callable[..., Driver],
    radiographs: Films,
    pacs: Pacs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = driver()
    monkeypatch.setattr("pacs_ai.gateway.doubt", lambda *_: "another PatientName there")
    one.receive(*radiographs)
    one.carry_out()
    study = _study(radiographs)
    assert one.timeline(study)["state"] == "held"
    one.receive(*_changed(radiographs, BodyPartExamined="KNEE"))
    one.carry_out()
    assert one.timeline(study)["state"] == "no_rule"
    assert not pacs.names
