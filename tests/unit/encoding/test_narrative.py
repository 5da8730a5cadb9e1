"""A draft report says in every line that it is one."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_ai.encoding import ENCODERS
from pacs_ai.results import (
    Assertion,
    Finding,
    Narrative,
    NothingFound,
    Outcome,
    Sentence,
)
from pacs_ai.study import Instance
from tests.unit.encoding import sources as make


@pytest.fixture
def film(tmp_path: Path) -> Instance:
    return make.radiograph(tmp_path)


def draft(film: Instance, *sentences: Sentence, found: bool = True) -> Dataset:
    narrative = Narrative(sentences, (film.SOPInstanceUID,))
    outcome: Outcome | None = None if found else NothingFound((narrative,))
    entry = make.entry(
        narrative,
        model=make.REFERENCE,
        kind="cxrreport",
        sources=[film.SOPInstanceUID],
        outcome=outcome,
        parameters={"notes": ["lines and tubes not assessed"]},
    )
    (dataset,) = ENCODERS["narrative"](make.encoding(make.study([film]), entry))
    return pydicom.dcmread(BytesIO(make.to_bytes(dataset)))


def sections(dataset: Dataset) -> dict[str, list[str]]:
    return {
        one.ConceptNameCodeSequence[0].CodeValue: [
            str(child.TextValue) for child in one.ContentSequence
        ]
        for one in dataset.ContentSequence
        if one.ValueType == "CONTAINER"
    }


def test_every_line_says_that_it_is_a_draft_that_nobody_verified(film: Instance) -> None:
    dataset = draft(film, Sentence("There is an opacity."), Sentence("The heart is large."))
    lines = [line for section in sections(dataset).values() for line in section]
    assert len(lines) == 5
    assert all(line.startswith("AI draft, not verified") for line in lines)
    title = dataset.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("18748-4", "LN")
    assert "AI draft, not verified" in title.CodeMeaning
    assert "draft, not verified" in dataset.SeriesDescription


def test_the_first_line_names_the_model_and_what_it_is(film: Instance) -> None:
    first = sections(draft(film, Sentence("There is an opacity.")))["59776-5"][0]
    assert "Reference parser 0.1" in first
    assert "Reference model, not for clinical use." in first
    assert first.endswith("A radiologist must read the images.")


def test_sentences_keep_order_words_and_remarks(film: Instance) -> None:
    said = sections(
        draft(
            film, Sentence("B."), Sentence("A.", (), "compares with a prior that was not supplied")
        )
    )["59776-5"]
    assert said[1:3] == [
        "AI draft, not verified: B.",
        "AI draft, not verified: A. [compares with a prior that was not supplied]",
    ]
    assert said[3].endswith("lines and tubes not assessed")


def test_it_has_findings_and_an_impression_that_draws_none(film: Instance) -> None:
    assert list(sections(draft(film, Sentence("A.")))) == ["59776-5", "19005-8"]
    assert "no impression was drawn" in sections(draft(film, Sentence("A.")))["19005-8"][0]


def test_nothing_found_is_not_a_normal_result(film: Instance) -> None:
    said = sections(draft(film, Sentence("No effusion."), found=False))["59776-5"]
    assert any("No finding flagged by" in one and "not a normal result" in one for one in said)


def test_beside_an_uncertain_finding_nothing_is_flagged_as_present(film: Instance) -> None:
    uid = film.SOPInstanceUID
    unsure = Finding("lung nodule", Assertion.UNCERTAIN, (uid,), sentence="Possible nodule.")
    text = Narrative((Sentence("Possible nodule."),), (uid,))
    outcome = NothingFound((text, unsure))
    entry = make.entry(kind="cxrreport", model=make.REPORTER, sources=[uid], outcome=outcome)
    (dataset,) = ENCODERS["narrative"](make.encoding(make.study([film]), entry))
    assert sections(dataset)["59776-5"][-1] == (
        "AI draft, not verified: No finding flagged as present by CXRReportGen 7; not a normal result"
    )


def test_nobody_verified_it_and_a_device_wrote_it(film: Instance) -> None:
    dataset = draft(film, Sentence("A."))
    assert (dataset.VerificationFlag, dataset.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "2000"
    observer = [
        one.ConceptCodeSequence[0].CodeValue
        for one in dataset.ContentSequence
        if one.ConceptNameCodeSequence[0].CodeValue == "121005"
    ]
    assert observer == ["121007"]


def test_it_refers_to_the_images_that_were_read(film: Instance) -> None:
    dataset = draft(film, Sentence("A."))
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    named = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [one.ReferencedSOPInstanceUID for one in named] == [film.SOPInstanceUID]


def test_without_a_draft_there_is_no_document(film: Instance) -> None:
    assert ENCODERS["narrative"](make.encoding(make.study([film]), make.entry())) == ()
