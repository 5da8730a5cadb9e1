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
    """What the gateway calls a thing, and how a DICOM object calls it.

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
    """

    label: str
    code: Code
    category: Code | None
    laterality: Code | None
    region: Code | None
    colour: tuple[int, int, int] | None


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
_ABDOMEN = _sct("818981001", "Abdomen")
_LIVER = _sct("10200004", "Liver")
_PANCREAS = _sct("15776009", "Pancreas")
_COLON = _sct("71854001", "Colon")
_BRAIN = _sct("12738006", "Brain")
_BREAST = _sct("76752008", "Breast")
_SKIN = _sct("39937001", "Skin")
_OVARY = _sct("15497006", "Ovary")
_TESTIS = _sct("40689003", "Testis")
_THYROID = _sct("69748006", "Thyroid")
_RETINA = _sct("5665001", "Retina")
_BODY = _sct("38266002", "Entire body")

_Colour = tuple[int, int, int]


def _anatomy(label: str, code: Code, colour: _Colour, laterality: Code | None = None) -> Term:
    return Term(label, code, ANATOMY, laterality, None, colour)


def _part(label: str, code: Code, colour: _Colour, region: Code) -> Term:
    return Term(label, code, ANATOMY, None, region, colour)


def _lesion(label: str, code: Code, colour: _Colour, region: Code) -> Term:
    return Term(label, code, ABNORMAL, None, region, colour)


def _finding(label: str, code: Code, colour: _Colour, region: Code) -> Term:
    return Term(label, code, None, None, region, colour)


def _measurement(label: str, code: Code) -> Term:
    return Term(label, code, None, None, None, None)


def _contradiction(label: str, value: str) -> Term:
    return Term(label, _private(value, label.capitalize()), None, None, None, None)


_NEOPLASTIC = _private("NEOPLASTICCELLS", "Neoplastic cells")
_EPITHELIAL = _private("EPITHELIALCELLS", "Epithelial cells")
_GLANDULAR = _private("GLANDSTRUCTURE", "Glandular structure")
_CELLS = (
    *(
        _lesion(f"neoplastic {site} cells", _NEOPLASTIC, colour, region)
        for site, region, colour in (
            ("bladder", _sct("89837001", "Bladder"), (61, 114, 242)),
            ("breast", _BREAST, (146, 242, 12)),
            ("cervix", _sct("71252005", "Cervix"), (204, 92, 190)),
            ("colon", _COLON, (51, 204, 178)),
            ("esophagus", _sct("32849002", "Esophagus"), (204, 115, 10)),
            ("kidney", _KIDNEY, (97, 75, 166)),
            ("liver", _LIVER, (47, 166, 41)),
            ("lung", _LUNG, (166, 8, 61)),
            ("ovarian", _OVARY, (227, 242, 61)),
            ("pancreatic", _PANCREAS, (194, 12, 242)),
            ("prostate", _sct("41216001", "Prostate"), (92, 204, 148)),
            ("skin", _SKIN, (204, 83, 51)),
            ("stomach", _sct("69695003", "Stomach"), (10, 27, 204)),
            ("testis", _TESTIS, (166, 41, 125)),
            ("thyroid", _THYROID, (8, 160, 166)),
            ("uterus", _sct("35039007", "Uterus"), (143, 61, 242)),
        )
    ),
    *(
        _part(f"epithelial {site} cells", _EPITHELIAL, colour, region)
        for site, region, colour in (
            ("breast", _BREAST, (12, 242, 50)),
            ("colon", _COLON, (51, 115, 204)),
            ("liver", _LIVER, (148, 204, 10)),
            ("ovarian", _OVARY, (41, 166, 129)),
            ("pancreatic", _PANCREAS, (166, 73, 8)),
            ("testis", _TESTIS, (125, 109, 242)),
            ("thyroid", _THYROID, (230, 92, 155)),
        )
    ),
    _part("colon glandular structure", _GLANDULAR, (92, 230, 143), _COLON),
)
"""What is asked of stained slides; the sites in the words of BiomedParse."""

