"""Our Storage SCU against DCMTK's Storage SCP, and DCMTK's SCU as a sender."""

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, StoragePresentationContexts, evt

from pacs_ai.delivery import Answer, Outgoing
from pacs_ai.delivery.storage import send
from pacs_ai.settings import DicomDestination
from tests.peers.dcmtk import storescp, storescu

NAMES = ("CT_small.dcm", "reportsi.dcm", "SC_rgb_small_odd.dcm", "JPEG2000.dcm")


def outgoing(name: str) -> Outgoing:
    path = Path(str(get_testdata_file(name)))
    header = dcmread(path, stop_before_pixels=True)
    return Outgoing(
        SOPInstanceUID=str(header.file_meta.MediaStorageSOPInstanceUID),
        SOPClassUID=str(header.file_meta.MediaStorageSOPClassUID),
        StudyInstanceUID=str(header.StudyInstanceUID),
        transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
        kind="capture",
        path=path,
    )


def data_set_bytes(path: Path) -> bytes:
    """Return what follows the File Meta Information (PS3.10 7.1)."""
    data = path.read_bytes()
    return data[132 + 12 + read_file_meta_info(path).FileMetaInformationGroupLength :]


def destination(port: int) -> DicomDestination:
    return DicomDestination(host="127.0.0.1", port=port, ae_title="STORESCP")


def test_the_data_sets_arrive_byte_for_byte_in_their_own_transfer_syntax(tmp_path: Path) -> None:
    batch = tuple(outgoing(name) for name in NAMES)
    with storescp(tmp_path / "received", "--accept-all") as port:
        receipts = send(batch, destination(port))
    assert [one.answer for one in receipts] == [Answer.STORED] * len(batch)
    received = {
        (str(meta.MediaStorageSOPInstanceUID), str(meta.TransferSyntaxUID)): data_set_bytes(path)
        for path in (tmp_path / "received").iterdir()
        for meta in [read_file_meta_info(path)]
    }
    assert received == {
        (one.SOPInstanceUID, one.transfer_syntax_uid): data_set_bytes(one.path) for one in batch
    }


def test_a_transfer_syntax_that_it_does_not_take_refuses_that_instance_alone(
    tmp_path: Path,
) -> None:
    compressed, plain = outgoing("JPEG2000.dcm"), outgoing("CT_small.dcm")
    with storescp(tmp_path / "received") as port:
        refused, stored = send((compressed, plain), destination(port))
    assert refused.answer is Answer.REFUSED
    assert "JPEG 2000" in refused.detail
    assert stored.answer is Answer.STORED


def test_a_peer_that_aborts_after_the_store_is_unknown(tmp_path: Path) -> None:
    batch = (outgoing("CT_small.dcm"), outgoing("reportsi.dcm"))
    with storescp(tmp_path / "received", "--abort-after") as port:
        receipts = send(batch, destination(port))
    assert [one.answer for one in receipts] == [Answer.UNKNOWN, Answer.LATER]


@pytest.mark.parametrize("name", ["CT_small.dcm", "reportsi.dcm"])
def test_storescu_sends_what_a_modality_would(name: str) -> None:
    received: list[bytes] = []

    def on_store(event: evt.Event) -> int:
        received.append(event.request.DataSet.getvalue())
        return 0x0000

    one = outgoing(name)
    entity = AE("PACSAI")
    for context in StoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, one.transfer_syntax_uid)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]
    )
    try:
        storescu([one.path], port=server.server_address[1], called="PACSAI", calling="MODALITY")
    finally:
        server.shutdown()
    assert len(received) == 1
