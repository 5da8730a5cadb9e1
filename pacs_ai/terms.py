"""The one table of terms: what the gateway can ask for, find and measure, and how DICOM says it.

A code comes from the dictionary of DICOM's own context groups that pydicom ships, or from the
table of the results brief (SNOMED CT concepts outside DICOM's groups, legal as extensions, to be
confirmed by a terminologist), or else from the private scheme :data:`PRIVATE_SCHEME`. It is never
guessed.

Two choices to know. *Cardiomegaly* is the general concept 8186001 of the brief; the one of the
same name in the dictionary (287272002) stands only in groups 12248 and 12249. A *lung nodule* is
"Nodule" in the lung and not "Solitary nodule of lung", because no model says there is only one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pacs_ai.errors import PacsAiError

PRIVATE_SCHEME = "99PACSAI"
"""Coding Scheme Designator of terms for which no standard code is known (PS3.16 §8)."""

PRIVATE_SCHEME_NAME = "PACS AI private codes"


class UnknownTermError(PacsAiError, KeyError):
    """A label that is not in the table of terms.

    Parameters
    ----------
    label : str
        The label that was asked for.
    """

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label

    def __str__(self) -> str:
        return f"{self.label!r} is not a known term: use one of the labels of pacs_ai.terms.TERMS"


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (Code Sequence Macro, PS3.3 Table 8.8-1).

    Attributes
    ----------
    value : str
        Code Value, at most 16 characters.
    scheme : str
        Coding Scheme Designator: ``SCT``, ``DCM`` or :data:`PRIVATE_SCHEME`.
    meaning : str
        Code Meaning, at most 64 characters.
    """

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Term:
    """What the gateway calls a thing, and how a DICOM object and a model call it.

    Attributes
    ----------
    label : str
        The gateway's own name for it, in lower case; the key of :data:`TERMS`.
    code : Code
        Segmented Property Type, Finding or Measurement concept.
    category : Code or None
        Segmented Property Category (PS3.16 CID 7150); None for what is not segmented.
    laterality : Code or None
        Left or right, where the label says so (PS3.16 CID 244).
    region : Code or None
        Where a finding lies (Finding Site, Anatomic Region Sequence); None for anatomy itself.
    colour : tuple of int or None
        sRGB, 0 to 255, in overlays and as Recommended Display CIELab Value; None for a measurement.
    target : str
        The words of a prompt for it.
    """

    label: str
    code: Code
    category: Code | None
    laterality: Code | None
    region: Code | None
    colour: tuple[int, int, int] | None
    target: str


