"""How far a word such as "no", "resolved" or "prior" reaches in a clause of a report.

It reaches on through a list, as in "no consolidation, effusion or pneumothorax". It does not reach
behind a verb, or to where the clause begins anew. Between the two a clause can be read both ways:
"no effusion and a small pneumothorax". There the scope is not clear, and nothing is said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

SEEN = (
    r"(?:seen|present|noted|visible|visuali[sz]ed|identified|evident|apparent|appreciated"
    r"|demonstrated|detected|observed|found|shown)"
)

NEGATION = re.compile(
    r"\bno (?:\w+ ){0,2}?(?:evidence|signs?|indication|suggestion|radiographic evidence)"
    r"(?: (?:of|for|to suggest)| that there is)?\b|\bnor (?:is|are) there\b"
    r"|\b(?:no|not|without|neither|nor|never|nil|lacks|lacking|denies)\b|\b(?:neg|negative) for\b"
    r"|\b(?:free|clear|devoid|absence|lack) of\b|\bnothing to suggest\b"
    r"|(?:^|(?<=, ))(?:absent|negative)\b|\bfail(?:s|ed)? to (?:demonstrate|show|reveal)\b"
)
STILL = re.compile(
    r"\b(?:unchanged|stable|again|persist\w*|remain\w*|increase\w*|increasing|decrease\w*|decreasing|larger|smaller|improv\w+"
    r"|worse\w*|progress\w+|new|residual|still|continu\w+|similar|resolving|redemonstrated)\b"
)
_ARE_STILL = re.compile(rf"\b(?:are|have) (?:\w+ly )?{STILL.pattern}|\b(?:remain|persist)\b")
OR = re.compile(r"\b(?:or|nor)\b|/")
JOINT = re.compile(
    r",|;|:|/|&|\b(?:and|or|nor|plus|as well as)\b"
    r"|(?<!consistent )(?<!compatible )(?<!keeping )(?<!associated )\bwith\b"
)

_VERB = re.compile(r"\b(?:is|are|was|were|has|have|there|remains?|persists?)\b")
_DESCRIBED = re.compile(
    r"^(?:an? )?(?:small|tiny|trace|mild|moderate|severe|large|left|right|bilateral|bibasilar|bibasal"
    r"|new|stable|persistent|unchanged|increase\w*|increasing|worsening|patchy"
    r"|multifocal|residual|minimal|possibl[ey]|probabl[ey]|likely|suspected|questionable|presumed)"
    r"(?:ly)?\b"
)
_INDEFINITE = re.compile(r"^an?\b")
_ARTICLE = re.compile(r"^(?:an?|the)\b")
# Words that go with what is denied; any other word ("dense", "apical") describes what is seen.
_NEUTRAL = re.compile(
    r"(?:(?:focal|definite|discrete|overt|frank|visible|significant|suspicious|evidence of|other|any"
    r"|displaced|rib|bony|lung|pulmonary|lobar|interstitial|pleural|pericardial)\b ?)*"
)
_SIZED = re.compile(r"^(?:an?|small|tiny|trace|mild|moderate|severe|large)\b")
_NEW_PHRASE = re.compile(
    r",? with(?: an?| small| moderate| large| mild| persistent| stable| unchanged| left| right"
    r"| bilateral)\b|, with\b"
)
# "... obscured by effusion" is not denied by what stands before it.
_CAUSED = re.compile(
    r":|\b(?:due to|secondary to|because of|given|obscured by|after|following|despite|from"
    r"|in the setting of|as a result of)\b"
    r"|(?:,[\w ]*|^ \w+ [\w ]+) (?:consistent|compatible|in keeping) with\b"
)
_LEAVES = re.compile(f"{JOINT.pattern}|{_CAUSED.pattern}")
_LIST_ENDS = re.compile(
    r"\b(?:with|is|are|was|were|likely|may|might|could|probably|possibly|represent\w*|reflect\w*)\b"
)
_ITEM_ENDS = re.compile(r",|;|\band\b|\bwith\b")
_SAID_TO_BE = re.compile(rf"^[\w ]*?\b(?:is|are|was|were) (?:again |now |still )?{SEEN}\b")
_HAS_A_VERB = re.compile(r"^[\w ]*?\b(?:is|are|was|were|has|have|appears?|measur\w+)\b")
_AT_A_SIDE = re.compile(r"^ (?:(?:on|in|at) )?(?:the )?(?:right|left|both)\b")
_GOES_ON = re.compile(r"^ (?:persists?|remains?|measur\w+)\b|^[\w ]*? (?:is|are|has|have) (?!no)")
_FRESH = re.compile(r"\b(?:development of|developing|now|newly|new|acute|superimposed)\b")
_OWN_VERB = re.compile(
    r"(?: (?:is|are|was|were|has|have|been|be|now|since|interval|\w+ly|felt"
    r"|thought|considered|believed|deemed|appears?|seems?|to))+ ?$"
)
_BY_THE_WAY = re.compile(r",[^,]*\b(?:seen|noted|described|present|identified|known)\b[^,]*,")
_ANY_VERB = re.compile(r"\b(?:is|are|was|were|has|have|remains?|persists?|can|could)\b")
_PLURAL = re.compile(r"\b(?:are|were|have|remain|persist)\b")


class Scope(Enum):
    """Whether a trigger speaks of a concept; UNCLEAR where the clause can be read both ways."""

    INSIDE = auto()
    OUTSIDE = auto()
    UNCLEAR = auto()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a concept is named in a clause.

    Attributes
    ----------
    clause : str
    start, end : int
        Of the name.
    names : tuple of (int, int)
        Start and end of every name in the clause, in order.
    """

    clause: str
    start: int
    end: int
    names: tuple[tuple[int, int], ...]

    @property
    def before(self) -> str:
        return self.clause[: self.start]

    @property
    def after(self) -> str:
        return self.clause[self.end :]

    @property
    def item(self) -> str:
        """The words before the name that belong to it, and to no other thing."""
        return JOINT.split(self.before)[-1]

    @property
    def rest(self) -> str:
        """The words after the name that belong to it, and to no other thing."""
        following = [a for a, _ in self.names if a >= self.end]
        if following:
            return _LEAVES.split(self.clause[self.end : following[0]])[0]
        # "Nodule, previously seen": with no other name, a comma leads on.
        return re.split(rf"\b(?:with|and)\b|&|{_CAUSED.pattern}", self.after)[0]

    def names_between(self, start: int, end: int) -> bool:
        """Tell whether anything is named between two places of the clause."""
        return any(start <= a and b <= end for a, b in self.names)


