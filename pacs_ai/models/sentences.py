"""The one table by which a sentence of a draft report becomes findings.

It knows concepts (:data:`CONCEPTS`), how a sentence speaks of them (present, absent, uncertain,
historical) and on which side. It is made from how radiologists write, not from any server's
wording. What it does not understand gives no finding: unparsed text changes nothing, and the
sentence itself stays in the draft.

The method is that of NegEx and ConText (Chapman 2001, Harkema 2009): trigger words with a scope
that runs forwards or backwards until something ends it. Phrases that only look like triggers ("no change
in", "not seen on the prior exam") are taken out first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from pacs_ai.results import Assertion


@dataclass(frozen=True, slots=True)
class Statement:
    """What a sentence says of one concept.

    Attributes
    ----------
    label : str
        Key of ``terms.TERMS``.
    assertion : Assertion
    side : str
        ``"left"``, ``"right"``, ``"bilateral"`` or empty.
    """

    label: str
    assertion: Assertion
    side: str = ""


_LUNG_PLACE = r"(?:lungs?|lobes?|lingula|apex|base|perihilar|pulmonary|hilum|hilar)"
_DEVICE = (
    r"(?:endotracheal|nasogastric|orogastric|enteric|feeding|tracheostomy|chest|ng|et|dobhoff)"
    r" tubes?"
    r"|(?:central (?:venous )?|picc |swan[- ]ganz |dialysis |jugular |subclavian )"
    r"(?:line|catheter)s?|picc|port[- ]a[- ]cath|pacemakers?|icd|defibrillator|pigtail catheters?"
    r"|intra-?aortic balloon pump"
)

CONCEPTS: tuple[tuple[str, str], ...] = (
    ("ground glass opacity", r"ground[- ]glass (?:opacit(?:y|ies)|opacification|attenuation)"),
    (
        "lung opacity",
        r"opacit(?:y|ies)|opacifications?|opacified|air[- ]?space (?:disease|process)"
        r"|densit(?:y|ies)(?= (?:in|at|of|over|projecting)[\w ]* (?:lungs?|lobe|base|apex))",
    ),
    ("consolidation", r"consolidat(?:ions?|ive|ed)"),
    ("infiltrate", r"infiltrates?|infiltrations?"),
    ("pneumonia", r"(?:broncho)?pneumonias?"),
    (
        "atelectasis",
        r"atelecta(?:sis|ses|tic)|(?:lung|lobar|lobe) collapse|collapse of the [\w ]*l(?:ung|obe)",
    ),
    ("pneumothorax", r"(?:hydro)?pneumothora(?:x|ces)"),
    ("pneumomediastinum", r"pneumomediastinum"),
    (
        "pleural effusion",
        r"(?<!pericardial )(?<!joint )(?:pleural )?effusions?|pleural fluid"
        r"|hydro(?:pneumo)?thora(?:x|ces)",
    ),
    ("pleural thickening", r"pleural[- ](?:based )?thickening|thickening of the [\w ]*pleura"),
    ("lung nodule", r"(?<!thyroid )(?:micro)?nodules?"),
    (
        "lung mass",
        rf"(?:lung|pulmonary|lobe|hilar|perihilar) mass(?:es)?(?! effect)"
        rf"|mass(?:es)?(?= (?:in|at|of|within|projecting)[\w ]* {_LUNG_PLACE})",
    ),
    ("mass", r"mass(?:es)?(?! effect)"),
    (
        "pulmonary edema",
        r"(?:pulmonary|interstitial|alveolar|lung) (?:o?edema)"
        r"|(?<!tissue )(?<!subcutaneous )o?edema",
    ),
    ("emphysema", r"(?<!subcutaneous )(?<!surgical )(?<!tissue )(?<!wall )emphysema(?:tous)?"),
    ("pulmonary fibrosis", r"fibrosis|fibrotic"),
    ("fracture", r"fractur(?:es?|ed)"),
    ("cardiomegaly", r"cardiomegaly|cardiac enlargement"),
    ("enlarged mediastinum", r"(?:mediastinal|cardiomediastinal) (?:widening|enlargement)"),
    ("support device", _DEVICE),
)
"""Label and what names it, in lower-case text; where two match, the longer one counts."""

_NO_SIDE = frozenset(
    {"cardiomegaly", "enlarged mediastinum", "pneumomediastinum", "support device"}
)

_SILHOUETTES: tuple[tuple[str, str], ...] = (
    (
        "cardiomegaly",
        r"(?:heart|cardiac silhouette|cardiac size|cardiac contours?|cardiac shadow"
        r"|cardio-?pericardial silhouette|cardiac and mediastinal (?:silhouettes?|contours?)"
        r"|cardio-?mediastinal (?:silhouettes?|contours?))",
    ),
    (
        "enlarged mediastinum",
        r"(?:mediastinum|mediastinal (?:silhouettes?|contours?)"
        r"|cardio-?mediastinal (?:silhouettes?|contours?))",
    ),
)
"""What has a size that is said to be normal or not, rather than a name when it is not."""

_PRIOR = (
    r"(?:prior|previous|earlier|last|most recent|old|comparison)"
    r"(?: (?:exam\w*|stud(?:y|ies)|radiographs?|films?|imag\w+|ct|scans?|x-?rays?|chest|one"
    r"|comparison))*"
)
_SEEN = (
    r"(?:seen|present|noted|visible|visuali[sz]ed|identified|evident|apparent|appreciated"
    r"|demonstrated|detected|observed|found|shown)"
)
_CHANGE = (
    r"(?:changed?|increased?|decreased?|progress(?:ed|ion)|improved|improvement|worsen(?:ed|ing))"
)

_PSEUDO: tuple[tuple[str, str], ...] = (
    # "not seen on the prior exam" says that it is new, not that it is absent.
    (
        rf"\bnot (?:previously |definitely )*{_SEEN} (?:on|in|at) (?:the |a |her |his )?{_PRIOR}",
        "new",
    ),
    (rf"\bnot (?:previously {_SEEN}|{_SEEN} (?:previously|before))\b", "new"),
    (
        r"\b(?:as )?(?:compared|in comparison|relative) (?:to|with) (?:the |a |her |his )?"
        rf"{_PRIOR}",
        "",
    ),
    (rf"\b(?:since|from|to|on|than|with) (?:the |a |her |his )?{_PRIOR}(?= |,|\.|$)", ""),
    (
        rf"\bno (?:significant |substantial |appreciable |interval |relevant |major |definite )*"
        rf"(?:interval )?{_CHANGE}(?: in(?: the)?(?: size| extent)?(?: of)?| of)?\b",
        "unchanged",
    ),
    (
        rf"\b(?:not|has not|have not) (?:significantly |substantially |appreciably )*{_CHANGE}\b",
        "unchanged",
    ),
    (
        r"\b(?:not|partially|partly|incompletely|nearly|almost|mostly)(?: yet| completely| fully"
        r"| entirely)* (?:resolved|cleared)\b"
        r"|\b(?:partial|incomplete|near)(?:[- ]complete)? (?:resolution|clearing)\b",
        "persistent",
    ),
    (
        r"\b(?:ensure|document|confirm|until|assess for)(?: complete)?"
        r" (?:resolution|clearing)( of)?",
        "",
    ),
    (r"\bnot only\b|\bno doubt\b", ""),
)

_CLAUSE_END = re.compile(
    r"[;!?]|\.(?!\d)"
    r"|,? \b(?:but|however|although|though|while|whereas|except(?: for)?|yet)\b"
    r"|(?:^|,? )\b(?:aside|apart) from\b|(?:^|,? )\bother than\b|,(?= which )"
    # "... and a small effusion is seen" begins again; "no nodule and a mass" does not.
    r"|,? and (?=(?:there|an?|the) [\w ]*\b(?:is|are|remains?|persists?|has|have)\b)"
)

_VERB = re.compile(r"\b(?:is|are|was|were|has|have|there|remains?|persists?)\b")
_DESCRIBED = re.compile(
    r"^(?:an? )?(?:small|tiny|trace|mild|moderate|large|left|right|bilateral|bibasilar|bibasal|new"
    r"|stable|persistent|unchanged|increase\w*|increasing|worsening|patchy|multifocal|residual|minimal)\b"
)
_NEW_PHRASE = re.compile(
    r",? with(?: an?| small| moderate| large| mild| persistent| stable| unchanged| left| right"
    r"| bilateral)\b|, with\b"
)

_NEGATION = re.compile(
    r"\bno (?:\w+ ){0,2}?(?:evidence|signs?|indication|suggestion|radiographic evidence)"
    r"(?: (?:of|for|to suggest)| that there is)?\b"
    r"|\b(?:no|not|without|neither|nor|never|non)\b|\bnegative for\b|\bfree of\b|\bclear of\b"
    r"|\babsence of\b|\bnothing to suggest\b|\bdenies\b"
)
_ONLY_LARGE = re.compile(r"\b(?:large|sizea?ble|gross|massive|big|tension) (?:\w+ )?$")
_NEGATED_AFTER = re.compile(
    rf"\b(?:is|are|was|were|can|could|has been|have been)? ?not (?:be )?(?:\w+ly )?{_SEEN}\b"
    r"|\b(?:is|are|was|were) absent\b|\b(?:has been|have been|is|are) (?:ruled out|excluded)\b"
    r"|: ?(?:none|no|absent|negative|not seen)\b"
)
_UNCERTAIN_AFTER = re.compile(
    r"\b(?:can ?not|can't|could not|not|cannot)(?: be)?(?: \w+ly)* (?:excluded|ruled out)\b"
    r"|\b(?:difficult|hard) to exclude\b|\b(?:un|less )likely\b"
    r"|\b(?:is|are|remains?|seems?) (?:also )?(?:possible|probable|likely|suspected|questioned"
    r"|questionable|equivocal|favou?red|conceivable|considered)\b"
    r"|\b(?:may|might|could) (?:also )?be (?:present|considered)\b|\bis a consideration\b"
    r"|\?|\bin the differential\b"
)
_UNCERTAIN_BEFORE = re.compile(
    r"\b(?:may|might|could|would)\b|\bsuggest(?:s|ed|ing|ive)?\b|\bsuspicious (?:for|of)\b"
    r"|\bsuspicion (?:for|of)\b|\bconcern(?:ing)?(?: for)?\b|\bworrisome for\b"
    r"|\bfavou?r(?:s|ed|ing)?\b"
    r"|\b(?:can ?not|could not|not)(?: \w+ly)* (?:exclude|rule out)\b"
    r"|\b(?:rule|evaluate) (?:out|for)\b"
    r"|\b(?:to exclude|assess for|differential|difficult to exclude|rather than)\b"
    r"|\b(?:represent|reflect)s? either\b"
    r"|\b(?:likely|probably|possibly) (?:an? )?(?:combination|represent\w*|reflect\w*|due|secondary)\b"
)
_UNCERTAIN_ADJECTIVE = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|likely|questionable|question of|suspected|presumed|presumably"
    r"|potential(?:ly)?|perhaps|equivocal|vs\.?|versus|unlikely|doubtful|borderline)\b"
)
_GONE_AFTER = re.compile(
    r"\bno longer\b|\bresolved\b|\b(?:has|have) (?:\w+ly )?(?:cleared|disappeared)\b"
    r"|\bremoved\b|\bgone\b"
)
_GONE_BEFORE = re.compile(
    r"\bno longer\b|\b(?:interval |complete )*(?:resolution|clearing|removal|extubation) of\b"
    r"|\bstatus[- ]post\b|\bresolved\b"
)
_EARLIER = re.compile(
    r"\b(?:previous(?:ly)?|prior|formerly|history of|old|healed|remote|earlier)\b"
)
_STILL = re.compile(
    r"\b(?:unchanged|stable|again|persist\w*|remain\w*|increase\w*|increasing|decrease\w*|decreasing|larger|smaller|improv\w+"
    r"|worse\w*|progress\w+|new|residual|still|continu\w+|similar|resolving|redemonstrated)\b"
)
_NO_NEW = re.compile(r"\bno (?:definite )?new\b|\bno (?:other|additional|further)\b|\botherwise\b")
_CHOICE = re.compile(r"\b(?:or|versus|vs\.?)\b")

_CLEAR = re.compile(
    r"\b(?P<which>lungs?|lung fields|(?:left|right) lung|both lungs)(?: fields?)?"
    r" (?:is|are|appears?|remains?)(?: \w+ly)* clear\b(?! of)(?! (?:except|other))"
)
_ENLARGED = re.compile(r"\b(?:enlarge\w*|dilated|widened|widening|big|prominent in size)\b")
_USUAL = re.compile(
    r"\b(?:normal|unremarkable|not (?:\w+ )?(?:enlarged|widened|dilated)"
    r"|within (?:the )?(?:normal )?limits)\b"
)
_BORDERLINE = re.compile(
    r"\b(?:upper (?:limits?|range) (?:of )?normal|top[- ]normal|borderline|(?:may|might|could) be"
    r"|probabl[ey]|possibl[ey]|likely|suspected|difficult|accentuated|exaggerated|not well)\b"
)
_COMPARES = re.compile(
    rf"\b(?:{_PRIOR}|compar\w+|interval|unchanged|stable|new(?:ly)?|increased|increasing"
    r"|decreased|decreasing|improv(?:ed|ing|ement)|worsen(?:ed|ing)|again|since|persist\w*"
    r"|no longer|previously|resolv(?:ed|ing)|resolution|residual|redemonstrated|progress(?:ed|ion|ive))\b"
)

_NAMES = tuple((label, re.compile(rf"\b(?:{pattern})\b")) for label, pattern in CONCEPTS)


def compares(sentence: str) -> bool:
    """Tell whether a sentence compares with an earlier image."""
    return bool(_COMPARES.search(_folded(sentence)))


def read(sentence: str) -> tuple[Statement, ...]:
    """Read the findings of a sentence, in its order; each one once.

    Parameters
    ----------
    sentence : str
        English text of a radiology report; several sentences are read one by one.
    """
    text = _folded(sentence)
    for pattern, instead in _PSEUDO:
        text = re.sub(pattern, f" {instead} ", text)
    text = " ".join(text.split())
    found: list[Statement] = []
    for clause in _clauses(text):
        found.extend(_silhouettes(clause))
        found.extend(_clear_lungs(clause))
        found.extend(_named(clause))
    return tuple(dict.fromkeys(found))


def _folded(sentence: str) -> str:
    return " ".join(sentence.lower().replace("’", "'").split())


def _clauses(text: str) -> Iterator[str]:
    start = 0
    for end in _CLAUSE_END.finditer(text):
        # The question mark stays with its clause: it makes it uncertain.
        yield text[start : end.start() + (end[0] == "?")].strip()
        start = end.end()
    yield text[start:].strip()


def _named(clause: str) -> Iterator[Statement]:
    mentions = _mentions(clause)
    shared = ""
    said: list[Statement] = []
    for label, start, end in reversed(mentions):
        before = max((b for _, _, b in mentions if b <= start), default=0)
        after = min((a for _, a, _ in mentions if a >= end), default=len(clause))
        assertion = _assertion(clause, start, end)
        side = "" if label in _NO_SIDE else _side(clause, start, end, before, after)
        if assertion is Assertion.ABSENT and label not in _NO_SIDE:
            # "no pneumothorax or effusion on the left" says nothing of the right side.
            side = shared = side or shared
        if assertion is not None:
            said.append(Statement(label, assertion, side))
    yield from reversed(said)


def _mentions(clause: str) -> list[tuple[str, int, int]]:
    """Return label, start and end of each concept; where two overlap, the longer one."""
    matches = [
        (label, found.start(), found.end())
        for label, pattern in _NAMES
        for found in pattern.finditer(clause)
    ]
    matches.sort(key=lambda one: (one[1] - one[2], one[1]))
    kept: list[tuple[str, int, int]] = []
    for label, start, end in matches:
        twin = any((start, end) == (a, b) and label != other for other, a, b in kept)
        # One word may name two things: a hydropneumothorax is both.
        both = twin and clause[start:end].startswith("hydropneumo")
        if both or all(end <= a or start >= b for _, a, b in kept):
            kept.append((label, start, end))
    return sorted(kept, key=lambda one: one[1])


def _assertion(clause: str, start: int, end: int) -> Assertion | None:
    """Return how a clause speaks of the concept at a place; None when it does not say."""
    before, after = clause[:start], clause[end:]
    if _reaches(_NO_NEW, before):
        return None
    if _reached(_GONE_AFTER, after) or _reaches(_GONE_BEFORE, before):
        return Assertion.HISTORICAL
    if _reached(_UNCERTAIN_AFTER, after):
        return Assertion.UNCERTAIN
    negated = _negated(before, after)
    if negated is not None:
        return negated
    if _EARLIER.search(clause) and not _STILL.search(clause):
        return Assertion.HISTORICAL
    doubted = _reaches(_UNCERTAIN_BEFORE, before) or _doubted(before)
    return Assertion.UNCERTAIN if doubted or _one_of_two(clause, start) else Assertion.PRESENT


def _negated(before: str, after: str) -> Assertion | None:
    """Return ABSENT under a negation, UNCERTAIN under half of one, None under none."""
    negation = _last(_NEGATION, before)
    if negation is None or not _in_scope(before[negation.end() :], after):
        return Assertion.ABSENT if _reached(_NEGATED_AFTER, after) else None
    cannot_exclude = negation[0] == "not" and _reaches(_UNCERTAIN_BEFORE, before)
    # "No large effusion" leaves room for a small one.
    if cannot_exclude or _ONLY_LARGE.search(before):
        return Assertion.UNCERTAIN
    return Assertion.ABSENT


def _last(trigger: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for match in trigger.finditer(text):
        found = match
    return found


def _reaches(trigger: re.Pattern[str], before: str) -> bool:
    """Tell whether a trigger before a concept still speaks of it."""
    found = _last(trigger, before)
    return found is not None and _in_scope(before[found.end() :], "")


def _in_scope(between: str, after: str) -> bool:
    """Tell whether the words between a trigger and a concept leave it in the trigger's scope."""
    if _VERB.search(between) and not re.search(r"\b(?:or|nor)\b", between):
        return False
    if _NEW_PHRASE.search(between):
        return False
    # "no pneumothorax, small left effusion" begins again; "no mass, effusion or nodule" does not.
    _, comma, item = between.rpartition(",")
    listed = re.search(r"\b(?:or|nor)\b", between + after)
    return not (comma and _DESCRIBED.match(f"{item.strip()} ") and not listed)


