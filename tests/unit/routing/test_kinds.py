"""What is recognised beside the images to read, and how rules leave it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from pacs_ai.routing import explain_text
from pacs_ai.routing.conditions import KindIs
from pacs_ai.routing.kinds import KINDS, fact_of
from tests.unit.routing.studies import CXR, instance, radiograph, routed, subject

STORAGE = "1.2.840.10008.5.1.4.1.1."
ROOT = Path(__file__).parents[3]
NO_SCREENS = """
never:
  - kind: [screenshot, dose_report]
    reason: no image to read
"""


@pytest.mark.parametrize(
    ("elements", "kinds"),
    [
        ({"Modality": "DX"}, set()),
        ({"SOPClassUID": STORAGE + "1.1.1"}, {"for_processing"}),
        ({"SOPClassUID": STORAGE + "1.2.1", "Modality": "MG"}, {"for_processing"}),
        ({"PresentationIntentType": "FOR PRESENTATION"}, set()),
        ({"SOPClassUID": STORAGE + "7", "ConversionType": "WSD"}, {"secondary_capture"}),
        ({"SOPClassUID": STORAGE + "7.4"}, {"secondary_capture"}),
        (
            {"SOPClassUID": STORAGE + "7", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
            {"secondary_capture", "screenshot"},
        ),
        ({"Modality": "CT", "SeriesDescription": "Screen_Saves"}, {"screenshot"}),
        ({"Modality": "CT", "SeriesDescription": "Patient Protocol"}, {"dose_report"}),
        ({"Modality": "CT", "SeriesDescription": "DOSE-REPORT"}, {"dose_report"}),
        ({"SOPClassUID": STORAGE + "88.67", "Modality": "SR"}, {"dose_report"}),
        ({"SOPClassUID": STORAGE + "11.1", "Modality": "PR"}, {"presentation_state"}),
        ({"SOPClassUID": STORAGE + "11.12", "Modality": None}, {"presentation_state"}),
        ({"BurnedInAnnotation": "YES"}, {"burned_in_text"}),
        ({"BurnedInAnnotation": "NO"}, set()),
        ({"QualityControlSubject": "YES"}, {"quality_control"}),
        # The same words name a kernel on a slice and a second picture on a radiograph.
        ({"Modality": "CT", "SeriesDescription": "thorax soft tissue"}, set()),
        ({"Modality": "CR", "SeriesDescription": "thorax soft tissue"}, {"post_processed"}),
        ({"Modality": "CT", "SeriesDescription": "cor MIP"}, {"post_processed"}),
        ({"Modality": "CT", "SeriesDescription": "low dose chest"}, set()),
    ],
)
def test_a_kind_is_told_by_its_header(elements: dict[str, Any], kinds: set[str]) -> None:
    header = instance(**{"Modality": "DX", **elements}).header
    assert {name for name, kind in KINDS.items() if kind.fact(header)} == kinds


def test_never_leaves_out_a_kind_and_explain_says_what_gave_it_away() -> None:
    shot = radiograph(2, ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    routing = routed([radiograph(1), shot], NO_SCREENS + CXR)
    assert len(routing.jobs) == 1
    assert routing.verdicts[0].deciding == (
        "1 of 2 Instances left out: it is a screenshot (ImageType has SCREEN SAVE) "
        "(no image to read)"
    )
    alone = routed([shot], NO_SCREENS + CXR)
    assert not alone.jobs
    assert "a screenshot (ImageType has SCREEN SAVE)" in explain_text(alone)


def test_explain_says_of_each_instance_what_never_took_it_for() -> None:
    shot = radiograph(2, ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    page = radiograph(3, SeriesDescription="Dose Report")
    routing = routed([radiograph(1), shot, page], NO_SCREENS + CXR)
    assert routing.verdicts[0].details == (
        "1 Instances: it is a screenshot (ImageType has SCREEN SAVE)",
        "1 Instances: it is a dose report (SeriesDescription has DOSE REPORT)",
    )


def test_a_no_names_every_kind_that_was_looked_for() -> None:
    asked = KindIs(("screenshot", "dose_report"))
    sentence = "nothing in its header says that it is a screenshot or a dose report"
    assert asked.explain(subject(radiograph())) == sentence
    assert not asked.matches(subject(radiograph()))


def test_every_kind_stands_in_the_documentation() -> None:
    page = (ROOT / "docs" / "rules.md").read_text()
    assert [kind for kind in KINDS if f"| `{kind}` |" not in page] == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of headers that are wrong
def test_real_images_are_recognised_for_what_they_are(shared_data: Path) -> None:
    found = {}
    for path in sorted(shared_data.rglob("*.dcm")):
        if "malformed" in path.parts or "charsets" in path.parts:
            continue
        try:
            header: Dataset = dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        fact = fact_of(header)
        if fact:
            found[path.relative_to(shared_data).as_posix()] = fact.partition(" (")[0]
    assert found == dict.fromkeys(
        (
            "cxr/cr-pa-8bit-FAKE-mono1-label.dcm",
            "cxr/cr-pa-8bit-jpegbaseline-nih-siim.dcm",
            "cxr/nih-test1-dx.dcm",
            "cxr/nih-test2-dx-cardiomegaly.dcm",
            "syntaxes/HTJ2K_08_RGB.dcm",
            "vl/endoscopy-barretts-j2ki-nema.dcm",
            "xa-nm/nm-wholebody-jpegll-nema.dcm",
            "xa-nm/xa-1frame-j2ki-nema.dcm",
        ),
        "a secondary capture",
    )