def last(trigger: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Return the last match of a trigger in a text."""
    found = None
    for match in trigger.finditer(text):
        found = match
    return found


def carries(trigger: re.Pattern[str], before: str) -> bool:
    """Tell whether a doubt before a concept may still speak of it; where unclear, it does."""
    found = last(trigger, before)
    return found is not None and leads_on(before[found.end() :])


def leads_on(between: str) -> bool:
    """Tell whether the words between a doubt and a concept lead from one to the other."""
    if _VERB.search(between) and not OR.search(between):
        return False
    if _NEW_PHRASE.search(between):
        return False
    _, comma, item = between.rpartition(",")
    return not (comma and _DESCRIBED.match(f"{item.strip()} ") and not OR.search(between))


def current(place: Place) -> bool:
    """Tell whether a concept's own words say that it is there now."""
    said = STILL.search(place.item) or _FRESH.search(place.item) or STILL.search(place.rest)
    return bool(said) or backwards(_ARE_STILL, place) is Scope.INSIDE


def forwards(trigger: re.Pattern[str], place: Place) -> Scope:
    """Tell whether the last such trigger before a concept speaks of it."""
    found = last(trigger, place.before)
    between = "" if found is None else place.before[found.end() :]
    if found is None or _begins_again(between):
        return Scope.OUTSIDE
    if _CAUSED.search(between):
        return Scope.UNCLEAR
    joints = list(JOINT.finditer(between))
    if not joints:
        return Scope.INSIDE
    item = between[joints[-1].end() :].strip()
    if trigger is not NEGATION:
        return _past(item, joints, place, found[0])
    affirmed = _affirmed(item, place.after, place.before[: found.start()])
    # Nobody denies "a small one": behind "no" and "and" it is there.
    if joints[-1][0] == "and" and found[0] in ("no", "without") and _INDEFINITE.match(item):
        affirmed = not OR.search(_ITEM_ENDS.split(place.after)[0])
    return Scope.OUTSIDE if affirmed else _denied(between, joints, place, found)


def _begins_again(between: str) -> bool:
    verb = _VERB.search(between)
    return bool((verb and not OR.search(between, verb.end())) or _NEW_PHRASE.search(between))


def _affirmed(item: str, after: str, lead: str) -> bool:
    """Tell whether an item behind a negation is said to be there."""
    if _goes_on(after):
        return True
    # "No effusion, pneumothorax is seen" may deny both; "there is no effusion" is whole already.
    own = _ITEM_ENDS.split(after)[0]
    return bool(_SAID_TO_BE.search(own) and not OR.search(f"{own} {item}") and _VERB.search(lead))


def _goes_on(after: str) -> bool:
    """Tell whether an item has a verb of its own, as "... and effusions are unchanged"."""
    own = _ITEM_ENDS.split(after)[0]
    return not OR.search(own) and bool(_GOES_ON.search(own) and STILL.search(own))


def _past(item: str, joints: list[re.Match[str]], place: Place, trigger: str) -> Scope:
    """Tell whether what is past, or not to be judged, includes a later item of the clause."""
    # "History of a and a small b" may mean both; "old a and a small b" does not.
    sized = not trigger.endswith((" of", " for")) and _SIZED.match(item)
    now = STILL.search(item) or _FRESH.search(item)
    commas = joints[-1][0] == "," and (
        _DESCRIBED.match(f"{item} ") or _AT_A_SIDE.match(place.after)
    )
    if sized or now or commas or _goes_on(place.after):
        return Scope.OUTSIDE
    return Scope.INSIDE if OR.fullmatch(joints[-1][0]) else Scope.UNCLEAR


def _denied(
    between: str, joints: list[re.Match[str]], place: Place, negation: re.Match[str]
) -> Scope:
    """Follow a negation along the items of a list, to the one that holds the concept."""
    named = place.names_between(negation.end(), negation.end() + joints[-1].start())
    # "Without a lateral view, ..." and "not rotated, ..." are no lists.
    a_list = named and negation[0] != "not"
    # "Free of a and b" denies both; "no a and b" may go on with what is there.
    governs = negation[0].endswith((" of", " for"))
    scope, items = Scope.INSIDE, 1
    closes = [joint.start() for joint in joints[1:]] + [len(between)]
    for joint, close in zip(joints, closes, strict=True):
        item, final = between[joint.end() : close].strip(), close == len(between)
        goes_on = OR.search(between, close) or OR.search(_LIST_ENDS.split(place.after)[0])
        if OR.fullmatch(joint[0]) or not (item or final) or (joint[0] == "," and goes_on):
            continue
        items += 1
        # An "or" closes a list: "no a or b, c" begins again.
        open_list = not OR.search(between[: joint.start()])
        bare = (_bare(item, place.after) if final else not _anew(item)) and scope is Scope.INSIDE
        if joint[0] == ",":
            scope = _behind_comma(item, reached=bare and a_list and open_list)
        elif not (bare and (governs or (items > 2 and open_list)) and joint[0] != "with"):
            scope = Scope.UNCLEAR
    return scope


def _behind_comma(item: str, *, reached: bool) -> Scope:
    if _DESCRIBED.match(f"{item} "):
        return Scope.OUTSIDE
    return Scope.INSIDE if reached else Scope.UNCLEAR


def _anew(item: str) -> bool:
    return bool(_DESCRIBED.match(f"{item} ") or _ARTICLE.match(item))


def _bare(item: str, after: str) -> bool:
    """Tell whether the concept of a list's item is only named, and nothing is said of it."""
    return bool(_NEUTRAL.fullmatch(item)) and not (
        _AT_A_SIDE.match(after) or _HAS_A_VERB.match(after)
    )


def backwards(trigger: re.Pattern[str], place: Place) -> Scope:
    """Tell whether a trigger after a concept speaks back of it."""
    after = place.after
    found = trigger.search(after)
    if found is None:
        return Scope.OUTSIDE
    # The verb that belongs to the trigger itself ("is", "has been") does not stand between.
    between = _OWN_VERB.sub("", after[: found.start()])
    if _VERB.search(between):
        return Scope.OUTSIDE
    if _BY_THE_WAY.fullmatch(between):
        return Scope.INSIDE
    joints = [one for one in JOINT.finditer(between) if between[one.end() :].strip()]
    named = place.names_between(place.end, place.end + found.start())
    if OR.search(between) or not (joints or named):
        return Scope.INSIDE
    # "A and B have resolved" speaks of both; "A, the B has resolved" of the last.
    verbs = after[len(between) : found.end()]
    if not joints or joints[-1][0] == "with" or not _ANY_VERB.search(verbs):
        return Scope.UNCLEAR
    both = joints[-1][0] == "and" and _PLURAL.search(verbs)
    return Scope.INSIDE if both else Scope.OUTSIDE
