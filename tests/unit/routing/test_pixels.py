"""A view from pixels: asked only where the header is silent, waited for, and never beyond its certainty."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pacs_ai.errors import ConfigError
from pacs_ai.prototypes import Prototype, dumps
from pacs_ai.results import Likeness
from pacs_ai.routing import Outcome, Routing, Rules, parse, route
from pacs_ai.settings import Settings, loads
from pacs_ai.study import Instance
from tests.unit.routing.studies import NOW, SITE, radiograph, study

RULE = """
rules:
  - name: cxr
    when: {Modality: [CR, DX]}
    view: {from: [ViewPosition, "pixels>=0.95"], unknown: UNKNOWN}
    run: [cxrreport]
"""
SILENT = radiograph(1, ViewPosition=None)


def settings(tmp_path: Path, *, about: str = "view", unknown: str = "not_suitable") -> Settings:
    file = tmp_path / "prototypes.json"
    labels = {
        label: Prototype(np.eye(4)[at], 0.5, ()) for at, label in enumerate(("frontal", "lateral"))
    }
    bare = loads(SITE)
    file.write_text(dumps(bare.endpoints["insight"], {(about, "r"): labels}, {}))
    named = 'Insight, version: "1"'
    site = SITE.replace(named, f"{named}, prototypes: {{file: {file}}}")
    return loads(site + RULE.replace("UNKNOWN", unknown))


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return parse(settings(tmp_path))


def routed(
    rules: Rules, *instances: Instance, pixels: Mapping[str, Likeness | None] | None = None
) -> Routing:
    return route(study(*instances), rules, now=NOW, pixels=pixels)


def like(label: str, certainty: float = 0.97, **others: Any) -> dict[str, Likeness | None]:
    return {SILENT.SOPInstanceUID: Likeness("view", label, certainty), **others}


def test_pixels_of_a_silent_header_are_asked_and_waited_for(rules: Rules) -> None:
    found = routed(rules, SILENT)
    (job,) = found.jobs
    assert (job.rule, job.endpoint, job.kind) == ("view from pixels", "insight", "insight")
    assert job.inputs == {"image": (SILENT,)}
    assert found.verdicts[0].outcome is Outcome.NOT_SUITABLE
    assert found.refusals[0].reason == "the pixels of 1 images without a view are asked first"


def test_an_assumed_view_waits_for_the_pixels_too(tmp_path: Path) -> None:
    rules = parse(settings(tmp_path, unknown="frontal"))
    assert [job.kind for job in routed(rules, SILENT).jobs] == ["insight"]
    sure = routed(rules, SILENT, pixels={SILENT.SOPInstanceUID: None})
    assert [job.kind for job in sure.jobs] == ["insight", "cxrreport"]
    unsure = routed(rules, SILENT, pixels=like("frontal", 0.7))
    assert [job.kind for job in unsure.jobs] == ["insight", "cxrreport"]


@pytest.mark.parametrize("label", ["lateral", "other"])
@pytest.mark.parametrize("certainty", [0.97, 0.94])
def test_no_view_is_assumed_against_the_pixels(
    tmp_path: Path, label: str, certainty: float
) -> None:
    rules = parse(settings(tmp_path, unknown="frontal"))
    found = routed(rules, SILENT, pixels=like(label, certainty))
    assert [job.kind for job in found.jobs] == ["insight"]
    assert found.verdicts[0].outcome is Outcome.NOT_SUITABLE


def test_pixels_fill_the_view_and_the_job_that_asked_stays(rules: Rules) -> None:
    before, after = routed(rules, SILENT).jobs, routed(rules, SILENT, pixels=like("frontal")).jobs
    assert after[0] == before[0]
    assert after[1].kind == "cxrreport"
    assert after[1].inputs == {"frontal": (SILENT,)}
    assert after[1].parameters["view"] == ""
    assert after[1].parameters["view_from"] == "pixels"
    assert after[1].parameters["notes"] == [
        "Frontal by pixels alone: the pixels are like frontal with a certainty of 0.970"
    ]


@pytest.mark.parametrize(
    "pixels",
    [like("lateral"), like("other"), like("frontal", 0.94), {SILENT.SOPInstanceUID: None}],
    ids=["lateral", "other", "below the rule's certainty", "nothing certain"],
)
def test_nothing_runs_on_what_is_not_frontal_for_certain(
    rules: Rules, pixels: dict[str, Likeness | None]
) -> None:
    found = routed(rules, SILENT, pixels=pixels)
    assert [job.kind for job in found.jobs] == ["insight"]
    assert found.verdicts[0].outcome is Outcome.NOT_SUITABLE


@pytest.mark.parametrize("position", ["PA", "LL", "RLO"])
def test_a_header_that_speaks_is_not_overruled(rules: Rules, position: str) -> None:
    one = radiograph(1, ViewPosition=position)
    for label in ("frontal", "lateral"):
        found = routed(rules, one, pixels=like(label))
        assert [job.kind for job in found.jobs] == (["cxrreport"] if position == "PA" else [])


def test_an_orientation_that_the_pixels_contradict_is_no_view(rules: Rules) -> None:
    one = radiograph(1, ViewPosition=None, PatientOrientation=["L", "F"])
    found = routed(rules, one, pixels=like("lateral"))
    assert "contradictory" in found.refusals[0].reason
    assert len(routed(rules, one, pixels=like("frontal")).jobs) == 2


def test_a_lateral_by_pixels_goes_along_as_the_lateral(rules: Rules) -> None:
    frontal = radiograph(2)
    job = routed(rules, SILENT, frontal, pixels=like("lateral")).jobs[1]
    assert job.inputs == {"frontal": (frontal,), "lateral": (SILENT,)}


def test_a_rule_without_pixels_asks_nobody(tmp_path: Path) -> None:
    given = settings(tmp_path)
    text = SITE + RULE.replace(', "pixels>=0.95"', "").replace("UNKNOWN", "not_suitable")
    assert given.endpoints["insight"].prototypes is not None
    assert routed(parse(loads(text)), SILENT, pixels=like("frontal")).jobs == ()


def test_pixels_need_prototypes_of_views(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one insight endpoint with prototypes: there is none"):
        parse(loads(SITE + RULE.replace("UNKNOWN", "not_suitable")))
    with pytest.raises(ConfigError, match="tell no views apart"):
        parse(settings(tmp_path, about="body"))


@pytest.mark.parametrize("source", ["pixels", "pixels>=2", "pixels<0.9"])
def test_a_certainty_must_be_stated(source: str) -> None:
    text = RULE.replace("pixels>=0.95", source).replace("UNKNOWN", "not_suitable")
    with pytest.raises(ConfigError, match="is no source of the view"):
        parse(loads(SITE + text))
