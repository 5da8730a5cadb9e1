"""The seven steps with real ledger, spool and encoders; only the models are played."""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import yaml
from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from pacs_ai import commits, delivery, models, phantom, routing
from pacs_ai.cli.files import data_set_bytes
from pacs_ai.delivery import Answer, Outgoing, Receipt
from pacs_ai.encoding import segmentation
from pacs_ai.gateway import Gateway
from pacs_ai.intake import Context, Stored
from pacs_ai.ledger.views import Views
from pacs_ai.results import Axis, Segmentation
from pacs_ai.settings import load
from pacs_ai.uids import derived_uid
from tests.unfinished import unfinished
from tests.unit import fake_models
from tests.unit.encoding import sources as make
from tests.unit.pixels.slide import picture, slide

pytestmark = pytest.mark.usefixtures("one_decoder")
LONG = "L" * 80
DEMO = Path(__file__).parents[2] / "config/demo.yaml"


@pytest.fixture(scope="session")
def radiographs() -> tuple[pydicom.Dataset, ...]:
    """Two views of a chest, with every fourth row and column: what is told here is not in the pixels."""
    films = phantom.chest_radiographs(name="gateway", when=datetime.now(UTC), opacity=False)
    for film in films:
        picture = film.pixel_array[::4, ::4]
        film.Rows, film.Columns = picture.shape
        film.PixelData = picture.tobytes()
        film.ImagerPixelSpacing = [4 * one for one in film.ImagerPixelSpacing]
    return films


class Driver:
    """A gateway whose work is carried out in the test's own process."""

    def __init__(self, folder: Path, ledger_url: str, **sections: Any) -> None:
        values = yaml.safe_load(DEMO.read_text())
        values["ledger"] = ledger_url
        values["data"] = str(folder / "gateway")
        values["peers"]["demo"]["quiet"] = "0s"
        values["destinations"]["results"]["path"] = str(folder / "results")
        values["rules"][0]["run"] = ["parse2d", "cxrreport"]
        values["rules"][0]["run"][0] = {"parse2d": ["left lung"]}
        values["work"] = {"backoff": ["10ms"]}
        values.update(sections)
        path = folder / "settings.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        self.gateway = Gateway(load(path))
        self.views = Views(self.gateway.ledger.database)

    def receive(
        self,
        *data_sets: pydicom.Dataset,
        peer: str = "demo",
        damage: Callable[[bytes], bytes] = bytes,
    ) -> None:
        for data_set in data_sets:
            buffer = BytesIO()
            data_set.save_as(buffer, enforce_file_format=True)
            context = Context(
                str(data_set.SOPClassUID),
                str(data_set.SOPInstanceUID),
                str(data_set.file_meta.TransferSyntaxUID),
            )
            incoming = self.gateway.incoming(peer, context)
            incoming.write(damage(data_set_bytes(buffer.getvalue())))
            self.answer = incoming.commit()
            incoming.discard()

    def carry_out(self) -> None:
        """Carry out everything that is ready; what is put off for 10 ms may be ready again at once."""
        queues = Gateway.queue_names(self.gateway.settings)
        for _ in range(100):
            if not sum(self.gateway.carry_out(queue) for queue in queues):
                break

    def timeline(self, study: str) -> dict[str, Any]:
        return self.views.timeline(study)


@pytest.fixture
def driver(
    tmp_path: Path, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Driver]]:
    fake_models.calls.clear()
    made: list[Driver] = []

    def make(*, parse2d: str = "lungs", cxrreport: str = "nothing", **sections: Any) -> Driver:
        monkeypatch.setitem(models.MODELS, "parse2d", f"tests.unit.fake_models:{parse2d}")
        monkeypatch.setitem(models.MODELS, "cxrreport", f"tests.unit.fake_models:{cxrreport}")
        made.append(Driver(tmp_path, ledger_url, **sections))
        return made[-1]

    yield make
    for one in made:
        one.gateway.close()


def _study(data_sets: Sequence[pydicom.Dataset]) -> str:
    return str(data_sets[0].StudyInstanceUID)


def _changed(data_set: pydicom.Dataset, **values: Any) -> pydicom.Dataset:
    copy = deepcopy(data_set)
    for keyword, value in values.items():
        setattr(copy, keyword, value)
    return copy


def _repeat(data_set: pydicom.Dataset, name: str, **values: Any) -> pydicom.Dataset:
    """Return another Instance of the same Series."""
    copy = _changed(data_set, SOPInstanceUID=derived_uid("instance", name), **values)
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    return copy


