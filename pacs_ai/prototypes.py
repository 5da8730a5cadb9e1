"""The file of a site's prototypes: what its own pictures look like to the embedding model, how surely.

A file is made of Studies that the site has labelled (``pacs-ai prototypes make``). It holds for each label
the mean direction of its examples, and how the same examples were named when each was judged without its
patient. Vectors of another model, another version or another way from stored Instance to picture point
elsewhere: such a file is refused.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import ConfigError, Fault
from pacs_ai.results import EMBEDDING_RECIPE, PIXEL_PATH
from pacs_ai.settings import Endpoint, Settings
from pacs_ai.settings.values import site_text
from pacs_ai.uids import digest

FORMAT = "pacs-ai-prototypes/1"

ELEMENTS: Mapping[str, str] = MappingProxyType(
    {"view": "ViewPosition", "body": "BodyPartExamined", "modality": "Modality"}
)
"""What prototypes may tell apart, and the element that says the same (PS3.3 C.8.7.5, C.7.3.1)."""

VIEWS = ("frontal", "lateral", "other")
"""Labels of views. PA and AP are not told apart: a mistake there would be one of the heart's size."""

PATH = f"{EMBEDDING_RECIPE} {PIXEL_PATH}"
"""The way from stored Instance to picture that a file must be made by."""

_LARGEST = 64 * 2**20
_LONGEST = 64


@dataclass(frozen=True, slots=True)
class Prototype:
    """One label.

    Attributes
    ----------
    vector : ndarray of float64, shape (n,)
        Mean direction of its examples, of unit length.
    nearest : float
        Cosine similarity below which a picture is like none of its examples.
    leads : tuple of (float, bool)
        Of each patient with examples that were given this label when they were judged without that patient:
        how far the label was ahead of the next one, in cosine similarity, and whether it was the right one.
        One that was given it rightly and wrongly stands for both.
    """

    vector: NDArray[np.float64] = field(repr=False)
    nearest: float
    leads: tuple[tuple[float, bool], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Prototypes:
    """What a file says.

    Attributes
    ----------
    groups : mapping
        What is told apart (``view``, ``body``, ``modality``) and the recipe of the vectors, to the
        prototypes by label: two or more.
    headers : mapping
        What is told apart, to values of its element and the label that most examples with it have.
    identity : str
        Digest of the file: it reaches the results.
    """

    groups: Mapping[tuple[str, str], Mapping[str, Prototype]]
    headers: Mapping[str, Mapping[str, str]]
    identity: str


def check(settings: Settings) -> None:
    """Read the prototypes of every endpoint.

    Raises
    ------
    ConfigError
        With what is wrong with each file.
    """
    faults = []
    for name, endpoint in settings.endpoints.items():
        try:
            prototypes_of(endpoint)
        except ConfigError as error:
            faults += [Fault(f"endpoints.{name}.prototypes: {one}") for one in error.faults]
    if faults:
        raise ConfigError(faults)


def prototypes_of(endpoint: Endpoint) -> Prototypes | None:
    """Return the prototypes of an endpoint, or None when the settings name no file.

    A file is read once in a process: another one counts after a restart, as other settings do.

    Raises
    ------
    ConfigError
        When it cannot be read, or was made with another model, version or pixel path.
    """
    if endpoint.prototypes is None:
        return None
    return _read(endpoint.prototypes.file, endpoint.name, endpoint.version)


@lru_cache(16)
def _read(path: Path, model: str, version: str) -> Prototypes:
    try:
        text = site_text(path, largest=_LARGEST)
    except ValueError as error:
        raise _fault(path, str(error)) from error
    try:
        value = json.loads(text)
        if value["format"] != FORMAT:
            raise _fault(path, f"it is not of format {FORMAT}")
        made_with = (value["model"], value["version"], value["path"])
        if made_with != (model, version, PATH):
            raise _fault(
                path,
                f"it was made with {' '.join(map(str, made_with))} and the endpoint is {model} {version} "
                f"{PATH}, whose vectors cannot be compared with them",
            )
        return Prototypes(
            MappingProxyType({_key(one): _labels(one) for one in value["groups"]}),
            {about: _words(value["headers"].get(about, {})) for about in ELEMENTS},
            digest(text),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _fault(path, f"it is damaged ({type(error).__name__})") from error


def _key(group: Mapping[str, Any]) -> tuple[str, str]:
    about, recipe = group["about"], group["recipe"]
    if about not in ELEMENTS or not isinstance(recipe, str):
        raise ValueError("a group is of something else")
    return about, recipe


def _labels(group: Mapping[str, Any]) -> dict[str, Prototype]:
    labels = {_word(label): _prototype(one) for label, one in group["labels"].items()}
    lengths = {len(one.vector) for one in labels.values()}
    if len(labels) < 2 or len(lengths) != 1:
        raise ValueError("a group tells nothing apart")
    if group["about"] == "view" and not set(labels) <= set(VIEWS):
        raise ValueError("a view is something else")
    return labels


def _prototype(value: Mapping[str, Any]) -> Prototype:
    vector = np.frombuffer(base64.b64decode(value["vector"], validate=True), "<f4").astype(float)
    norm = float(np.linalg.norm(vector))
    leads = tuple((_number(lead), _truth(right)) for lead, right in value["leads"])
    if not abs(norm - 1) < 1e-3:  # not-a-number is not near either
        raise ValueError("a vector is not of unit length")
    return Prototype(vector / norm, _number(value["nearest"]), leads)


def _words(value: Mapping[str, Any]) -> dict[str, str]:
    return {_word(said): _word(label) for said, label in value.items()}


def _word(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= _LONGEST:
        raise ValueError("a label is no short text")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("right is true or false")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("a number is not finite")
    return float(value)


def _fault(path: Path, why: str) -> ConfigError:
    return ConfigError(
        [
            Fault(
                f"{path} is not the prototypes of this endpoint, {why}: make them with pacs-ai "
                "prototypes make"
            )
        ]
    )


def dumps(
    endpoint: Endpoint,
    groups: Mapping[tuple[str, str], Mapping[str, Prototype]],
    headers: Mapping[str, Mapping[str, str]],
) -> str:
    """Return the text of a file; it names no patient, Study or Instance."""
    value = {
        "format": FORMAT,
        "model": endpoint.name,
        "version": endpoint.version,
        "path": PATH,
        "headers": {about: dict(said) for about, said in headers.items()},
        "groups": [
            {
                "about": about,
                "recipe": recipe,
                "labels": {label: _plain(one) for label, one in labels.items()},
            }
            for (about, recipe), labels in groups.items()
        ],
    }
    return json.dumps(value, indent=1, sort_keys=True)


def _plain(one: Prototype) -> dict[str, Any]:
    leads: Sequence[tuple[float, bool]] = [(round(lead, 6), right) for lead, right in one.leads]
    packed = base64.b64encode(one.vector.astype("<f4").tobytes()).decode()
    return {"vector": packed, "nearest": round(one.nearest, 6), "leads": leads}
