"""Bad input as a user meets it: real files with one thing wrong, through the whole gateway.

Each Study here holds one bad image or Series and one good ultrasound image. What is wrong is one
sentence in the Study's reason, with Instance, element and remedy; the ultrasound image is embedded all
the same.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import MPEG4HP41, JPEG2000Lossless

from pacs_ai.cli import process
from pacs_ai.settings import Identity
from tests.unit.models.fake_endpoint import Answer, Asked, endpoint
from tests.unit.pixels.made import SHARED

CONFIG = """
site: {{name: Test, time_zone: Etc/UTC, use: research, responsible: tests}}
endpoints:
  insight: {{kind: insight, url: "{insight}", name: Insight, version: "1"}}
  parse2d: {{kind: parse2d, url: "{parse2d}", name: Parse, version: "1"}}
  parse3d: {{kind: parse3d, url: "{parse3d}", name: Parse3D, version: "1"}}
defaults: {{max_age: "off"}}
rules:
  - name: companion
    when: {{Modality: US}}
    select: {{take: image}}
    run: [insight]
  - name: film
    when: {{Modality: CR}}
    view: {{unknown: frontal}}
    run: [{{parse2d: [left lung]}}]
  - name: volume
    when: {{Modality: [CT, MR]}}
    select: {{slices: ">=2"}}
    run: [{{parse3d: [liver]}}]
"""
REMEDY = re.compile(r"[:;] (?:correct|send|select|have the sender|let the rule|prefer|name) ")
SIDE = 440
"""Rows and Columns of the film."""

Series = list[Dataset]
Change = Callable[[Series], Series]


@dataclass(frozen=True)
class Case:
    """What is wrong with a Series, and what is said of it.

    Attributes
    ----------
    name : str
    change : callable
        Makes the bad Series of the good one.
    says : tuple of str
        Words of the refusal, the element among them; of what goes on all the same, nothing.
    bad : int
        Which Instance is named, from 1; 0 where the Series is.
    base : str
        ``film``, ``ct`` or ``enhanced``.
    """

    name: str
    change: Change
    says: tuple[str, ...] = ()
    bad: int = 1
    base: str = "film"


def having(at: Sequence[int] | None = None, **elements: Any) -> Change:
    """Set elements of some slices (from 1; all when left out); None removes one."""

    def change(series: Series) -> Series:
        for number, one in enumerate(series, 1):
            for keyword, value in elements.items() if at is None or number in at else ():
                if value is None:
                    one.pop(keyword, None)
                else:
                    setattr(one, keyword, value)
        return series

    return change


def written_as(keyword: str, text: str, at: Sequence[int]) -> Change:
    """Let an element of decimal strings hold whatever text."""

    def change(series: Series) -> Series:
        value = text.encode() + b" " * (len(text) % 2)
        for number in at:
            tag = Tag(keyword)
            series[number - 1][tag] = RawDataElement(
                tag, "DS", len(value), value, 0, is_implicit_VR=False, is_little_endian=True
            )
        return series

    return change


def moved(step: Callable[[int], tuple[float, float, float]]) -> Change:
    """Move each slice, by its number, from where it lies."""

    def change(series: Series) -> Series:
        for number, one in enumerate(series, 1):
            place = zip(one.ImagePositionPatient, step(number), strict=True)
            one.ImagePositionPatient = [round(float(old) + new, 4) for old, new in place]
        return series

    return change


def cut_by(count: int) -> Change:
    def change(series: Series) -> Series:
        series[0].PixelData = (
            series[0].PixelData[:-count] if count > 0 else series[0].PixelData + bytes(-count)
        )
        return series

    return change


def encapsulated(syntax: str, **elements: Any) -> Change:
    """Put something that is no frame of a syntax into fragments."""

    def change(series: Series) -> Series:
        (one,) = having(**elements)(series)
        one.file_meta.TransferSyntaxUID = syntax
        one.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
        one["PixelData"].is_undefined_length = True
        return [one]

    return change


def floating(series: Series) -> Series:
    (one,) = having(BitsStored=None, HighBit=None, PixelRepresentation=None)(series)
    values = np.frombuffer(one.PixelData, np.uint16).astype("<f4")
    del one.PixelData
    one.BitsAllocated, one.FloatPixelData = 32, values.tobytes()
    return [one]


def without(*numbers: int) -> Change:
    return lambda series: [one for at, one in enumerate(series, 1) if at not in numbers]


def twice(number: int) -> Change:
    return lambda series: [*series, deepcopy(series[number - 1])]


def echoes(series: Series) -> Series:
    """Return the Series as MR, once with each of two echo times."""
    first = having(Modality="MR", EchoTime="10")(series)
    return [*first, *having(EchoTime="90")(deepcopy(first))]


def without_group(series: Series) -> Series:
    """Leave out where the second frame lies; the file's frames are derived, which is no fault here."""
    (one,) = having(ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])(series)
    for group in (*one.SharedFunctionalGroupsSequence, *one.PerFrameFunctionalGroupsSequence):
        for item in group.get("CTImageFrameTypeSequence", ()):
            item.FrameType = one.ImageType
    del one.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    return [one]


