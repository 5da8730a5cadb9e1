"""The same SOP Instance UID again, through the gateway: what is a duplicate, a version, a conflict.

A PACS that re-encodes what it sends floods nobody; a corrected name makes a new Study version; another
patient, geometry or pixel always holds the Study, and both Instances are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from sqlalchemy import select, update

from pacs_ai import models
from pacs_ai.intake import Stored
from pacs_ai.ledger import arrivals, retention, tables
from pacs_ai.ledger.clock import host_time, now
from tests.unit.test_gateway import Driver, radiographs

__all__ = ["radiographs"]

pytestmark = pytest.mark.usefixtures("one_decoder")
Make = Callable[[], Driver]
REENCODED = (
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEG2000Lossless,
)


@pytest.fixture
def driver(tmp_path: Path, ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.setitem(models.MODELS, "parse2d", "tests.unit.fake_models:lungs")
    monkeypatch.setitem(models.MODELS, "cxrreport", "tests.unit.fake_models:nothing")
    one = Driver(tmp_path, ledger_url)
    yield one
    one.gateway.close()


@pytest.fixture
def received(driver: Driver, radiographs: tuple[Dataset, ...]) -> dict[str, Any]:
    """The timeline of the Study as it came first."""
    driver.receive(*radiographs)
    driver.carry_out()
    return driver.timeline(str(radiographs[0].StudyInstanceUID))


def reencode(data_set: Dataset, syntax: UID) -> Dataset:
    """Return an Instance as another system would hand it on: the same content in another syntax."""
    copy = deepcopy(data_set)
    if syntax.is_compressed and not syntax.is_deflated:
        copy.compress(syntax, generate_instance_uid=False)
        return copy
    if syntax == ExplicitVRBigEndian and copy.BitsAllocated == 16:
        copy.PixelData = np.frombuffer(copy.PixelData, "<u2").astype(">u2").tobytes()
    copy.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    copy.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def _again(driver: Driver, data_sets: Sequence[Dataset]) -> dict[str, Any]:
    driver.receive(*data_sets)
    driver.carry_out()
    return driver.timeline(str(data_sets[0].StudyInstanceUID))


def _changed(data_sets: Sequence[Dataset], **values: Any) -> list[Dataset]:
    copies = [deepcopy(data_set) for data_set in data_sets]
    for copy in copies:
        for keyword, value in values.items():
            setattr(copy, keyword, value)
    return copies


# ---------------------------------------------------------------------- duplicates


@pytest.mark.parametrize("syntax", REENCODED, ids=lambda syntax: syntax.keyword)
def test_a_study_that_comes_again_re_encoded_starts_nothing(
    driver: Driver, received: dict[str, Any], radiographs: tuple[Dataset, ...], syntax: UID
) -> None:
    assert radiographs[0].file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    timeline = _again(driver, [reencode(one, syntax) for one in radiographs])
    assert timeline["instances"] == {"source": 4}, "the bytes differ, and are kept"
    for facts in ("versions", "jobs", "objects", "deliveries", "state", "reason"):
        assert timeline[facts] == received[facts], facts


def test_every_encoding_one_after_the_other_floods_nobody(
    driver: Driver, received: dict[str, Any], radiographs: tuple[Dataset, ...]
) -> None:
    for syntax in REENCODED:
        driver.receive(*(reencode(one, syntax) for one in radiographs))
    driver.carry_out()
    timeline = driver.timeline(str(radiographs[0].StudyInstanceUID))
    assert len(timeline["versions"]) == 1
    assert timeline["state"] == received["state"]
    assert timeline["deliveries"] == received["deliveries"]


# ---------------------------------------------------------------------- versions


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda one: one.keyword
)
def test_a_name_edit_is_a_new_version_whatever_its_encoding(
    driver: Driver, received: dict[str, Any], radiographs: tuple[Dataset, ...], syntax: UID
) -> None:
    renamed = _changed(radiographs, PatientName="Phantom^Corrected")
    if syntax != ExplicitVRLittleEndian:
        renamed = [reencode(one, syntax) for one in renamed]
    timeline = _again(driver, renamed)
    assert len(timeline["versions"]) == 2
    assert timeline["state"] == received["state"]


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
def test_what_was_replaced_makes_a_version_again_whatever_its_encoding(
    driver: Driver, radiographs: tuple[Dataset, ...], *, at_once: bool
) -> None:
    first = radiographs[0]
    again = reencode(first, RLELossless)
    (corrected,) = _changed([first], PatientName="Phantom^Corrected")
    for one in (first, again, corrected, reencode(corrected, RLELossless)):
        driver.receive(one)
        if not at_once:
            driver.carry_out()
    driver.carry_out()
    uid = str(first.SOPInstanceUID)
    before = driver.timeline(str(first.StudyInstanceUID))["versions"]
    assert [*_states(driver, uid).values()] == ["replaced", "replaced", "kept", "duplicate"]
    timeline = _again(driver, [again])
    assert driver.answer == Stored()
    assert [*_states(driver, uid).values()] == ["replaced", "kept", "replaced", "replaced"]
    assert len(timeline["versions"]) == len(before) + 1
    _again(driver, [first])
    assert [*_states(driver, uid).values()] == ["duplicate", "kept", "replaced", "replaced"]


# ---------------------------------------------------------------------- conflicts


def _one_pixel(data_set: Dataset) -> Dataset:
    copy = deepcopy(data_set)
    pixels = copy.pixel_array.copy()
    pixels[7, 11] ^= 1
    copy.PixelData = pixels.tobytes()
    return copy


def _assert_held(timeline: dict[str, Any], received: dict[str, Any], sources: int) -> None:
    assert timeline["state"] == "held"
    assert timeline["versions"] == received["versions"]
    assert timeline["objects"] == received["objects"]
    assert timeline["instances"] == {"source": sources}


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, ExplicitVRBigEndian],
    ids=lambda syntax: syntax.keyword,
)
def test_one_changed_bit_of_one_pixel_holds_whatever_its_encoding(
    driver: Driver, received: dict[str, Any], radiographs: tuple[Dataset, ...], syntax: UID
) -> None:
    changed = _one_pixel(radiographs[0])
    if syntax != ExplicitVRLittleEndian:
        changed = reencode(changed, syntax)
    timeline = _again(driver, [changed])
    _assert_held(timeline, received, 3)
    assert str(radiographs[0].SOPInstanceUID) in timeline["reason"]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "SOMEONE-ELSE"),
        ("PatientID", ""),
        ("IssuerOfPatientID", "ANOTHER-HOSPITAL"),
        ("PatientBirthDate", "19010101"),
        ("PatientSex", "M"),
        ("PixelSpacing", [9, 9]),
        ("ImagerPixelSpacing", [9, 9]),
        ("PatientOrientation", ["R", "F"]),
        ("ImageLaterality", "L"),
        ("SeriesInstanceUID", "2.25.1"),
        ("Modality", "CR"),
        ("RescaleSlope", 2),
    ],
)
def test_another_patient_or_geometry_holds_whatever_its_encoding(
    driver: Driver,
    received: dict[str, Any],
    radiographs: tuple[Dataset, ...],
    keyword: str,
    value: Any,
) -> None:
    changed = _changed(radiographs[:1], **{keyword: value})
    timeline = _again(driver, [reencode(changed[0], ImplicitVRLittleEndian)])
    _assert_held(timeline, received, 3)
    assert "SOMEONE" not in str(timeline)
    assert "HOSPITAL" not in str(timeline)


def test_the_same_study_under_another_patient_id_holds_it(
    driver: Driver, received: dict[str, Any], radiographs: tuple[Dataset, ...]
) -> None:
    (other,) = _changed(radiographs[:1], PatientID="SOMEONE-ELSE", SOPInstanceUID="2.25.77")
    other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID
    timeline = _again(driver, [other])
    _assert_held(timeline, received, 3)
    assert "more than one patient" in timeline["reason"]


def test_what_holds_stays_held_when_the_first_comes_again(
    driver: Driver, received: dict[str, Any], radiographs: tuple[Dataset, ...]
) -> None:
    _again(driver, [_one_pixel(radiographs[0])])
    timeline = _again(driver, [reencode(one, RLELossless) for one in radiographs])
    _assert_held(timeline, received, 5)


# ---------------------------------------------------------------------- which came later


@pytest.fixture
def clock_set_back(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Set the clock by which Instances are recorded back by 20 s."""
    return lambda: monkeypatch.setattr(arrivals, "now", lambda: now() - timedelta(seconds=20))


