"""From a Job's prompts to the calls that ask for them.

A label map has one number in each voxel, and a promptable model is known to mix up targets that lie in
one another. So only prompts that the catalogue knows to lie apart share a call; every other goes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pacs_ai import catalogue, distributions
from pacs_ai.catalogue import Prompt, UnknownPromptError
from pacs_ai.distributions import Distributions
from pacs_ai.errors import PacsAiError
from pacs_ai.settings import Endpoint, Window
from pacs_ai.study import Job


class RefusedPromptError(PacsAiError):
    """A Job asks for something that its endpoint is not asked for; the message says why."""


def asked(
    job: Job, endpoint: Endpoint, *, modality: str
) -> tuple[tuple[Prompt, ...], Distributions | None]:
    """Return the rows of a Job's prompts, in the order of the rule, and what their masks are checked by.

    Parameters
    ----------
    job : Job
    endpoint : Endpoint
    modality : str
        Modality (0008,0060).

    Returns
    -------
    tuple of Prompt
        One that stands twice, in whatever words, is there once.
    Distributions or None
        None where the site supplies no file.

    Raises
    ------
    RefusedPromptError
        When it names none, one that the catalogue has not, or one that may not be asked here.
    ConfigError
        When the distribution file is not one.
    """
    labels = list(dict.fromkeys(str(one) for one in job.parameters.get("prompts", ())))
    if not labels:
        raise RefusedPromptError(f"rule {job.rule} names no prompts for {job.kind}: name some")
    known = None if endpoint.distributions is None else distributions.read(endpoint.distributions)
    rows: dict[Prompt, None] = {}
    for label in labels:
        try:
            row = catalogue.find(label, model=job.kind, modality=modality)
        except UnknownPromptError as error:
            raise RefusedPromptError(f"rule {job.rule}: {error}") from error
        why = distributions.refusal(row, endpoint, known)
        if why:
            raise RefusedPromptError(f"rule {job.rule}: {label}: {why}")
        rows[row] = None
    return tuple(rows), known


def by_window(
    prompts: Iterable[Prompt], endpoint: Endpoint
) -> list[tuple[Window | None, tuple[Prompt, ...]]]:
    """Group prompts by the CT window in which they are asked: the endpoint's, or their own.

    The window of images without Hounsfield units is None.
    """
    found: dict[Window | None, list[Prompt]] = {}
    for one in prompts:
        window = None if one.window is None else endpoint.window or one.window
        found.setdefault(window, []).append(one)
    return [(window, tuple(members)) for window, members in found.items()]


def calls(prompts: Sequence[Prompt], *, most: int) -> list[tuple[Prompt, ...]]:
    """Group prompts so that no two of a call overlap, in the order in which each group's first stands.

    Parameters
    ----------
    prompts : sequence of Prompt
        Of one modality.
    most : int
        Prompts of one call.
    """
    apart = [one for one in prompts if one.apart]
    shared = [tuple(apart[start : start + most]) for start in range(0, len(apart), most)]
    alone = [(one,) for one in prompts if not one.apart]
    return sorted([*shared, *alone], key=lambda call: prompts.index(call[0]))


def remark(missing: Sequence[Prompt]) -> tuple[str, ...]:
    """Return the note that says what was not found; none where everything was."""
    if not missing:
        return ()
    labels = ", ".join(one.label for one in missing)
    return (f"Not found by the model, which does not say that it is absent: {labels}",)
