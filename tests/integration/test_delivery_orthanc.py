"""Our Storage SCU against a real PACS, and that PACS's own forwarding."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.filebase import DicomBytesIO
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, StoragePresentationContexts, evt

from pacs_ai.delivery import Answer, Outgoing
from pacs_ai.delivery.storage import send
from pacs_ai.peers.echo import echo
from pacs_ai.settings import DicomDestination
from tests.peers.orthanc import Orthanc, orthanc, wait_for

SHARED = Path(__file__).parents[3] / "shared" / "data"
STUDY = "1.2.826.0.1.3680043.10.1.77"
SOURCES = (
    ("capture", Path(str(get_testdata_file("SC_rgb_small_odd.dcm")))),
    ("report", Path(str(get_testdata_file("reportsi.dcm")))),
    ("image", Path(str(get_testdata_file("CT_small.dcm")))),
)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def batch(tmp_path: Path) -> tuple[Outgoing, ...]:
    return tuple(_one_study(kind, path, tmp_path) for kind, path in SOURCES)


def _one_study(kind: str, path: Path, folder: Path) -> Outgoing:
    dataset = dcmread(path)
    dataset.StudyInstanceUID = STUDY
    dataset.SeriesInstanceUID = f"{STUDY}.{len(kind)}"
    dataset.PatientID = "ORTHANC-TEST"
    target = folder / f"{kind}.dcm"
    dataset.save_as(target)
    return Outgoing(
        SOPInstanceUID=str(dataset.SOPInstanceUID),
        SOPClassUID=str(dataset.SOPClassUID),
        StudyInstanceUID=STUDY,
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        kind=kind,
        path=target,
    )


def destination(pacs: Orthanc) -> DicomDestination:
    return DicomDestination(host="127.0.0.1", port=pacs.dicom_port, ae_title=pacs.ae_title)


def test_results_arrive_and_qido_finds_them_in_their_study(
    pacs: Orthanc, batch: tuple[Outgoing, ...]
) -> None:
    receipts = send(batch, destination(pacs))
    assert [one.answer for one in receipts] == [Answer.STORED] * 3
    sent = {one.SOPInstanceUID for one in batch}
    assert pacs.instances(STUDY) == sent
    assert {str(one.SOPInstanceUID) for one in pacs.qido_instances(STUDY)} == sent
    assert {one.Modality for one in pacs.qido_series(STUDY)} == {"OT", "SR", "CT"}


def test_what_the_pacs_holds_is_the_data_set_that_was_sent(
    pacs: Orthanc, batch: tuple[Outgoing, ...]
) -> None:
    send(batch, destination(pacs))
    for one in batch:
        held = dcmread(DicomBytesIO(pacs.file(one.SOPInstanceUID)))
        assert held == dcmread(one.path)


def test_sending_the_same_again_is_stored_and_multiplies_nothing(
    pacs: Orthanc, batch: tuple[Outgoing, ...]
) -> None:
    send(batch, destination(pacs))
    receipts = send(batch, destination(pacs))
    assert [one.answer for one in receipts] == [Answer.STORED] * 3
    assert len(pacs.instances(STUDY)) == 3


def test_a_wrong_called_ae_title_is_later_and_named(
    pacs: Orthanc, batch: tuple[Outgoing, ...]
) -> None:
    wrong = destination(pacs).model_copy(update={"ae_title": "NOBODY"})
    receipts = send(batch, wrong)
    assert {one.answer for one in receipts} == {Answer.LATER}
    assert "Called AE title" in receipts[0].detail


def test_it_answers_our_echo(pacs: Orthanc) -> None:
    answer = echo(host="127.0.0.1", port=pacs.dicom_port, called=pacs.ae_title, calling="PACSAI")
    assert answer.ok, answer.detail


def test_it_forwards_a_stable_study_to_the_gateway_by_itself(
    tmp_path: Path, batch: tuple[Outgoing, ...]
) -> None:
    received: set[str] = set()

    def on_store(event: evt.Event) -> int:
        received.add(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    gateway = AE("PACSAI")
    for context in StoragePresentationContexts:
        gateway.add_supported_context(context.abstract_syntax, ExplicitVRLittleEndian)
    server = gateway.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]
    )
    try:
        port = server.server_address[1]
        with orthanc(tmp_path / "forwarding", gateway_port=port) as pacs:
            send(batch, destination(pacs))
            sent = {one.SOPInstanceUID for one in batch}
            wait_for(lambda: received == sent, seconds=30, what="the Study to be forwarded")
            wait_for(
                lambda: [one["State"] for one in pacs.jobs()] == ["Success"],
                seconds=10,
                what="the forwarding job to end well",
            )
    finally:
        server.shutdown()
