"""Searching Workitems: the query of PS3.18 11.9 read, and matched against DICOM JSON.

Pure: query parameters in, Workitems out. Matching is that of PS3.4 C.2.2.2: single value, list of
UIDs, wild card on text, universal when empty. All keys must match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
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
    matching = [
        one for one in workitems if all(_matches(one, path, value) for path, value in query.keys)
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


def _matches(workitem: Workitem, path: tuple[str, ...], wanted: str) -> bool:
    vr = dictionary_VR(path[-1])
    if vr == "UI":
        uids = re.split(r"[,\\]", wanted)
        return any(value in uids for value in _values(workitem, path))
    if vr in _WILD and re.search(r"[*?]", wanted):
        parts = ({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in wanted)
        pattern = re.compile("".join(parts), re.DOTALL)
        return any(pattern.fullmatch(value) for value in _values(workitem, path))
    return any(value == wanted for value in _values(workitem, path))


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