def _states(driver: Driver, uid: str) -> dict[str, str]:
    """Return the state of what is held under a SOP Instance UID, by digest, as it was added."""
    table = tables.instances
    found = select(table).where(table.c.sop_instance_uid == uid).order_by(table.c.id)
    with driver.gateway.ledger.database.read() as connection:
        return {row.digest: row.state for row in connection.execute(found)}


def test_a_correction_counts_although_the_clock_was_set_back_before_it_came(
    driver: Driver,
    received: dict[str, Any],
    radiographs: tuple[Dataset, ...],
    clock_set_back: Callable[[], None],
) -> None:
    clock_set_back()
    uid = str(radiographs[0].SOPInstanceUID)
    timeline = _again(driver, _changed(radiographs, PatientName="Phantom^Corrected"))
    assert [*_states(driver, uid).values()] == ["replaced", "kept"]
    assert len(timeline["versions"]) == len(received["versions"]) + 1
    # What was replaced comes again: then it is the newest.
    timeline = _again(driver, radiographs)
    assert [*_states(driver, uid).values()] == ["kept", "replaced"]
    assert len(timeline["versions"]) == len(received["versions"]) + 2


@pytest.mark.parametrize(
    ("take", "states"), [("first", ["kept", "rejected"]), ("newest", ["rejected", "kept"])]
)
def test_first_and_newest_are_what_they_say_although_the_clock_was_set_back(
    driver: Driver,
    received: dict[str, Any],
    radiographs: tuple[Dataset, ...],
    clock_set_back: Callable[[], None],
    take: str,
    states: list[str],
) -> None:
    clock_set_back()
    _again(driver, [_one_pixel(radiographs[0])])
    study = str(radiographs[0].StudyInstanceUID)
    reason = driver.timeline(study)["reason"]
    assert "(PixelData)" in reason
    assert "--take newest or first" in reason
    assert driver.gateway.ledger.release(study, actor="anna", take=take) == 1
    assert _settled(driver, study) == (take, states.count("kept") if take == "newest" else 0, 1)
    driver.carry_out()
    assert [*_states(driver, str(radiographs[0].SOPInstanceUID)).values()] == states
    assert driver.timeline(study)["state"] == received["state"]


