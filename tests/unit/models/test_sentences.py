"""The sentence table, on wordings of many hands; none of them is one server's."""

from __future__ import annotations

import pytest

from pacs_ai import terms
from pacs_ai.models import sentences
from pacs_ai.models.sentences import CONCEPTS, Statement, compares, read
from pacs_ai.results import Assertion

P, A, U, H = Assertion.PRESENT, Assertion.ABSENT, Assertion.UNCERTAIN, Assertion.HISTORICAL

OPACITY, CONSOLIDATION, EFFUSION = "lung opacity", "consolidation", "pleural effusion"
PTX, EDEMA, HEART, WIDE = "pneumothorax", "pulmonary edema", "cardiomegaly", "enlarged mediastinum"
ATELECTASIS, NODULE, PNEUMONIA = "atelectasis", "lung nodule", "pneumonia"
FRACTURE, DEVICE = "fracture", "support device"

TABLE: list[tuple[str, list[tuple[str, Assertion, str]]]] = [
    # Present, in many words.
    ("There is a dense opacity in the right lower lobe.", [(OPACITY, P, "right")]),
    ("Patchy airspace disease in the left base.", [(OPACITY, P, "left")]),
    ("Left lower lobe consolidation.", [(CONSOLIDATION, P, "left")]),
    ("Bibasilar opacities are noted.", [(OPACITY, P, "bilateral")]),
    ("Small bilateral pleural effusions.", [(EFFUSION, P, "bilateral")]),
    (
        "Moderate right pleural effusion with adjacent atelectasis.",
        [(EFFUSION, P, "right"), (ATELECTASIS, P, "")],
    ),
    (
        "Small right effusion and left base atelectasis.",
        [(EFFUSION, P, "right"), (ATELECTASIS, P, "left")],
    ),
    (
        "Opacity in the left base and right effusion.",
        [(OPACITY, P, "left"), (EFFUSION, P, "right")],
    ),
    ("In the left lung, there is consolidation.", [(CONSOLIDATION, P, "left")]),
    ("A 12 mm nodule projects over the right upper lobe.", [(NODULE, P, "right")]),
    ("Large right hydropneumothorax.", [(PTX, P, "right"), (EFFUSION, P, "right")]),
    ("Right apical pneumothorax measuring 1.5 cm.", [(PTX, P, "right")]),
    ("Interstitial edema is present.", [(EDEMA, P, "")]),
    ("Displaced fracture of the left fifth rib.", [(FRACTURE, P, "left")]),
    ("Findings are consistent with pulmonary oedema.", [(EDEMA, P, "")]),
    ("Emphysematous changes in both lungs.", [("emphysema", P, "bilateral")]),
    ("Ground-glass opacities in both lungs.", [("ground glass opacity", P, "bilateral")]),
    ("A mass in the left upper lobe.", [("lung mass", P, "left")]),
    ("Right-sided chest tube in place.", [(DEVICE, P, "")]),
    ("Persistent left retrocardiac opacity.", [(OPACITY, P, "left")]),
    # Size of heart and mediastinum.
    ("The heart is enlarged.", [(HEART, P, "")]),
    ("Mildly enlarged cardiac silhouette.", [(HEART, P, "")]),
    ("Cardiomegaly.", [(HEART, P, "")]),
    ("Heart size remains moderately enlarged.", [(HEART, P, "")]),
    ("Cardiac silhouette is normal in size.", [(HEART, A, "")]),
    ("Heart size is within normal limits.", [(HEART, A, "")]),
    ("The heart is not enlarged.", [(HEART, A, "")]),
    ("No cardiomegaly.", [(HEART, A, "")]),
    ("Normal heart size.", [(HEART, A, "")]),
    ("Heart size is at the upper limits of normal.", [(HEART, U, "")]),
    ("The heart may be mildly enlarged.", [(HEART, U, "")]),
    ("Cardiomediastinal silhouette is unremarkable.", [(HEART, A, ""), (WIDE, A, "")]),
    ("The mediastinum is widened.", [(WIDE, P, "")]),
    # Absent.
    ("No pneumothorax.", [(PTX, A, "")]),
    ("There is no evidence of pneumothorax.", [(PTX, A, "")]),
    ("Pneumothorax is not seen.", [(PTX, A, "")]),
    ("Pneumothorax or effusion is not identified.", [(PTX, A, ""), (EFFUSION, A, "")]),
    (
        "No focal consolidation, effusion or pneumothorax.",
        [(CONSOLIDATION, A, ""), (EFFUSION, A, ""), (PTX, A, "")],
    ),
    (
        "No focal consolidation, pleural effusion, or pneumothorax is seen.",
        [(CONSOLIDATION, A, ""), (EFFUSION, A, ""), (PTX, A, "")],
    ),
    ("Negative for pneumonia or pulmonary edema.", [(PNEUMONIA, A, ""), (EDEMA, A, "")]),
    ("Lungs are without consolidation.", [(CONSOLIDATION, A, "")]),
    ("Lungs are free of nodules and masses.", [(NODULE, A, ""), ("mass", A, "")]),
    ("Neither effusion nor pneumothorax.", [(EFFUSION, A, ""), (PTX, A, "")]),
    ("The lungs are clear.", [(OPACITY, A, "")]),
    ("The lungs are clear of consolidation.", [(CONSOLIDATION, A, "")]),
    ("No acute displaced rib fracture.", [(FRACTURE, A, "")]),
    ("Pneumothorax: none.", [(PTX, A, "")]),
    ("No radiographic evidence to suggest pneumonia.", [(PNEUMONIA, A, "")]),
    ("Pneumonia has been ruled out.", [(PNEUMONIA, A, "")]),
    ("The right lung is clear.", [(OPACITY, A, "right")]),
    (
        "No pneumothorax or pleural effusion is seen on the left.",
        [(PTX, A, "left"), (EFFUSION, A, "left")],
    ),
    (
        "No pneumonia, edema, large effusion, or pneumothorax.",
        [(PNEUMONIA, A, ""), (EDEMA, A, ""), (EFFUSION, U, ""), (PTX, A, "")],
    ),
    (
        "There is no consolidation to suggest pneumonia.",
        [(CONSOLIDATION, A, ""), (PNEUMONIA, A, "")],
    ),
    # One present, another absent.
    (
        "Opacification of the left base, likely a combination of effusion and atelectasis.",
        [(OPACITY, P, "left"), (EFFUSION, U, ""), (ATELECTASIS, U, "")],
    ),
    (
        "Near complete resolution of the left lower lobe consolidation.",
        [(CONSOLIDATION, P, "left")],
    ),
    ("Small left effusion, no pneumothorax.", [(EFFUSION, P, "left"), (PTX, A, "")]),
    ("No pneumothorax, small left effusion.", [(PTX, A, ""), (EFFUSION, P, "left")]),
    (
        "No pneumothorax, but a moderate right effusion is present.",
        [(PTX, A, ""), (EFFUSION, P, "right")],
    ),
    (
        "There is no pneumothorax and a small left effusion is seen.",
        [(PTX, A, ""), (EFFUSION, P, "left")],
    ),
    ("Effusion is present and pneumothorax is not seen.", [(EFFUSION, P, ""), (PTX, A, "")]),
    ("Left basilar atelectasis without effusion.", [(ATELECTASIS, P, "left"), (EFFUSION, A, "")]),
    ("Other than a small left effusion, no abnormality.", [(EFFUSION, P, "left")]),
    ("No consolidation. Heart is enlarged.", [(CONSOLIDATION, A, ""), (HEART, P, "")]),
    # Uncertain: never raises a priority.
    ("Possible small left effusion.", [(EFFUSION, U, "left")]),
    ("A small pneumothorax cannot be excluded.", [(PTX, U, "")]),
    ("Pneumonia is not excluded.", [(PNEUMONIA, U, "")]),
    ("Cannot exclude a small effusion.", [(EFFUSION, U, "")]),
    ("Pneumothorax is unlikely.", [(PTX, U, "")]),
    (
        "Opacity in the right base may represent pneumonia.",
        [(OPACITY, P, "right"), (PNEUMONIA, U, "right")],
    ),
    ("Left basilar opacity, likely atelectasis.", [(OPACITY, P, "left"), (ATELECTASIS, U, "")]),
    (
        "Retrocardiac opacity reflects atelectasis versus pneumonia.",
        [(OPACITY, P, ""), (ATELECTASIS, U, ""), (PNEUMONIA, U, "")],
    ),
    ("Findings suspicious for pneumonia.", [(PNEUMONIA, U, "")]),
    ("Trace effusion is suspected.", [(EFFUSION, U, "")]),
    ("Questionable nodule in the left upper lobe.", [(NODULE, U, "left")]),
    ("No large pneumothorax.", [(PTX, U, "")]),
    ("Evaluate for pneumonia.", [(PNEUMONIA, U, "")]),
    # Comparisons.
    ("No change in the left effusion.", [(EFFUSION, P, "left")]),
    ("No significant interval change in the right pleural effusion.", [(EFFUSION, P, "right")]),
    ("The right effusion is unchanged since the prior exam.", [(EFFUSION, P, "right")]),
    ("The left effusion has not significantly changed.", [(EFFUSION, P, "left")]),
    ("Previously seen right effusion has increased.", [(EFFUSION, P, "right")]),
    (
        "There are some reticular appearing opacities in the left base not seen on the prior exam.",
        [(OPACITY, P, "left")],
    ),
    (
        "New right upper lobe consolidation compared to the previous radiograph.",
        [(CONSOLIDATION, P, "right")],
    ),
    ("The pneumothorax has not resolved.", [(PTX, P, "")]),
    ("Partially resolved left effusion.", [(EFFUSION, P, "left")]),
    (
        "Follow-up is advised to ensure resolution of the right pneumonia.",
        [(PNEUMONIA, P, "right")],
    ),
    # Historical.
    ("Nodule seen previously has resolved.", [(NODULE, H, "")]),
    ("The previously seen left effusion is no longer visible.", [(EFFUSION, H, "left")]),
    ("Interval resolution of the right pneumothorax.", [(PTX, H, "right")]),
    ("Old healed right rib fractures.", [(FRACTURE, H, "right")]),
    ("History of pneumonia.", [(PNEUMONIA, H, "")]),
    ("The endotracheal tube has been removed.", [(DEVICE, H, "")]),
    # Nothing is said that the table may take.
    ("No new consolidation.", []),
    ("Tubes and lines unremarkable.", []),
    ("Small pericardial effusion.", []),
    ("Subcutaneous emphysema along the left chest wall.", []),
    ("Tracheal deviation from mass effect.", []),
    ("The lungs are hyperinflated.", []),
    ("Costophrenic angles are sharp.", []),
    ("Lungs are otherwise clear.", []),
    ("", []),
]


