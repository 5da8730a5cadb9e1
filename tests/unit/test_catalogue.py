"""The prompt catalogue: each row is one that the publishers name, with its term, window and figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from pacs_ai import catalogue
from pacs_ai.catalogue import Kind, Prompt, UnknownPromptError, find
from pacs_ai.errors import ConfigError
from pacs_ai.settings import Window
from pacs_ai.terms import TERMS

TEXT = (Path(catalogue.__file__).parent / "catalogue.yaml").read_text(encoding="utf-8")
CONTRACTS = Path(__file__).parents[2].parent / "shared" / "docs" / "model-contracts.md"

SMALL = """
modalities: {CT: [CT]}
windows: {soft: {width: 400, level: 40}}
least: {parse2d: {organ: 100, lesion: 25}, parse3d: {organ: 1, lesion: 0.1}}
groups:
  - model: parse2d
    modality: CT
    site: abdomen
    window: soft
    prompts:
      - {target: liver, dice: 0.97, n: 9}
"""


@pytest.mark.parametrize("row", catalogue.prompts(), ids=lambda row: f"{row.model} {row.words}")
def test_a_row_has_a_term_and_a_window_where_its_images_have_units(row: Prompt) -> None:
    assert TERMS[row.label].colour is not None
    assert (row.window is not None) is (row.modality == "CT")
    assert row.least > 0
    assert "&" not in row.words  # it divides prompts on the wire
    known = {key for keys in catalogue.dicom_modalities().values() for key in keys}
    assert row.modality in known


@pytest.mark.parametrize("row", catalogue.prompts(), ids=lambda row: f"{row.model} {row.words}")
def test_a_side_that_is_asked_for_is_the_side_that_is_written(row: Prompt) -> None:
    for side in ("left", "right"):
        assert (side in row.target.split()) is (side in row.label.split())


def _published() -> list[tuple[str, str, str, float, int]]:
    """Read the table of evaluated tasks (model-contracts §4.6)."""
    found = []
    modality = site = ""
    for line in CONTRACTS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5 and re.search(r"\d\.\d{3} \(\d+\)", cells[3]):
            modality, site = cells[1], cells[2]
            for target, dice, count in re.findall(r"([^;]+?) (\d\.\d{3}) \((\d+)\)", cells[3]):
                found.append((modality, site, target.strip(), float(dice), int(count)))
    return found


def test_the_published_figures_are_those_of_the_evaluation() -> None:
    published = _published()
    assert len(published) == 112
    wanted = {one for one in published if not re.search(r"lung-\w+", one[2])}
    stated = {
        (one.modality, one.site, one.target, one.dice, one.count)
        for one in catalogue.prompts()
        if one.model == "parse2d" and one.dice is not None
    }
    assert stated == wanted


def test_only_what_was_published_has_a_figure() -> None:
    silent = [one.words for one in catalogue.prompts() if one.model == "parse2d" and not one.dice]
    assert silent == ["heart in chest X-Ray", "breast in breast mammography"]


@pytest.mark.parametrize(("modality", "mean"), [("CT", "CT mean Dice"), ("MRI", "MRI mean")])
def test_the_figures_in_three_dimensions_are_those_of_the_card(modality: str, mean: str) -> None:
    text = CONTRACTS.read_text(encoding="utf-8")
    sentence = re.search(rf"{mean} [^:]*: (.*?)\. ", text)
    assert sentence is not None
    sides = {"adrenals": "adrenal gland", "kidneys": "kidney"}
    wanted = {}
    for part in sentence[1].split(", "):
        name, figures = part.replace(" L/R", "").rsplit(" ", 1)
        values = [round(float(one) / 100, 3) for one in figures.split("/")]
        if name in sides:
            wanted |= dict(
                zip((f"left {sides[name]}", f"right {sides[name]}"), values, strict=True)
            )
        else:
            wanted["inferior vena cava" if name == "IVC" else name] = values[0]
    assert len(wanted) >= 13
    stated = [
        one
        for one in catalogue.prompts()
        if one.model == "parse3d" and one.modality == modality and one.dice is not None
    ]
    assert {one.label: one.dice for one in stated} == wanted
    assert not any(one.count for one in stated)


@pytest.mark.parametrize(
    ("asked", "model", "modality", "words"),
    [
        # What was asked before there was a catalogue is asked in the same words.
        ("left lung", "parse2d", "DX", "left lung in chest X-Ray"),
        ("heart", "parse2d", "CR", "heart in chest X-Ray"),
        ("liver", "parse3d", "CT", "liver in abdomen CT"),
        ("aorta", "parse3d", "CT", "aorta in chest CT"),
        ("aorta", "parse3d", "MR", "aorta in chest MRI"),
        ("heart", "parse3d", "MR", "heart in chest MRI"),
        ("body", "parse3d", "CT", "body in chest CT"),
        # The model's own spelling stays on the wire.
        ("inferior vena cava", "parse2d", "CT", "postcava in abdomen CT"),
        ("pubic symphysis", "parse2d", "US", "public symphysis in transperineal ultrasound"),
        ("liver", "parse2d", "CT", "liver in abdomen CT"),
        ("liver in liver CT", "parse2d", "CT", "liver in liver CT"),
        ("tumor core in brain MRI-FLAIR", "parse2d", "MR", "tumor core in brain MRI-FLAIR"),
        ("skin lesion", "parse2d", "XC", "lesion in skin dermoscopy"),
        ("whole-body lesion", "parse3d", "PT", "lesion in whole body PET"),
    ],
)
def test_a_label_or_the_words_find_a_row(asked: str, model: str, modality: str, words: str) -> None:
    assert find(asked, model=model, modality=modality).words == words


@pytest.mark.parametrize(
    ("asked", "model", "modality", "remedy"),
    [
        ("hear", "parse2d", "DX", "do you mean heart?"),
        ("liver", "parse2d", "DX", "use left lung, right lung"),
        (
            "heart",
            "parse2d",
            "MG",
            "no prompts for these images at all; the reference models know breast",
        ),
        ("heart", "parse2d", "XA", "no prompts for these images at all: leave it out"),
        ("body", "parse2d", "CT", "use adrenal gland"),
        (
            "liver",
            "parse2d",
            "PT",
            "names no prompts for these images at all; for parse3d there is",
        ),
        ("liver", "parse3d", "PT", "use whole-body lesion"),
        ("brain tumor core", "parse2d", "MR", "'tumor core in brain MRI-T1-Gd', and select such"),
    ],
)
def test_what_has_no_row_is_named_with_what_there_is(
    asked: str, model: str, modality: str, remedy: str
) -> None:
    with pytest.raises(UnknownPromptError, match=re.escape(remedy)) as caught:
        find(asked, model=model, modality=modality)
    assert f"{model} on {modality}" in str(caught.value)


def test_lesions_are_told_from_organs() -> None:
    kinds = {one.label: one.kind for one in catalogue.prompts()}
    assert kinds["lung opacity"] is kinds["colon polyp"] is kinds["kidney cyst"] is Kind.LESION
    assert kinds["liver"] is kinds["liver vessels"] is kinds["optic cup"] is Kind.ORGAN


def test_pet_has_the_one_prompt_that_a_publisher_names_for_it() -> None:
    found = [one for one in catalogue.prompts() if one.modality == "PET"]
    assert [(one.model, one.words, one.kind, one.window, one.dice) for one in found] == [
        ("parse3d", "lesion in whole body PET", Kind.LESION, None, None)
    ]


def test_a_prompt_is_added_by_one_row() -> None:
    more = SMALL + "      - {target: vessel, term: liver vessels, least: 30, apart: true}\n"
    _, (liver, vessels) = catalogue.read(more)
    assert (liver.label, liver.dice, liver.count, liver.least) == ("liver", 0.97, 9, 100)
    assert vessels.words == "vessel in abdomen CT"
    assert (vessels.label, vessels.least, vessels.apart) == ("liver vessels", 30, True)
    assert vessels.window == Window(width=400, level=40)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{target: livr}", "is no term"),
        ("{target: cardiothoracic ratio}", "is no term"),
        ("{target: spleen, window: hard}", "is no window"),
        ("{target: liver}", "stands twice"),
        ("{target: spleen, dise: 0.9}", "Extra inputs"),
        ("{target: spleen, dice: 97}", "less than or equal to 1"),
    ],
)
def test_a_row_that_is_wrong_is_refused(row: str, words: str) -> None:
    with pytest.raises((ValueError, ValidationError, ConfigError), match=words):
        catalogue.read(f"{SMALL}      - {row}\n")


def test_the_file_in_the_package_is_the_one_that_is_read() -> None:
    assert catalogue.read(TEXT)[1] == catalogue.prompts()
