"""Results into a folder."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from pacs_ai.delivery import Answer, Outgoing, folder, sender
from pacs_ai.delivery.folder import file_name, send
from pacs_ai.settings import FolderDestination


def outgoing(name: str, kind: str) -> Outgoing:
    path = Path(str(get_testdata_file(name)))
    header = dcmread(path, stop_before_pixels=True)
    return Outgoing(
        SOPInstanceUID=str(header.SOPInstanceUID),
        SOPClassUID=str(header.SOPClassUID),
        StudyInstanceUID=str(header.StudyInstanceUID),
        transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
        kind=kind,
        path=path,
    )


@pytest.fixture
def report() -> Outgoing:
    return outgoing("test-SR.dcm", "report")


@pytest.fixture
def capture() -> Outgoing:
    return outgoing("SC_rgb_small_odd.dcm", "capture")


@pytest.fixture
def out(tmp_path: Path) -> FolderDestination:
    return FolderDestination(kind="folder", path=tmp_path / "results")


def test_the_table_of_destinations_names_this_sender() -> None:
    assert sender("folder") is send


def test_instances_lie_below_their_study_byte_for_byte(
    report: Outgoing, out: FolderDestination
) -> None:
    (receipt,) = send((report,), out)
    assert receipt.answer is Answer.STORED
    (placed,) = (out.path / report.StudyInstanceUID).iterdir()
    assert placed == out.path / file_name(report)
    assert placed.name.startswith("report-")
    assert placed.read_bytes() == report.path.read_bytes()


def test_the_same_bytes_again_are_stored_and_change_nothing(
    report: Outgoing, out: FolderDestination
) -> None:
    send((report,), out)
    placed = out.path / file_name(report)
    before = placed.stat()
    (receipt,) = send((report,), out)
    assert receipt.answer is Answer.STORED
    assert placed.stat().st_mtime_ns == before.st_mtime_ns
    assert placed.stat().st_ino == before.st_ino


def test_other_bytes_under_the_same_name_are_refused_and_kept(
    report: Outgoing, out: FolderDestination
) -> None:
    placed = out.path / file_name(report)
    placed.parent.mkdir(parents=True)
    placed.write_bytes(b"another")
    (receipt,) = send((report,), out)
    assert receipt.answer is Answer.REFUSED
    assert placed.name in receipt.detail
    assert placed.read_bytes() == b"another"


def test_two_instances_of_a_kind_get_two_names(report: Outgoing) -> None:
    other = replace(report, SOPInstanceUID=f"{report.SOPInstanceUID}.1")
    assert file_name(report) != file_name(other)


def test_a_capture_gets_a_png_of_its_own_pixels(capture: Outgoing, out: FolderDestination) -> None:
    (receipt,) = send((capture,), out)
    assert receipt == replace(receipt, answer=Answer.STORED, detail="")
    with Image.open((out.path / file_name(capture)).with_suffix(".png")) as picture:
        assert picture.mode == "RGB"
        assert np.array_equal(np.asarray(picture), dcmread(capture.path).pixel_array)


def test_a_png_that_a_crash_left_out_is_made_on_the_next_attempt(
    capture: Outgoing, out: FolderDestination
) -> None:
    send((capture,), out)
    picture = (out.path / file_name(capture)).with_suffix(".png")
    picture.unlink()
    send((capture,), out)
    assert picture.is_file()


def test_a_capture_that_is_not_rgb_is_stored_and_says_that_it_has_no_picture(
    out: FolderDestination,
) -> None:
    (receipt,) = send((outgoing("CT_small.dcm", "capture"),), out)
    assert receipt.answer is Answer.STORED
    assert "no PNG" in receipt.detail
    assert not list(out.path.rglob("*.png"))


def test_a_disk_that_fails_is_later_and_leaves_nothing_half_written(
    report: Outgoing, out: FolderDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.os, "fsync", full)
    (receipt,) = send((report,), out)
    assert receipt.answer is Answer.LATER
    assert "No space left on device" in receipt.detail
    assert not [path for path in out.path.rglob("*") if path.is_file()]


def test_bytes_are_on_disk_before_the_name_is(
    report: Outgoing, out: FolderDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace_ = os.fsync, Path.replace

    def synced(handle: int) -> None:
        steps.append("fsync")
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace_(self, target)

    monkeypatch.setattr(folder.os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    send((report,), out)
    assert steps == ["fsync", "rename", "fsync"]


def test_what_a_killed_attempt_left_is_swept(report: Outgoing, out: FolderDestination) -> None:
    placed = out.path / file_name(report)
    placed.parent.mkdir(parents=True)
    half = placed.parent / f".{placed.stem}-abc.part"
    half.write_bytes(b"half")
    send((report,), out)
    assert not half.exists()
    assert placed.is_file()


def test_a_folder_that_is_a_file_is_later_with_the_reason(
    report: Outgoing, out: FolderDestination
) -> None:
    out.path.write_text("not a folder")
    (receipt,) = send((report,), out)
    assert receipt.answer is Answer.LATER


def test_a_missing_stored_file_is_refused_and_the_rest_goes_on(
    report: Outgoing, capture: Outgoing, out: FolderDestination
) -> None:
    gone = replace(capture, path=Path("/nowhere/gone.dcm"))
    receipts = send((gone, report), out)
    assert [one.answer for one in receipts] == [Answer.REFUSED, Answer.STORED]


@pytest.mark.parametrize("study", ["../../etc", "", "1.2/3", "/etc"])
def test_a_study_uid_that_is_none_never_becomes_a_path(
    report: Outgoing, out: FolderDestination, study: str
) -> None:
    (receipt,) = send((replace(report, StudyInstanceUID=study),), out)
    assert receipt.answer is Answer.REFUSED
    assert not out.path.exists()