ORIENTATION = "ImageOrientationPatient"
CASES = (
    Case("short pixel data", cut_by(100), ("387100 bytes of PixelData", "Rows")),
    Case("long pixel data", cut_by(-100), ("387300 bytes of PixelData", "Rows")),
    Case("no pixel data", having(PixelData=None), ("no pixel data",)),
    Case("no rows at all", having(Rows=0), ("Rows 0",)),
    Case("more rows than pixels", having(Rows=2 * SIDE), ("PixelData", "Rows")),
    Case("gigabytes of rows", having(Rows=65535, Columns=65535), ("65535 Rows", "limit")),
    Case("rows missing", having(Rows=None), ("no single value of Rows",)),
    Case(
        "colour of one sample",
        having(PhotometricInterpretation="RGB"),
        ("SamplesPerPixel 1", "RGB"),
    ),
    Case("grey of three samples", having(SamplesPerPixel=3), ("SamplesPerPixel 3", "MONOCHROME1")),
    Case("samples missing", having(SamplesPerPixel=None), ("SamplesPerPixel",)),
    Case(
        "photometric unknown",
        having(PhotometricInterpretation="HSV"),
        ("PhotometricInterpretation HSV",),
    ),
    Case(
        "photometric missing",
        having(PhotometricInterpretation=None),
        ("PhotometricInterpretation",),
    ),
    Case(
        "polarity contradicts itself",
        having(PresentationLUTShape="IDENTITY"),
        ("PresentationLUTShape", "PhotometricInterpretation"),
    ),
    Case(
        "twelve bits packed",
        having(BitsAllocated=12, BitsStored=12, HighBit=11, PixelData=bytes(SIDE * SIDE * 12 // 8)),
        ("BitsAllocated 12",),
    ),
    Case(
        "sixty-four bits",
        having(BitsAllocated=64, BitsStored=64, HighBit=63, PixelData=bytes(SIDE * SIDE * 8)),
        ("BitsAllocated 64",),
    ),
    Case(
        "single bits compressed",
        encapsulated(JPEG2000Lossless, BitsAllocated=1, BitsStored=1, HighBit=0),
        ("BitsAllocated 1 and is compressed",),
    ),
    Case("compressed nonsense", encapsulated(JPEG2000Lossless), ("PixelData", "JPEG 2000")),
    Case("video", encapsulated(MPEG4HP41), ("MPEG-4",)),
    Case("high bit", having(HighBit=15), ("HighBit 15",)),
    Case("sign unknown", having(PixelRepresentation=2), ("PixelRepresentation",)),
    Case("frames without a choice", having(NumberOfFrames=3), ("3 frames (NumberOfFrames)",)),
    Case("no frames", having(NumberOfFrames=0), ("NumberOfFrames 0",)),
    Case("slope of zero", having(RescaleSlope=0, RescaleIntercept=0), ("RescaleSlope 0",)),
    Case("window of no width", having(WindowCenter=9, WindowWidth=0), ("WindowWidth",)),
    Case("pixels of no height", having(ImagerPixelSpacing=[0, 0.1]), ("ImagerPixelSpacing",)),
    Case(
        "pixels that are no number",
        written_as("ImagerPixelSpacing", "NaN\\0.1", [1]),
        ("ImagerPixelSpacing",),
    ),
    Case("thirty-two bit floats", floating),
    Case(
        "no position",
        having([4], ImagePositionPatient=None),
        ("ImagePositionPatient",),
        bad=4,
        base="ct",
    ),
    Case("no orientation", having([4], ImageOrientationPatient=None), (ORIENTATION,), 4, "ct"),
    Case(
        "sheared orientation",
        having(ImageOrientationPatient=[1, 0, 0, 0.1, 1, 0]),
        (ORIENTATION,),
        1,
        "ct",
    ),
    Case(
        "orientation that is no number",
        written_as(ORIENTATION, "nan\\0\\0\\0\\1\\0", [2]),
        (ORIENTATION,),
        2,
        "ct",
    ),
    Case("spacing of zero", having(PixelSpacing=[0, 0]), ("PixelSpacing of 0",), 1, "ct"),
    Case(
        "spacing that is no number",
        written_as("PixelSpacing", "NaN\\0.7", [5]),
        ("PixelSpacing",),
        5,
        "ct",
    ),
    Case("a slice missing", without(4), ("10.000 mm apart", "ImagePositionPatient"), 3, "ct"),
    Case("a slice twice", twice(4), ("in one place", "ImagePositionPatient"), 4, "ct"),
    Case(
        "changing spacing",
        moved(lambda number: (0, 0, max(0, number - 5) * 3.0)),
        ("8.000 mm apart", "ImagePositionPatient"),
        5,
        "ct",
    ),
    Case(
        "tilted gantry",
        moved(lambda number: (0, number * 1.5, 0)),
        ("16.7 degrees", "GantryDetectorTilt"),
        2,
        "ct",
    ),
    Case(
        "two acquisitions",
        lambda series: having([5, 6, 7, 8], AcquisitionNumber=2)(
            having(AcquisitionNumber=1)(series)
        ),
        ("AcquisitionNumber 1", "AcquisitionNumber 2", "equally good"),
        0,
        "ct",
    ),
    Case("two echoes", echoes, ("EchoTime 10", "EchoTime 90", "equally good"), 0, "ct"),
    Case(
        "localizers",
        having(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        ("ImageType has LOCALIZER",),
        0,
        "ct",
    ),
    Case(
        "derived",
        having(ImageType=["DERIVED", "SECONDARY", "AXIAL"]),
        ("ImageType has DERIVED",),
        0,
        "ct",
    ),
    Case(
        "a localizer in the middle of the Series",
        having([4], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        ("is a localizer (ImageType)",),
        4,
        "ct",
    ),
    Case("one slice of another size", having([4], Rows=256), ("is alone",), 4, "ct"),
    Case(
        "one slice cut short",
        lambda series: [*cut_by(2)(series[:1]), *series[1:]],
        ("PixelData",),
        1,
        "ct",
    ),
    Case("one slice of other bits", having([4], BitsAllocated=64), ("BitsAllocated 64",), 4, "ct"),
    Case("one slice of colour", having([4], SamplesPerPixel=3), ("SamplesPerPixel 3",), 4, "ct"),
    Case("one slice without a scale", having([4], RescaleSlope=0), ("RescaleSlope 0",), 4, "ct"),
    Case(
        "frames without groups",
        having(NumberOfFrames=2),
        ("PerFrameFunctionalGroupsSequence",),
        1,
        "ct",
    ),
    Case(
        "some slices across the others",
        having([6, 7, 8], ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
        base="ct",
    ),
    Case(
        "a frame without position",
        without_group,
        ("frame 2 of Instance", "ImagePositionPatient"),
        1,
        "enhanced",
    ),
)
"""The issue's list, in its order: pixels, header, geometry, what is mixed in a Series."""


def bright(asked: Asked) -> Any:
    """Answer as MedImageParse 2-D, with a block in the middle."""
    masks = np.zeros((asked.row()["text"].count("&") + 1, 1024, 1024), np.uint8)
    masks[:, 400:600, 400:600] = 250
    packed = base64.b64encode(masks.tobytes()).decode()
    data = {"data": packed, "shape": masks.shape, "dtype": "uint8"}
    return [{"image_features": json.dumps(data), "text_features": ["x"] * len(masks)}]


def dense(asked: Asked) -> Any:
    """Answer as MedImageParse 3D, with the bright voxels."""
    sent = nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(asked.row()["image"])))
    labels = (np.asarray(sent.dataobj) > 100).astype(np.uint8)
    data = base64.b64encode(nibabel.Nifti1Image(labels, sent.affine).to_bytes()).decode()
    return [{"nifti_file": json.dumps({"data": data})}]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Series]:
    """Read the real files that the bad ones are made of."""
    folder = tmp_path_factory.mktemp("ct")
    with tarfile.open(SHARED / "ct-thorax/Lung_Dx-A0001_chest-ct_64slices.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    every = (pydicom.dcmread(path) for path in folder.rglob("*.dcm"))
    along = sorted(every, key=lambda one: float(one.ImagePositionPatient[2]))
    return {
        "film": [pydicom.dcmread(SHARED / "cxr/cr-pa-mono1-10bit-fuji.dcm")],
        "ct": along[20:28],
        "enhanced": [pydicom.dcmread(SHARED / "multiframe/enhanced-ct-2frame.dcm")],
        "companion": [pydicom.dcmread(SHARED / "us/us-1frame-ybr_full-rle.dcm")],
    }


@pytest.fixture(scope="module")
def bad_on_purpose() -> Iterator[None]:
    """Let values be written that their VR forbids."""
    former = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    yield
    config.settings.writing_validation_mode = former


def study_of(case: Case) -> str:
    return f"2.25.8{CASES.index(case):03d}"


def written(case: Case, good: dict[str, Series], folder: Path) -> None:
    """Write a case's Study: the bad Series, and the good image."""
    study = study_of(case)
    bad = case.change(deepcopy(good[case.base]))
    for series, members in enumerate((bad, deepcopy(good["companion"])), 1):
        for number, one in enumerate(members, 1):
            one.StudyInstanceUID, one.SeriesInstanceUID = study, f"{study}.{series}"
            one.SOPInstanceUID = f"{study}.{series}.{number}"
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
            one.PatientID, one.PatientName, one.AccessionNumber = study, "SECRET^NAME", study
            one.PatientBirthDate, one.PatientSex, one.PatientAge = "19500101", "O", "070Y"
            one.StudyDate = "20200101"
            one.save_as(folder / f"{one.SOPInstanceUID}.dcm")


@pytest.fixture(scope="module")
def studies(
    good: dict[str, Series], bad_on_purpose: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Take every case's files through the gateway at once; timelines, with results, by Study."""
    folder = tmp_path_factory.mktemp("bad")
    source, out, settings = folder / "source", folder / "out", folder / "site.yaml"
    source.mkdir()
    for case in CASES:
        written(case, good, source)
    vector = Answer([{"image_features": [[0.1] * 1024]}])
    with endpoint(vector) as insight, endpoint(bright) as parse2d, endpoint(dense) as parse3d:
        urls = {"insight": insight.url, "parse2d": parse2d.url, "parse3d": parse3d.url}
        settings.write_text(CONFIG.format(**urls))
        assert process.run([source], out, settings, Identity.LENIENT) == 0
    report = json.loads((out / "report.json").read_text())
    found = {one["StudyInstanceUID"]: one for one in report["studies"]}
    for uid, one in found.items():
        one["results"] = sorted((out / uid).glob("*.dcm"))
    return found


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of what is wrong


def outcomes(study: dict[str, Any]) -> dict[str, str]:
    return {one["rule"]: one["outcome"] for one in study["jobs"]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_refusal_that_says_what_to_do_and_the_rest_of_the_study_goes_on(
    case: Case, studies: dict[str, dict[str, Any]]
) -> None:
    study = studies[study_of(case)]
    assert outcomes(study)["companion"] == "done"
    others = {rule: one for rule, one in outcomes(study).items() if rule != "companion"}
    if not case.says:
        assert set(others.values()) == {"done"}
        return
    assert set(others.values()) <= {"not_suitable"}
    reason = study["reason"]
    assert f"{study_of(case)}.1" in reason
    if case.bad:
        assert f"Instance {study_of(case)}.1.{case.bad} " in reason.replace(",", " ")
    for words in case.says:
        assert words in reason
    if "has LOCALIZER" not in reason and "has DERIVED" not in reason:  # not meant for a model
        assert REMEDY.search(reason)
    assert "SECRET" not in json.dumps(study["verdicts"]) + reason


def test_slices_that_lie_across_the_others_are_left_out_and_the_report_says_it(
    studies: dict[str, dict[str, Any]],
) -> None:
    (case,) = (one for one in CASES if one.name.startswith("some slices across"))
    results = [pydicom.dcmread(path) for path in studies[study_of(case)]["results"]]
    (report,) = (one for one in results if one.Modality == "SR")
    texts = [str(one.value) for one in report.iterall() if one.keyword == "TextValue"]
    assert "5 of the 8 Instances of the Series" in texts
