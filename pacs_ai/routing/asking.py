"""May a rule ask this? Its prompts against the catalogue, for the images and the endpoint it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pacs_ai import catalogue, distributions
from pacs_ai.catalogue import UnknownPromptError
from pacs_ai.distributions import Distributions
from pacs_ai.errors import ConfigError, Fault
from pacs_ai.routing.conditions import AllOf, OneOf
from pacs_ai.settings import Settings
from pacs_ai.uids import digest


class PromptCheck:
    """Checks prompts when rules are read; distribution files are read once, at the start.

    Parameters
    ----------
    settings : Settings
    faults : list of Fault
        Grows by each distribution file that cannot be read.
    """

    def __init__(self, settings: Settings, faults: list[Fault]) -> None:
        self._endpoints = settings.endpoints
        self._known: dict[str, Distributions | None] = {}
        for name, endpoint in settings.endpoints.items():
            if endpoint.distributions is None:
                continue
            try:
                self._known[name] = distributions.read(endpoint.distributions)
            except ConfigError as error:
                sources = settings.rules_source("endpoints")
                for fault in error.faults:
                    at = sources and sources.child(name).child("distributions")
                    faults.append(at.fault(fault.message) if at else fault)

    def faults(self, endpoint: str, prompts: Sequence[str], conditions: AllOf) -> Iterator[str]:
        """Yield what is wrong with the prompts of an endpoint on images of which conditions hold."""
        if not prompts:
            return
        target = self._endpoints[endpoint]
        modalities = _modalities(conditions)
        if not modalities:
            yield "say in when which Modality the rule is for: its prompts are checked against it"
            return
        known = self._known.get(endpoint)
        seen: dict[str, str] = {}
        for asked in prompts:
            try:
                rows = [
                    catalogue.find(asked, model=target.kind, modality=one) for one in modalities
                ]
            except UnknownPromptError as error:
                yield str(error)
                continue
            for row in dict.fromkeys(rows):
                why = distributions.refusal(row, target, known)
                if why:
                    yield f"{asked}: {why}"
                if seen.setdefault(row.words, asked) != asked:
                    yield f"{asked} and {seen[row.words]} are the same prompt: keep one"

    def identity(self, endpoint: str, prompts: Sequence[str], conditions: AllOf) -> str:
        """Return a digest of how prompts are asked and checked; empty where there are none.

        It stands in the Job, so that another row or distribution file makes another Job.
        """
        if not prompts:
            return ""
        kind, known = self._endpoints[endpoint].kind, self._known.get(endpoint)
        modalities = _modalities(conditions)
        rows = [
            repr(one)
            for one in catalogue.prompts()
            if one.model == kind
            and {one.label, one.words} & set(prompts)
            and one.modality
            in {key for m in modalities for key in catalogue.dicom_modalities().get(m, ())}
        ]
        return digest([rows, known.identity if known else ""])


def _modalities(conditions: AllOf) -> list[str]:
    """Return the Modality values that conditions, all of which hold, allow; empty when they say none."""
    said: list[str] | None = None
    for one in conditions.conditions:
        found = (
            _modalities(one)
            if isinstance(one, AllOf)
            else list(one.listed)
            if isinstance(one, OneOf) and one.keyword == "Modality"
            else []
        )
        if found:
            upper = [value.upper() for value in found]
            said = upper if said is None else [value for value in said if value in upper]
    return said or []
