"""The seven steps where a view is read from pixels: asked, answered, routed again."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import yaml

from pacs_ai import models, phantom
from pacs_ai.ledger import studies
from pacs_ai.models.seats import Seats
from pacs_ai.prototypes import Prototype, dumps
from pacs_ai.results import Done, Embedding, Likeness, NotSuitable, Outcome
from pacs_ai.settings import Endpoint, load
from pacs_ai.study import Job
from pacs_ai.uids import derived_uid
from tests.unit import fake_models
from tests.unit.test_gateway import DEMO, Driver

pytestmark = pytest.mark.usefixtures("one_decoder")
ANSWERS: dict[str, Outcome] = {}


def insight(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    """Answer as the test says."""
    fake_models.calls.append(job)
    (image,) = job.inputs["image"]
    return ANSWERS.get(image.SOPInstanceUID, ANSWERS["insight"])


def like(label: str, certainty: float = 0.97) -> Outcome:
    vector = np.ones(4, np.float32) / 2
    likeness = Likeness("view", label, certainty)
    return Done((Embedding(vector, "2.25.1", "r", "the one image", (likeness,)),))


@pytest.fixture
def silent() -> pydicom.Dataset:
    frontal, _ = phantom.chest_radiographs(name="silent", when=datetime.now(UTC), opacity=False)
    made = deepcopy(frontal)
    for keyword in ("ViewPosition", "ViewCodeSequence", "PatientOrientation"):
        del made[keyword]
    made.SeriesDescription = made.ProtocolName = "chest"
    return made


@pytest.fixture
def driver(tmp_path: Path, ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    fake_models.calls.clear()
    ANSWERS.clear()
    monkeypatch.setitem(models.MODELS, "insight", f"{__name__}:insight")
    monkeypatch.setitem(models.MODELS, "cxrreport", "tests.unit.fake_models:nothing")
    values: dict[str, Any] = yaml.safe_load(DEMO.read_text())
    file = tmp_path / "prototypes.json"
    labels = {
        label: Prototype(np.eye(4)[at], 0.5, ()) for at, label in enumerate(("frontal", "lateral"))
    }
    file.write_text(dumps(load(DEMO).endpoints["insight"], {("view", "r"): labels}, {}))
    values["endpoints"]["insight"]["prototypes"] = {"file": str(file)}
    rule = {
        "name": "cxr",
        "when": {"Modality": "DX"},
        "view": {"from": ["ViewPosition", "pixels>=0.95"], "unknown": "not_suitable"},
        "run": ["cxrreport"],
    }
    made = Driver(tmp_path, ledger_url, endpoints=values["endpoints"], rules=[rule], worklist=[])
    yield made
    made.gateway.close()


def ran() -> list[str]:
    return [job.kind for job in fake_models.calls]


def test_a_study_is_routed_again_when_its_pixels_have_answered(
    driver: Driver, silent: pydicom.Dataset
) -> None:
    ANSWERS["insight"] = like("frontal")
    driver.receive(silent)
    driver.carry_out()
    assert ran() == ["insight", "cxrreport"]
    assert fake_models.calls[1].parameters["view_from"] == "pixels"
    assert driver.timeline(str(silent.StudyInstanceUID))["state"] == "nothing_found"


@pytest.mark.parametrize(
    "answer",
    [like("lateral"), like("frontal", 0.94), Done(()), NotSuitable("it cannot be shown")],
    ids=["lateral", "not certain", "nothing", "no picture"],
)
def test_a_study_that_stays_without_a_view_is_not_suitable(
    driver: Driver, silent: pydicom.Dataset, answer: Outcome
) -> None:
    ANSWERS["insight"] = answer
    driver.receive(silent)
    driver.carry_out()
    assert ran() == ["insight"]
    timeline = driver.timeline(str(silent.StudyInstanceUID))
    assert timeline["state"] == "not_suitable"
    assert "no frontal image" in timeline["reason"]
    assert "are asked first" not in timeline["reason"]


def another(silent: pydicom.Dataset, **elements: Any) -> pydicom.Dataset:
    """Return another Instance of the Study, in a Series of its own."""
    made = deepcopy(silent)
    made.SOPInstanceUID = derived_uid("instance", "another")
    made.SeriesInstanceUID = derived_uid("series", "another")
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def test_a_rule_waits_for_every_image_without_a_view(
    driver: Driver, silent: pydicom.Dataset
) -> None:
    other = another(silent)
    ANSWERS["insight"] = like("frontal")
    ANSWERS[str(other.SOPInstanceUID)] = like("lateral")
    driver.receive(silent, other)
    driver.carry_out()
    assert ran() == ["insight", "insight", "cxrreport"]
    given = fake_models.calls[2].inputs
    assert {role: one.SOPInstanceUID for role, (one,) in given.items()} == {
        "frontal": silent.SOPInstanceUID,
        "lateral": other.SOPInstanceUID,
    }


def test_what_other_prototypes_answered_does_not_count(
    driver: Driver, silent: pydicom.Dataset
) -> None:
    ANSWERS["insight"] = like("frontal")
    driver.receive(silent)
    driver.carry_out()
    rules = driver.gateway.rules
    assert rules.asking is not None
    records, study = driver.gateway.records, str(silent.StudyInstanceUID)
    with driver.gateway.ledger.database.read() as connection:
        (stored,) = studies.source_instances(connection, study)
    rows = {stored.SOPInstanceUID: stored.id}
    said = records.likenesses(study, rows, rules.asking)
    assert said == {silent.SOPInstanceUID: Likeness("view", "frontal", 0.97)}
    assert records.likenesses(study, rows, replace(rules.asking, identity="another")) == {}


def test_a_late_instance_does_not_ask_again(driver: Driver, silent: pydicom.Dataset) -> None:
    ANSWERS["insight"] = like("frontal")
    driver.receive(silent)
    driver.carry_out()
    driver.receive(another(silent, Modality="CR"))
    driver.carry_out()
    assert ran() == ["insight", "cxrreport"]
    assert driver.timeline(str(silent.StudyInstanceUID))["state"] == "nothing_found"
