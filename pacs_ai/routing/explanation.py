"""A Study's way in words, for a terminal."""

from __future__ import annotations

from pacs_ai.routing.decisions import Routing


def explain_text(routing: Routing) -> str:
    """Return what every rule said and why, then what is run.

    Parameters
    ----------
    routing : Routing

    Returns
    -------
    str
        Lines without a newline at the end; no identifiers but UIDs.
    """
    width = max((len(verdict.rule) for verdict in routing.verdicts), default=0)
    lines = []
    for verdict in routing.verdicts:
        lines.append(f"{verdict.rule:<{width}}  {verdict.outcome:<12}  {verdict.deciding}")
        lines += [f"{'':<{width}}  {'':<12}    {detail}" for detail in verdict.details]
    for job in routing.jobs:
        chosen = ", ".join(f"{role} ({len(job.inputs[role])})" for role in sorted(job.inputs))
        prompts = ", ".join(job.parameters.get("prompts", []))
        lines.append(f"-> {job.endpoint} on {chosen}" + (f": {prompts}" if prompts else ""))
        lines += [f"   note: {note}" for note in job.parameters["notes"]]
    if not routing.jobs:
        lines.append("-> nothing is run")
    return "\n".join(lines)
