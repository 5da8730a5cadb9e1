"""Workitems for people: which Study deserves whose eyes, and the UPS data set that says so.

``rules.py`` decides from results (pure); ``workitem.py`` makes the data set of a Unified Procedure Step
(PS3.4 Annex CC). Priority only rises; silence is never a statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from pacs_ai.results import JobResults


class Priority(StrEnum):
    """Scheduled Procedure Step Priority (0074,1200)."""

    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"


class Audience(StrEnum):
    """Who a Workitem is for."""

    READER = "reader"
    IMAGING_IT = "imaging-it"


@dataclass(frozen=True, slots=True)
class Facts:
    """What worklist rules may look at.

    Attributes
    ----------
    state : str
        State of the Study version: ``done``, ``nothing_found``, ``not_suitable``, ``held``, ``failed``
        or ``running``.
    entries : tuple of JobResults
        The Jobs that have ended so far.
    """

    state: str
    entries: tuple[JobResults, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """A Workitem that worklist rules ask for.

    Attributes
    ----------
    label : str
        Worklist Label (0074,1202): neutral, the queue it goes to.
    priority : Priority or None
        None leaves the priority as it is (a new Workitem is MEDIUM).
    performers : tuple of str
        Codes of human performers or groups; ``fallback`` when none of them takes it, told in words: a
        Unified Procedure Step has no element for it.
    audience : Audience
    expires : timedelta or None
    reason : str
        Why, in one sentence for Comments on the Scheduled Procedure Step; no patient identifiers.
    """

    label: str
    priority: Priority | None
    performers: tuple[str, ...]
    fallback: tuple[str, ...]
    audience: Audience
    expires: timedelta | None
    reason: str
