from __future__ import annotations

from pathlib import Path

import pytest

from pacs_ai.errors import ConfigError
from pacs_ai.routing import parse
from pacs_ai.settings import loads
from tests.unit.routing.studies import CT, CXR, SITE, rules


def _faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        rules(text)
    return [fault.message for fault in caught.value.faults]


def _cxr(old: str, new: str) -> str:
    assert old in CXR
    return CXR.replace(old, new)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_cxr("Modality", "Modalty"), "do you mean Modality?"),
        (_cxr("Modality: [CR, DX]", "PatientID: X"), "no rule looks at it"),
        (_cxr("Modality: [CR, DX]", "PatientName: X"), "no rule looks at it"),
        (_cxr("Modality: [CR, DX]", "PatientAge: 018Y"), "write age:"),
        (_cxr("Modality: [CR, DX]", "ViewCodeSequence: X"), "no condition can compare it"),
        (_cxr("Modality: [CR, DX]", "ImageType: [DERIVED]"), "has several values"),
        (_cxr("Modality: [CR, DX]", "Modality: []"), "write a value"),
        (_cxr("Modality: [CR, DX]", "Modality: no"), "write a value"),
        (_cxr("Modality: [CR, DX]", "Modality: {is: CR}"), "write one of {in: term}"),
        (_cxr("Modality: [CR, DX]", 'Modality: ">=5"'), "is not a number"),
        (_cxr("Modality: [CR, DX]", 'Rows: ">=9 <=5"'), "no number lies in the range"),
        (_cxr("Modality: [CR, DX]", "text: chest"), "chest is no term"),
        (_cxr("Modality: [CR, DX]", "text: {has: [A], of: []}"), "text is a term"),
        (_cxr("Modality: [CR, DX]", "none_of: chest"), "write a list of conditions"),
        (_cxr("Modality: [CR, DX]", "body: {BodyPartExamined: X}"), "if_missing"),
        (_cxr("Modality: [CR, DX]", "age: {min: 18Y}"), "when the age is unknown"),
        (_cxr("Modality: [CR, DX]", "age: {min: 18, unknown: no_match}"), "write an age"),
        (_cxr("Modality: [CR, DX]", "age: {min: 9Y, max: 8Y, unknown: no_match}"), "min being"),
        (_cxr("Modality: [CR, DX]", "view: LLD"), "neither in view.frontal"),
        (_cxr("Modality: [CR, DX]", "kind: screen_shot"), "do you mean screenshot?"),
        (_cxr("Modality: [CR, DX]", "kind: []"), "write a kind"),
        (_cxr("{Modality: [CR, DX]}", "CT"), "write conditions as a mapping"),
        (_cxr("when: {Modality: [CR, DX]}", "note: x"), "has no when"),
        (_cxr("unknown: not_suitable", "from: [PatientPosition], unknown: frontal"), "lay"),
        (_cxr("unknown: not_suitable", "from: [StudyDescription], unknown: frontal"), "at once"),
        (_cxr("unknown: not_suitable", "frontal: [PA]"), "when the view is unknown"),
        (_cxr("unknown: not_suitable", "frontal: [LL], unknown: frontal"), "both frontal and"),
        (_cxr("unknown: not_suitable", "sure: 1, unknown: frontal"), "unknown key"),
        (_cxr("view: {unknown: not_suitable}", "note: x"), "say which images it takes"),
        (_cxr("[cxrreport]", "[cxreport]"), "is no endpoint"),
        (_cxr("[cxrreport]", "[parse2d]"), "list its prompts"),
        (_cxr("[cxrreport]", "[{cxrreport: [heart]}]"), "takes no prompts"),
        (_cxr("[cxrreport]", "[{parse2d: [hear]}]"), "do you mean heart?"),
        (_cxr("[cxrreport]", "[{parse2d: [cardiothoracic ratio]}]"), "is not one prompt"),
        (_cxr("[cxrreport]", "[{parse2d: [heart, heart]}]"), "stands twice"),
        (_cxr("[cxrreport]", "[{parse3d: [heart]}]"), "reads volumes"),
        (_cxr("[cxrreport]", "cxrreport"), "run is a list"),
        (_cxr("[cxrreport]", "[]"), "runs nothing"),
        (_cxr("[cxrreport]", "[cxrreport]\n    reason: why"), "reason is for rules that run"),
        (_cxr("[cxrreport]", "[cxrreport]\n    measure: {ctr: true}"), "ratio needs"),
        (_cxr("[cxrreport]", "[cxrreport]\n    measure: {x: true}"), "measure is {ctr"),
        (_cxr("[cxrreport]", "[cxrreport]\n    levels: 1"), "unknown key"),
        (_cxr("[cxrreport]", "[cxrreport]\n    extends: base"), "no rule is called base"),
        (_cxr("[cxrreport]", "[cxrreport]\n    extends: cxr"), "extends itself"),
        (_cxr("name: cxr", "title: cxr"), "has no name"),
        (CXR + CXR.replace("rules:\n", ""), "another rule is called cxr"),
        (CT.replace('"<=5"', '"thin"'), "write a range"),
        (CT.replace("slices:", "kernel: B70, slices:"), "list kernels"),
        (CT.replace("{parse3d: [left lung]}", "cxrreport"), "reads radiographs"),
        (CT.replace("{ImageType", "{take: one, ImageType"), "choose image or latest image"),
        (CT.replace("{ImageType", "{take: image, ImageType"), "it is for volumes"),
        (CT.replace("{ImageType", "{take: image, frame: 0, ImageType"), "number of a frame"),
        (CT.replace("{ImageType", "{take: image, ImageType"), "reads volumes"),
        (CT.replace("{ImageType", "{take: image, frame: every, ImageType"), "middle, all, or"),
        (
            CT.replace("{ImageType", "{take: image, frame: all, ImageType").replace(
                "{parse3d: [left lung]}", "insight"
            ),
            "embeds one picture and not all frames",
        ),
        (
            CT.replace("{ImageType", "{take: image, frame: all, ImageType").replace(
                "{parse3d: [left lung]}", "cxrreport"
            ),
            "reads radiographs",
        ),
        ("rules: {name: cxr}", "rules is a list"),
        ("rules: [cxr]", "each entry is a mapping"),
        ("never: [{Modality: MG}]", "say in reason"),
        ("never: [{reason: x}]", "leave out everything"),
        ("terms: [CHEST]", "terms is a mapping"),
        ("text_elements: [StudyDescripton]", "do you mean StudyDescription?"),
        ("age: {unitless: maybe}", "choose unknown or years"),
        ("age: {from: [PatientSex]}", "name PatientBirthDate"),
        ('age: {placeholder_birth: ["1900"]}', "YYYYMMDD"),
    ],
)
def test_a_wrong_rule_is_a_fault_with_a_remedy(text: str, words: str) -> None:
    assert [message for message in _faults(text) if words in message]


def test_every_fault_is_reported_with_file_and_line() -> None:
    text = SITE + CXR.replace("Modality", "Modalty").replace("[cxrreport]", "[nothing]")
    with pytest.raises(ConfigError) as caught:
        parse(loads(text, file=Path("site.yaml")))
    lines = text.splitlines()
    found = {(fault.file, lines[(fault.line or 0) - 1].strip()) for fault in caught.value.faults}
    assert found == {
        (Path("site.yaml"), "when: {Modalty: [CR, DX]}"),
        (Path("site.yaml"), "run: [nothing]"),
    }


def test_a_circle_of_rules_is_broken_by_a_fault() -> None:
    two = """
rules:
  - {name: a, extends: b, when: {Modality: CT}, run: [], reason: x}
  - {name: b, extends: a, when: {Modality: CT}, run: [], reason: x}
"""
    assert [message for message in _faults(two) if "break the circle" in message]


def test_settings_without_rules_route_nothing() -> None:
    assert rules("").rules == ()


def test_nothing_in_a_rule_is_evaluated() -> None:
    text = CXR.replace("[CR, DX]", "\"__import__('os').system('true')\"")
    (rule,) = rules(text).rules
    assert "__import__" in repr(rule.when)