def _reached(trigger: re.Pattern[str], after: str) -> bool:
    """Tell whether a trigger after a concept speaks back of it."""
    found = trigger.search(after)
    if found is None:
        return False
    # The verb that belongs to the trigger itself ("is", "has been") does not stand between.
    between = re.sub(r"(?: (?:is|are|was|were|has|have|been|now))+ ?$", "", after[: found.start()])
    return not _VERB.search(between)


def _doubted(before: str) -> bool:
    """Tell whether "possible" or the like stands before a concept with no other in between."""
    found = _last(_UNCERTAIN_ADJECTIVE, before)
    if found is None:
        return False
    between = before[found.end() :]
    named = any(pattern.search(between) for _, pattern in _NAMES)
    return _in_scope(between, "") and (not named or bool(_CHOICE.search(between)))


def _one_of_two(clause: str, start: int) -> bool:
    """Tell whether a concept is offered as one of two: "atelectasis or pneumonia"."""
    mentions = _mentions(clause)
    place = next(index for index, one in enumerate(mentions) if one[1] == start)
    pairs = pairwise(mentions[max(place - 1, 0) : place + 2])
    gaps = [clause[first[2] : second[1]] for first, second in pairs]
    return any(_CHOICE.search(gap) and len(gap.split()) <= 6 for gap in gaps)


