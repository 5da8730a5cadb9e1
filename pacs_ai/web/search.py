"""Searching Workitems: the query of PS3.18 11.9 read, and matched against DICOM JSON.

Pure: query parameters in, Workitems out. Matching is that of PS3.4 C.2.2.2: single value, list of
UIDs, wild card on text, universal when empty. All keys must match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

Workitem = Mapping[str, Any]
"""One data set in the DICOM JSON Model (PS3.18 F)."""

MAXIMUM = 1000
"""Most Workitems in one answer."""

_KEYS: tuple[tuple[str, ...], ...] = (
    ("SOPInstanceUID",),
    ("WorklistLabel",),
    ("ProcedureStepLabel",),
    ("ScheduledProcedureStepPriority",),
    ("ProcedureStepState",),
    ("InputReadinessState",),
    ("StudyInstanceUID",),
    ("PatientID",),
    ("ReferencedRequestSequence", "AccessionNumber"),
    ("ScheduledWorkitemCodeSequence", "CodeValue"),
    ("ScheduledHumanPerformersSequence", "HumanPerformerCodeSequence", "CodeValue"),
)
_SHORT: dict[tuple[str, ...], tuple[str, ...]] = {
    ("AccessionNumber",): ("ReferencedRequestSequence", "AccessionNumber")
}
"""What people write for a key that stands in a sequence."""

_WILD = frozenset({"LO", "SH", "PN", "LT", "ST", "UC", "CS"})
_TAG = re.compile(r"^[0-9A-Fa-f]{8}$")
_ORDER = {"HIGH": 0, "MEDIUM": 1, "LOW": 2}


class QueryError(ValueError):
    """A query cannot be answered as it stands; the message says which part and what is possible."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a search asks for.

    Attributes
    ----------
    keys : tuple of (path, value)
        Path of keywords from the data set down, and the value to match; never empty values.
    offset : int
    limit : int or None
        Which part of the matches; without a `limit` all of them.
    fuzzy : bool
        Fuzzy matching was asked for; it is not offered, and the answer has to say so.
    """

    keys: tuple[tuple[tuple[str, ...], str], ...] = ()
    offset: int = 0
    limit: int | None = None
    fuzzy: bool = False


def parse(parameters: Iterable[tuple[str, str]]) -> Query:
    """Read query parameters (PS3.18 8.3.4); attributes by keyword or tag, sequences with dots.

    Every attribute of a Workitem is returned, so that ``includefield`` is read and adds nothing.

    Raises
    ------
    QueryError
        For a parameter that is unknown, given twice, or not a number where one belongs.
    """
    keys: dict[tuple[str, ...], str] = {}
    settings: dict[str, str] = {}
    for name, value in parameters:
        if name == "includefield":
            _included(value)
        elif name in ("limit", "offset", "fuzzymatching"):
            if name in settings:
                raise QueryError(f"{name} stands twice: give it once")
            settings[name] = value
        else:
            path = _path(name)
            if path in keys:
                raise QueryError(f"{'.'.join(path)} stands twice: give it once")
            keys[path] = value
    return Query(
        keys=tuple((path, value) for path, value in keys.items() if value not in ("", "*")),
        offset=_number("offset", settings.get("offset", "0"), least=0),
        limit=_number("limit", settings["limit"], least=1) if "limit" in settings else None,
        fuzzy=_fuzzy(settings.get("fuzzymatching", "false")),
    )


def search(workitems: Iterable[Workitem], query: Query) -> tuple[list[Workitem], bool]:
    """Return the Workitems that a query asks for, and whether :data:`MAXIMUM` withheld some.

    The most urgent come first, then the oldest, so that the parts of a long list do not overlap.
    """
    keys = [(path, _matcher(path[-1], value)) for path, value in query.keys]
    matching = [
        one
        for one in workitems
        if all(any(map(matches, _values(one, path))) for path, matches in keys)
    ]
    matching.sort(key=_urgency)
    asked = matching[query.offset :][: query.limit]
    return asked[:MAXIMUM], len(asked) > MAXIMUM


def _path(name: str) -> tuple[str, ...]:
    path = tuple(_keyword(part) for part in name.split("."))
    path = _SHORT.get(path, path)
    if path not in _KEYS:
        known = ", ".join(".".join(one) for one in _KEYS)
        raise QueryError(f"{name[:64]!r} is no key that can be searched for; these are: {known}")
    return path


def _keyword(part: str) -> str:
    return keyword_for_tag(int(part, 16)) if _TAG.match(part) else part


def _included(value: str) -> None:
    for field in value.split(","):
        for part in field.split("."):
            if part != "all" and not tag_for_keyword(part) and not _TAG.match(part):
                raise QueryError(f"includefield {part[:64]!r} is neither an attribute nor 'all'")


def _number(name: str, value: str, *, least: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < least:
        raise QueryError(f"{name} is a whole number of at least {least}")
    return int(value)


def _fuzzy(value: str) -> bool:
    if value not in ("true", "false"):
        raise QueryError("fuzzymatching is true or false")
    return value == "true"


def _matcher(keyword: str, wanted: str) -> Callable[[str], bool]:
    vr = dictionary_VR(keyword)
    if vr == "UI":
        return frozenset(re.split(r"[,\\]", wanted)).__contains__
    if vr in _WILD and re.search(r"[*?]", wanted):
        return _wild(wanted)
    return wanted.__eq__


def _wild(wanted: str) -> Callable[[str], bool]:
    """Return what matches by ``*`` and ``?`` (PS3.4 C.2.2.2.4).

    What stands between two ``*`` is looked for once, from the left: the first place leaves most to the
    rest, so that no other place needs to be tried. One regular expression with ``.*`` for each ``*`` tries
    them all, which takes for ever with many.
    """
    first, *between = (
        (
            len(part),
            re.compile("".join("." if one == "?" else re.escape(one) for one in part), re.DOTALL),
        )
        for part in wanted.split("*")
    )
    if not between:
        return lambda value: first[1].fullmatch(value) is not None
    *middle, last = (one for one in between if one[0] or one is between[-1])

    def matches(value: str) -> bool:
        end = len(value) - last[0]
        if end < first[0] or not first[1].match(value):
            return False
        at = first[0]
        for _, part in middle:
            found = part.search(value, at, end)
            if found is None:
                return False
            at = found.end()
        return last[1].fullmatch(value, end) is not None

    return matches


def _values(workitem: Workitem, path: tuple[str, ...]) -> Iterator[str]:
    tag = f"{tag_for_keyword(path[0]):08X}"
    for value in workitem.get(tag, {}).get("Value", ()):
        if len(path) > 1:
            yield from _values(value, path[1:])
        elif value is not None:
            yield str(value)


def _urgency(workitem: Workitem) -> tuple[int, str, str]:
    def first(keyword: str) -> str:
        return next(_values(workitem, (keyword,)), "")

    priority = _ORDER.get(first("ScheduledProcedureStepPriority"), len(_ORDER))
    return priority, first("ScheduledProcedureStepStartDateTime"), first("SOPInstanceUID")
