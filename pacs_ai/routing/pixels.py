"""View from pixels, where the header is silent: asked first, and routed again when the answer is there.

Routing does no I/O, and an embedding is made by a Job. So a rule whose ``view`` names ``pixels>=0.95``
starts with a Job that embeds each image without a view. When it has ended, the Study version is routed
again with what the pixels are like; the rule waits until then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pacs_ai.errors import ConfigError, Fault
from pacs_ai.prototypes import prototypes_of
from pacs_ai.settings import Settings
from pacs_ai.study import VIEW_FROM_PIXELS, Instance, Job
from pacs_ai.uids import digest

PARAMETER = "prototypes"
"""Parameter of these Jobs: the identity of what answers. An answer of another one does not count."""

_SOURCE = re.compile(r"^pixels\s*>=\s*(0\.\d+|1(?:\.0+)?)$")


@dataclass(frozen=True, slots=True)
class Asking:
    """Who says what pixels are like.

    Attributes
    ----------
    endpoint : str
        Name in the settings, of an ``insight`` endpoint with prototypes.
    identity : str
        Digest of its prototypes and of the certainty that it answers from.
    """

    endpoint: str
    identity: str

    def job(self, instance: Instance) -> Job:
        """Return the Job that embeds an image whose view is not known."""
        parameters = {"notes": [], PARAMETER: self.identity}
        return Job(VIEW_FROM_PIXELS, self.endpoint, "insight", {"image": (instance,)}, parameters)


def threshold(source: str) -> float | None:
    """Return the certainty that a source such as ``pixels>=0.95`` wants, or None for another source."""
    found = _SOURCE.match(source)
    return float(found[1]) if found else None


def asking(settings: Settings, thresholds: Iterable[float], faults: list[Fault]) -> Asking | None:
    """Return who is asked, where a rule wants to know; what is missing is added to the faults."""
    wanted = max(thresholds, default=None)
    if wanted is None:
        return None
    known = [name for name, one in settings.endpoints.items() if one.prototypes is not None]
    if len(known) != 1:
        named = ", ".join(known) or "there is none"
        faults.append(
            Fault(f"a view from pixels needs one insight endpoint with prototypes: {named}")
        )
        return None
    endpoint = settings.endpoints[known[0]]
    try:
        found = prototypes_of(endpoint)
    except ConfigError as error:
        faults += error.faults
        return None
    if found is None or endpoint.prototypes is None:
        return None
    if not any(about == "view" for about, _ in found.groups):
        faults.append(Fault(f"the prototypes of {known[0]} tell no views apart: label some"))
    return Asking(known[0], digest([found.identity, endpoint.prototypes.certainty]))
