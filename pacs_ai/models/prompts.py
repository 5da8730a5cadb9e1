"""Which prompts may share one call, and the words that go over the wire.

A label map has one number in each voxel, and a promptable model is known to mix up targets that
lie in one another. So only labels that are known to lie beside each other share a call; whatever is
not known here goes alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from pacs_ai import terms

BESIDE_IN_VOLUME = frozenset(
    {
        "left lung",
        "right lung",
        "heart",
        "liver",
        "spleen",
        "left kidney",
        "right kidney",
        "pancreas",
        "stomach",
        "gallbladder",
    }
)
"""Organs that do not share a voxel with each other."""

BESIDE_IN_PROJECTION = frozenset({"left lung", "right lung"})
"""Shadows that do not share a pixel with each other; the heart's lies over both lungs' edges."""

_ABDOMINAL = BESIDE_IN_VOLUME - {"left lung", "right lung", "heart"}
_MODALITIES = {"CT": "CT", "MR": "MRI", "PT": "PET", "CR": "X-Ray", "DX": "X-Ray"}


def groups(labels: Sequence[str], *, beside: frozenset[str]) -> list[tuple[str, ...]]:
    """Group labels so that no two of a group overlap.

    Parameters
    ----------
    labels : sequence of str
        In the order of the rule; one that stands twice is asked once.
    beside : frozenset of str
        Labels that are known not to overlap each other.

    Returns
    -------
    list of tuple of str
        One tuple for each call, in the order in which its first label stands.
    """
    together = tuple(label for label in dict.fromkeys(labels) if label in beside)
    calls: list[tuple[str, ...]] = []
    for label in dict.fromkeys(labels):
        if label not in beside:
            calls.append((label,))
        elif together not in calls:
            calls.append(together)
    return calls


def wire(label: str, *, modality: str) -> str:
    """Return the words that ask for a label, such as ``left lung in chest X-Ray``.

    Parameters
    ----------
    label : str
        Key of ``terms.TERMS``.
    modality : str
        Modality (0008,0060).

    Raises
    ------
    terms.UnknownTermError
        When there is no such term.
    """
    site = "abdomen" if label in _ABDOMINAL else "chest"
    return terms.prompt(label, site=site, modality=_MODALITIES.get(modality, modality))
