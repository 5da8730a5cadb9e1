"""Prompts are checked when rules are read: against the catalogue, for the rule's images and endpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pacs_ai.errors import ConfigError
from pacs_ai.routing import parse
from pacs_ai.routing.rules import Run
from pacs_ai.settings import loads
from tests.unit.routing.studies import SITE

RULE = """
rules:
  - name: one
    when: {WHEN}
    SELECT
    run:
      - ASKED
"""
VIEW, VOLUME, IMAGE = (
    "view: {unknown: not_suitable}",
    "select: {slices: '>=3'}",
    "select: {take: image}",
)


def text(when: str, select: str, asked: str, site: str = SITE) -> str:
    return site + RULE.replace("WHEN", when).replace("SELECT", select).replace("ASKED", asked)


def faults(settings: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(loads(settings, file=Path("site.yaml")))
    return [str(fault) for fault in caught.value.faults]


def runs(settings: str) -> tuple[Run, ...]:
    (rule,) = parse(loads(settings)).rules
    return rule.runs


@pytest.mark.parametrize(
    ("when", "select", "asked", "words"),
    [
        ("Modality: [CR, DX]", VIEW, "parse2d: [hart]", "do you mean heart?"),
        ("Modality: [CR, DX]", VIEW, "parse2d: [liver]", "for parse2d on CR: use left lung"),
        ("Modality: MG", IMAGE, "parse2d: [breast tumor]", "no prompts for these images at all"),
        ("Modality: MG", IMAGE, "parse2d: [breast]", "only the built-in reference models know it"),
        ("Modality: [CT, PT]", VOLUME, "parse3d: [liver]", "for parse3d on PT"),
        ("Modality: MR", VOLUME, "parse2d: [brain tumor core]", "write 'tumor core in brain MRI"),
        ("Rows: '>=3'", VOLUME, "parse3d: [liver]", "say in when which Modality"),
        (
            "Modality: CT",
            "select: {Modality: PT}",
            "parse3d: [liver]",
            "say in when which Modality",
        ),
        ("Modality: [CR, DX]", VIEW, "parse2d: [lung opacity]", "give the publisher's target_dist"),
        (
            "Modality: CT",
            VOLUME,
            "parse3d: [liver tumor]",
            "3-D model answers cannot be checked: ask parse2d for it, or leave it out",
        ),
        # On PET no other model could be asked.
        (
            "Modality: PT",
            VOLUME,
            "parse3d: [whole-body lesion]",
            "3-D model answers cannot be checked: leave it out",
        ),
        (
            "Modality: PT",
            VOLUME,
            "parse2d: [whole-body lesion]",
            "no prompts for these images at all; for parse3d there is whole-body lesion",
        ),
        ("Modality: CT", VOLUME, "parse3d: [bone]", "only the built-in reference models know it"),
        ("Modality: CT", VOLUME, "parse2d: [liver, liver in abdomen CT]", "are the same prompt"),
    ],
)
def test_a_prompt_that_may_not_be_asked_is_a_fault_on_its_line(
    when: str, select: str, asked: str, words: str
) -> None:
    settings = text(when, select, asked)
    line = [one.strip() for one in settings.splitlines()].index(f"- {asked}") + 1
    (fault,) = faults(settings)
    assert fault.startswith(f"site.yaml:{line}: rules.0.run.0.")
    assert words in fault


@pytest.mark.parametrize(
    ("when", "select", "asked"),
    [
        ("Modality: [CR, DX]", VIEW, "parse2d: [left lung, heart]"),
        ("Modality: us", IMAGE, "parse2d: [left heart ventricle, fetal head]"),
        ("Modality: OP", IMAGE, "parse2d: [optic disc]"),
        ("Modality: CT", VOLUME, "parse2d: [liver, liver in liver CT]"),
        ("Modality: [CT, MR]", VOLUME, "parse3d: [liver, vertebra l1]"),
        ("Rows: '>=3'", "select: {Modality: MR}", "parse3d: [liver]"),
        ("all: [{Modality: CT}]", VOLUME, "parse3d: [liver]"),
    ],
)
def test_a_prompt_of_the_catalogue_is_allowed(when: str, select: str, asked: str) -> None:
    (run,) = runs(text(when, select, asked))
    assert run.asked


def test_a_reference_model_may_be_asked_for_lesions() -> None:
    site = SITE.replace("name: Parse,", "name: Parse, reference: true,")
    (run,) = runs(text("Modality: [CR, DX]", VIEW, "parse2d: [lung opacity]", site))
    assert run.prompts == ("lung opacity",)


def test_a_lesion_is_allowed_with_a_file_that_has_it(tmp_path: Path) -> None:
    file = tmp_path / "target_dist.json"
    file.write_text(json.dumps({"CT-Chest": {"nodule": [[2, 3]] * 4}}))
    site = SITE.replace("name: Parse,", f"name: Parse, distributions: {file},")
    assert runs(text("Modality: CT", VOLUME, "parse2d: [lung nodule]", site))
    (fault,) = faults(text("Modality: CT", VOLUME, "parse2d: [lung tumor]", site))
    assert "the distribution file has nothing of 'tumor' in 'CT-Chest'" in fault


def test_a_file_that_is_none_is_a_fault_on_its_line(tmp_path: Path) -> None:
    site = SITE.replace("name: Parse,", f"name: Parse, distributions: {tmp_path / 'none'},")
    settings = text("Modality: CT", VOLUME, "parse2d: [liver]", site)
    line = [
        number
        for number, one in enumerate(settings.splitlines(), 1)
        if "'none'" in one or "/none" in one
    ]
    (fault,) = faults(settings)
    assert fault.startswith(f"site.yaml:{line[0]}: endpoints.parse2d.distributions: ")
    assert "target_dist.json" in fault


def test_another_file_is_another_job(tmp_path: Path) -> None:
    file = tmp_path / "target_dist.json"
    site = SITE.replace("name: Parse,", f"name: Parse, distributions: {file},")
    settings = text("Modality: CT", VOLUME, "parse2d: [lung nodule]", site)
    seen = set()
    for beta in (3, 4):
        file.write_text(json.dumps({"CT-Chest": {"nodule": [[2, beta]] * 4}}))
        seen.add(runs(settings)[0].asked)
    assert len(seen) == 2
