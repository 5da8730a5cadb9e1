"""The same SOP Instance UID again, through the gateway: what is a duplicate, a version, a conflict.

A PACS that re-encodes what it sends floods nobody; a corrected name makes a new Study version; another
patient, geometry or pixel always holds the Study, and both Instances are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
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

from pacs_ai import models
from tests.unit.test_gateway import Driver, radiographs

__all__ = ["radiographs"]

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