def _settled(driver: Driver, study: str) -> tuple[str, int, int]:
    """Return what the one event says of a person's decision; by whom it was is asserted."""
    table = tables.events
    with driver.gateway.ledger.database.read() as connection:
        (event,) = connection.execute(
            select(table).where(table.c.kind == "contradiction settled")
        ).all()
    assert (event.actor, event.study_instance_uid) == ("anna", study)
    detail = event.detail
    return detail["take"], len(detail["counting"]), len(detail["rejected"])


@pytest.mark.usefixtures("received")
def test_of_several_that_contradict_each_other_one_counts_and_the_event_says_which(
    driver: Driver, radiographs: tuple[Dataset, ...]
) -> None:
    study, uid = str(radiographs[0].StudyInstanceUID), str(radiographs[0].SOPInstanceUID)
    _again(driver, [_one_pixel(radiographs[0])])
    _again(driver, _changed(radiographs[:1], PatientID="ANOTHER"))
    assert driver.timeline(study)["state"] == "held"
    driver.gateway.ledger.release(study, actor="anna", take="newest")
    assert _settled(driver, study) == ("newest", 1, 2)
    assert [*_states(driver, uid).values()] == ["rejected", "rejected", "kept"]
    table = tables.instances
    with driver.gateway.ledger.database.read() as connection:
        (digest,) = connection.scalars(
            select(table.c.digest).where(table.c.sop_instance_uid == uid, table.c.state == "kept")
        )
        (detail,) = connection.scalars(
            select(tables.events.c.detail).where(tables.events.c.kind == "contradiction settled")
        )
    assert detail["counting"] == [digest]


