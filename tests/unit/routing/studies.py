"""Made-up headers for tests of routing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from pacs_ai.routing import Routing, Rules, parse, route
from pacs_ai.routing.ages import AgePolicy
from pacs_ai.routing.conditions import StudyFacts, Subject
from pacs_ai.settings import loads
from pacs_ai.study import Instance, Study

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

SITE = """
site: {name: Test, time_zone: Etc/UTC, use: research, responsible: tests}
endpoints:
  insight: {kind: insight, url: "http://127.0.0.1:1/score", name: Insight, version: "1"}
  parse2d: {kind: parse2d, url: "http://127.0.0.1:1/score", name: Parse, version: "1"}
  parse3d: {kind: parse3d, url: "http://127.0.0.1:1/score", name: Parse 3D, version: "1"}
  cxrreport: {kind: cxrreport, url: "http://127.0.0.1:1/score", name: Report, version: "1"}
"""

CXR = """
rules:
  - name: cxr
    when: {Modality: [CR, DX]}
    view: {unknown: not_suitable}
    run: [cxrreport]
"""

CT = """
rules:
  - name: ct
    when: {Modality: CT}
    select: {ImageType: {all: [ORIGINAL, PRIMARY]}, thickness: "<=5", slices: ">=3"}
    run: [{parse3d: [left lung]}]
"""


def instance(number: int = 1, *, series: int = 1, **elements: Any) -> Instance:
    """Return an Instance of the one Study; elements of value None are left out."""
    header = Dataset()
    given = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
        "SOPInstanceUID": f"2.25.1.{series}.{number}",
        "StudyInstanceUID": "2.25.1",
        "SeriesInstanceUID": f"2.25.1.{series}",
        "SeriesNumber": series,
        "StudyDate": "20261123",
        "PatientAge": "061Y",
        **elements,
    }
    for keyword, value in given.items():
        if value is not None:
            setattr(header, keyword, value)
    return Instance(header, Path("unused"), digest="d", transfer_syntax_uid="1.2.840.10008.1.2.1")


def radiograph(number: int = 1, **elements: Any) -> Instance:
    """Return a chest radiograph; each is its own Series."""
    given = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", **elements}
    return instance(1, series=number, **given)


def slices(count: int, *, series: int = 1, **elements: Any) -> list[Instance]:
    """Return the slices of one CT Series."""
    given = {
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SliceThickness": "5",
        "ConvolutionKernel": "B30f",
        **elements,
    }
    return [
        instance(number, series=series, **{**grid(number), **given})
        for number in range(1, count + 1)
    ]


def grid(number: int) -> dict[str, Any]:
    """Return where a slice lies, and how large it is."""
    return {
        "FrameOfReferenceUID": "2.25.3",
        "ImagePositionPatient": [0, 0, 5 * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.7],
        "Rows": 8,
        "Columns": 8,
    }


def study(*instances: Instance) -> Study:
    """Return a Study of these Instances."""
    return Study("2.25.1", tuple(instances), received_at=NOW, peer="test")


def rules(text: str) -> Rules:
    """Parse rules written beside the test's own site and endpoints."""
    return parse(loads(SITE + text))


def routed(instances: Iterable[Instance], text: str) -> Routing:
    """Route a Study by rules."""
    return route(study(*instances), rules(text), now=NOW)


def subject(one: Instance, policy: AgePolicy | None = None) -> Subject:
    """Return an Instance as conditions see it, alone in its Study."""
    return Subject(one, StudyFacts(study(one), (one,), policy or AgePolicy(), NOW.date()))
