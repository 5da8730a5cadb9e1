"""Real images, sent directly and through a real PACS: other bytes, and still one Study version."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest

from pacs_ai.delivery import Answer, Outgoing
from pacs_ai.delivery.storage import send
from pacs_ai.ledger import work
from pacs_ai.ledger.views import Views
from pacs_ai.settings import DicomDestination, Identity, Settings
from tests.integration.listening import CALLED, CALLING, Listening, listening, make_settings
from tests.peers.orthanc import orthanc, wait_for

THORAX = "ct-thorax/Lung_Dx-A0001_chest-ct_64slices.tar.xz"
BRAIN = "mr-brain/sag-mprage_64of192slices.tar.xz"
ONE_FILE = (
    "ct-other/ct-topogram-lateral.dcm",
    "ct-other/ct-lung-nodule-biomedparse.dcm",
    "mr-other/mr-brain-jpegll-nema.dcm",
    "cxr/cr-pa-mono1-10bit-fuji.dcm",
    "cxr/cr-pa-8bit-jpegbaseline-nih-siim.dcm",
    "cxr/dx-pa-mono1-12bit-j2k-canon.dcm",
)
SLICES = 12
QUIET = "ignore:.*(Invalid value for VR|exceeds the maximum length):UserWarning"
pytestmark = pytest.mark.filterwarnings(QUIET)


@pytest.fixture(scope="module")
def files(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Some slices of a CT and an MR Series, and single images in several transfer syntaxes."""
    found = [shared_data / name for name in ONE_FILE]
    for archive in (THORAX, BRAIN):
        folder = tmp_path_factory.mktemp("series")
        with tarfile.open(shared_data / archive) as packed:
            members = [one for one in packed.getmembers() if one.isfile()][:SLICES]
            packed.extractall(folder, members=members, filter="data")
        found += sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(found)


def _outgoing(path: Path) -> Outgoing:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    return Outgoing(
        SOPInstanceUID=str(header.SOPInstanceUID),
        SOPClassUID=str(header.SOPClassUID),
        StudyInstanceUID=str(header.StudyInstanceUID),
        transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
        kind="image",
        path=path,
    )


def _send(paths: Sequence[Path], *, port: int, called: str) -> None:
    target = DicomDestination(
        host="127.0.0.1", port=port, ae_title=called, calling_ae_title=CALLING
    )
    receipts = send(tuple(map(_outgoing, paths)), target)
    assert {one.answer for one in receipts} == {Answer.STORED}, receipts


def _settings(folder: Path) -> Settings:
    settings = make_settings(folder)
    peer = settings.peers["modality"].model_copy(
        update={"ae_titles": (CALLING, "ORTHANC"), "quiet": timedelta(0)}
    )
    # One of them has no PatientID.
    return settings.model_copy(update={"peers": {"modality": peer}, "identity": Identity.LENIENT})


def _assembled(running: Listening, studies: set[str]) -> dict[str, dict[str, Any]]:
    """Assemble and route everything; return each Study's timeline."""
    while running.gateway.carry_out(work.ASSEMBLE) or running.gateway.carry_out(work.ROUTE):
        pass
    views = Views(running.gateway.ledger.database)
    return {study: views.timeline(study) for study in studies}


def test_what_a_pacs_hands_on_in_other_bytes_is_what_the_modality_sent(
    tmp_path: Path, files: tuple[Path, ...]
) -> None:
    sent = [_outgoing(path) for path in files]
    studies = {one.StudyInstanceUID for one in sent}
    with listening(_settings(tmp_path)) as running:
        _send(files, port=running.port, called=CALLED)
        first = _assembled(running, studies)
        assert {len(one["versions"]) for one in first.values()} == {1}
        with orthanc(tmp_path / "orthanc", gateway_port=running.port) as pacs:
            _send(files, port=pacs.dicom_port, called=pacs.ae_title)
            wait_for(
                lambda: (
                    len(pacs.jobs()) >= len(studies)
                    and {one["State"] for one in pacs.jobs()} == {"Success"}
                ),
                seconds=60,
                what="every Study to be forwarded",
            )
        held = running.instances()
        assert len(held) > len(files), "none came in other bytes: this proves nothing"
        again = _assembled(running, studies)
        for study in studies:
            assert again[study]["versions"] == first[study]["versions"]
            assert again[study]["state"] == first[study]["state"]

        changed = _with_a_changed_pixel(files[-1], tmp_path)
        _send([changed], port=running.port, called=CALLED)
        timeline = _assembled(running, studies)[_outgoing(changed).StudyInstanceUID]
        assert timeline["state"] == "held"
        assert timeline["versions"] == first[timeline["StudyInstanceUID"]]["versions"]


def _with_a_changed_pixel(path: Path, folder: Path) -> Path:
    data_set = pydicom.dcmread(path)
    pixels = bytearray(data_set.PixelData)
    pixels[len(pixels) // 2] ^= 1
    data_set.PixelData = bytes(pixels)
    target = folder / "changed.dcm"
    data_set.save_as(target)
    return target