_ALL = (
    *_CELLS,
    _anatomy("left lung", _LUNG, (64, 156, 255), LEFT),
    _anatomy("right lung", _LUNG, (0, 200, 160), RIGHT),
    _anatomy("lung", _LUNG, (110, 190, 230)),
    _anatomy("heart", _HEART, (255, 92, 92)),
    _anatomy("bone", _BONE, (241, 225, 170)),
    _anatomy("breast", _BREAST, (232, 176, 160)),
    _anatomy("body", _BODY, (199, 154, 128)),
    _anatomy("trachea", _sct("44567001", "Trachea"), (140, 235, 250)),
    _anatomy("aorta", _sct("15825003", "Aorta"), (224, 36, 76)),
    _anatomy("liver", _LIVER, (196, 112, 64)),
    _anatomy("spleen", _sct("78961009", "Spleen"), (172, 96, 186)),
    _anatomy("left kidney", _KIDNEY, (255, 148, 64), LEFT),
    _anatomy("right kidney", _KIDNEY, (214, 176, 0), RIGHT),
    _anatomy("pancreas", _PANCREAS, (238, 204, 110)),
    _anatomy("stomach", _sct("69695003", "Stomach"), (222, 130, 170)),
    _anatomy("gallbladder", _sct("28231008", "Gallbladder"), (120, 176, 40)),
    _anatomy("kidney", _sct("64033007", "Kidney"), (124, 80, 199)),
    _anatomy("adrenal gland", _sct("23451007", "Adrenal gland"), (130, 224, 137)),
    _anatomy("left adrenal gland", _sct("23451007", "Adrenal gland"), (173, 26, 58), LEFT),
    _anatomy("right adrenal gland", _sct("23451007", "Adrenal gland"), (97, 171, 242), RIGHT),
    _anatomy("bladder", _sct("89837001", "Bladder"), (182, 199, 115)),
    _anatomy("duodenum", _sct("38848004", "Duodenum"), (207, 34, 224)),
    _anatomy("esophagus", _sct("32849002", "Esophagus"), (69, 173, 134)),
    _anatomy("small bowel", _sct("30315005", "Small intestine"), (242, 174, 141)),
    _anatomy("colon", _COLON, (36, 30, 199)),
    _anatomy("rectum", _sct("34402009", "Rectum"), (124, 224, 90)),
    _anatomy("appendix", _sct("66754008", "Appendix"), (173, 101, 141)),
    _anatomy("uterus", _sct("35039007", "Uterus"), (36, 210, 242)),
    _anatomy("prostate", _sct("41216001", "Prostate"), (199, 183, 80)),
    _anatomy(
        "prostate peripheral zone",
        _sct("279706003", "Peripheral zone of the prostate"),
        (184, 130, 224),
    ),
    _anatomy(
        "prostate transitional zone",
        _sct("399384005", "Transition zone of the prostate"),
        (26, 173, 68),
    ),
    _anatomy(
        "upper lobe of left lung", _sct("45653009", "Upper lobe of lung"), (242, 97, 98), LEFT
    ),
    _anatomy(
        "lower lobe of left lung", _sct("90572001", "Lower lobe of lung"), (115, 140, 199), LEFT
    ),
    _anatomy(
        "upper lobe of right lung", _sct("45653009", "Upper lobe of lung"), (147, 224, 34), RIGHT
    ),
    _anatomy(
        "middle lobe of right lung", _sct("72481006", "Middle lobe of right lung"), (173, 69, 161)
    ),
    _anatomy(
        "lower lobe of right lung", _sct("90572001", "Lower lobe of lung"), (141, 242, 224), RIGHT
    ),
    _anatomy("airways", _sct("89187006", "Airway structure"), (199, 120, 30)),
    _anatomy("left heart atrium", _sct("82471001", "Left atrium"), (122, 90, 224)),
    _anatomy("left heart ventricle", _sct("87878005", "Left ventricle"), (104, 173, 101)),
    _anatomy("right heart atrium", _sct("73829009", "Right atrium"), (242, 36, 107)),
    _anatomy("right heart ventricle", _sct("53085002", "Right ventricle"), (80, 155, 199)),
    _anatomy("myocardium", _sct("74281007", "Myocardium"), (217, 224, 130)),
    _anatomy("left atrial appendage", _sct("33626005", "Left auricular appendage"), (141, 26, 173)),
    _anatomy("superior vena cava", _sct("48345005", "Superior vena cava"), (97, 242, 168)),
    _anatomy("inferior vena cava", _sct("64131007", "Inferior vena cava"), (199, 132, 115)),
    _anatomy("pulmonary vein", _sct("122972007", "Pulmonary vein"), (34, 52, 224)),
    _anatomy(
        "portal and splenic vein", _private("PORTSPLENV", "Portal and splenic vein"), (109, 173, 69)
    ),
    _anatomy("brachiocephalic trunk", _sct("12691009", "brachiocephalic trunk"), (242, 141, 209)),
    _anatomy("left subclavian artery", _sct("36765005", "Subclavian artery"), (30, 194, 199), LEFT),
    _anatomy(
        "right subclavian artery", _sct("36765005", "Subclavian artery"), (224, 189, 90), RIGHT
    ),
    _anatomy(
        "left common carotid artery",
        _sct("32062004", "Common carotid artery"),
        (133, 101, 173),
        LEFT,
    ),
    _anatomy(
        "right common carotid artery",
        _sct("32062004", "Common carotid artery"),
        (36, 242, 68),
        RIGHT,
    ),
    _anatomy(
        "left brachiocephalic vein", _sct("8887007", "Brachiocephalic vein"), (199, 80, 96), LEFT
    ),
    _anatomy(
        "right brachiocephalic vein",
        _sct("8887007", "Brachiocephalic vein"),
        (130, 171, 224),
        RIGHT,
    ),
    _anatomy("left iliac artery", _sct("10293006", "Iliac artery"), (132, 173, 26), LEFT),
    _anatomy("right iliac artery", _sct("10293006", "Iliac artery"), (241, 97, 242), RIGHT),
    _anatomy("left iliac vein", _sct("244411005", "Iliac vein"), (115, 199, 174), LEFT),
    _anatomy("right iliac vein", _sct("244411005", "Iliac vein"), (224, 111, 34), RIGHT),
    _anatomy(
        "left internal jugular vein", _sct("12123001", "Internal jugular vein"), (81, 69, 173), LEFT
    ),
    _anatomy(
        "right internal jugular vein",
        _sct("12123001", "Internal jugular vein"),
        (159, 242, 141),
        RIGHT,
    ),
    _part("liver vessels", _sct("59820001", "Blood Vessel"), (199, 30, 109), _LIVER),
    _anatomy("circle of willis", _sct("11279006", "Circle of Willis"), (90, 192, 224)),
    _anatomy("brain", _BRAIN, (173, 169, 101)),
    _anatomy("brainstem", _sct("119238007", "Brain Stem"), (171, 36, 242)),
    _anatomy("spinal cord", _sct("2748008", "Spinal cord"), (80, 199, 123)),
    _anatomy("pituitary gland", _sct("56329008", "Pituitary"), (224, 137, 130)),
    _anatomy("optic chiasm", _sct("244453006", "Optic chiasm"), (26, 59, 173)),
    _anatomy("left optic nerve", _sct("18234004", "optic nerve"), (172, 242, 97), LEFT),
    _anatomy("right optic nerve", _sct("18234004", "optic nerve"), (199, 115, 183), RIGHT),
    _anatomy(
        "anterior hippocampus", _private("ANTHIPPOCAMPUS", "Anterior hippocampus"), (34, 224, 206)
    ),
    _anatomy(
        "posterior hippocampus",
        _private("POSTHIPPOCAMPUS", "Posterior hippocampus"),
        (173, 133, 69),
    ),
    _anatomy("thyroid gland", _sct("69748006", "Thyroid"), (173, 141, 242)),
    _anatomy("larynx", _sct("4596009", "Larynx"), (30, 199, 35)),
    _anatomy("oral cavity", _sct("74262004", "oral cavity"), (224, 90, 125)),
    _anatomy("lips", _sct("48477009", "Lip"), (101, 141, 173)),
    _anatomy("left parotid gland", _sct("45289007", "Parotid gland"), (211, 242, 36), LEFT),
    _anatomy("right parotid gland", _sct("45289007", "Parotid gland"), (182, 80, 199), RIGHT),
    _anatomy(
        "left submandibular gland", _sct("54019009", "Submandibular gland"), (130, 224, 184), LEFT
    ),
    _anatomy(
        "right submandibular gland", _sct("54019009", "Submandibular gland"), (173, 67, 26), RIGHT
    ),
    _anatomy("left lacrimal gland", _sct("13561001", "Lacrimal gland"), (97, 99, 242), LEFT),
    _anatomy("right lacrimal gland", _sct("13561001", "Lacrimal gland"), (141, 199, 115), RIGHT),
    _anatomy("skull", _sct("89546000", "Skull"), (224, 34, 148)),
    _anatomy("sacrum", _sct("54735007", "Sacrum"), (69, 162, 173)),
    _anatomy("left humerus", _sct("85050009", "Humerus"), (242, 224, 141), LEFT),
    _anatomy("right humerus", _sct("85050009", "Humerus"), (119, 30, 199), RIGHT),
    _anatomy("left scapula", _sct("79601000", "Scapula"), (90, 224, 121), LEFT),
    _anatomy("right scapula", _sct("79601000", "Scapula"), (173, 101, 105), RIGHT),
    _anatomy("left clavicle", _sct("51299004", "Clavicle"), (36, 108, 242), LEFT),
    _anatomy("right clavicle", _sct("51299004", "Clavicle"), (156, 199, 80), RIGHT),
    _anatomy("left femur", _sct("71341001", "Femur"), (224, 130, 218), LEFT),
    _anatomy("right femur", _sct("71341001", "Femur"), (26, 173, 140), RIGHT),
    _anatomy("left hip", _sct("29836001", "Hip"), (242, 167, 97), LEFT),
    _anatomy("right hip", _sct("29836001", "Hip"), (131, 115, 199), RIGHT),
    _anatomy("vertebra c1", _sct("14806007", "C1 vertebra"), (53, 224, 34)),
    _anatomy("vertebra c2", _sct("39976000", "C2 vertebra"), (173, 69, 110)),
    _anatomy("vertebra c3", _sct("113205007", "C3 vertebra"), (141, 210, 242)),
    _anatomy("vertebra c4", _sct("5329002", "C4 vertebra"), (195, 199, 30)),
    _anatomy("vertebra c5", _sct("36978003", "C5 vertebra"), (188, 90, 224)),
    _anatomy("vertebra c6", _sct("36054005", "C6 vertebra"), (101, 173, 133)),
    _anatomy("vertebra c7", _sct("87391001", "C7 vertebra"), (242, 67, 36)),
    _anatomy("vertebra t1", _sct("64864005", "T1 vertebra"), (80, 97, 199)),
    _anatomy("vertebra t2", _sct("53733008", "T2 vertebra"), (171, 224, 130)),
    _anatomy("vertebra t3", _sct("1626008", "T3 vertebra"), (173, 26, 133)),
    _anatomy("vertebra t4", _sct("73071006", "T4 vertebra"), (97, 242, 240)),
    _anatomy("vertebra t5", _sct("56401006", "T5 vertebra"), (199, 173, 115)),
    _anatomy("vertebra t6", _sct("45296009", "T6 vertebra"), (110, 34, 224)),
    _anatomy("vertebra t7", _sct("62487009", "T7 vertebra"), (69, 173, 80)),
    _anatomy("vertebra t8", _sct("11068009", "T8 vertebra"), (242, 141, 159)),
    _anatomy("vertebra t9", _sct("82687006", "T9 vertebra"), (30, 110, 199)),
    _anatomy("vertebra t10", _sct("7610001", "T10 vertebra"), (193, 224, 90)),
    _anatomy("vertebra t11", _sct("12989004", "T11 vertebra"), (169, 101, 173)),
    _anatomy("vertebra t12", _sct("23215003", "T12 vertebra"), (36, 242, 170)),
    _anatomy("vertebra l1", _sct("66794005", "L1 vertebra"), (199, 122, 80)),
    _anatomy("vertebra l2", _sct("14293000", "L2 vertebra"), (136, 130, 224)),
    _anatomy("vertebra l3", _sct("36470004", "L3 vertebra"), (60, 173, 26)),
    _anatomy("vertebra l4", _sct("11994002", "L4 vertebra"), (242, 97, 172)),
    _anatomy("vertebra l5", _sct("49668003", "L5 vertebra"), (115, 183, 199)),
    _anatomy(
        "left erector spinae muscle",
        _sct("44947003", "Erector spinae muscle"),
        (224, 205, 34),
        LEFT,
    ),
    _anatomy(
        "right erector spinae muscle",
        _sct("44947003", "Erector spinae muscle"),
        (132, 69, 173),
        RIGHT,
    ),
    _anatomy("optic disc", _sct("81016008", "Optic nerve head"), (141, 242, 172)),
    _anatomy("optic cup", _private("OPTICCUP", "Optic cup"), (199, 33, 30)),
    _anatomy("fetal head", _private("FETALHEAD", "Fetal head"), (90, 126, 224)),
    _anatomy("pubic symphysis", _sct("82561000", "Symphysis pubis"), (142, 173, 101)),
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
    _lesion("kidney cyst", _sct("367643001", "Cyst"), (242, 36, 212), _KIDNEY),
    _lesion("kidney tumor", _sct("108369006", "Neoplasm"), (80, 199, 182), _KIDNEY),
    _lesion("abdominal tumor", _sct("108369006", "Neoplasm"), (224, 183, 130), _ABDOMEN),
    _lesion("colon tumor", _sct("108369006", "Neoplasm"), (66, 26, 173), _COLON),
    _lesion("liver tumor", _sct("108369006", "Neoplasm"), (100, 242, 97), _LIVER),
    _lesion("pancreas tumor", _sct("108369006", "Neoplasm"), (199, 115, 142), _PANCREAS),
    _lesion("lung tumor", _sct("108369006", "Neoplasm"), (34, 149, 224), _LUNG),
    _lesion(
        "lung covid-19 infection",
        _private("COVID19LUNG", "COVID-19 infection of lung"),
        (163, 173, 69),
        _LUNG,
    ),
    _lesion(
        "viral pneumonia", _private("VIRALPNEUMONIA", "Viral pneumonia"), (223, 141, 242), _LUNG
    ),
    _lesion("brain edema", _sct("79654002", "Edema"), (30, 199, 118), _BRAIN),
    _lesion(
        "lower-grade glioma",
        _private("LOWGRADEGLIOMA", "Lower-grade glioma"),
        (224, 120, 90),
        _BRAIN,
    ),
    _lesion("brain tumor", _sct("108369006", "Neoplasm"), (101, 105, 173), _BRAIN),
    _lesion("brain tumor core", _private("TUMORCORE", "Tumor core"), (110, 242, 36), _BRAIN),
    _lesion(
        "whole brain tumor",
        _private("WHOLETUMOR", "Whole tumor with edema"),
        (199, 80, 157),
        _BRAIN,
    ),
    _lesion(
        "enhancing brain tumor",
        _private("ENHANCINGTUMOR", "Enhancing tumor"),
        (130, 219, 224),
        _BRAIN,
    ),
    _lesion(
        "non-enhancing brain tumor",
        _private("NONENHTUMOR", "Non-enhancing tumor"),
        (173, 139, 26),
        _BRAIN,
    ),
    _lesion("retinal edema", _sct("79654002", "Edema"), (166, 97, 242), _RETINA),
    _lesion("skin lesion", _sct("52988006", "Lesion"), (115, 199, 131), _SKIN),
    _lesion("whole-body lesion", _sct("52988006", "Lesion"), (240, 160, 210), _BODY),
    _lesion("skin melanoma", _sct("1162635006", "Malignant melanoma"), (224, 34, 54), _SKIN),
    _lesion("colon polyp", _sct("41329004", "Polyp"), (69, 111, 173), _COLON),
    _lesion(
        "neoplastic colon polyp",
        _private("NEOPLASTICPOLYP", "Neoplastic polyp"),
        (211, 242, 141),
        _COLON,
    ),
    _lesion(
        "non-neoplastic colon polyp",
        _private("NONNEOPOLYP", "Non-neoplastic polyp"),
        (199, 30, 196),
        _COLON,
    ),
    _lesion("breast tumor", _sct("108369006", "Neoplasm"), (90, 224, 188), _BREAST),
    _lesion(
        "benign breast tumor", _private("BENIGNTUMOR", "Benign tumor"), (173, 132, 101), _BREAST
    ),
    _lesion(
        "malignant breast tumor",
        _private("MALIGNANTTUMOR", "Malignant tumor"),
        (66, 36, 242),
        _BREAST,
    ),
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
    _measurement("mean attenuation", _dcm("112181", "Mean Attenuation Coefficient")),
    _measurement("longest diameter", _sct("103339001", "Long axis")),
    _measurement("number of lesions", _sct("246206008", "Number of lesions (observable entity)")),
    # What the pixels say of the header, not of the patient: it lies nowhere in the body.
    _contradiction("view contradicts header", "VIEWCONTRA"),
    _contradiction("body part contradicts header", "BODYCONTRA"),
    _contradiction("modality contradicts header", "MODALITYCONTRA"),
)

TERMS: Mapping[str, Term] = MappingProxyType({one.label: one for one in _ALL})
"""Every term by its label."""

CONTRADICTIONS: Mapping[str, str] = MappingProxyType(
    {
        "view": "view contradicts header",
        "body": "body part contradicts header",
        "modality": "modality contradicts header",
    }
)
"""What pixels may say of an image's header, by what they are asked for."""


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