def _note(data_set: pydicom.Dataset, *, title: str) -> pydicom.Dataset:
    """Return a Key Object Selection with a title (PS3.16 CID 7010) that refers to an Instance."""
    note = pydicom.Dataset()
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "StudyTime"):
        setattr(note, keyword, data_set[keyword].value)
    note.SOPClassUID = KeyObjectSelectionDocumentStorage
    note.SOPInstanceUID, note.SeriesInstanceUID = "2.25.901", "2.25.902"
    note.Modality, note.Manufacturer = "KO", "a PACS"
    name = pydicom.Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = title, "DCM", "a title"
    note.ConceptNameCodeSequence = [name]
    reference, series, study = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    reference.ReferencedSOPClassUID = data_set.SOPClassUID
    reference.ReferencedSOPInstanceUID = data_set.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "2.25.903", [reference]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = note.StudyInstanceUID, [series]
    note.CurrentRequestedProcedureEvidenceSequence = [study]
    note.file_meta = pydicom.dataset.FileMetaDataset()
    note.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    note.file_meta.MediaStorageSOPClassUID = note.SOPClassUID
    note.file_meta.MediaStorageSOPInstanceUID = note.SOPInstanceUID
    return note


# ------------------------------------------------------------------ route


@pytest.mark.parametrize(
    ("title", "taken"), [("113001", "first"), ("113038", "first"), ("113000", "second")]
)
def test_what_a_rejection_note_of_the_study_names_reaches_no_model(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    title: str,
    taken: str,
) -> None:
    one = driver()
    repeat = _repeat(radiographs[0], "repeat", AcquisitionTime="235959")
    one.receive(radiographs[0], repeat, _note(repeat, title=title))
    one.carry_out()
    expected = radiographs[0] if taken == "first" else repeat
    frontals = [job.inputs["frontal"][0].SOPInstanceUID for job in fake_models.calls]
    assert frontals == [expected.SOPInstanceUID] * 2
    verdicts = one.timeline(_study(radiographs))["verdicts"]
    assert any("rejects them" in each["deciding"] for each in verdicts) is (taken == "first")


# ------------------------------------------------------------------ assemble


def test_a_study_passes_every_step_and_ends_in_one_state(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver()
    one.receive(*radiographs)
    assert one.answer == Stored()
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "nothing_found"
    assert "not a normal result" in timeline["reason"]
    kinds = sorted(made["kind"] for made in timeline["objects"])
    assert kinds == ["capture", "report", "segmentation"]
    assert {delivery["state"] for delivery in timeline["deliveries"]} == {"stored"}
    assert "no Instance arrived" in timeline["versions"][0]["evidence"]


@pytest.mark.parametrize("vr", [b"QH", b"SL"])
def test_an_accession_number_that_cannot_be_read_fails_the_study_at_once_and_is_named(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...], vr: bytes
) -> None:
    one = driver()
    numbered = [_changed(each, AccessionNumber="A1") for each in radiographs]
    accession = b"\x08\x00\x50\x00"
    one.receive(*numbered, damage=lambda data: data.replace(accession + b"SH", accession + vr))
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "failed"
    assert "AccessionNumber of Instance 2.25." in timeline["reason"]
    assert {row["strikes"] for row in timeline["work"]} == {0}


