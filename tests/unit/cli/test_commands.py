"""Each command says what it is for, and ends with the exit code that the documentation promises."""

from __future__ import annotations

import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from pacs_ai import __version__, phantom
from tests.unit.cli.conftest import ROOT, Command, write_config

HELP = {
    "demo": ["phantom Studies", "--out"],
    "serve": ["whole gateway", "Ctrl-C", "--config"],
    "check": ["every problem at once", "--config"],
    "process": ["without a PACS", "--out", "--identity", "report.json"],
    "explain": ["every rule yes or no", "condition"],
    "status": ["where every Study stands", "--study", "--accession", "--json"],
    "instances": ["SHA-256", "--study"],
    "pause": ["delivery", "routing", "at once"],
    "resume": ["go on"],
    "release": ["held, failed and refused", "Study Instance UID"],
    "listener": ["DICOM listener"],
    "worker": ["Celery worker", "broker"],
    "web": ["UPS-RS"],
    "models": ["reference models", "serve"],
    "models serve": ["reference models", "port"],
}


@pytest.mark.parametrize("command", HELP)
def test_help_says_what_a_command_does(pacs_ai: Command, command: str) -> None:
    ended = pacs_ai(*command.split(), "--help")
    assert ended.code == 0
    said = " ".join(ended.out.split())
    assert [phrase for phrase in HELP[command] if phrase not in said] == []


def test_help_lists_every_command_and_says_where_to_begin(pacs_ai: Command) -> None:
    said = pacs_ai("--help").out
    assert [one for one in HELP if one.split()[0] not in said] == []
    assert "Start with: pacs-ai demo" in said


def test_every_option_has_a_sentence(pacs_ai: Command) -> None:
    for command in HELP:
        for line in pacs_ai(*command.split(), "--help").out.splitlines():
            words = line.strip("│| ").split()
            if words and words[0].startswith("--") and words[0] != "--help":
                told = [one for one in words if one.isalpha() and not one.isupper()]
                assert len(told) >= 2, f"{command}: {line}"


def test_the_version_is_told(pacs_ai: Command) -> None:
    ended = pacs_ai("--version")
    assert (ended.code, ended.out.strip()) == (0, f"pacs-ai {__version__}")


# ---------------------------------------------------------------------- wrong use and settings: 2


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "check",
        "status",
        "instances",
        "pause delivery",
        "resume routing",
        "release 1.2.3",
        "listener",
        "worker",
        "web",
        "models serve",
    ],
)
def test_a_missing_settings_file_is_named_and_ends_with_2(
    pacs_ai: Command, tmp_path: Path, command: str
) -> None:
    missing = tmp_path / "nowhere.yaml"
    ended = pacs_ai(*command.split(), "--config", missing)
    assert ended.code == 2
    assert str(missing) in ended.err
    assert "Traceback" not in ended.err


def test_every_required_value_is_reported_and_ends_with_2(pacs_ai: Command) -> None:
    ended = pacs_ai("check", "--config", ROOT / "config/hospital.yaml")
    assert ended.code == 2
    *lines, last = ended.err.splitlines()
    assert len([line for line in lines if "REQUIRED" in line]) >= 5
    assert all("hospital.yaml:" in line for line in lines)
    assert "not looked at, for want of" in last


@pytest.mark.parametrize(
    "arguments",
    [["no-such-command"], ["pause", "everything"], ["process"], ["explain", "/no/such/file"]],
)
def test_wrong_use_ends_with_2(pacs_ai: Command, arguments: list[str]) -> None:
    assert pacs_ai(*arguments).code == 2


def test_a_fault_of_a_rule_names_file_and_line(pacs_ai: Command, tmp_path: Path) -> None:
    config = write_config(tmp_path, rules=[{"name": "x", "when": {"Modallity": "CT"}, "run": []}])
    ended = pacs_ai("explain", config, "--config", config)
    assert ended.code == 2
    assert f"{config}:" in ended.err
    assert "Modallity" in ended.err


# ---------------------------------------------------------------------- explain


def test_explain_tells_the_condition_and_value_that_decided(
    pacs_ai: Command, shared_data: Path, tmp_path: Path
) -> None:
    with tarfile.open(shared_data / "cxr" / "routing-negatives.tar.xz") as packed:
        packed.extract("cxr/routing-negatives/nih-test4.dcm", tmp_path, filter="data")
    ended = pacs_ai("explain", tmp_path)
    assert ended.code == 0
    lines = {line.split()[0]: line for line in ended.out.splitlines()}
    assert "BodyPartExamined is RIBCAGE, which is not in chest" in lines["cxr-adult"]
    assert "Modality is DX, not CT" in lines["ct-chest"]
    assert "nothing is run" in ended.out


def test_explain_says_yes_and_what_would_run(pacs_ai: Command, shared_data: Path) -> None:
    ended = pacs_ai("explain", shared_data / "cxr" / "cr-pa-mono1-10bit-fuji.dcm")
    assert ended.code == 0
    lines = {line.split()[0]: line for line in ended.out.splitlines()}
    assert lines["cxr-adult"].split()[1] == "yes"
    assert "Modality is CR" in lines["cxr-adult"]
    assert "-> parse2d on frontal (1): left lung, right lung, heart" in ended.out


def test_explain_names_a_presentation_state_and_a_screenshot(
    pacs_ai: Command, tmp_path: Path
) -> None:
    when = datetime(2026, 11, 23, 14, tzinfo=UTC)
    films = phantom.chest_radiographs(name="kinds", when=when, opacity=False)
    films[0].ImageType = ["DERIVED", "PRIMARY", "SCREEN SAVE"]
    films[1].SOPClassUID = GrayscaleSoftcopyPresentationStateStorage
    for name, film in zip(("screen.dcm", "state.dcm"), films, strict=True):
        film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID
        film.save_as(tmp_path / name, enforce_file_format=True)
    ended = pacs_ai("explain", tmp_path)
    assert "state.dcm: it is a presentation state (SOPClassUID is Grayscale" in ended.err
    assert "it is a screenshot (ImageType has SCREEN SAVE)" in ended.out
    assert "nothing is run" in ended.out


@pytest.mark.parametrize(
    ("place", "said"),
    [("a-file", "a-file is a file: give --out a folder"), ("out", "no DICOM file is there")],
)
def test_process_without_a_folder_or_files_says_so(
    pacs_ai: Command, tmp_path: Path, place: str, said: str
) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "empty").mkdir()
    config = write_config(tmp_path, endpoints={}, rules=[])
    ended = pacs_ai("process", tmp_path / "empty", "--out", tmp_path / place, "--config", config)
    assert ended.code in (1, 2)
    assert said in ended.err
    assert "results in" not in ended.out


def test_explain_of_no_dicom_file_ends_with_1(pacs_ai: Command, tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("not DICOM")
    ended = pacs_ai("explain", path)
    assert ended.code == 1
    assert "letter.txt: not a DICOM file" in ended.err
