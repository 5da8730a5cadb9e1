"""The prompt catalogue: what may be asked of which model on which images, one row a prompt.

The rows stand in ``catalogue.yaml`` beside this module. A promptable model draws a plausible mask for
whatever it is asked, so that nothing is asked that has no row. In a rule a prompt is written as the label
of its term; where several rows give that term, as the row's own words.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field

from pacs_ai.errors import PacsAiError
from pacs_ai.settings import Window
from pacs_ai.settings.source import parse_yaml
from pacs_ai.settings.values import Section
from pacs_ai.terms import ABNORMAL, TERMS

Model = Literal["parse2d", "parse3d"]


class Kind(StrEnum):
    """What a prompt asks for: anatomy, or something that only some patients have."""

    ORGAN = "organ"
    LESION = "lesion"


class UnknownPromptError(PacsAiError):
    """Nothing, or more than one thing, that the catalogue has for a model on images of a modality.

    Parameters
    ----------
    prompt : str
        As it was asked for.
    where : str
        Model and Modality.
    remedy : str
    """

    def __init__(self, prompt: str, where: str, remedy: str) -> None:
        super().__init__(prompt, where, remedy)
        self.prompt, self.where, self.remedy = prompt, where, remedy

    def __str__(self) -> str:
        return f"{self.prompt!r} is not one prompt of the catalogue for {self.where}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A row of the catalogue.

    Attributes
    ----------
    label : str
        Key of ``terms.TERMS``: code, colour and kind of what comes back.
    model : str
        Kind of endpoint that it is for.
    modality : str
        As the model calls it, such as ``"X-Ray"`` or ``"MRI-FLAIR"``.
    site : str
        Body part, in the model's words.
    target : str
        What is asked for, in the model's words.
    window : Window or None
        Of CT, in HU; None where there is no absolute scale.
    apart : bool
        Whether it never overlaps what else of its model and modality is ``apart``.
    least : float
        Below it, it is not found: pixels of the model's square (2-D), or millilitres (3-D).
    distribution : str
        Its group in the publisher's distribution file; empty where the publisher names none.
    dice : float or None
        Mean Dice that the publishers' evaluations state; None where nothing was published.
    count : int or None
        On how many test images, where they state it.
    reference : bool
        Known to the built-in reference models only.
    """

    label: str
    model: str
    modality: str
    site: str
    target: str
    window: Window | None
    apart: bool
    least: float
    distribution: str
    dice: float | None
    count: int | None
    reference: bool

    @property
    def words(self) -> str:
        """What goes over the wire: ``<target> in <site> <modality>`` (model-contracts §4.6)."""
        return f"{self.target} in {self.site} {self.modality}"

    @property
    def kind(self) -> Kind:
        """Organ or lesion, by the category of its term."""
        return _kind(self.label)


def _kind(label: str) -> Kind:
    return Kind.LESION if TERMS[label].category == ABNORMAL else Kind.ORGAN


class _Row(Section):
    target: str
    term: str | None = None
    dice: float | None = Field(default=None, gt=0, le=1)
    n: int | None = Field(default=None, ge=1)
    window: str | None = None
    apart: bool | None = None
    least: float | None = Field(default=None, gt=0)
    reference: bool = False


class _Group(Section):
    model: Model
    modality: str
    site: str
    window: str | None = None
    distribution: str = ""
    apart: bool = False
    least: float | None = Field(default=None, gt=0)
    prompts: tuple[_Row, ...] = Field(min_length=1)


class _File(Section):
    modalities: Mapping[str, tuple[str, ...]]
    windows: Mapping[str, Window]
    least: Mapping[Model, Mapping[Kind, float]]
    groups: tuple[_Group, ...]


