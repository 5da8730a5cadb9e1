"""The publisher's distribution file (``target_dist.json``): how a mask looks where its target is there.

It comes with the weights, under terms that forbid passing it on, so that a site supplies its own copy:
``{group: {target: [[a, b], [a, b], [a, b], [a, b]]}}``, the parameters of four Beta distributions, of the
mean probability and of the mean red, green and blue under the mask (model-contracts §4.7).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pacs_ai import catalogue
from pacs_ai.catalogue import Kind, Prompt
from pacs_ai.errors import ConfigError, Fault
from pacs_ai.settings import Endpoint
from pacs_ai.settings.values import site_text
from pacs_ai.uids import digest

Betas = tuple[tuple[float, float], ...]
"""Parameters a and b of the four distributions."""

_STATISTICS = 4
_LARGEST = 16 * 2**20


class Distributions:
    """What a distribution file says.

    Parameters
    ----------
    values : mapping
        Group and target to the four pairs.
    identity : str
        Digest of the file: it reaches the results.
    """

    def __init__(self, values: Mapping[tuple[str, str], Betas], identity: str) -> None:
        self._values = values
        self.identity = identity

    def of(self, group: str, target: str) -> Betas | None:
        """Return the distributions of a target, or None when the file has none."""
        return self._values.get((group, target))


def read(path: Path) -> Distributions:
    """Read a distribution file.

    Raises
    ------
    ConfigError
        When it cannot be read, or is not such a file.
    """
    try:
        text = site_text(path, largest=_LARGEST)
    except ValueError as error:
        raise _fault(path, str(error)) from error
    try:
        groups = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _fault(path, "it is not JSON") from error
    if not isinstance(groups, dict) or not all(isinstance(one, dict) for one in groups.values()):
        raise _fault(path, "it is no mapping of groups to targets")
    values = {}
    for group, targets in groups.items():
        for target, pairs in targets.items():
            if not _are_betas(pairs):
                raise _fault(path, f"{group}, {target} is not four pairs of positive numbers")
            values[group, target] = tuple((float(a), float(b)) for a, b in pairs)
    return Distributions(values, digest(text))


def _are_betas(pairs: Any) -> bool:
    return (
        isinstance(pairs, list)
        and len(pairs) == _STATISTICS
        and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
        and all(_is_positive(number) for pair in pairs for number in pair)
    )


def _is_positive(number: Any) -> bool:
    plain = isinstance(number, int | float) and not isinstance(number, bool)
    return plain and math.isfinite(number) and number > 0


def _fault(path: Path, why: str) -> ConfigError:
    return ConfigError(
        [
            Fault(
                f"{path} is not the publisher's distribution file, {why}: take target_dist.json from "
                "where the publisher distributes BiomedParse's weights"
            )
        ]
    )


def refusal(prompt: Prompt, endpoint: Endpoint, known: Distributions | None) -> str:
    """Return why a prompt may not be asked of an endpoint, and what can be done; empty when it may.

    The model draws a plausible mask for what is not there, so that a lesion is only asked for where its
    mask can be checked. The reference models are this project's own and draw nothing for it.

    Parameters
    ----------
    prompt : Prompt
    endpoint : Endpoint
    known : Distributions or None
        Of ``endpoint.distributions``; None where the settings name no file.
    """
    if endpoint.reference or (prompt.kind is Kind.ORGAN and not prompt.reference):
        return ""
    if prompt.reference:
        return "only the built-in reference models know it: leave it out"
    drawn = "a lesion is drawn where there is none too"
    if prompt.model == "parse3d":
        others = "".join(f"ask {one} for it, or " for one in catalogue.elsewhere(prompt))
        return f"{drawn}, and what the 3-D model answers cannot be checked: {others}leave it out"
    if known is None:
        return (
            f"{drawn}: give the publisher's target_dist.json as distributions of the endpoint, so that "
            "its masks are checked"
        )
    if known.of(prompt.distribution, prompt.target) is None:
        group = prompt.distribution or f"{prompt.site} {prompt.modality}"
        return (
            f"{drawn}, and the distribution file has nothing of {prompt.target!r} in {group!r} to check "
            "it by: leave it out"
        )
    return ""