@pytest.mark.parametrize(("sentence", "expected"), TABLE, ids=[row[0] or "empty" for row in TABLE])
def test_sentence_is_read_as_a_radiologist_reads_it(
    sentence: str, expected: list[tuple[str, Assertion, str]]
) -> None:
    wanted = {Statement(*row) for row in expected}
    assert set(read(sentence)) == wanted


def test_every_concept_of_the_table_is_a_known_term() -> None:
    labels = {label for label, _ in CONCEPTS} | {label for label, _ in sentences._SILHOUETTES}
    assert labels <= set(terms.TERMS)


def test_an_absence_is_never_read_as_present_whatever_the_concept() -> None:
    for label, words in [
        ("pneumothorax", "pneumothorax"),
        ("fracture", "fracture"),
        ("lung nodule", "nodules"),
        ("support device", "endotracheal tube"),
    ]:
        assert read(f"There is no {words}.") == (Statement(label, A),)
        assert read(f"{words} is not visualized.") == (Statement(label, A),)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Opacity not seen on the prior exam.", True),
        ("The effusion is unchanged.", True),
        ("Interval increase in the right effusion.", True),
        ("Small right effusion.", False),
        ("No pneumothorax.", False),
    ],
)
def test_comparison_with_an_earlier_image_is_noticed(sentence: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    assert compares(sentence) is expected
