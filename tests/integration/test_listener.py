"""What a peer sends is kept byte for byte, whatever its SOP Class and transfer syntax."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import AllTransferSyntaxes, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.sop_class import Verification

from listener.ae import TRANSFER_SYNTAXES
from pacs_ai.cli.files import data_set_bytes
from tests.integration.listening import (
    CALLED,
    CALLING,
    CT,
    Listening,
    association,
    encoded,
    image,
    listening,
    make_settings,
    send,
    store,
)
from tests.peers import require
from tests.peers.dcmtk import storescu

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
HTJ2K = "1.2.840.10008.1.2.4.203"


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Listening]:
    folder = tmp_path_factory.mktemp("listener")
    with listening(make_settings(folder, transport=transport)) as started:
        yield started


def test_c_echo_is_answered(listener: Listening) -> None:
    subprocess.run(
        [require("echoscu"), "-aet", CALLING, "-aec", CALLED, "127.0.0.1", str(listener.port)],
        check=True,
        capture_output=True,
        timeout=30,
    )
    with association(listener.port, [build_context(Verification)]) as opened:
        assert opened.send_c_echo().Status == 0x0000


def test_every_transfer_syntax_of_stored_instances_is_offered() -> None:
    video_over_ip = {
        f"1.2.840.10008.1.2.7.{number}" for number in (1, 2, 3)
    }  # PS3.22, never stored
    known = {str(one) for one in AllTransferSyntaxes if not one.is_private}
    assert known - video_over_ip - set(TRANSFER_SYNTAXES) == set()


def test_every_storage_class_and_every_transfer_syntax_is_accepted(listener: Listening) -> None:
    # Every class in five syntaxes that move on from class to class: all of both, and many pairs.
    classes = [str(one.abstract_syntax) for one in AllStoragePresentationContexts]
    count = len(TRANSFER_SYNTAXES)
    asked = [
        build_context(uid, TRANSFER_SYNTAXES[(5 * place + step) % count])
        for place, uid in enumerate(classes)
        for step in range(5)
    ]
    refused = []
    for start in range(0, len(asked), 128):
        with association(listener.port, asked[start : start + 128]) as opened:
            assert opened.is_established
            refused += opened.rejected_contexts
    assert len(classes) > 150
    assert {one.transfer_syntax[0] for one in asked} == set(TRANSFER_SYNTAXES)
    assert refused == []


def _files(shared_data: Path) -> list[Path]:
    found = sorted((shared_data / "syntaxes").glob("CTImage*.dcm"))
    assert len(found) == 12
    return [path for path in found if "1.2.4.55" not in path.name]  # retired, not offered


def _htj2k(shared_data: Path) -> Dataset:
    """Return the HTJ2K photograph, which names no Study, as a Secondary Capture that does."""
    found = dcmread(shared_data / "syntaxes" / "HTJ2K_08_RGB.dcm")
    found.StudyInstanceUID, found.SeriesInstanceUID = generate_uid(), generate_uid()
    return found


def _stored(listener: Listening, data: bytes) -> Path:
    """Return the one file of the spool that holds these bytes, after comparing every one of them."""
    digest = hashlib.sha256(data).hexdigest()
    (path,) = [one for one in listener.files() if one.name.startswith(digest)]
    assert data_set_bytes(path.read_bytes()) == data
    assert digest in [one["digest"] for one in listener.instances()]
    return path


def test_real_data_sets_are_kept_byte_for_byte_in_every_syntax(
    listener: Listening, shared_data: Path
) -> None:
    for path in _files(shared_data):
        meta = dcmread(path, stop_before_pixels=True).file_meta
        syntax = meta.TransferSyntaxUID
        data = data_set_bytes(path.read_bytes())
        with association(listener.port, [build_context(CT, syntax)]) as opened:
            uid = meta.MediaStorageSOPInstanceUID
            answer = send(opened, data, sop_instance=uid, syntax=syntax)
        assert answer.Status == 0x0000, path.name
        kept = _stored(listener, data)
        assert dcmread(kept, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax


def test_htj2k_is_kept_byte_for_byte(listener: Listening, shared_data: Path) -> None:
    data_set = _htj2k(shared_data)
    data = encoded(data_set)
    with association(listener.port, [build_context(SECONDARY_CAPTURE, HTJ2K)]) as opened:
        answer = send(
            opened,
            data,
            sop_class=SECONDARY_CAPTURE,
            sop_instance=str(data_set.SOPInstanceUID),
            syntax=HTJ2K,
        )
    assert answer.Status == 0x0000
    _stored(listener, data)


def test_implicit_vr_is_kept_byte_for_byte(listener: Listening, shared_data: Path) -> None:
    path = shared_data / "ct-other" / "ct-lung-nodule-biomedparse.dcm"
    meta = dcmread(path, stop_before_pixels=True).file_meta
    assert meta.TransferSyntaxUID == ImplicitVRLittleEndian
    data = data_set_bytes(path.read_bytes())
    with association(listener.port, [build_context(CT, ImplicitVRLittleEndian)]) as opened:
        answer = send(
            opened,
            data,
            sop_instance=meta.MediaStorageSOPInstanceUID,
            syntax=ImplicitVRLittleEndian,
        )
    assert answer.Status == 0x0000
    _stored(listener, data)


@pytest.mark.parametrize(
    ("syntax", "option"),
    [
        ("1.2.840.10008.1.2.4.50", "--propose-jpeg8"),
        ("1.2.840.10008.1.2.4.70", "--propose-lossless"),
        ("1.2.840.10008.1.2.4.80", "--propose-jls-lossless"),
        ("1.2.840.10008.1.2.5", "--propose-rle"),
        ("1.2.840.10008.1.2.1.99", "--propose-deflated"),
        ("1.2.840.10008.1.2.2", "--propose-big"),
    ],
)
def test_storescu_is_met_in_each_syntax_that_it_sends(
    listener: Listening, shared_data: Path, syntax: str, option: str
) -> None:
    (path,) = (shared_data / "syntaxes").glob(f"CTImage*_{syntax}.dcm")
    storescu([path], option, port=listener.port, called=CALLED, calling=CALLING)
    rows = [one for one in listener.instances() if one["transfer_syntax_uid"] == syntax]
    assert rows


def test_exactly_the_same_bytes_answer_success_and_are_kept_once(listener: Listening) -> None:
    data_set = image()
    answers = [store(listener.port, data_set).Status for _ in range(3)]
    assert answers == [0x0000] * 3
    rows = [one for one in listener.instances() if one["SOPInstanceUID"] == data_set.SOPInstanceUID]
    assert [one["state"] for one in rows] == ["kept"]


def test_other_bytes_under_the_same_uid_are_kept_beside_the_first(listener: Listening) -> None:
    data_set = image()
    assert store(listener.port, data_set).Status == 0x0000
    data_set.Rows = 8
    assert store(listener.port, data_set).Status == 0x0000
    rows = [one for one in listener.instances() if one["SOPInstanceUID"] == data_set.SOPInstanceUID]
    assert [one["state"] for one in rows] == ["kept", "unchecked"]


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.4", "SEG"),
        ("1.2.840.10008.5.1.4.1.1.88.33", "SR"),
        ("1.2.840.10008.5.1.4.1.1.88.59", "KO"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "PR"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "DOC"),
    ],
)
def test_derived_instances_are_stored_and_start_nothing(
    listener: Listening, sop_class: str, modality: str
) -> None:
    data_set = image(SOPClassUID=sop_class, Modality=modality)
    with association(listener.port, [build_context(sop_class, "1.2.840.10008.1.2.1")]) as opened:
        uid = str(data_set.SOPInstanceUID)
        answer = send(opened, encoded(data_set), sop_class=sop_class, sop_instance=uid)
    assert answer.Status == 0x0000
    (row,) = [one for one in listener.instances() if one["SOPInstanceUID"] == uid]
    assert row["role"] == "derived"
    assert listener.work(str(data_set.StudyInstanceUID)) == []


def test_our_own_result_is_recognised_and_starts_nothing(listener: Listening) -> None:
    # A capture looks like a source: only the ledger knows that it is ours.
    source = image()
    assert store(listener.port, source).Status == 0x0000
    data_set = image(
        SOPClassUID=SECONDARY_CAPTURE, Modality="OT", StudyInstanceUID=source.StudyInstanceUID
    )
    listener.made(data_set)
    (before,) = listener.work(str(source.StudyInstanceUID))
    contexts = [build_context(SECONDARY_CAPTURE, "1.2.840.10008.1.2.1")]
    with association(listener.port, contexts) as opened:
        uid = str(data_set.SOPInstanceUID)
        answer = send(opened, encoded(data_set), sop_class=SECONDARY_CAPTURE, sop_instance=uid)
    assert answer.Status == 0x0000
    (row,) = [one for one in listener.instances() if one["SOPInstanceUID"] == uid]
    assert row["role"] == "own"
    assert listener.work(str(data_set.StudyInstanceUID)) == [before]


def test_a_source_starts_one_assembly_however_many_instances_come(listener: Listening) -> None:
    study = generate_uid()
    for _ in range(3):
        assert store(listener.port, image(StudyInstanceUID=study)).Status == 0x0000
    assert [one["kind"] for one in listener.work(study)] == ["assemble"]
