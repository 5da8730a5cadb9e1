"""The one table by which a sentence of a draft report becomes findings.

It knows concepts (:data:`CONCEPTS`), how a sentence speaks of them (present, absent, uncertain,
historical) and on which side. It is made from how radiologists write, not from any server's
wording. What it does not understand gives no finding: unparsed text changes nothing, and the
sentence itself stays in the draft.

The method is that of NegEx and ConText (Chapman 2001, Harkema 2009): trigger words with a scope
that runs forwards or backwards until something ends it. Phrases that only look like triggers ("no change
in", "not seen on the prior exam") are taken out first.

Where a sentence can be read in two ways, nothing is said of the concept: "No effusion and
pneumothorax." makes the effusion absent, and says nothing of a pneumothorax.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from pacs_ai.models.scope import (
    NEGATION,
    SEEN,
    STILL,
    Place,
    Scope,
    backwards,
    carries,
    current,
    forwards,
    last,
    leads_on,
)
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
        r"|densit(?:y|ies)(?= (?:in|at|of|over|projecting)(?: \w+){0,6}? (?:lungs?|lobe|base|apex)\b)",
    ),
    ("consolidation", r"consolidat(?:ions?|ive|ed)"),
    ("infiltrate", r"infiltrates?|infiltrations?"),
    ("pneumonia", r"(?:broncho)?pneumonias?"),
    (
        "atelectasis",
        r"atelecta(?:sis|ses|tic)|(?:lung|lobar|lobe) collapse|collapse of the (?:\w+ ){0,4}?l(?:ung|obe)",
    ),
    ("pneumothorax", r"(?:hydro)?pneumothora(?:x|ces)"),
    ("pneumomediastinum", r"pneumomediastinum"),
    (
        "pleural effusion",
        r"(?<!pericardial )(?<!joint )(?:pleural )?effusions?|pleural fluid"
        r"|hydro(?:pneumo)?thora(?:x|ces)",
    ),
    (
        "pleural thickening",
        r"pleural[- ](?:based )?thickening|thickening of the (?:\w+ ){0,4}?pleura",
    ),
    ("lung nodule", r"(?<!thyroid )(?:micro)?nodules?"),
    (
        "lung mass",
        rf"(?:lung|pulmonary|lobe|hilar|perihilar) mass(?:es)?(?! effect)"
        rf"|mass(?:es)?(?= (?:in|at|of|within|projecting)(?: \w+){{0,6}}? {_LUNG_PLACE}\b)",
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
_CHANGE = (
    r"(?:changed?|increased?|decreased?|progress(?:ed|ion)|improved|improvement|worsen(?:ed|ing)"
    r"|enlargement|growth|grown)"
)
_ADVERBS = r"(?:\w+ly |now |since |yet |also |well |as |either )*"

_FOREIGN = re.compile(
    r"\b(?:kein\w*|nicht|ohne|weder|pas|sans|aucune?|sin|no (?:hay|se)|ning[uú]n\w*|ausen\w+"
    r"|nessun\w*|senza|assen(?:za|te|ti)|non (?:si|ci|vi|[cv]'[eè]|evid\w+)|sem|n[aã]o|geen|niet"
    r"|zonder|ingen|inga|inget|ikke|inte|utan|uten|uden|nie|brak|bez)\b|\bn'(?=y\b)"
)
"""How other languages deny; the names of findings are often the same as in English."""

_PSEUDO: tuple[tuple[str, str], ...] = (
    # "not seen on the prior exam" says that it is new, not that it is absent.
    (
        rf"\bnot (?:previously |definitely )*{SEEN} (?:on|in|at) (?:the |a |her |his )?{_PRIOR}",
        "new",
    ),
    (rf"\bnot (?:previously {SEEN}|{SEEN} (?:previously|before))\b", "new"),
    (
        rf"\b(?:was|were) (?:\w+ly )?(?:{SEEN} )?(?:on|in) (?:the |a |her |his )?{_PRIOR}"
        rf"|\b(?:on|in) (?:the |a |her |his )?{_PRIOR},? (?:there )?(?:was|were)\b",
        "previously",
    ),
    (
        r"\b(?:as )?(?:compared|in comparison|relative) (?:to|with) (?:the |a |her |his )?"
        rf"{_PRIOR}",
        "",
    ),
    (rf"\b(?:since|from|to|on|than|with) (?:the |a |her |his )?{_PRIOR}(?= |,|\.|$)", ""),
    (
        r"\b(?:no|without)(?: (?:radiographic )?(?:evidence|signs?) (?:of|for))?"
        r" (?:(?:significant|substantial|appreciable|interval|relevant|major|definite|further) )*"
        rf"{_CHANGE}(?: in(?: the)?(?: size| extent)?(?: of)?| of)?\b",
        "unchanged",
    ),
    (
        rf"\b(?:not|has not|have not) (?:significantly |substantially |appreciably )*{_CHANGE}\b",
        "unchanged",
    ),
    (
        r"\b(?:not|never|partially|partly|incompletely|nearly|almost|mostly|largely)(?: yet| completely"
        r"| fully| entirely| been)* (?:resolved|cleared|disappeared)\b"
        r"|\b(?:partial|incomplete|near)(?:[- ]complete)? (?:resolution|clearing)\b"
        r"|\b(?:no|not|without)(?: \w+){0,2} (?:resolution|clearing) of\b",
        "persistent",
    ),
    # What stands first only for emphasis is said of what follows.
    (rf"\bno longer {SEEN} (?:is|are)\b", "no longer"),
    (rf"^not {SEEN} (?:is|are)\b", "no"),
    (
        r"\b(?:ensure|document|confirm|until|assess for)(?: complete)?"
        r" (?:resolution|clearing)( of)?",
        "",
    ),
    (r"\b(?:may|might|could) (?:\w+ly )?have (?:\w+ly )?(?:resolved|cleared)\b", "is questioned"),
    (r"\bnot only\b|\bno doubt\b|\bif not\b|\bnot (?:quite )?as \w+ as\b", ""),
    (r"\b(?:no|not|nothing) (?:more|greater|larger|less|fewer|smaller) than\b", ""),
    (r"\bwith (?:or|and/or) without\b|\bwith/without\b", "with possible"),
)

_CLAUSE_END = re.compile(
    r"[;!?]|\.(?!\d)"
    r"|,? \b(?:but|however|although|though|while|whereas|except(?: for)?|yet)\b"
    r"|(?:^|,? )\b(?:aside|apart) from\b|(?:^|,? )\bother than\b|,(?= which )"
    # "... and a small effusion is seen" begins again; "no nodule and a mass" does not.
    r"|,? and (?=(?:there|an?|the) [\w ]*\b(?:is|are|remains?|persists?|has|have)\b)"
)

_SOMEHOW_DENIED = re.compile(
    rf"\b(?:is|are|was|were|do|does|did|has|have|can|could|would) not (?!{_ADVERBS}(?:large|small|as\b"
    r"|under|increase|increasing|decrease|decreasing|enlarge|worse|improv|signific|associated|different|loculated|displaced"
    r"|calcified|healed|new|acute|in\b))|\bnowhere\b|\bdenied\b"
    r"|\bfail(?:s|ed)? to (?!resolve|clear|improve)"
)
"""What does not say that something is there, whatever it says."""
_ONLY_LARGE = re.compile(
    r"\b(?:large|size?able|gross|massive|big|tension) (?:(?!or |nor |and )\w+ ){0,3}$"
)
_NEGATED_AFTER = re.compile(
    rf"\b(?:is|are|was|were|can|could)? ?not (?:be |been )?(?:\w+ly )?{SEEN}\b"
    r"|\bnot (?:\w+ly )?(?:developed|recurred|occurred|appeared|re-?accumulated)\b"
    r"|(?:^|\b(?:is|are|was|were)) absent\b|^ (?:is |are )?(?:negative|none)\b"
    r"|(?:^|\b(?:been|is|are|was|were)(?: \w+ly| now)*) (?:ruled out|excluded)\b"
    r"|: ?(?:none|no|absent|negative|not seen)\b"
)
_UNCERTAIN_AFTER = re.compile(
    r"\bnot(?: be| been)?(?: \w+ly)* (?:excluded|ruled out)\b"
    r"|\b(?:difficult|hard) to (?:\w+ly )?exclude\b"
    # In "opacity, unlikely pneumonia" only the pneumonia is.
    r"|(?<!, )\b(?:un|less )likely\b|, (?:un|less )likely$"
    r"|\bdoubt(?:ful|ed)\b|\bif (?:present|any|there)\b"
    rf"|\bnot well {SEEN}\b"
    r"|\b(?:is|are|remains?|seems?) (?:also )?(?:possible|probable|likely|suspected|questioned"
    r"|questionable|equivocal|favou?red|conceivable|considered)\b"
    r"|\b(?:may|might|could|must|should|can|would) (?:also )?be (?:present|considered|missed"
    r"|overlooked|obscured|occult)\b|\bis a consideration\b"
    r"|\?|\bin the differential\b"
)
_UNCERTAIN_BEFORE = re.compile(
    r"\b(?:may|might|could|would)\b|\bsuggest(?:s|ed|ing|ive)?\b|\bsuspicious (?:for|of)\b"
    r"|\bsuspicion (?:for|of)\b|\bconcern(?:ing)?(?: for)?\b|\bworrisome for\b"
    r"|\bfavou?r(?:s|ed|ing)?\b"
    r"|\bnot(?: \w+ly)* (?:exclude|rule out)\b|\b(?:rul(?:es?|ed|ing) out|exclud(?:es|ing))\b"
    r"|\b(?:evaluate|assess)\b|\bpossibility of\b|\bif any\b|\bquery\b|\bexcluded?\b"
    r"|\b(?:likelihood|probability) of\b|\b(?:instead|in lieu) of\b|\bas opposed to\b"
    r"|\b(?:mimic\w*|resembl\w+|simulat\w+|masquerad\w+|mistaken for|confused with)\b"
    r"|\b(?:to exclude|differential|difficult to exclude|rather than)\b"
    r"|\b(?:represent|reflect)s? either\b"
    r"|\b(?:likely|probably|possibly) (?:an? )?(?:combination|represent\w*|reflect\w*|due|secondary)\b"
)
_UNCERTAIN_ADJECTIVE = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|likely|questionable|question of|suspected|presumed|presumably"
    r"|potential(?:ly)?|perhaps|equivocal|vs\.?|versus|unlikely|doubtful|borderline)\b"
)
_GONE_AFTER = re.compile(
    r"\bno longer\b|\bresolved\b"
    rf"|\b(?:has|have) {_ADVERBS}(?:cleared|disappeared)\b|\bremoved\b|\bgone\b"
)
_GONE_BEFORE = re.compile(
    r"\bno longer\b|\b(?:interval |complete )*(?:resolution|clearing|removal|disappearance|extubation) of\b"
    r"|\bstatus[- ]post\b|\bs/p\b|\bresolved\b"
)
_EARLIER = re.compile(
    r"\b(?:previous(?:ly)?|prior|former(?:ly)?|history of|old|healed|remote"
    r"|earlier|treated|drained|evacuated)\b"
)
# Old, behind a name, belongs to the next one: "opacity overlying old rib fractures".
_EARLIER_AFTER = re.compile(
    r"\b(?:previously|formerly)\b|\b(?:on|in|at|by) (?:the |a )?(?:prior|previous|earlier|old)\b"
    r"|(?:,|\b(?:is|are|was|were|appears?)) (?:old|healed|remote|drained|evacuated|treated) ?(?:,|$)"
)
_UNSAID_BEFORE = re.compile(
    r"\b(?:evaluation|assessment|sensitivity|detection|visuali[sz]ation|correlat\w+)"
    r"(?: \w+)? (?:for|of|to)\b|\brisk (?:for|of)\b|\b(?:monitor|watch) for\b"
    r"|\b(?:limited|insufficient|inadequate|non-?diagnostic|insensitive|suboptimal) for\b"
    r"|\b(?:ct|radiographs?|films?|x-?rays?|imaging|follow-?up) for\b"
    r"|^[\w ]*\b(?:indication|history|information|concern|exam\w*|comparison)\b[\w ]*:"
)
_UNSAID_AFTER = re.compile(
    rf"\bnot (?:be |been )?{_ADVERBS}(?:assess|evaluat|determine|judged|comment|interpret|diagnose)"
    r"|\b(?:difficult|hard|impossible) to (?:\w+ly )?(?:assess|evaluate|determine|see|detect)\b"
    r"|^ resolution\b|^ (?:evaluation|assessment|detection)\b"
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
# "The heart and mediastinum are normal" speaks of both.
_OF_BOTH = r"(?:(?: size)? and (?:\w+ ){1,4}?(?=(?:are|were|appear|remain)\b))?"
# A size ends where another thing begins; "stable and enlarged" are one.
_ALSO_SIZE = (
    rf" {_ADVERBS}(?:normal|unremarkable|stable|enlarged|dilated|widened)(?: in size)?(?:,|$)"
)
_PHRASE = rf"(?:(?!\b(?:and(?!{_ALSO_SIZE})|with|without|no(?! longer))\b)[^,])*"
_BORDERLINE = re.compile(
    r"\b(?:upper (?:limits?|range) (?:of )?normal|top[- ]normal|borderline|(?:may|might|could) be"
    r"|probabl[ey]|possibl[ey]|(?:un)?likely|suspected|question\w*|doubtful|excluded|ruled out|limited"
    r"|difficult|accentuated|exaggerated|not well)\b"
)
_COMPARES = re.compile(
    rf"\b(?:{_PRIOR}|compar\w+|interval|unchanged|stable|new(?:ly)?|increased|increasing"
    r"|decreased|decreasing|improv(?:ed|ing|ement)|worsen(?:ed|ing)|again|since|persist\w*"
    r"|no longer|previously|resolv(?:ed|ing)|resolution|residual|redemonstrated|progress(?:ed|ion|ive))\b"
)

# More names in one clause are a model that repeats itself, and no list of a radiologist.
_MOST_MENTIONS = 12

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
    if _FOREIGN.search(text):
        return ()
    for pattern, instead in _PSEUDO:
        text = re.sub(pattern, f" {instead} ", text)
    text = " ".join(text.split())
    found: list[Statement] = []
    for clause in _clauses(text):
        found.extend(_silhouettes(clause))
        found.extend(_clear_lungs(clause))
        found.extend(_named(clause))
    return tuple(one for one in dict.fromkeys(found) if not _contradicted(one, found))


def _contradicted(absence: Statement, said: list[Statement]) -> bool:
    """Tell whether a sentence denies and says the same, as "the lungs are clear with an opacity"."""
    return absence.assertion is Assertion.ABSENT and any(
        one.label == absence.label
        and one.assertion in (Assertion.PRESENT, Assertion.UNCERTAIN)
        and (one.side == absence.side or {one.side, absence.side} & {"", "bilateral"})
        for one in said
    )


def _folded(sentence: str) -> str:
    text = " ".join(re.sub(r"[’‘`´ʼ]", "'", sentence.lower()).split())
    text = re.sub(r"\bca(?:n't|nnot)\b", "can not", text)
    text = re.sub(
        r"\b(is|are|was|were|do|does|did|has|have|ai|could|would|should)n'?t\b", r"\1 not", text
    )
    text = re.sub(r" [-–—]+ |—", ", ", text)
    return re.sub(r"(?:^|(?<= ))\? ?(?=\w)", "possible ", text)


def _clauses(text: str) -> Iterator[str]:
    start = 0
    for end in _CLAUSE_END.finditer(text):
        # The question mark stays with its clause: it makes it uncertain.
        yield text[start : end.start() + (end[0] == "?")].strip()
        start = end.end()
    yield text[start:].strip()


def _named(clause: str) -> Iterator[Statement]:
    mentions = _mentions(clause)
    if len(mentions) > _MOST_MENTIONS:
        return
    names = tuple((start, end) for _, start, end in mentions)
    shared = ""
    said: list[Statement] = []
    for label, start, end in reversed(mentions):
        before = max((b for _, _, b in mentions if b <= start), default=0)
        after = min((a for _, a, _ in mentions if a >= end), default=len(clause))
        assertion = _assertion(Place(clause, start, end, names))
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


def _assertion(place: Place) -> Assertion | None:
    """Return how a clause speaks of the concept at a place; None when it does not say."""
    if _unsaid(place):
        return None
    gone = {backwards(_GONE_AFTER, place), _gone_before(place)}
    if Scope.INSIDE in gone:
        return Assertion.HISTORICAL
    if backwards(_UNCERTAIN_AFTER, place) is Scope.INSIDE:
        return Assertion.UNCERTAIN
    denied = {backwards(_NEGATED_AFTER, place), forwards(NEGATION, place)}
    if Scope.INSIDE in denied:
        return _negated(place)
    earlier = _earlier(place)
    if earlier is Scope.INSIDE:
        return Assertion.HISTORICAL
    unclear = Scope.UNCLEAR in gone | denied | {earlier}
    return None if unclear or backwards(_SOMEHOW_DENIED, place) is Scope.INSIDE else _there(place)


def _unsaid(place: Place) -> bool:
    """Tell whether a concept is only named: not judged, or asked about."""
    if carries(_NO_NEW, place.before) or backwards(_UNSAID_AFTER, place) is Scope.INSIDE:
        return True
    # "Neither has resolved" denies no finding.
    gone = backwards(_GONE_AFTER, place) is Scope.INSIDE
    if gone and forwards(NEGATION, place) is Scope.INSIDE:
        return True
    return forwards(_UNSAID_BEFORE, place) is not Scope.OUTSIDE


def _there(place: Place) -> Assertion:
    doubted = carries(_UNCERTAIN_BEFORE, place.before) or _doubted(place) or _one_of_two(place)
    return Assertion.UNCERTAIN if doubted else Assertion.PRESENT


def _negated(place: Place) -> Assertion:
    """Return ABSENT under a negation, UNCERTAIN under half of one."""
    if backwards(_NEGATED_AFTER, place) is Scope.INSIDE:
        return Assertion.ABSENT
    negation = last(NEGATION, place.before)
    not_excluded = negation and negation[0] == "not" and carries(_UNCERTAIN_BEFORE, place.before)
    # "No large effusion" leaves room for a small one.
    if not_excluded or _ONLY_LARGE.search(place.before):
        return Assertion.UNCERTAIN
    return Assertion.ABSENT


def _gone_before(place: Place) -> Scope:
    # After the placement of a tube, the tube is there.
    if re.match(r" (?:placement|insertion)\b", place.after):
        return Scope.OUTSIDE
    return forwards(_GONE_BEFORE, place)


def _earlier(place: Place) -> Scope:
    """Tell whether a concept, and not another thing of its clause, is one of the past."""
    if current(place):
        return Scope.OUTSIDE
    if _EARLIER.search(place.item) or _EARLIER_AFTER.search(place.rest):
        return Scope.INSIDE
    return forwards(_EARLIER, place)


def _doubted(place: Place) -> bool:
    """Tell whether "possible" or the like stands before a concept with no other in between."""
    found = last(_UNCERTAIN_ADJECTIVE, place.before)
    if found is None:
        return False
    between = place.before[found.end() :]
    named = place.names_between(found.end(), place.start)
    return leads_on(between) and (not named or bool(_CHOICE.search(between)))


def _one_of_two(place: Place) -> bool:
    """Tell whether a concept is offered as one of two: "atelectasis or pneumonia"."""
    index = next(index for index, name in enumerate(place.names) if name[0] == place.start)
    pairs = pairwise(place.names[max(index - 1, 0) : index + 2])
    gaps = [place.clause[first[1] : second[0]] for first, second in pairs]
    return any(_CHOICE.search(gap) and len(gap.split()) <= 6 for gap in gaps)


def _side(clause: str, start: int, end: int, before: int, after: int) -> str:
    """Return the side that is said of a concept: first in the words before it, then after it."""
    ahead, behind = clause[before:start], clause[end:after]
    separators = r",|;|:|\bwith\b|\band\b|\bor\b" if before else r",|;|\bwith\b"
    nearest = re.split(separators, ahead)[-1]
    following = re.split(r",|;|:|\bwith\b", behind)[0]
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
    if found and not re.search(r"\b(?:otherwise|elsewhere|probably|possibly|likely)\b", clause):
        yield Statement("lung opacity", Assertion.ABSENT, _side_word(clause[: found.end()]))


def _silhouettes(clause: str) -> Iterator[Statement]:
    """Read sizes: "the heart is enlarged", "normal cardiac silhouette"."""
    for label, subject in _SILHOUETTES:
        phrase = re.search(
            rf"\b(?:(?!and |with |without )\w+[- ]){{0,5}}{subject}\b{_OF_BOTH}{_PHRASE}", clause
        )
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
    denied = re.search(r"\b(?:no|not|never)\b", phrase)
    past = _EARLIER.search(phrase) and not STILL.search(phrase)
    return Assertion.PRESENT if enlarged and not denied and not past else None
