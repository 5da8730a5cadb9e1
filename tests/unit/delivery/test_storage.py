"""C-STORE to a real Storage SCP over loopback."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE

from pacs_ai.delivery import Answer, Outgoing, sender
from pacs_ai.delivery.storage import read_status, send
from pacs_ai.peers.association import Timeouts
from pacs_ai.settings import DicomDestination
from tests.peers import free_port
from tests.peers.rejecting import CALLED_NOT_RECOGNISED, rejecting

SHORT = Timeouts(connection=1, acse=1, dimse=1, network=1)


def outgoing(path: Path, kind: str = "capture") -> Outgoing:
    header = dcmread(path, stop_before_pixels=True)
    return Outgoing(
        SOPInstanceUID=str(header.file_meta.MediaStorageSOPInstanceUID),
        SOPClassUID=str(header.file_meta.MediaStorageSOPClassUID),
        StudyInstanceUID=str(header.StudyInstanceUID),
        transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
        kind=kind,
        path=path,
    )


@pytest.fixture
def ct() -> Outgoing:
    return outgoing(Path(str(get_testdata_file("CT_small.dcm"))))


@pytest.fixture
def mr() -> Outgoing:
    return outgoing(Path(str(get_testdata_file("MR_small.dcm"))))


@contextmanager
def scp(
    on_store: Callable[[evt.Event], int],
    classes: tuple[str, ...] = (CTImageStorage, MRImageStorage),
    *,
    syntaxes: tuple[str, ...] = (ExplicitVRLittleEndian,),
) -> Iterator[DicomDestination]:
    entity = AE("PACS")
    entity.require_called_aet = True
    for sop_class in classes:
        entity.add_supported_context(sop_class, list(syntaxes))
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]
    )
    try:
        yield destination(server.server_address[1])
    finally:
        server.shutdown()


def destination(port: int) -> DicomDestination:
    return DicomDestination(host="127.0.0.1", port=port, ae_title="PACS", calling_ae_title="PACSAI")


def test_the_stored_bytes_arrive_as_they_are(ct: Outgoing) -> None:
    received: list[bytes] = []

    def on_store(event: evt.Event) -> int:
        received.append(event.request.DataSet.getvalue())
        return 0x0000

    with scp(on_store) as pacs:
        (receipt,) = send((ct,), pacs)
    assert receipt.answer is Answer.STORED
    assert receipt.status == 0x0000
    assert ct.path.read_bytes().endswith(received[0])
    assert len(received[0]) > 0.95 * ct.path.stat().st_size


def test_a_batch_goes_over_one_association_with_one_receipt_each_in_order(
    ct: Outgoing, mr: Outgoing
) -> None:
    associations: set[int] = set()
    calling: set[str] = set()

    def on_store(event: evt.Event) -> int:
        associations.add(id(event.assoc))
        calling.add(event.assoc.requestor.ae_title)
        return 0xA700 if event.request.AffectedSOPClassUID == CTImageStorage else 0x0000

    with scp(on_store) as pacs:
        receipts = send((mr, ct, mr), pacs)
    assert [one.SOPInstanceUID for one in receipts] == [
        mr.SOPInstanceUID,
        ct.SOPInstanceUID,
        mr.SOPInstanceUID,
    ]
    assert [one.answer for one in receipts] == [Answer.STORED, Answer.LATER, Answer.STORED]
    assert len(associations) == 1
    assert calling == {"PACSAI"}


def test_the_table_of_destinations_names_this_sender() -> None:
    assert sender("dicom") is send


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (0x0000, Answer.STORED),
        (0x0001, Answer.STORED),
        (0x0107, Answer.STORED),
        (0x0111, Answer.STORED),
        (0x0116, Answer.STORED),
        (0xB000, Answer.STORED),
        (0xB006, Answer.STORED),
        (0xB007, Answer.STORED),
        (0xBABE, Answer.STORED),
        (0xA700, Answer.LATER),
        (0xA7FF, Answer.LATER),
        (0x0110, Answer.LATER),
        (0x0213, Answer.LATER),
        (0xA900, Answer.REFUSED),
        (0xC000, Answer.REFUSED),
        (0xCFFF, Answer.REFUSED),
        (0x0117, Answer.REFUSED),
        (0x0118, Answer.REFUSED),
        (0x0119, Answer.REFUSED),
        (0x0122, Answer.REFUSED),
        (0x0124, Answer.REFUSED),
        (0x4242, Answer.REFUSED),
        (0xFF00, Answer.UNKNOWN),
        (0xFE00, Answer.UNKNOWN),
    ],
)
def test_each_status_means_one_thing(status: int, answer: Answer) -> None:
    found, detail = read_status(status)
    assert found is answer
    assert (f"0x{status:04X}" in detail) == (status != 0)


@pytest.mark.parametrize("status", [0xB000, 0x0111, 0xA701, 0xC123, 0x0124])
def test_what_the_peer_answers_stands_in_the_receipt(ct: Outgoing, status: int) -> None:
    with scp(lambda event: status) as pacs:
        (receipt,) = send((ct,), pacs)
    assert receipt.status == status
    assert (receipt.answer, receipt.detail) == read_status(status)


def test_no_connection_is_later_for_all(ct: Outgoing, mr: Outgoing) -> None:
    receipts = send((ct, mr), destination(free_port()), timeouts=SHORT)
    assert [one.answer for one in receipts] == [Answer.LATER, Answer.LATER]
    assert "nothing answers" in receipts[0].detail


def test_a_host_without_address_is_later(ct: Outgoing) -> None:
    nowhere = destination(104).model_copy(update={"host": "pacs.invalid"})
    (receipt,) = send((ct,), nowhere, timeouts=SHORT)
    assert receipt.answer is Answer.LATER
    assert "has no address" in receipt.detail


def test_a_rejected_association_is_later_and_says_why(ct: Outgoing) -> None:
    with rejecting(CALLED_NOT_RECOGNISED) as port:
        (receipt,) = send((ct,), destination(port), timeouts=SHORT)
    assert receipt.answer is Answer.LATER
    assert "Called AE title not recognised" in receipt.detail


def test_a_port_that_is_not_dicom_is_later(ct: Outgoing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (receipt,) = send((ct,), destination(silent.getsockname()[1]), timeouts=SHORT)
    assert receipt.answer is Answer.LATER
    assert "did not answer the association request" in receipt.detail


def test_a_rejected_context_refuses_that_instance_by_name(ct: Outgoing, mr: Outgoing) -> None:
    with scp(lambda event: 0x0000, (MRImageStorage,)) as pacs:
        refused, stored = send((ct, mr), pacs)
    assert refused.answer is Answer.REFUSED
    assert "CT Image Storage" in refused.detail
    assert stored.answer is Answer.STORED


def test_a_peer_that_takes_no_context_at_all_refuses_each_instance(ct: Outgoing) -> None:
    with scp(lambda event: 0x0000, (ComprehensiveSRStorage,)) as pacs:
        (receipt,) = send((ct,), pacs, timeouts=SHORT)
    assert receipt.answer is Answer.REFUSED
    assert "CT Image Storage in Explicit VR Little Endian" in receipt.detail


def test_stored_bytes_are_never_encoded_again_for_a_peer(ct: Outgoing) -> None:
    with scp(lambda event: 0x0000, syntaxes=(ImplicitVRLittleEndian,)) as pacs:
        (receipt,) = send((ct,), pacs, timeouts=SHORT)
    assert receipt.answer is Answer.REFUSED


def test_an_answer_to_another_message_stores_nothing(ct: Outgoing, mr: Outgoing) -> None:
    kept: list[str] = []

    def on_store(event: evt.Event) -> int:
        if kept:
            return 0xA700
        kept.append(event.request.AffectedSOPInstanceUID)
        twice = C_STORE()
        twice.MessageIDBeingRespondedTo = event.request.MessageID
        twice.AffectedSOPInstanceUID = event.request.AffectedSOPInstanceUID
        twice.AffectedSOPClassUID = event.request.AffectedSOPClassUID
        twice.Status = 0x0000
        event.assoc.dimse.send_msg(twice, event.context.context_id)
        return 0x0000

    with scp(on_store) as pacs:
        receipts = send((ct, mr), pacs, timeouts=SHORT)
    assert kept == [ct.SOPInstanceUID]
    assert [one.answer for one in receipts] == [Answer.STORED, Answer.UNKNOWN]


def test_an_abort_after_sending_is_unknown_and_the_rest_is_later(
    ct: Outgoing, mr: Outgoing
) -> None:
    def on_store(event: evt.Event) -> int:
        event.assoc.abort()
        return 0x0000

    with scp(on_store) as pacs:
        receipts = send((ct, mr), pacs, timeouts=SHORT)
    assert [one.answer for one in receipts] == [Answer.UNKNOWN, Answer.LATER]


def test_no_answer_in_time_is_unknown(ct: Outgoing) -> None:
    release = threading.Event()

    def on_store(event: evt.Event) -> int:
        release.wait(10)
        return 0x0000

    with scp(on_store) as pacs:
        try:
            (receipt,) = send((ct,), pacs, timeouts=SHORT)
        finally:
            release.set()
    assert receipt.answer is Answer.UNKNOWN


def test_a_peer_that_stops_reading_does_not_hold_the_sender(tmp_path: Path) -> None:
    big = dcmread(str(get_testdata_file("CT_small.dcm")))
    big.add_new(0x00091010, "OB", bytes(32_000_000))
    big.save_as(tmp_path / "big.dcm")

    def stop_reading(event: evt.Event) -> None:
        event.assoc.dul.socket.recv = lambda count: blocked.wait(20) or bytearray()

    blocked = threading.Event()
    entity = AE("PACS")
    entity.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_ESTABLISHED, stop_reading)]
    )
    # 32 MB are given 32 s to travel; the wait for progress (1 s) has to end it before that.
    timeouts = replace(SHORT, dimse=60)
    try:
        (receipt,) = send(
            (outgoing(tmp_path / "big.dcm"),),
            destination(server.server_address[1]),
            timeouts=timeouts,
        )
    finally:
        blocked.set()
        server.shutdown()
    assert receipt.answer is Answer.UNKNOWN


def test_a_missing_file_is_refused_and_the_rest_goes_on(ct: Outgoing, mr: Outgoing) -> None:
    gone = replace(ct, path=Path("/nowhere/gone.dcm"))
    with scp(lambda event: 0x0000) as pacs:
        receipts = send((gone, mr), pacs)
    assert [one.answer for one in receipts] == [Answer.REFUSED, Answer.STORED]
    assert "missing" in receipts[0].detail


def test_a_file_that_holds_another_instance_never_leaves(ct: Outgoing, mr: Outgoing) -> None:
    stored: list[Any] = []
    swapped = replace(ct, path=mr.path)
    with scp(lambda event: stored.append(event) or 0x0000) as pacs:
        (receipt,) = send((swapped,), pacs)
    assert receipt.answer is Answer.REFUSED
    assert "another Instance" in receipt.detail
    assert not stored


def test_an_empty_batch_opens_no_association() -> None:
    assert send((), destination(free_port())) == ()


def test_nothing_of_the_data_set_reaches_a_log(
    ct: Outgoing, caplog: pytest.LogCaptureFixture
) -> None:
    name = str(dcmread(ct.path).PatientName)

    def on_store(event: evt.Event) -> Any:
        status = Dataset()
        status.Status = 0xC000
        status.ErrorComment = name
        return status

    with caplog.at_level(logging.DEBUG), scp(on_store) as pacs:
        (receipt,) = send((ct,), pacs)
    assert receipt.status == 0xC000
    assert name not in caplog.text
    assert name not in receipt.detail
    assert ct.SOPInstanceUID not in caplog.text
