"""What a picture shows by the site's prototypes, how certain that is, and whether the header agrees.

A picture is named after the nearest prototype (cosine similarity). The certainty is no softmax of
similarities, which is no probability of anything. It is counted on the site's own examples, each judged
without its patient, and in patients, because the pictures of one are like each other: of those that got the
same name with no greater lead over the next one, the share that was named rightly, or rather the least that
share may be (one-sided 95 % bound of Clopper and Pearson), so that few patients never make anything certain.
A picture that is farther from the
prototype than nearly all of its examples is like none of them, and nothing is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from pacs_ai.prototypes import ELEMENTS, Prototype, Prototypes
from pacs_ai.results import Assertion, Embedding, Finding, Likeness
from pacs_ai.study import Job, values
from pacs_ai.terms import CONTRADICTIONS

LEAST_EXAMPLES = 10
"""Of each label."""

LEAST_PATIENTS = 5
"""Of each label; a certainty of 0.9 takes 29 at least, one of 0.95 takes 59."""

_FARTHEST = 5
"""Percent of a label's own examples that may lie farther from it than a picture that gets its name."""

_DOUBT = 0.05

# PS3.3 C.8.7.5.1.1; most sites' examples lack the element, which is why they want prototypes.
_POSITIONS = {"PA": "frontal", "AP": "frontal", "LL": "lateral", "RL": "lateral"}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Example:
    """A picture that the site has labelled.

    Attributes
    ----------
    label : str
    patient : str
        Whatever is the same for all examples of a patient; it is not kept.
    said : str
        What the element of the header says, or empty.
    embedding : Embedding
    """

    label: str
    patient: str = field(repr=False)
    said: str
    embedding: Embedding


# ---------------------------------------------------------------------- naming


def likenesses(
    embedding: Embedding, known: Prototypes, *, certainty: float
) -> tuple[Likeness, ...]:
    """Return what a picture shows, where that is at least so certain.

    Only prototypes of the same recipe are asked.
    """
    vector = embedding.vector.astype(np.float64)
    found = []
    for about in ELEMENTS:
        labels = known.groups.get((about, embedding.recipe))
        if labels is None:
            continue
        label, similarity, lead = _nearest(vector, {one: p.vector for one, p in labels.items()})
        sure = certainty_of(labels[label], lead)
        if similarity >= labels[label].nearest and sure >= certainty:
            found.append(Likeness(about, label, round(sure, 4)))
    return tuple(found)


def _nearest(vector: Floats, prototypes: Mapping[str, Floats]) -> tuple[str, float, float]:
    """Return the nearest label, its cosine similarity, and its lead over the next one."""
    ranked = sorted(
        ((float(vector @ one), label) for label, one in prototypes.items()), reverse=True
    )
    (best, label), (second, _) = ranked[:2]
    return label, best, best - second


def certainty_of(prototype: Prototype, lead: float) -> float:
    """Return the least share of right names among patients that were named with no greater lead."""
    judged = [right for one, right in prototype.leads if one <= lead]
    right = sum(judged)
    # Clopper and Pearson 1934: the smallest share that makes so many right ones likelier than the doubt.
    return float(betaincinv(right, len(judged) - right + 1, _DOUBT)) if right else 0.0


def contradictions(embedding: Embedding, known: Prototypes, job: Job) -> Iterator[Finding]:
    """Yield a Finding for each thing that the header says otherwise.

    What the header leaves out, or says in words that no example has, is not contradicted; but a view that
    a rule has assumed is.
    """
    source = next(one for one in job.instances if one.SOPInstanceUID == embedding.source)
    for one in embedding.likenesses:
        keyword = ELEMENTS[one.about]
        value = _said(values(source.header, keyword))
        meant = known.headers[one.about].get(value, "")
        claim = f"{keyword} is {value}"
        if one.about == "view" and not value and "frontal" in job.inputs:
            meant, claim = "frontal", "the rule takes it as frontal"
        if meant and meant != one.label:
            yield Finding(
                label=CONTRADICTIONS[one.about],
                assertion=Assertion.PRESENT,
                sources=(embedding.source,),
                score=one.certainty,
                sentence=f"{claim}, and the pixels are like {one.label}, not like {meant}",
            )