def _sct(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


ANATOMY = _sct("91723000", "Anatomical Structure")
ABNORMAL = _sct("49755003", "Morphologically Abnormal Structure")

LEFT = _sct("7771000", "Left")
RIGHT = _sct("24028007", "Right")
BILATERAL = _sct("51440002", "Bilateral")

SIDES: Mapping[str, Code] = MappingProxyType({"left": LEFT, "right": RIGHT, "bilateral": BILATERAL})
"""Codes of a finding's side as :class:`pacs_ai.results.Finding` spells it (PS3.16 CID 244)."""

CHEST = _sct("816094009", "Chest")
_LUNG = _sct("39607008", "Lung")
_HEART = _sct("80891009", "Heart")
_KIDNEY = _sct("64033007", "Kidney")
_PLEURA = _sct("3120008", "Pleura")
_MEDIASTINUM = _sct("72410000", "Mediastinum")
_BONE = _sct("272673000", "Bone")

_Colour = tuple[int, int, int]


def _anatomy(label: str, code: Code, colour: _Colour, laterality: Code | None = None) -> Term:
    return Term(label, code, ANATOMY, laterality, None, colour, label)


def _lesion(label: str, code: Code, colour: _Colour, region: Code) -> Term:
    return Term(label, code, ABNORMAL, None, region, colour, label)


def _finding(label: str, code: Code, colour: _Colour, region: Code) -> Term:
    return Term(label, code, None, None, region, colour, label)


def _measurement(label: str, code: Code) -> Term:
    return Term(label, code, None, None, None, None, label)


_ALL = (
    _anatomy("left lung", _LUNG, (64, 156, 255), LEFT),
    _anatomy("right lung", _LUNG, (0, 200, 160), RIGHT),
    _anatomy("lung", _LUNG, (110, 190, 230)),
    _anatomy("heart", _HEART, (255, 92, 92)),
    _anatomy("bone", _BONE, (241, 225, 170)),
    _anatomy("body", _sct("38266002", "Entire body"), (199, 154, 128)),
    _anatomy("trachea", _sct("44567001", "Trachea"), (140, 235, 250)),
    _anatomy("aorta", _sct("15825003", "Aorta"), (224, 36, 76)),
    _anatomy("liver", _sct("10200004", "Liver"), (196, 112, 64)),
    _anatomy("spleen", _sct("78961009", "Spleen"), (172, 96, 186)),
    _anatomy("left kidney", _KIDNEY, (255, 148, 64), LEFT),
    _anatomy("right kidney", _KIDNEY, (214, 176, 0), RIGHT),
    _anatomy("pancreas", _sct("15776009", "Pancreas"), (238, 204, 110)),
    _anatomy("stomach", _sct("69695003", "Stomach"), (222, 130, 170)),
    _anatomy("gallbladder", _sct("28231008", "Gallbladder"), (120, 176, 40)),
    _lesion("lung opacity", _dcm("112001", "Opacity"), (255, 214, 10), _LUNG),
    _lesion("ground glass opacity", _dcm("112120", "Ground glass opacity"), (236, 232, 96), _LUNG),
    _lesion("infiltrate", _dcm("112121", "Infiltrate"), (250, 186, 90), _LUNG),
    _lesion("consolidation", _sct("95436008", "Lung consolidation"), (255, 159, 10), _LUNG),
    _lesion("pneumonia", _sct("233604007", "Pneumonia"), (255, 120, 40), _LUNG),
    _lesion("atelectasis", _sct("46621007", "Atelectasis"), (190, 140, 255), _LUNG),
    _lesion("pneumothorax", _sct("36118008", "Pneumothorax"), (255, 64, 200), _PLEURA),
    _lesion("pleural effusion", _sct("60046008", "Pleural effusion"), (80, 220, 255), _PLEURA),
    _lesion("lung nodule", _sct("27925004", "Nodule"), (180, 255, 60), _LUNG),
    _lesion("lung mass", _sct("4147007", "Mass"), (255, 80, 130), _LUNG),
    _lesion("mass", _sct("4147007", "Mass"), (240, 60, 110), CHEST),
    _finding("pulmonary edema", _sct("19242006", "Pulmonary edema"), (130, 200, 255), _LUNG),
    _finding("emphysema", _sct("87433001", "Pulmonary emphysema"), (150, 230, 150), _LUNG),
    _finding("pulmonary fibrosis", _sct("51615001", "Pulmonary fibrosis"), (210, 170, 255), _LUNG),
    _finding("cardiomegaly", _sct("8186001", "Cardiomegaly"), (255, 110, 70), _HEART),
    _finding("fracture", _sct("125605004", "Fracture of bone"), (250, 240, 200), _BONE),
    _finding(
        "pneumomediastinum", _sct("16838000", "Pneumomediastinum"), (230, 90, 255), _MEDIASTINUM
    ),
    _finding(
        "pleural thickening", _private("PLEURTHICK", "Pleural thickening"), (90, 180, 200), _PLEURA
    ),
    _finding(
        "enlarged mediastinum",
        _private("MEDENLARGED", "Enlarged mediastinal silhouette"),
        (200, 120, 90),
        _MEDIASTINUM,
    ),
    _finding("support device", _private("DEVICE", "Support device"), (190, 200, 210), CHEST),
    _measurement("cardiothoracic ratio", _private("CTR", "Cardiothoracic ratio")),
    _measurement("volume", _sct("118565006", "Volume")),
)

TERMS: Mapping[str, Term] = MappingProxyType({one.label: one for one in _ALL})
"""Every term by its label."""


def term(label: str) -> Term:
    """Return the term of a label.

    Raises
    ------
    UnknownTermError
        When the table has no such label.
    """
    try:
        return TERMS[label]
    except KeyError:
        raise UnknownTermError(label) from None


def prompt(label: str, *, site: str, modality: str) -> str:
    """Return the words that ask a model for a term: ``<target> in <site> <modality>``.

    Parameters
    ----------
    label : str
        Key of :data:`TERMS`.
    site : str
        Body part in lower case, such as ``"chest"``.
    modality : str
        As the model was trained on it, such as ``"X-Ray"``, ``"CT"`` or ``"MRI"``.

    Raises
    ------
    UnknownTermError
        When the table has no such label.
    """
    return f"{term(label).target} in {site} {modality}"
