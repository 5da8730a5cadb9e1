"""Asking for a Study by C-FIND: whatever a peer answers, it ends, and nothing is made of half an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from pacs_ai.errors import TransientError
from pacs_ai.peers.association import Timeouts
from pacs_ai.peers.find import CONTEXT, find_study
from pacs_ai.peers.identity import IDENTITY, NotOfferedError
from pacs_ai.settings import DicomDestination

STUDY = "1.2.826.0.1.3680043.10.1.99"
SHORT = Timeouts(connection=2, acse=2, dimse=1, network=5)
PENDING, SUCCESS = 0xFF00, 0x0000
Answers = Iterator[tuple[int, Dataset | None]]


def _match(study: str = STUDY, patient: str = "P1") -> Dataset:
    match = Dataset()
    match.QueryRetrieveLevel = "STUDY"
    match.StudyInstanceUID = study
    match.PatientID = patient
    return match


@contextmanager
def find_scp(
    answers: Callable[[Dataset], Answers], sop_class: str = CONTEXT[0]
) -> Iterator[DicomDestination]:
    """Run a peer that answers a C-FIND as a test wishes."""

    def on_find(event: evt.Event) -> Any:
        yield from answers(event.identifier)

    entity = AE("PACS")
    entity.add_supported_context(sop_class, CONTEXT[1])
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, on_find)]
    )
    try:
        port = int(server.server_address[1])
        yield DicomDestination(host="127.0.0.1", port=port, ae_title="PACS")
    finally:
        server.shutdown()


def test_it_asks_for_identity_of_one_study_and_nothing_else() -> None:
    asked: list[Dataset] = []

    def answers(identifier: Dataset) -> Answers:
        asked.append(identifier)
        yield PENDING, _match()
        yield SUCCESS, None

    with find_scp(answers) as peer:
        (found,) = find_study(STUDY, peer, timeouts=SHORT)
    assert found.PatientID == "P1"
    (identifier,) = asked
    assert identifier.StudyInstanceUID == STUDY
    assert identifier.QueryRetrieveLevel == "STUDY"
    returned = {element.keyword for element in identifier if not element.value}
    assert returned == {*IDENTITY}
    assert len(identifier) == len(IDENTITY) + 2


def test_a_study_under_two_patients_is_found_twice() -> None:
    def answers(_: Dataset) -> Answers:
        yield PENDING, _match()
        yield PENDING, _match(patient="P2")
        yield SUCCESS, None

    with find_scp(answers) as peer:
        found = find_study(STUDY, peer, timeouts=SHORT)
    assert [one.PatientID for one in found] == ["P1", "P2"]


def test_other_studies_are_no_answer_to_the_question() -> None:
    def answers(_: Dataset) -> Answers:
        yield PENDING, _match("1.2.3")
        yield SUCCESS, None

    with find_scp(answers) as peer:
        assert find_study(STUDY, peer, timeouts=SHORT) == ()


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC001, 0xFE00, 0x0122])
def test_a_failure_after_a_match_is_no_answer(status: int) -> None:
    def answers(_: Dataset) -> Answers:
        yield PENDING, _match()
        yield status, None

    with (
        find_scp(answers) as peer,
        pytest.raises(TransientError, match=f"status 0x{status:04X}"),
    ):
        find_study(STUDY, peer, timeouts=SHORT)


@pytest.mark.parametrize("study", [STUDY, "1.2.3"])
def test_answers_without_end_are_ended(study: str) -> None:
    def answers(_: Dataset) -> Answers:
        for number in count():
            yield PENDING, _match(study, f"P{number}")
            time.sleep(0.002)

    began = time.monotonic()
    with (
        find_scp(answers) as peer,
        pytest.raises(TransientError, match="does not come to an end"),
    ):
        find_study(STUDY, peer, timeouts=SHORT)
    assert time.monotonic() - began < 10


def test_a_peer_that_falls_silent_is_not_waited_for() -> None:
    def answers(_: Dataset) -> Answers:
        time.sleep(4)
        yield SUCCESS, None

    began = time.monotonic()
    with find_scp(answers) as peer:
        with pytest.raises(TransientError, match="no whole answer"):
            find_study(STUDY, peer, timeouts=SHORT)
        assert time.monotonic() - began < 3


def test_a_peer_that_offers_no_c_find_is_for_a_person_to_look_at() -> None:
    with (
        find_scp(lambda _: iter(()), sop_class="1.2.840.10008.1.1") as peer,
        pytest.raises(NotOfferedError, match="enable it there, or set confirm"),
    ):
        find_study(STUDY, peer, timeouts=SHORT)
