"""Asking and steering a gateway: where a Study stands, what is held, what is paused, what goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from pacs_ai.gateway import Gateway
from pacs_ai.intake import Context, Stored
from pacs_ai.settings import load
from pacs_ai.spool import SpoolFullError, Writer
from tests.integration.listening import CT, encoded, image
from tests.unit.cli.conftest import Command, begun, write_config
from tests.unit.test_tally import send

SYNTAX = "1.2.840.10008.1.2.1"


def take_in(config: Path, *data_sets: Dataset) -> None:
    """Receive Instances and carry out all work that is ready."""
    gateway = Gateway(load(config))
    try:
        for one in data_sets:
            incoming = gateway.incoming("demo", Context(CT, str(one.SOPInstanceUID), SYNTAX))
            incoming.write(encoded(one))
            assert isinstance(incoming.commit(), Stored)
            incoming.discard()
        while any(gateway.carry_out(queue) for queue in Gateway.queue_names(gateway.settings)):
            pass
    finally:
        gateway.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return begun(write_config(tmp_path))


@pytest.fixture
def brain(config: Path) -> Dataset:
    """A Study that no rule takes, received and routed."""
    made = image(
        BodyPartExamined="HEAD",
        AccessionNumber="ACC-1",
        StudyDescription="Head",
        PatientID="ID-4711",  # no UID or digest has it by chance
    )
    take_in(config, made)
    return made


def test_a_new_gateway_has_nothing_to_tell(pacs_ai: Command, config: Path) -> None:
    ended = pacs_ai("status", "--config", config)
    assert ended.code == 0
    ended = pacs_ai("status", "--json", "--config", config)
    assert json.loads(ended.out)["studies"] == []


def test_refusals_and_a_spool_that_failed_stand_on_top(
    pacs_ai: Command, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(load(config))
    with monkeypatch.context() as patched:
        patched.setattr(Writer, "sync", fail)
        assert send(gateway, peer="demo") == 0xA700
    gateway.close()
    said = pacs_ai("status", "--config", config).out
    assert said.startswith("PROBLEM: the spool did not take bytes at ")
    assert "refused: 1 with 0xA700 (out of resources: disk or ledger)" in said
    told = json.loads(pacs_ai("status", "--json", "--config", config).out)
    assert told["healthy"] is False
    assert told["refused"]["0xA700"]["number"] == 1
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert "look at its disk" in ended.err


def test_a_nearly_full_disk_stands_on_top(pacs_ai: Command, tmp_path: Path) -> None:
    config = begun(write_config(tmp_path, listener={"minimum_free": "1000TB"}))
    said = pacs_ai("status", "--config", config).out
    assert said.startswith("PROBLEM: ")
    assert "every Instance is refused: make room" in said


def fail(*_: object) -> None:
    raise SpoolFullError("the spool cannot be written")


def test_every_study_is_listed_with_its_state_and_why(
    pacs_ai: Command, config: Path, brain: Dataset
) -> None:
    ended = pacs_ai("status", "--json", "--config", config)
    assert ended.code == 0
    (study,) = json.loads(ended.out)["studies"]
    assert study["StudyInstanceUID"] == brain.StudyInstanceUID
    assert study["state"] == "no_rule"
    assert "ct-chest:" in study["reason"]
    assert "leaves out nothing" not in study["reason"]
    assert study["instances"] == {"source": 1}
    table = pacs_ai("status", "--config", config).out
    assert "no_rule" in table
    assert str(brain.StudyInstanceUID) in table, "a UID in two pieces is not found"


@pytest.mark.parametrize("key", ["study", "accession"])
def test_a_study_is_found_by_its_uid_and_by_its_accession_number(
    pacs_ai: Command, config: Path, brain: Dataset, key: str
) -> None:
    value = {"study": brain.StudyInstanceUID, "accession": "ACC-1"}[key]
    ended = pacs_ai("status", f"--{key}", value, "--json", "--config", config)
    assert ended.code == 0
    (timeline,) = json.loads(ended.out)
    assert timeline["StudyInstanceUID"] == brain.StudyInstanceUID
    assert {"versions", "verdicts", "work", "events"} <= timeline.keys()
    said = pacs_ai("status", f"--{key}", value, "--config", config).out
    assert "rule ct-chest: no:" in said
    assert "version 1 frozen" in said


@pytest.mark.parametrize("key", ["study", "accession"])
def test_an_unknown_study_ends_with_1_and_says_what_to_check(
    pacs_ai: Command, config: Path, brain: Dataset, key: str
) -> None:
    ended = pacs_ai("status", f"--{key}", "1.2.3.4.5", "--config", config)
    assert (ended.code, ended.out) == (1, "")
    assert (
        "no such Study is held: check its UID or Accession Number, and the peer's send log"
        in ended.err
    )


def test_a_status_names_no_patient(pacs_ai: Command, config: Path, brain: Dataset) -> None:
    uid = brain.StudyInstanceUID
    for arguments in (["status"], ["status", "--study", uid], ["instances"]):
        for form in ([], ["--json"] if arguments[0] == "status" else []):
            said = pacs_ai(*arguments, *form, "--config", config).out
            assert "Doe" not in said
            assert brain.PatientID not in said


def test_instances_prints_the_digest_of_what_was_sent_one_a_line(
    pacs_ai: Command, config: Path
) -> None:
    sent = [image(), image()]
    take_in(config, *sent)
    ended = pacs_ai("instances", "--config", config)
    assert ended.code == 0
    expected = [
        f"{one.SOPInstanceUID} {hashlib.sha256(encoded(one)).hexdigest()} source kept"
        for one in sent
    ]
    assert ended.out.splitlines() == expected
    study = sent[1].StudyInstanceUID
    of_one = pacs_ai("instances", "--study", study, "--config", config).out
    assert of_one.splitlines() == expected[1:]


def test_paused_routing_stops_at_once_and_goes_on_after_resume(
    pacs_ai: Command, config: Path
) -> None:
    ended = pacs_ai("pause", "routing", "--config", config)
    assert (ended.code, ended.out.strip()) == (
        0,
        "routing is paused; everything else goes on, and nothing is lost",
    )
    made = image()
    take_in(config, made)
    said = pacs_ai("status", "--config", config).out
    assert "PAUSED: routing (pacs-ai resume routing)" in said
    report = json.loads(pacs_ai("status", "--json", "--config", config).out)
    assert report["paused"] == ["routing"]
    assert [one["state"] for one in report["studies"]] == ["running"]
    assert pacs_ai("resume", "routing", "--config", config).out.strip() == "routing goes on"
    take_in(config)
    report = json.loads(pacs_ai("status", "--json", "--config", config).out)
    assert report["paused"] == []
    assert [one["state"] for one in report["studies"]] == ["no_rule"]


def test_held_work_goes_on_when_a_person_releases_it(pacs_ai: Command, tmp_path: Path) -> None:
    config = write_config(tmp_path, identity="strict")
    nameless = image(PatientName="", PatientID="")
    study = nameless.StudyInstanceUID
    take_in(config, nameless)
    (held,) = json.loads(pacs_ai("status", "--json", "--config", config).out)["studies"]
    assert held["state"] == "held"
    assert "has no PatientID: correct it at the sender" in held["reason"]
    write_config(tmp_path, identity="lenient")
    ended = pacs_ai("release", study, "--config", config)
    assert (ended.code, ended.out.strip()) == (0, "1 piece of work starts again")
    take_in(config)
    (study_line,) = json.loads(pacs_ai("status", "--json", "--config", config).out)["studies"]
    assert study_line["state"] == "no_rule"
    assert pacs_ai("release", study, "--config", config).code == 1


def test_contradicting_instances_are_not_released_without_a_word_which_count(
    pacs_ai: Command, tmp_path: Path
) -> None:
    config = write_config(tmp_path)
    one = image(PatientID="ID-1")
    study = one.StudyInstanceUID
    take_in(config, one)
    one.PatientID = "ID-2"
    take_in(config, one)
    ended = pacs_ai("release", study, "--config", config)
    assert (ended.code, ended.out) == (1, "")
    assert "say it with --take first or --take newest" in ended.err
    assert pacs_ai("release", study, "--take", "first", "--config", config).code == 0
    take_in(config)
    (line,) = json.loads(pacs_ai("status", "--json", "--config", config).out)["studies"]
    assert line["state"] == "no_rule"


def test_a_study_that_is_not_there_is_told_and_ends_with_1(pacs_ai: Command, config: Path) -> None:
    for command in ("release 1.2.3", "instances --study 1.2.3", "status --study 1.2.3"):
        ended = pacs_ai(*command.split(), "--config", config)
        assert (ended.code, ended.out) == (1, "")
        assert "no such Study is held" in ended.err


def test_the_disk_and_what_can_be_freed_are_told(
    pacs_ai: Command, config: Path, brain: Dataset
) -> None:
    size = len(encoded(brain))
    for command in ("status", "check"):
        said = pacs_ai(command, "--config", config).out
        assert "disk: " in said
        assert f"spool: {size} B kept" in said
        assert f"retention of sources: 0 B now, {size} B later; the next on 20" in said
    disk = json.loads(pacs_ai("status", "--json", "--config", config).out)["disk"]
    assert disk["watermark"] == 1
    assert disk["free"] > disk["watermark"]
    assert (disk["kept"], disk["sources"]["later"]) == (size, size)