@pytest.mark.parametrize("let_go", [{"removed_at": host_time()}, {"state": "replaced"}])
def test_what_comes_under_one_uid_is_dated_one_after_the_other(
    driver: Driver,
    radiographs: tuple[Dataset, ...],
    clock_set_back: Callable[[], None],
    let_go: dict[str, Any],
) -> None:
    name = _changed(radiographs[:1], PatientName="Phantom^Corrected")
    driver.receive(radiographs[0])
    clock_set_back()
    driver.receive(*name)
    table = tables.instances
    with driver.gateway.ledger.database.write() as connection:
        first = table.c.state == "kept"
        connection.execute(update(table).where(first).values(**let_go))
    driver.receive(radiographs[0])
    with driver.gateway.ledger.database.read() as connection:
        rows = connection.execute(select(table).order_by(table.c.id)).all()
    assert rows[0].received_at - rows[1].received_at == timedelta(microseconds=1)
    assert rows[0].removed_at is None


# ---------------------------------------------------------------------- another Study

OTHER_STUDY = "2.25.4711"


def _moved(driver: Driver, data_sets: Sequence[Dataset]) -> dict[str, Any]:
    """Let Instances come again under another Study; return its timeline."""
    return _again(driver, _changed(data_sets, StudyInstanceUID=OTHER_STUDY))


def _has_ended(driver: Driver, study: str) -> bool:
    """Tell whether retention may let a Study go."""
    with driver.gateway.ledger.database.write() as connection:
        return retention.let_sources_go(connection, study, timedelta(0))


def _take(driver: Driver, take: str | None) -> dict[str, Any]:
    assert driver.gateway.ledger.release(OTHER_STUDY, actor="anna", take=take) == 1
    driver.carry_out()
    return driver.timeline(OTHER_STUDY)


def test_an_instance_of_another_study_holds_the_later_one(
    driver: Driver, received: dict[str, Any], radiographs: tuple[Dataset, ...]
) -> None:
    moved = _moved(driver, radiographs[:1])
    first, uid = str(radiographs[0].StudyInstanceUID), str(radiographs[0].SOPInstanceUID)
    for timeline in (moved, _take(driver, None)):
        assert timeline["state"] == "held"
        assert not timeline["versions"]
        assert all(named in timeline["reason"] for named in (uid, first, OTHER_STUDY))
        assert "--take newest" in timeline["reason"]
        assert str(radiographs[0].PatientID) not in timeline["reason"]
    assert [*_states(driver, uid).values()] == ["kept", "conflict"]
    assert driver.timeline(first)["versions"] == received["versions"]
    assert driver.timeline(first)["state"] == received["state"]
    assert not _has_ended(driver, OTHER_STUDY), "a person must look first"
    # What comes for the first Study meanwhile is none of the conflict's.
    timeline = _again(driver, _changed(radiographs, PatientName="Phantom^Corrected"))
    assert timeline["state"] == received["state"]
    assert [*_states(driver, uid).values()] == ["replaced", "conflict", "kept"]


