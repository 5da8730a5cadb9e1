"""The table of terms: every code is a real one, every colour tells its term apart."""

import pytest
from pydicom.sr._concepts_dict import concepts

from pacs_ai.terms import (
    BILATERAL,
    LEFT,
    PRIVATE_SCHEME,
    RIGHT,
    SIDES,
    TERMS,
    Code,
    UnknownTermError,
    term,
)

# Table of Verhoeff's dihedral check (SNOMED CT check digit).
_MULTIPLY = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    [1, 2, 3, 4, 0, 6, 7, 8, 9, 5],
    [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
    [3, 4, 0, 1, 2, 8, 9, 5, 6, 7],
    [4, 0, 1, 2, 3, 9, 5, 6, 7, 8],
    [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
    [6, 5, 9, 8, 7, 1, 0, 4, 3, 2],
    [7, 6, 5, 9, 8, 2, 1, 0, 4, 3],
    [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
    [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
]
_PERMUTE = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
for _ in range(6):
    _PERMUTE.append([_PERMUTE[-1][_PERMUTE[1][digit]] for digit in range(10)])

CODES = sorted(
    {
        code
        for one in TERMS.values()
        for code in (one.code, one.category, one.laterality, one.region)
        if code is not None
    },
    key=lambda code: (code.scheme, code.value),
)
DICTIONARY = {
    (scheme, value): meaning
    for scheme in ("SCT", "DCM")
    for entry in concepts[scheme].values()
    for value, (meaning, groups) in entry.items()
    if groups
}
# SNOMED CT concepts outside DICOM's context groups, as the results brief lists them (its tier S).
BRIEF = {
    "95436008": "Lung consolidation",
    "46621007": "Atelectasis",
    "233604007": "Pneumonia",
    "8186001": "Cardiomegaly",
    "19242006": "Pulmonary edema",
    "87433001": "Pulmonary emphysema",
    "51615001": "Pulmonary fibrosis",
    "125605004": "Fracture of bone",
    "74281007": "Myocardium",
    "41329004": "Polyp",
}


def verhoeff(number: str) -> bool:
    """Tell whether the last digit checks the others."""
    check = 0
    for place, digit in enumerate(reversed(number)):
        check = _MULTIPLY[check][_PERMUTE[place % 8][int(digit)]]
    return check == 0


def test_the_verhoeff_check_knows_a_wrong_code() -> None:
    assert verhoeff("95436008")
    assert not verhoeff("95436003")


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.meaning)
def test_every_code_is_known_or_private(code: Code) -> None:
    assert 0 < len(code.meaning) <= 64
    assert 0 < len(code.value) <= 16
    if code.scheme == PRIVATE_SCHEME:
        assert code.meaning not in DICTIONARY.values()
        return
    assert code.scheme in {"SCT", "DCM"}
    if code.scheme == "SCT":
        assert verhoeff(code.value)
    known = {meaning for (scheme, value), meaning in DICTIONARY.items() if value == code.value}
    if code.value in BRIEF:
        known.add(BRIEF[code.value])
    meanings = {
        meaning
        for entry in concepts[code.scheme].values()
        for value, (meaning, _) in entry.items()
        if value == code.value
    }
    assert code.meaning in known | meanings


def test_colours_are_unique() -> None:
    colours = [one.colour for one in TERMS.values() if one.colour]
    assert len(set(colours)) == len(colours)
    assert all(0 <= part <= 255 for colour in colours for part in colour)


def test_what_can_be_segmented_has_a_colour_and_a_lesion_has_a_region() -> None:
    for one in TERMS.values():
        if one.category is not None:
            assert one.colour is not None
            if one.category.meaning == "Morphologically Abnormal Structure":
                assert one.region is not None


def test_a_side_is_never_swapped() -> None:
    for label, one in TERMS.items():
        (side,) = {"left", "right"} & set(label.split()) or {""}
        expected = {"left": LEFT, "right": RIGHT}.get(side)
        # A concept that says its side itself (left ventricle, middle lobe of right lung) needs no modifier.
        coded = side and side in one.code.meaning.lower().split()
        assert one.laterality == (None if coded else expected), label
    assert SIDES == {"left": LEFT, "right": RIGHT, "bilateral": BILATERAL}
    assert (LEFT.value, RIGHT.value) == ("7771000", "24028007")


def test_labels_are_their_own_keys() -> None:
    assert all(label == one.label == label.lower() for label, one in TERMS.items())


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(UnknownTermError, match="'left antler' is not a known term"):
        term("left antler")