def read(text: str) -> tuple[Mapping[str, tuple[str, ...]], tuple[Prompt, ...]]:
    """Read a catalogue.

    Returns
    -------
    mapping of str to tuple of str
        Modality (0008,0060) to what the models call it.
    tuple of Prompt
        In the order of the text.

    Raises
    ------
    ConfigError, pydantic.ValidationError
        When it is not YAML, or a part of it is not what it should be.
    ValueError
        When a row names a term or window that there is not, or two rows have the same words.
    """
    file = _File.model_validate(parse_yaml(text, None).value)
    prompts = tuple(_prompt(file, group, row) for group in file.groups for row in group.prompts)
    seen: set[tuple[str, str]] = set()
    for one in prompts:
        if (one.model, one.words) in seen:
            raise ValueError(f"{one.words!r} stands twice for {one.model}: keep one")
        seen.add((one.model, one.words))
    return dict(file.modalities), prompts


def _prompt(file: _File, group: _Group, row: _Row) -> Prompt:
    label = row.term or row.target
    if label not in TERMS or TERMS[label].category is None:
        raise ValueError(f"{label!r} is no term that can be segmented: add it to pacs_ai.terms")
    window = row.window or group.window
    if window is not None and window not in file.windows:
        raise ValueError(f"{window!r} is no window: add it to windows")
    return Prompt(
        label=label,
        model=group.model,
        modality=group.modality,
        site=group.site,
        target=row.target,
        window=None if window is None else file.windows[window],
        apart=group.apart if row.apart is None else row.apart,
        least=row.least or group.least or file.least[group.model][_kind(label)],
        distribution=group.distribution,
        dice=row.dice,
        count=row.n,
        reference=row.reference,
    )


@cache
def _catalogue() -> tuple[Mapping[str, tuple[str, ...]], tuple[Prompt, ...]]:
    return read(files("pacs_ai").joinpath("catalogue.yaml").read_text(encoding="utf-8"))


def prompts() -> tuple[Prompt, ...]:
    """Return every row of the catalogue."""
    return _catalogue()[1]


def dicom_modalities() -> Mapping[str, tuple[str, ...]]:
    """Return what the models call each Modality (0008,0060)."""
    return _catalogue()[0]


def find(asked: str, *, model: str, modality: str) -> Prompt:
    """Return the row of a prompt.

    Parameters
    ----------
    asked : str
        A label of ``terms.TERMS``, or a row's own words. Of several rows with a label that say the same
        modality the first counts.
    model : str
        Kind of endpoint.
    modality : str
        Modality (0008,0060) of the images.

    Raises
    ------
    UnknownPromptError
        When there is none, or the label stands for images that only a person can tell apart (the
        weightings of MR).
    """
    where = f"{model} on {modality}"
    keys = dicom_modalities().get(modality, ())
    known = [one for one in prompts() if one.modality in keys]
    rows = [one for one in known if one.model == model]
    found = [one for one in rows if asked in (one.label, one.words)]
    if len({one.modality for one in found}) > 1:
        choices = " or ".join(repr(one.words) for one in found)
        raise UnknownPromptError(asked, where, f"write {choices}, and select such images")
    if not found:
        published = any(not one.reference for one in rows)
        raise UnknownPromptError(
            asked, where, _nearest(asked, rows) if published else _other(known)
        )
    return found[0]


def elsewhere(prompt: Prompt) -> tuple[str, ...]:
    """Return the other models that have a row with a prompt's label for images of its Modality."""
    alike = {key for keys in dicom_modalities().values() if prompt.modality in keys for key in keys}
    found = (
        one.model
        for one in prompts()
        if one.label == prompt.label and one.modality in alike and one.model != prompt.model
    )
    return tuple(dict.fromkeys(found))


def _other(known: Sequence[Prompt]) -> str:
    """Say that nothing is published for a model on some images, and what is for another."""
    nothing = "its publisher names no prompts for these images at all"
    if not known:
        return f"{nothing}: leave it out"
    labels = ", ".join(dict.fromkeys(one.label for one in known))
    if all(one.reference for one in known):
        return f"{nothing}; the reference models know {labels}"
    return f"{nothing}; for {known[0].model} there is {labels}"


def _nearest(asked: str, rows: list[Prompt]) -> str:
    names: dict[str, Any] = dict.fromkeys(name for one in rows for name in (one.label, one.words))
    near = difflib.get_close_matches(asked, names, n=3)
    if near:
        return f"do you mean {' or '.join(near)}?"
    return f"use {', '.join(dict.fromkeys(one.label for one in rows))}"
