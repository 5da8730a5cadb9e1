"""Which prompts share a call, in which window, and what may not be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pacs_ai import catalogue
from pacs_ai.catalogue import Prompt
from pacs_ai.models.prompts import RefusedPromptError, asked, by_window, calls, remark
from pacs_ai.settings import Endpoint, Window
from pacs_ai.study import Job


def endpoint(kind: str, **changes: Any) -> Endpoint:
    values = {"kind": kind, "url": "http://127.0.0.1:1/score", "name": "Model", "version": "1"}
    return Endpoint.model_validate(values | changes)


def rows(*labels: str, model: str = "parse3d", modality: str = "CT") -> list[Prompt]:
    return [catalogue.find(one, model=model, modality=modality) for one in labels]


def job(kind: str, *labels: str) -> Job:
    return Job("a-rule", "an-endpoint", kind, {}, {"prompts": list(labels)})


def names(grouped: list[tuple[Prompt, ...]]) -> list[tuple[str, ...]]:
    return [tuple(one.label for one in call) for call in grouped]


def test_what_is_not_known_to_lie_apart_goes_alone() -> None:
    found = calls(rows("trachea", "left lung", "aorta", "right lung"), most=15)
    assert names(found) == [("trachea",), ("left lung", "right lung"), ("aorta",)]


def test_the_heart_s_shadow_lies_over_both_lungs() -> None:
    found = calls(rows("heart", "left lung", model="parse2d", modality="DX"), most=15)
    assert names(found) == [("heart",), ("left lung",)]
    assert names(calls(rows("heart", "left lung"), most=15)) == [("heart", "left lung")]


def test_calls_are_split() -> None:
    found = calls(rows("liver", "spleen", "pancreas", "stomach", "aorta"), most=3)
    assert names(found) == [("liver", "spleen", "pancreas"), ("stomach",), ("aorta",)]


def test_each_prompt_is_asked_in_its_window_unless_the_endpoint_fixes_one() -> None:
    prompts = rows("left lung", "liver", "vertebra l1", "brain", "right lung")
    own = by_window(prompts, endpoint("parse3d"))
    assert [(window and (window.width, window.level), len(found)) for window, found in own] == [
        ((1500, -160), 2),
        ((400, 40), 1),
        ((1800, 400), 1),
        ((80, 40), 1),
    ]
    fixed = Window(width=700, level=7)
    assert by_window(prompts, endpoint("parse3d", window=fixed)) == [(fixed, tuple(prompts))]


def test_images_without_hounsfield_units_have_no_window() -> None:
    prompts = rows("left lung", model="parse2d", modality="DX")
    found = by_window(prompts, endpoint("parse2d", window=Window(width=700, level=7)))
    assert found == [(None, tuple(prompts))]


def test_prompts_come_in_the_order_of_the_rule_and_each_once() -> None:
    found, known = asked(
        job("parse2d", "heart", "left lung", "heart"), endpoint("parse2d"), modality="DX"
    )
    assert names([found]) == [("heart", "left lung")]
    assert known is None


def test_one_prompt_in_two_spellings_is_asked_once() -> None:
    (row,) = rows("left lung", model="parse2d", modality="DX")
    found, _ = asked(
        job("parse2d", row.label, "heart", row.words), endpoint("parse2d"), modality="DX"
    )
    assert names([found]) == [("left lung", "heart")]


@pytest.mark.parametrize(
    ("kind", "label", "modality", "words"),
    [
        ("parse2d", "liver", "DX", "use left lung"),
        ("parse2d", "lung opacity", "DX", "target_dist.json"),
        ("parse2d", "breast tumor", "US", "target_dist.json"),
        ("parse3d", "liver tumor", "CT", "cannot be checked"),
        ("parse3d", "bone", "CT", "only the built-in reference models"),
    ],
)
def test_what_may_not_be_asked_is_refused(kind: str, label: str, modality: str, words: str) -> None:
    with pytest.raises(RefusedPromptError, match=words) as caught:
        asked(job(kind, label), endpoint(kind), modality=modality)
    assert "rule a-rule" in str(caught.value)


def test_a_job_without_prompts_is_refused() -> None:
    with pytest.raises(RefusedPromptError, match="names no prompts"):
        asked(job("parse2d"), endpoint("parse2d"), modality="DX")


@pytest.mark.parametrize(("kind", "label"), [("parse2d", "lung opacity"), ("parse3d", "bone")])
def test_a_reference_model_may_be_asked_for_what_it_knows(kind: str, label: str) -> None:
    modality = "DX" if kind == "parse2d" else "CT"
    found, _ = asked(job(kind, label), endpoint(kind, reference=True), modality=modality)
    assert [one.label for one in found] == [label]


def test_a_lesion_may_be_asked_for_where_its_mask_can_be_checked(tmp_path: Path) -> None:
    file = tmp_path / "target_dist.json"
    file.write_text(json.dumps({"CT-Chest": {"nodule": [[2, 3]] * 4}}))
    there = endpoint("parse2d", distributions=str(file))
    found, known = asked(job("parse2d", "lung nodule"), there, modality="CT")
    assert known is not None
    assert [one.label for one in found] == ["lung nodule"]
    with pytest.raises(RefusedPromptError, match="nothing of 'tumor' in 'CT-Chest'"):
        asked(job("parse2d", "lung tumor"), there, modality="CT")
    with pytest.raises(RefusedPromptError, match="nothing of 'tumor' in 'breast ultrasound'"):
        asked(job("parse2d", "breast tumor"), there, modality="US")


def test_what_was_not_found_is_said_and_not_called_absent() -> None:
    assert remark([]) == ()
    (note,) = remark(rows("liver", "spleen"))
    assert note == "Not found by the model, which does not say that it is absent: liver, spleen"