@pytest.mark.usefixtures("received")
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside another"])
def test_the_first_of_two_studies_counts_where_a_person_says_so(
    driver: Driver, radiographs: tuple[Dataset, ...], *, alone: bool
) -> None:
    if not alone:
        (own,) = _changed(radiographs[:1], SOPInstanceUID="2.25.77", StudyInstanceUID=OTHER_STUDY)
        own.file_meta.MediaStorageSOPInstanceUID = own.SOPInstanceUID
        driver.receive(own)
    _moved(driver, radiographs[:1])
    timeline = _take(driver, "first")
    uid = str(radiographs[0].SOPInstanceUID)
    assert [*_states(driver, uid).values()] == ["kept", "rejected"]
    assert [one["number"] for one in timeline["versions"]] == ([] if alone else [1])
    if alone:
        said = ("not_suitable", "a person rejected every Instance of it")
        assert (timeline["state"], timeline["reason"]) == said
    else:
        assert timeline["state"] not in ("held", "receiving")
    assert _has_ended(driver, OTHER_STUDY)


@pytest.mark.parametrize("number", [1, 2])
def test_the_newest_of_two_studies_counts_where_a_person_says_so(
    driver: Driver, received: dict[str, Any], radiographs: tuple[Dataset, ...], number: int
) -> None:
    _moved(driver, radiographs[:number])
    timeline = _take(driver, "newest")
    assert len(timeline["versions"]) == 1
    for data_set in radiographs[:number]:
        states = _states(driver, str(data_set.SOPInstanceUID))
        assert [*states.values()] == ["rejected", "kept"]
    first = driver.timeline(str(radiographs[0].StudyInstanceUID))
    assert first["state"] not in ("held", "failed", "running")
    # A Study that keeps something is frozen without the rest; what was made of it before stays.
    assert len(first["versions"]) == len(received["versions"]) + (number == 1)
    assert _has_ended(driver, OTHER_STUDY)
    assert _has_ended(driver, str(radiographs[0].StudyInstanceUID))


@pytest.mark.parametrize("state", ["rejected", "replaced"])
def test_an_instance_whose_twins_count_no_more_counts(
    driver: Driver, radiographs: tuple[Dataset, ...], state: str
) -> None:
    table = tables.instances
    driver.receive(radiographs[0])
    with driver.gateway.ledger.database.write() as connection:
        connection.execute(update(table).values(state=state))
    timeline = _moved(driver, radiographs[:1])
    states = _states(driver, str(radiographs[0].SOPInstanceUID))
    assert [*states.values()] == [state, "kept"]
    assert len(timeline["versions"]) == 1
    assert _has_ended(driver, OTHER_STUDY)


@pytest.mark.parametrize(
    ("take", "states"), [("first", ["kept", "rejected"]), ("newest", ["rejected", "kept"])]
)
def test_another_study_that_retention_removed_holds_too_and_stays_as_it_was(
    driver: Driver,
    received: dict[str, Any],
    radiographs: tuple[Dataset, ...],
    take: str,
    states: list[str],
) -> None:
    first = str(radiographs[0].StudyInstanceUID)
    assert _has_ended(driver, first)
    timeline = _moved(driver, radiographs[:1])
    assert timeline["state"] == "held"
    assert "retention has removed" in timeline["reason"]
    _take(driver, take)
    assert [*_states(driver, str(radiographs[0].SOPInstanceUID)).values()] == states
    assert _has_ended(driver, OTHER_STUDY)
    assert driver.timeline(first)["versions"] == received["versions"]
    assert driver.timeline(first)["state"] == received["state"]


@pytest.mark.usefixtures("received")
def test_a_conflict_takes_nothing_from_a_correction_that_came_after_it(
    driver: Driver, radiographs: tuple[Dataset, ...]
) -> None:
    study, uid = str(radiographs[0].StudyInstanceUID), str(radiographs[0].SOPInstanceUID)
    _again(driver, [_one_pixel(radiographs[0])])
    _again(driver, _changed(radiographs, PatientName="Phantom^Corrected"))
    driver.gateway.ledger.release(study, actor="anna")
    driver.carry_out()
    assert [*_states(driver, uid).values()] == ["replaced", "conflict", "kept"]
    assert driver.timeline(study)["state"] == "held"
