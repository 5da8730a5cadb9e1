"""Validators of other makers find no error in what the gateway writes, but for known false alarms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pacs_ai.encoding import ENCODERS
from tests.conformance.conftest import Made, run

SUPPRESSIONS: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "suppressions.yaml").read_text()
)
JAVA = " ".join(
    f"-Djdk.xml.xpath{limit}=0" for limit in ("TotalOpLimit", "ExprOpLimit", "ExprGrpLimit")
)
# About seven seconds of Java each, so one of every shape that a report can have.
TEMPLATES = [
    "phantom chest-report-1",
    "phantom chest-narrative-1",
    "phantom thorax-report-1",
    "nothing found-report-1",
]


def unknown(tool: str, kind: str, messages: list[str]) -> list[str]:
    """Return the messages that no suppression explains."""
    patterns = [
        one["pattern"] for one in SUPPRESSIONS if one["tool"] == tool and kind in one["kinds"]
    ]
    return [
        message
        for message in messages
        if not any(re.fullmatch(pattern, message) for pattern in patterns)
    ]


def of(made: dict[str, Made], *kinds: str) -> list[Made]:
    found = [one for one in made.values() if one.kind in kinds]
    assert found
    return found


def test_every_suppression_has_a_reason_and_kinds_that_exist() -> None:
    for one in SUPPRESSIONS:
        assert len(one["reason"]) > 40
        assert set(one["kinds"]) <= set(ENCODERS)


def test_every_kind_of_object_is_judged(made: dict[str, Made]) -> None:
    assert {one.kind for one in made.values()} == set(ENCODERS)


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_dciodvfy_finds_no_error(made: dict[str, Made], kind: str) -> None:
    for one in of(made, kind):
        said = run("dciodvfy", "-new", one.path)
        assert re.search(r"^\w*(Segmentation|SR|SCImage)\s*$", said, re.MULTILINE), said
        errors = [line.strip() for line in said.splitlines() if "Error" in line or "Abort" in line]
        assert unknown("dciodvfy", kind, errors) == [], one.path.name


def test_dciodvfy_would_find_an_error(made: dict[str, Made], tmp_path: Path) -> None:
    import pydicom

    broken = pydicom.dcmread(made["volume axial-segmentation-1"].path)
    del broken.SegmentSequence[0].SegmentAlgorithmName
    broken.save_as(tmp_path / "broken.dcm")
    said = run("dciodvfy", "-new", tmp_path / "broken.dcm")
    errors = [line for line in said.splitlines() if "Error" in line]
    assert unknown("dciodvfy", "segmentation", errors)


@pytest.mark.parametrize("kind", ["report", "narrative"])
def test_dsrdump_prints_every_report_without_error_or_warning(
    made: dict[str, Made], kind: str
) -> None:
    for one in of(made, kind):
        said = run("dsrdump", one.path)
        assert re.search(r"SR Document$", said, re.MULTILINE), one.path.name
        assert not [line for line in said.splitlines() if line.startswith(("E:", "W:", "F:"))]


@pytest.mark.parametrize("name", TEMPLATES)
def test_pixelmed_finds_no_error_in_the_templates(made: dict[str, Made], name: str) -> None:
    said = run("DicomSRValidator", made[name].path, JAVA_TOOL_OPTIONS=JAVA)
    assert "IOD validation complete" in said, said
    assert re.search(r"Found Root Template TID_(1500|2000)", said)
    errors = [line for line in said.splitlines() if line.startswith("Error")]
    assert unknown("DicomSRValidator", made[name].kind, errors) == []