def with_likenesses(embedding: Embedding, known: Prototypes, *, certainty: float) -> Embedding:
    """Return an embedding with what it says of its picture, or that no prototype can be asked."""
    if not any(recipe == embedding.recipe for _, recipe in known.groups):
        return replace(
            embedding, stated=f"{embedding.stated}; no prototypes of pictures made this way"
        )
    return replace(embedding, likenesses=likenesses(embedding, known, certainty=certainty))


def _said(given: Sequence[str]) -> str:
    return " ".join(" ".join(given).upper().split())[:16]


# ---------------------------------------------------------------------- making


def too_few(examples: Iterable[Example]) -> tuple[str, ...]:
    """Return what is missing before prototypes can be made of examples of one thing."""
    missing = []
    for recipe, labels in _by_recipe(examples).items():
        for label, members in labels.items():
            patients = {one.patient for one in members}
            if len(members) < LEAST_EXAMPLES or len(patients) < LEAST_PATIENTS:
                missing.append(
                    f"{label} has {len(members)} examples of {len(patients)} patients ({recipe}): give "
                    f"at least {LEAST_EXAMPLES} of {LEAST_PATIENTS}, or take it out"
                )
    return tuple(missing)


def learned(examples: Sequence[Example]) -> dict[str, dict[str, Prototype]]:
    """Make prototypes of examples of one thing; those of each recipe for themselves.

    Parameters
    ----------
    examples : sequence of Example
        Of which :func:`too_few` misses nothing.

    Returns
    -------
    dict
        Recipe to the prototypes by label. A recipe with one label only is left out: there is nothing to
        tell apart.
    """
    recipes = {r: labels for r, labels in _by_recipe(examples).items() if len(labels) > 1}
    return {recipe: _learned(labels) for recipe, labels in recipes.items()}


def _learned(labels: Mapping[str, Sequence[Example]]) -> dict[str, Prototype]:
    sums = {label: _sum(members) for label, members in labels.items()}
    leads: dict[str, list[tuple[float, bool]]] = {label: [] for label in labels}
    similar: dict[str, list[float]] = {label: [] for label in labels}
    for patient in sorted({one.patient for members in labels.values() for one in members}):
        own = {
            label: [o for o in members if o.patient == patient] for label, members in labels.items()
        }
        without = {label: _unit(sums[label] - _sum(own[label])) for label in labels}
        judged: dict[tuple[str, bool], list[float]] = {}
        for label, members in own.items():
            for one in members:
                vector = one.embedding.vector.astype(np.float64)
                name, similarity, lead = _nearest(vector, without)
                judged.setdefault((name, name == label), []).append(lead)
                if name == label:
                    similar[label].append(similarity)
        for (name, right), found in judged.items():
            # A patient tells once, and late where it speaks for the name, soon where it speaks against it.
            leads[name].append((max(found) if right else min(found), right))
    return {
        label: Prototype(
            _unit(sums[label]),
            float(np.percentile(similar[label], _FARTHEST)) if similar[label] else 1.0,
            tuple(sorted(leads[label])),
        )
        for label in sorted(labels)
    }


def spoken(about: str, examples: Iterable[Example]) -> dict[str, str]:
    """Return values of the header's element, and the label that more than half of their examples have.

    The site's own words count, whatever they are; a few headers that are wrong do not change them.
    """
    counts: dict[str, Counter[str]] = {}
    for one in examples:
        value = _said([one.said])
        if value and value.isprintable():
            counts.setdefault(value, Counter())[one.label] += 1
    found = dict(_POSITIONS) if about == "view" else {}
    for value, counted in counts.items():
        label, count = counted.most_common(1)[0]
        if value not in found and 2 * count > counted.total():
            found[value] = label
    return found


def _by_recipe(examples: Iterable[Example]) -> dict[str, dict[str, list[Example]]]:
    found: dict[str, dict[str, list[Example]]] = {}
    for one in examples:
        found.setdefault(one.embedding.recipe, {}).setdefault(one.label, []).append(one)
    return found


def _sum(examples: Sequence[Example]) -> Floats:
    total: Floats = np.sum([one.embedding.vector.astype(np.float64) for one in examples], axis=0)
    return total


def _unit(vector: Floats) -> Floats:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