def _side(clause: str, start: int, end: int, before: int, after: int) -> str:
    """Return the side that is said of a concept: first in the words before it, then after it."""
    ahead, behind = clause[before:start], clause[end:after]
    separators = r",|;|\bwith\b|\band\b|\bor\b" if before else r",|;|\bwith\b"
    nearest = re.split(separators, ahead)[-1]
    following = re.split(r",|;|\bwith\b", behind)[0]
    if after < len(clause):
        following = re.split(r"\band\b|\bor\b", following)[0]
    candidates = [nearest, following] if before else [nearest, following, ahead]
    return next((side for side in map(_side_word, candidates) if side), "")


def _side_word(text: str) -> str:
    left, right = (bool(re.search(rf"\b{side}\b", text)) for side in ("left", "right"))
    if (left and right) or re.search(r"\b(?:bilateral\w*|both|bi(?:basilar|basal|apical))\b", text):
        return "bilateral"
    return "left" if left else "right" if right else ""


def _clear_lungs(clause: str) -> Iterator[Statement]:
    found = _CLEAR.search(clause)
    if found and not re.search(r"\b(?:otherwise|elsewhere)\b", clause):
        yield Statement("lung opacity", Assertion.ABSENT, _side_word(clause[: found.end()]))


def _silhouettes(clause: str) -> Iterator[Statement]:
    """Read sizes: "the heart is enlarged", "normal cardiac silhouette"."""
    for label, subject in _SILHOUETTES:
        phrase = re.search(rf"(?:\b(?:\w+[- ]){{0,3}})\b{subject}\b[^,]*", clause)
        if phrase is not None:
            assertion = _size(phrase[0])
            if assertion is not None:
                yield Statement(label, assertion)


def _size(phrase: str) -> Assertion | None:
    enlarged, usual = _ENLARGED.search(phrase), _USUAL.search(phrase)
    if not enlarged and not usual:
        return None
    if re.search(r"\bno longer\b", phrase):
        return Assertion.HISTORICAL
    if _BORDERLINE.search(phrase):
        return Assertion.UNCERTAIN
    if usual and not re.search(r"\bnot (?:normal|unremarkable)\b", phrase):
        return Assertion.ABSENT
    return Assertion.PRESENT if enlarged else None