def test_the_same_bytes_again_start_nothing(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver()
    one.receive(*radiographs)
    one.carry_out()
    before = one.timeline(_study(radiographs))
    one.receive(*radiographs)
    one.carry_out()
    after = one.timeline(_study(radiographs))
    assert after["work"] == before["work"]
    assert after["instances"] == before["instances"]


def test_a_late_instance_makes_a_version_that_runs_only_what_changed(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    frontal, lateral = radiographs
    one = driver()
    one.receive(frontal)
    one.carry_out()
    first = one.timeline(_study(radiographs))
    one.receive(lateral)
    one.carry_out()
    second = one.timeline(_study(radiographs))
    assert [version["number"] for version in second["versions"]] == [1, 2]
    assert second["versions"][0]["superseded"] is not None
    # The lateral view changes what the report model is given, and nothing for the frontal masks.
    assert [job.kind for job in fake_models.calls].count("parse2d") == 1
    assert [job.kind for job in fake_models.calls].count("cxrreport") == 2
    superseded = {made["kind"] for made in second["objects"] if made["superseded"]}
    assert superseded == {"report", "capture"}
    masks = [made for made in second["objects"] if made["kind"] == "segmentation"]
    assert masks == [made for made in first["objects"] if made["kind"] == "segmentation"]
    sent = [len(d["receipts"]) for d in second["deliveries"] if d["kind"] == "segmentation"]
    assert sent == [1]


def test_a_late_derived_instance_starts_nothing(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver()
    one.receive(*radiographs)
    one.carry_out()
    before = one.timeline(_study(radiographs))
    late = _repeat(radiographs[0], "mpr", Modality="SR")
    one.receive(late)
    one.carry_out()
    after = one.timeline(_study(radiographs))
    assert after["work"] == before["work"]
    assert after["instances"] == {"source": 2, "derived": 1}


def test_our_own_results_sent_back_are_recognised_and_start_nothing(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...], tmp_path: Path
) -> None:
    one = driver()
    one.receive(*radiographs)
    one.carry_out()
    before = one.timeline(_study(radiographs))
    returned = [pydicom.dcmread(path) for path in sorted((tmp_path / "results").rglob("*.dcm"))]
    assert len(returned) == 3
    one.receive(*returned)
    one.carry_out()
    after = one.timeline(_study(radiographs))
    assert after["instances"] == {"source": 2, "own": 3}
    assert after["work"] == before["work"]


def test_a_corrected_name_makes_new_results_under_the_corrected_name(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...], tmp_path: Path
) -> None:
    one = driver()
    one.receive(*radiographs)
    one.carry_out()
    one.receive(*(_changed(data_set, PatientName="Phantom^Corrected") for data_set in radiographs))
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "nothing_found"
    assert len(timeline["versions"]) == 2
    current = {m["SOPInstanceUID"] for m in timeline["objects"] if not m["superseded"]}
    files = [pydicom.dcmread(path) for path in (tmp_path / "results").rglob("*.dcm")]
    names = {str(file.PatientName) for file in files if file.SOPInstanceUID in current}
    assert names == {"Phantom^Corrected"}


def test_other_pixels_under_the_same_uid_hold_the_study_and_keep_both(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver()
    one.receive(*radiographs)
    one.carry_out()
    flipped = _changed(radiographs[0], PixelData=bytes(reversed(radiographs[0].PixelData)))
    one.receive(flipped)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "held"
    assert str(radiographs[0].SOPInstanceUID) in timeline["reason"]
    assert len(timeline["versions"]) == 1
    assert timeline["instances"] == {"source": 3}


def test_two_patients_in_one_study_hold_it(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver()
    one.receive(radiographs[0], _changed(radiographs[1], PatientID="SOMEONE-ELSE"))
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "held"
    assert "more than one patient" in timeline["reason"]
    assert "SOMEONE-ELSE" not in str(timeline)
    assert not fake_models.calls


def test_strict_identity_holds_and_names_the_element(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver(identity="strict")
    one.receive(*(_changed(data_set, PatientName="") for data_set in radiographs))
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "held"
    assert "has no PatientName" in timeline["reason"]


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName"])
def test_strict_identity_holds_what_no_result_could_carry(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...], keyword: str
) -> None:
    one = driver(identity="strict")
    one.receive(*radiographs, damage=lambda data: _lengthened(data, keyword))
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "held"
    assert f"has a {keyword} that breaks the rules" in timeline["reason"]
    assert LONG not in str(timeline)


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("PatientName", "^", "has no PatientName"),
        ("PatientID", "A\\B", "has a PatientID that breaks the rules"),
    ],
)
def test_strict_identity_is_one_id_and_one_name(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    keyword: str,
    value: str,
    said: str,
) -> None:
    one = driver(identity="strict")
    one.receive(*(_changed(film, **{keyword: value}) for film in radiographs))
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert (timeline["state"], said in timeline["reason"]) == ("held", True)


def _lengthened(data: bytes, keyword: str) -> bytes:
    """Return a data set, Explicit VR Little Endian, with 80 letters in an element."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    start = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    (length,) = struct.unpack_from("<H", data, start + 6)
    value = struct.pack("<H", len(LONG)) + LONG.encode()
    return data[: start + 6] + value + data[start + 8 + length :]


@pytest.mark.parametrize(
    ("date", "reason"),
    [
        ((datetime.now(UTC) - timedelta(days=4)).strftime("%Y%m%d"), "max_age"),
        ("", "undated"),
        ((datetime.now(UTC) + timedelta(days=9)).strftime("%Y%m%d"), "future"),
    ],
)
def test_what_is_not_current_starts_nothing(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    date: str,
    reason: str,
) -> None:
    one = driver(defaults={"max_age": "48h"})
    one.receive(*(_changed(d, StudyDate=date, SeriesDate="") for d in radiographs))
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "not_current"
    assert reason in timeline["reason"]
    assert not timeline["jobs"]
    assert not timeline["workitems"]


def test_a_study_is_not_frozen_before_its_quiet_period_is_over(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    peers = {"demo": {"ae_titles": ["DEMO"], "quiet": "1h"}}
    one = driver(peers=peers)
    one.receive(*radiographs)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "receiving"
    assert not timeline["versions"]


# ------------------------------------------------------------------ route


def test_a_study_that_no_rule_took_says_which_rules_said_no(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver()
    one.receive(*(_changed(data_set, BodyPartExamined="KNEE") for data_set in radiographs))
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "no_rule"
    assert "cxr-adult: BodyPartExamined is KNEE" in timeline["reason"]
    assert not timeline["objects"]


def test_paused_routing_waits_and_goes_on(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver()
    one.gateway.ledger.set_switch("routing", actor="anna", paused=True)
    one.receive(*radiographs)
    one.carry_out()
    assert not fake_models.calls
    assert one.views.health()["paused"] == ["routing"]
    one.gateway.ledger.set_switch("routing", actor="anna", paused=False)
    one.carry_out()
    assert one.timeline(_study(radiographs))["state"] == "nothing_found"


# ------------------------------------------------------------------ infer


@pytest.mark.parametrize(
    ("cxrreport", "state", "reason"),
    [
        ("opacity", "done", "results are there"),
        ("nothing", "nothing_found", "not a normal result"),
        ("held", "held", "another model version"),
        ("broken", "failed", "the endpoint answered 400"),
    ],
)
def test_every_outcome_is_one_visible_state(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    cxrreport: str,
    state: str,
    reason: str,
) -> None:
    one = driver(cxrreport=cxrreport)
    one.receive(*radiographs)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == state
    assert reason in timeline["reason"]
    # What the other model found is there all the same, and so is the page that says both.
    assert {"segmentation", "capture"} <= {made["kind"] for made in timeline["objects"]}


def test_a_study_that_suits_no_model_says_why(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver(parse2d="unsuitable", cxrreport="unsuitable")
    one.receive(*radiographs)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "not_suitable"
    assert "send a radiograph" in timeline["reason"]


def test_an_endpoint_that_is_away_starves_no_other(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver(cxrreport="away", work={"backoff": ["1h"]})
    one.receive(*radiographs)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "running"
    states = {job["endpoint"]: job["outcome"] for job in timeline["jobs"]}
    assert states["parse2d"] == "done"
    assert [made["kind"] for made in timeline["objects"]] == ["segmentation"]


# ------------------------------------------------------------------ deliver


def test_held_delivery_makes_results_and_sends_none(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...], tmp_path: Path
) -> None:
    one = driver(delivery="hold")
    one.receive(*radiographs)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["objects"]
    assert {delivery["state"] for delivery in timeline["deliveries"]} == {"withheld"}
    assert not (tmp_path / "results").exists()


def test_paused_delivery_waits_and_goes_on(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...], tmp_path: Path
) -> None:
    one = driver()
    one.gateway.ledger.set_switch("delivery", actor="anna", paused=True)
    one.receive(*radiographs)
    one.carry_out()
    assert not list((tmp_path / "results").rglob("*.dcm"))
    one.gateway.ledger.set_switch("delivery", actor="anna", paused=False)
    one.carry_out()
    assert len(list((tmp_path / "results").rglob("*.dcm"))) == 3


def test_the_basic_profile_gets_the_page_and_no_mask_on_a_projection(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...], tmp_path: Path
) -> None:
    results = {"kind": "folder", "path": str(tmp_path / "results")}
    one = driver(destinations={"results": results})
    one.receive(*radiographs)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert [delivery["kind"] for delivery in timeline["deliveries"]] == ["capture"]


class FakePacs:
    """Answers as a test wishes, and keeps what it was sent."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.batches: list[dict[str, bytes]] = []

    def send(self, batch: tuple[Outgoing, ...], destination: object) -> tuple[Receipt, ...]:
        answer = self.answers.pop(0) if self.answers else Answer.STORED
        self.batches.append({one.SOPInstanceUID: one.path.read_bytes() for one in batch})
        return tuple(Receipt(one.SOPInstanceUID, answer, None, "as played") for one in batch)


def test_masks_on_a_slide_are_on_no_volume(driver: Callable[..., Driver], tmp_path: Path) -> None:
    (tmp_path / "slide").mkdir()
    source = slide(tmp_path / "slide", picture(70, 130))
    array = np.ones((1, 32, 48), np.bool_)
    label = "epithelial breast cells"
    mask = Segmentation(label, array, (source.SOPInstanceUID,), label, (2,), Axis.FRAMES)
    work = make.encoding(make.study([source]), make.entry(mask, sources=[source.SOPInstanceUID]))
    (data_set,) = segmentation.encode(work)
    assert "FrameOfReferenceUID" in data_set
    assert not driver().gateway._store(data_set, kind="segmentation", key="k").volumetric


def _with_pacs(
    monkeypatch: pytest.MonkeyPatch, make: Callable[..., Driver], pacs: FakePacs
) -> Driver:
    monkeypatch.setattr("tests.unit.test_gateway.FakePacs.current", pacs, raising=False)
    monkeypatch.setitem(delivery.DESTINATIONS, "folder", "tests.unit.test_gateway:send_to_pacs")
    return make(parse2d="lungs", cxrreport="unsuitable")


def send_to_pacs(batch: tuple[Outgoing, ...], destination: object) -> tuple[Receipt, ...]:
    current: FakePacs = FakePacs.current  # type: ignore[attr-defined]
    return current.send(batch, destination)


@pytest.mark.parametrize("answer", [Answer.LATER, Answer.UNKNOWN])
def test_what_may_or_may_not_have_arrived_goes_again_unchanged(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
) -> None:
    pacs = FakePacs(*[answer] * 2)
    one = _with_pacs(monkeypatch, driver, pacs)
    one.receive(*radiographs)
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while one.timeline(_study(radiographs))["state"] != "done":
        one.carry_out()
        assert datetime.now(UTC) < deadline
    sent: dict[str, set[bytes]] = {}
    for batch in pacs.batches:
        for uid, data in batch.items():
            sent.setdefault(uid, set()).add(data)
    assert len(pacs.batches) > 2
    assert {len(versions) for versions in sent.values()} == {1}
    receipts = one.timeline(_study(radiographs))["deliveries"][0]["receipts"]
    assert [receipt["answer"] for receipt in receipts][-1] == "stored"


def test_a_refusal_for_good_is_seen_and_not_sent_again(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pacs = FakePacs(*[Answer.REFUSED] * 9)
    one = _with_pacs(monkeypatch, driver, pacs)
    one.receive(*radiographs)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "failed"
    assert "refused" in timeline["reason"]
    uids = [uid for batch in pacs.batches for uid in batch]
    assert len(uids) == len(set(uids))


# ------------------------------------------------------------------ worklist


def test_a_present_finding_is_listed_once_and_a_failure_tells_imaging_it(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    worklist = [
        {
            "when": {"finding": "lung opacity", "assertion": "present"},
            "label": "AI-CXR-REVIEW",
            "priority": "HIGH",
            "performers": ["thoracic"],
        },
        {"when": {"state": ["failed"]}, "label": "AI-STATUS", "audience": "imaging-it"},
    ]
    one = driver(parse2d="broken", cxrreport="opacity", worklist=worklist)
    one.receive(*radiographs)
    one.carry_out()
    items = one.timeline(_study(radiographs))["workitems"]
    assert {(item["label"], item["priority"]) for item in items} == {
        ("AI-CXR-REVIEW", "HIGH"),
        ("AI-STATUS", "MEDIUM"),
    }
    (reader,) = [item for item in items if item["label"] == "AI-CXR-REVIEW"]
    assert "unverified AI" in reader["comments"]
    found = one.views.workitem(reader["uid"])
    assert found is not None
    assert found["00080018"]["Value"] == [reader["uid"]]


def test_an_absent_finding_lists_nothing(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver()
    one.receive(*radiographs)
    one.carry_out()
    assert not one.timeline(_study(radiographs))["workitems"]


# ------------------------------------------------------------------ versions overtake work


def test_what_a_later_version_does_not_ask_for_is_neither_run_nor_sent(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    frontal, lateral = radiographs
    one = driver(cxrreport="opacity")
    one.receive(frontal)
    for step in (one.gateway.assemble, one.gateway.route):
        assert step()
    one.receive(lateral)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert [job.kind for job in fake_models.calls].count("cxrreport") == 1
    states = [w["state"] for w in timeline["work"] if w["queue"] == "infer.cxrreport"]
    assert sorted(states) == ["done", "superseded"]
    assert timeline["state"] == "done"


def test_results_that_were_overtaken_while_they_were_made_are_kept_and_not_sent(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    frontal, lateral = radiographs
    one = driver(cxrreport="opacity")
    one.receive(frontal)
    for step in (one.gateway.assemble, one.gateway.route):
        assert step()
    assert one.gateway.infer("cxrreport")
    with one.gateway.ledger.claim("encode") as slow:
        assert slow is not None
        subject, order, encoders = one.gateway._encoders(slow.claimed)
        made = [
            one.gateway._store(data_set, kind=kind, key=subject.key)
            for kind, encoder in encoders.items()
            for data_set in encoder(order)
        ]
        one.receive(lateral)
        _step(one, "assemble", "route")
        with slow.commit() as commit:
            commits.encoded(commit, subject, made, one.gateway.settings)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    superseded = [m["SOPInstanceUID"] for m in timeline["objects"] if m["superseded"]]
    assert len(superseded) == 1
    states = {d["state"] for d in timeline["deliveries"] if d["SOPInstanceUID"] in superseded}
    assert states <= {"superseded"}
    assert timeline["state"] == "done"


def test_a_version_that_asks_again_for_superseded_work_gets_it(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    frontal, _ = radiographs
    renamed = _changed(frontal, PatientName="Phantom^Corrected")
    one = driver(cxrreport="opacity")
    for data_set in (frontal, renamed):
        one.receive(data_set)
        for step in (one.gateway.assemble, one.gateway.route):
            assert step()
    again = _changed(frontal, PatientComments="the name as it was at first")
    one.receive(again)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "done"
    assert len(timeline["versions"]) == 3
    assert [job["outcome"] for job in timeline["jobs"]] == ["done", "done"]


def test_every_step_says_what_it_did(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver(cxrreport="opacity")
    one.receive(*radiographs)
    one.carry_out()
    said = {e["kind"]: e["reason"] for e in one.timeline(_study(radiographs))["events"]}
    assert "2 Instances: no Instance arrived" in said["assemble done"]
    assert said["route done"] == "2 Jobs by cxr-adult"
    assert "stored at results" in said["deliver done"]


def _step(one: Driver, *names: str) -> None:
    for name in names:
        assert getattr(one.gateway, name)()


def _objects(timeline: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [made for made in timeline["objects"] if made["kind"] == kind]


def test_an_old_version_routed_late_takes_nothing_from_the_newer_one(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    frontal, lateral = radiographs
    one = driver(cxrreport="opacity")
    one.receive(frontal)
    _step(one, "assemble")
    with one.gateway.ledger.claim("route") as slow:
        assert slow is not None
        version, study, rows = one.gateway.records.version(slow.claimed.subject)
        routed = routing.route(study, one.gateway.rules, now=datetime.now(UTC))
        one.receive(lateral)
        _step(one, "assemble", "route")
        with slow.commit() as commit:
            commits.routed(commit, version, routed, rows, one.gateway.settings)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "done"
    assert [job["outcome"] for job in timeline["jobs"]] == ["done", "done"]
    assert [len(job.instances) for job in fake_models.calls if job.kind == "cxrreport"] == [2]


def test_an_instance_that_comes_while_a_study_is_assembled_is_not_left_out(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    frontal, lateral = radiographs
    one = driver()
    one.receive(frontal)
    with one.gateway.ledger.claim("assemble") as slow:
        assert slow is not None
        gathered = one.gateway.records.gather(slow.claimed.study)
        assert gathered is not None
        one.receive(lateral)
        _step(one, "assemble")
        with slow.commit() as commit:
            commits.assembled(
                commit, gathered, one.gateway.settings, asked_at=slow.claimed.created_at
            )
    one.carry_out()
    assert fake_models.calls[-1].kind == "cxrreport"
    assert len(fake_models.calls[-1].instances) == 2
    assert len(one.timeline(_study(radiographs))["versions"]) == 1


def test_a_late_page_of_an_old_version_is_kept_and_not_sent(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver(cxrreport="opacity")
    one.receive(radiographs[0])
    _step(one, "assemble", "route")
    assert one.gateway.infer("cxrreport")
    assert one.gateway.infer("parse2d")
    one.receive(_changed(radiographs[0], PatientName="Phantom^Corrected"))
    _step(one, "assemble")
    # The page of the first version is ready before the second version is routed; it comes late.
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    current = [page for page in _objects(timeline, "capture") if not page["superseded"]]
    assert len(current) == 1
    stored = {d["SOPInstanceUID"] for d in timeline["deliveries"] if d["state"] == "stored"}
    assert current[0]["SOPInstanceUID"] in stored
    assert timeline["state"] == "done"


def test_empty_masks_beside_a_present_finding_are_not_nothing_found(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver(parse2d="nothing", cxrreport="opacity")
    one.receive(*radiographs)
    one.carry_out()
    assert one.timeline(_study(radiographs))["state"] == "done"


def test_a_refusal_stays_seen_while_the_rest_is_sent_and_is_sent_again_on_release(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pacs = FakePacs(Answer.REFUSED)
    one = _with_pacs(monkeypatch, driver, pacs)
    one.receive(*radiographs)
    one.carry_out()
    study = _study(radiographs)
    assert one.timeline(study)["state"] == "failed"
    assert one.gateway.ledger.release(study, actor="anna")
    one.carry_out()
    timeline = one.timeline(study)
    assert timeline["state"] == "done"
    assert {delivery["state"] for delivery in timeline["deliveries"]} == {"stored"}


def test_a_page_is_made_again_when_a_released_job_came_to_something(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = driver(cxrreport="broken")
    one.receive(*radiographs)
    one.carry_out()
    study = _study(radiographs)
    assert len(_objects(one.timeline(study), "capture")) == 1
    monkeypatch.setitem(models.MODELS, "cxrreport", "tests.unit.fake_models:opacity")
    assert one.gateway.ledger.release(study, actor="anna")
    one.carry_out()
    pages = _objects(one.timeline(study), "capture")
    assert [page["superseded"] is None for page in pages] == [False, True]
    assert one.timeline(study)["state"] == "done"


def test_identity_that_was_missing_is_mended_by_sending_it(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver(identity="strict")
    one.receive(*(_changed(data_set, PatientID="", PatientName="") for data_set in radiographs))
    one.carry_out()
    study = _study(radiographs)
    assert one.timeline(study)["state"] == "held"
    one.receive(*radiographs)
    one.gateway.ledger.release(study, actor="anna")
    one.carry_out()
    assert one.timeline(study)["state"] == "nothing_found"


@pytest.mark.parametrize(("take", "name"), [("first", "PHANTOM-1"), ("newest", "CORRECTED")])
def test_a_person_settles_a_conflict(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    tmp_path: Path,
    take: str,
    name: str,
) -> None:
    one = driver()
    one.receive(*radiographs)
    one.receive(*(_changed(data_set, PatientID="CORRECTED") for data_set in radiographs))
    one.carry_out()
    study = _study(radiographs)
    assert one.timeline(study)["state"] == "held"
    one.gateway.ledger.release(study, actor="anna", take=take)
    one.carry_out()
    assert one.timeline(study)["state"] == "nothing_found"
    results = [pydicom.dcmread(path) for path in (tmp_path / "results").rglob("*.dcm")]
    assert {str(result.PatientID) for result in results} == {name}


@pytest.mark.parametrize("keyword", ["PatientBirthDate", "PatientSex"])
def test_the_same_patient_id_with_another_birth_date_or_sex_is_held(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...], keyword: str
) -> None:
    other = {"PatientBirthDate": "19010203", "PatientSex": "F"}[keyword]
    one = driver()
    one.receive(radiographs[0], _changed(radiographs[1], **{keyword: other}))
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "held"
    assert keyword in timeline["reason"]
    assert other not in timeline["reason"]


def test_what_is_sent_back_to_its_first_content_has_its_first_content(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...], tmp_path: Path
) -> None:
    right = radiographs
    wrong = tuple(_changed(data_set, PatientName="Phantom^Wrong") for data_set in radiographs)
    one = driver()
    for data_sets in (right, wrong, right):
        one.receive(*data_sets)
        one.carry_out()
    timeline = one.timeline(_study(radiographs))
    current = {m["SOPInstanceUID"] for m in timeline["objects"] if not m["superseded"]}
    results = [pydicom.dcmread(path) for path in (tmp_path / "results").rglob("*.dcm")]
    names = {str(result.PatientName) for result in results if result.SOPInstanceUID in current}
    assert names == {str(right[0].PatientName)}


def test_delivery_that_was_held_meanwhile_sends_nothing_that_waited(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...], tmp_path: Path
) -> None:
    before = driver()
    before.gateway.ledger.set_switch("delivery", actor="anna", paused=True)
    before.receive(*radiographs)
    before.carry_out()
    before.gateway.close()
    after = driver(
        delivery="hold",
        destinations={"results": {"kind": "folder", "path": str(tmp_path / "results")}},
    )
    after.gateway.ledger.set_switch("delivery", actor="anna", paused=False)
    while after.gateway.carry_out("deliver.results"):
        pass
    timeline = after.timeline(_study(radiographs))
    assert {delivery["state"] for delivery in timeline["deliveries"]} == {"withheld"}
    assert not list((tmp_path / "results").rglob("*.dcm"))


def test_a_worklist_step_that_crashes_is_held_and_seen(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = driver(cxrreport="opacity")
    monkeypatch.setattr("pacs_ai.worklist.rules.decide", lambda *_: 1 / 0)
    one.receive(*radiographs)
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "held"
    assert timeline["reason"].startswith("worklist")


def test_a_study_held_before_it_was_complete_is_found_and_told(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    label = {"when": {"state": ["held"]}, "label": "AI-STATUS", "audience": "imaging-it"}
    one = driver(identity="strict", worklist=[label])
    one.receive(*(_changed(d, PatientName="", AccessionNumber="A-77") for d in radiographs))
    one.carry_out()
    study = _study(radiographs)
    assert one.views.find(study=None, accession_number="A-77") == [study]
    assert [item["label"] for item in one.timeline(study)["workitems"]] == ["AI-STATUS"]


def test_all_results_of_a_study_go_to_the_peer_it_came_from_first(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...], tmp_path: Path
) -> None:
    peers = {
        name: {"ae_titles": [name.upper()], "quiet": "0s", "host": "127.0.0.1", "port": 11113}
        for name in ("demo", "other")
    }
    one = driver(peers=peers, delivery="origin")
    one.receive(radiographs[0])
    one.receive(radiographs[1], peer="other")
    one.gateway.ledger.set_switch("delivery", actor="anna", paused=True)
    one.carry_out()
    destinations = {d["destination"] for d in one.timeline(_study(radiographs))["deliveries"]}
    assert destinations == {"demo"}


def test_a_study_that_no_rule_takes_any_more_keeps_no_current_page(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver()
    one.receive(*radiographs)
    one.carry_out()
    one.receive(*(_changed(data_set, BodyPartExamined="KNEE") for data_set in radiographs))
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert timeline["state"] == "no_rule"
    assert all(made["superseded"] for made in timeline["objects"])


def test_a_correction_of_a_study_that_was_current_is_not_too_old(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = driver(defaults={"max_age": "48h"})
    one.receive(*radiographs)
    one.carry_out()
    week = datetime.now(UTC) + timedelta(days=7)
    monkeypatch.setattr("pacs_ai.ledger.studies.now", lambda: week)
    monkeypatch.setattr("pacs_ai.commits.now", lambda: week + timedelta(seconds=1))
    one.receive(*(_changed(data_set, PatientName="Phantom^Corrected") for data_set in radiographs))
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert len(timeline["versions"]) == 2
    assert timeline["state"] == "nothing_found"


def test_a_workitem_that_waits_shows_the_patient_of_now(
    driver: Callable[..., Driver], radiographs: tuple[pydicom.Dataset, ...]
) -> None:
    one = driver(
        cxrreport="opacity",
        worklist=[
            {
                "when": {"finding": "lung opacity", "assertion": "present"},
                "label": "AI-CXR-REVIEW",
                "priority": "HIGH",
                "performers": ["thoracic"],
            }
        ],
    )
    one.receive(*radiographs)
    one.carry_out()
    one.receive(*(_changed(data_set, PatientName="Phantom^Corrected") for data_set in radiographs))
    one.carry_out()
    (item,) = one.views.workitems()
    assert item["00100010"]["Value"] == [{"Alphabetic": "Phantom^Corrected"}]
    assert item["00741200"]["Value"] == ["HIGH"]


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_disk_that_refuses_what_was_made_puts_the_step_off_and_keeps_nothing_half(
    driver: Callable[..., Driver],
    radiographs: tuple[pydicom.Dataset, ...],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    one = driver()
    one.receive(*radiographs)
    encode = next(queue for queue in Gateway.queue_names(one.gateway.settings) if queue == "encode")
    while one.gateway.assemble() or one.gateway.route():
        pass
    for queue in Gateway.queue_names(one.gateway.settings):
        if queue.startswith("infer"):
            one.gateway.carry_out(queue)
    real, left = getattr(os, call), [1, 2, 3]

    def full(*rest: Any, **named: Any) -> None:
        if left:
            left.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*rest, **named)

    monkeypatch.setattr(os, call, full)
    one.gateway.carry_out(encode)
    assert not unfinished(one.gateway.spool.temporary)
    assert {row["strikes"] for row in one.timeline(_study(radiographs))["work"]} == {0}
    deadline = time.monotonic() + 30
    while not one.timeline(_study(radiographs))["deliveries"] and time.monotonic() < deadline:
        one.carry_out()
    one.carry_out()
    timeline = one.timeline(_study(radiographs))
    assert (timeline["state"], left) == ("nothing_found", [])
    assert {delivery["state"] for delivery in timeline["deliveries"]} == {"stored"}
