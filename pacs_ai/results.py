"""What the models returned, in the gateway's own words, on the native grid of the source.

A small closed set: :class:`Segmentation`, :class:`Finding`, :class:`Measurement`, :class:`Narrative`,
:class:`Embedding`. A model never sees DICOM; an encoder never sees a model's wire.

The outcomes of a step stand here too: :class:`Done`, :class:`NothingFound`, :class:`NotSuitable`,
:class:`Held`. They are values, because a refusal that was expected is not an error.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIXEL_PATH = "pacs-ai-pixels/5"
"""Name and version of the path from stored Instance to displayed frame or slice (:mod:`pacs_ai.pixels`).

It stands on every embedding and result; it changes whenever the same Instance would give other
pixels.
"""


EMBEDDING_RECIPE = "insight-512-bicubic/1"
"""Name and version of the last step to an embedding's picture; the path before it is named after it."""


HOUNSFIELD = "[hnsf'U]"
"""UCUM code of the Hounsfield unit."""


class Assertion(StrEnum):
    """How a sentence speaks of a finding; only PRESENT may raise a priority."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"
    HISTORICAL = "historical"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Who made a result: shown and written with every one of them.

    Attributes
    ----------
    name, version, manufacturer : str
        As configured for the endpoint.
    reference : bool
        True for the built-in reference models: "reference model, not for clinical use".
    """

    name: str
    version: str
    manufacturer: str
    reference: bool

    @property
    def label(self) -> str:
        """The name as it is shown to people."""
        return f"{self.name} {self.version}" + (" (reference model)" if self.reference else "")


class Axis(StrEnum):
    """What the first of a mask's three axes counts."""

    SLICES = "slices"
    FRAMES = "frames"


class Segmentation:
    """One labelled mask on the native grid of its source.

    It is kept as bits: of a CT of 600 slices a mask takes 20 MB, and 157 only while somebody looks at all
    of it.

    Parameters
    ----------
    label : str
        Key of ``terms.TERMS`` such as ``"left lung"``.
    mask : ndarray of bool
        Projection, photograph or one frame: shape (Rows, Columns) of the one source Instance.
        Volume, or all frames of an Instance that are none: shape (slices or frames, Rows, Columns); axis 0 is
        in the order of ``sources``.
    sources : tuple of str
        SOP Instance UIDs, one for each slice of the mask (one in all for a 2-D mask).
    prompt : str
        The text that was sent for it.
    frames : tuple of int
        Where the source is a multi-frame Instance, the number (from 1) of the frame of each slice;
        else empty.
    axis : Axis
        FRAMES where the mask is on frames that make no volume, such as a cine's: nothing lies between them.

    Attributes
    ----------
    label, sources, prompt, frames, axis
        As above.
    shape : tuple of int
        Of the mask.
    """

    __slots__ = ("_bits", "axis", "frames", "label", "prompt", "shape", "sources")

    def __init__(
        self,
        label: str,
        mask: NDArray[np.bool_],
        sources: tuple[str, ...],
        prompt: str,
        frames: tuple[int, ...] = (),
        axis: Axis = Axis.SLICES,
    ) -> None:
        self.axis = axis
        self.label = label
        self.sources = sources
        self.prompt = prompt
        self.frames = frames
        self.shape: tuple[int, ...] = mask.shape
        self._bits = np.packbits(mask)

    def __repr__(self) -> str:
        return f"Segmentation({self.label!r}, shape={self.shape}, prompt={self.prompt!r})"

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The whole mask, made anew from its bits."""
        return self._unpacked(0, int(np.prod(self.shape))).reshape(self.shape)

    @property
    def volumetric(self) -> bool:
        """Whether the mask lies on a volume."""
        return len(self.shape) == 3 and self.axis is Axis.SLICES

    @property
    def count(self) -> int:
        """Pixels or voxels that are in it."""
        return int(np.bitwise_count(self._bits).sum(dtype=np.int64))

    def plane(self, index: int) -> NDArray[np.bool_]:
        """Return one slice, shape (Rows, Columns); a 2-D mask has one."""
        rows, columns = self.shape[-2:]
        return self._unpacked(index * rows * columns, rows * columns).reshape(rows, columns)

    def _unpacked(self, start: int, count: int) -> NDArray[np.bool_]:
        first, skipped = divmod(start, 8)
        bits = self._bits[first : (start + count + 7) // 8]
        return np.unpackbits(bits, count=skipped + count)[skipped:].view(np.bool_)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in stored columns and rows of one Instance.

    Sub-pixel image coordinates: 0, 0 is the top left corner of the top left pixel (PS3.3 C.18.6.1.1).
    """

    source: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Finding:
    """A clinical statement that a model made, with its evidence.

    Attributes
    ----------
    label : str
        Key of ``terms.TERMS``, such as ``"lung opacity"``.
    assertion : Assertion
    sources : tuple of str
        SOP Instance UIDs it speaks of.
    boxes : tuple of Box
        Where it is seen; empty when the model did not ground it.
    side : str
        ``"left"``, ``"right"``, ``"bilateral"`` or empty; never from ImageLaterality.
    score : float or None
        The model's own certainty, 0 to 1, where it gives one.
    sentence : str
        What the model wrote; the concept above is read from it by a tested table.
    """

    label: str
    assertion: Assertion
    sources: tuple[str, ...]
    boxes: tuple[Box, ...] = ()
    side: str = ""
    score: float | None = None
    sentence: str = ""

    @property
    def grounded(self) -> bool:
        """Whether the model pointed at it."""
        return bool(self.boxes)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number that the gateway measured from masks, or that a model gave.

    Attributes
    ----------
    label : str
        Key of ``terms.TERMS``, such as ``"cardiothoracic ratio"``.
    value : float
    unit : str
        UCUM code, such as ``"1"`` or ``"ml"``.
    sources : tuple of str
        SOP Instance UIDs it was measured on.
    method : str
        How, in one sentence.
    segment : str
        Label of the Segmentation it measures, or empty.
    """

    label: str
    value: float
    unit: str
    sources: tuple[str, ...]
    method: str
    segment: str = ""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a draft report.

    Attributes
    ----------
    text : str
        As the model wrote it.
    boxes : tuple of Box
        Where it points; empty when ungrounded.
    remark : str
        What a reader must know of it, such as "compares with a prior that was not supplied".
    """

    text: str
    boxes: tuple[Box, ...] = ()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Narrative:
    """A draft report in sentences, in the model's order."""

    sentences: tuple[Sentence, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Likeness:
    """What the pixels are like, by the site's own prototypes (:mod:`pacs_ai.models.likeness`).

    Attributes
    ----------
    about : str
        ``view``, ``body`` or ``modality``.
    label : str
        As the site labelled its examples.
    certainty : float
        Least share of the site's examples that was named rightly where it was no clearer, 0 to 1.
    """

    about: str
    label: str
    certainty: float


@dataclass(frozen=True, slots=True)
class Embedding:
    """A unit vector that stands for an image or a volume; kept in the gateway, never sent as DICOM.

    Attributes
    ----------
    vector : ndarray of float32, shape (n,)
    source : str
        SOP Instance UID of the image, or of a volume's centre slice.
    recipe : str
        Name and version of the pixel path; vectors of different recipes are never compared.
    stated : str
        Which frame or slices of the source it was made of, for people.
    likenesses : tuple of Likeness
        What is certain enough; empty without prototypes.
    """

    vector: NDArray[np.float32] = field(repr=False)
    source: str
    recipe: str
    stated: str = ""
    likenesses: tuple[Likeness, ...] = ()


Result = Segmentation | Finding | Measurement | Narrative | Embedding


@dataclass(frozen=True, slots=True)
class Done:
    """The step did what it was asked; notes are shown with its results, such as what was not found."""

    results: tuple[Result, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NothingFound:
    """The model ran and flagged nothing; its absences and draft still count as results.

    Always shown as "No finding flagged by MODEL; not a normal result"; as "flagged as present" where a
    finding is uncertain.
    """

    results: tuple[Result, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotSuitable:
    """The input is not one this step may take; the reason is one a person can act on."""

    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """A person must look before anything goes on."""

    reason: str


Outcome = Done | NothingFound | NotSuitable | Held


@dataclass(frozen=True, slots=True)
class Failed:
    """The work behind a Job failed or is held after crashes; written by the ledger, not by a step."""

    reason: str


@dataclass(frozen=True, slots=True)
class JobResults:
    """What one Job came to.

    Attributes
    ----------
    key : str
        The Job's key: a digest of rule, model, settings and selected inputs.
    rule : str
        Name of the rule that started it.
    kind : str
        Row of ``pacs_ai.models.MODELS``.
    model : ModelIdentity
    outcome : Outcome or Failed
        ``Done`` and ``NothingFound`` carry results; ``NotSuitable``, ``Held``, ``Failed`` a reason.
    sources : tuple of str
        SOP Instance UIDs that the model was given, by role in order of name.
    parameters : mapping
        The Job's parameters, see :class:`pacs_ai.study.Job`.
    """

    key: str
    rule: str
    kind: str
    model: ModelIdentity
    outcome: Outcome | Failed
    sources: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is shown with the results: what the rule says, then what its model's run says."""
        ran = self.outcome.notes if isinstance(self.outcome, Done | NothingFound) else ()
        return (*(str(one) for one in self.parameters.get("notes", ())), *ran)

    @property
    def nothing_flagged(self) -> str:
        """How to say that nothing was flagged: where something is uncertain, only not as present."""
        found = self.outcome.results if isinstance(self.outcome, Done | NothingFound) else ()
        uncertain = any(
            isinstance(one, Finding) and one.assertion is Assertion.UNCERTAIN for one in found
        )
        return "no finding flagged as present" if uncertain else "no finding flagged"


_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Segmentation, Finding, Measurement, Narrative, Embedding)
}


_NOTE = "Note"
"""Kind of an item that is no result but a note on all of them."""


def dumps(results: Iterable[Result], notes: Iterable[str] = ()) -> bytes:
    """Write results and notes as bytes: the same ones give the same bytes, in every process."""
    items = [_plain(result) for result in results]
    items += [{"kind": _NOTE, "text": note} for note in notes]
    return json.dumps(items, sort_keys=True).encode()


def loads(data: bytes) -> tuple[Result, ...]:
    """Read the results of what :func:`dumps` wrote."""
    return tuple(_result(item) for item in json.loads(data) if item["kind"] != _NOTE)


def notes_in(data: bytes) -> tuple[str, ...]:
    """Read the notes of what :func:`dumps` wrote."""
    return tuple(str(item["text"]) for item in json.loads(data) if item["kind"] == _NOTE)


def _plain(result: Result) -> dict[str, Any]:
    if isinstance(result, Segmentation):
        packed = zlib.compress(result._bits.tobytes(), 6)
        return {
            "kind": "Segmentation",
            "label": result.label,
            "shape": list(result.shape),
            "mask": base64.b64encode(packed).decode(),
            "sources": list(result.sources),
            "prompt": result.prompt,
            "frames": list(result.frames),
            "axis": result.axis,
        }
    if isinstance(result, Embedding):
        return {
            "kind": "Embedding",
            "vector": [float(number) for number in result.vector],
            "source": result.source,
            "recipe": result.recipe,
            "stated": result.stated,
            "likenesses": [asdict(one) for one in result.likenesses],
        }
    return {"kind": type(result).__name__, **asdict(result)}


def _result(item: Mapping[str, Any]) -> Result:
    values = {name: value for name, value in item.items() if name != "kind"}
    match item["kind"]:
        case "Segmentation":
            shape = tuple(values.pop("shape"))
            count = int(np.prod(shape))
            bits = np.frombuffer(zlib.decompress(base64.b64decode(values.pop("mask"))), np.uint8)
            mask = np.unpackbits(bits, count=count).reshape(shape).view(np.bool_)
            return Segmentation(
                values["label"],
                mask,
                sources=tuple(values["sources"]),
                prompt=values["prompt"],
                frames=tuple(values.get("frames", ())),
                axis=Axis(values.get("axis", Axis.SLICES)),
            )
        case "Embedding":
            vector = np.asarray(values["vector"], np.float32)
            return Embedding(
                vector,
                values["source"],
                values["recipe"],
                stated=values.get("stated", ""),
                likenesses=tuple(Likeness(**one) for one in values.get("likenesses", ())),
            )
        case "Finding":
            values["assertion"] = Assertion(values["assertion"])
            values["boxes"] = _boxes(values["boxes"])
        case "Narrative":
            values["sentences"] = tuple(
                Sentence(one["text"], _boxes(one["boxes"]), one["remark"])
                for one in values["sentences"]
            )
    values["sources"] = tuple(values["sources"])
    result: Result = _KINDS[item["kind"]](**values)
    return result


def _boxes(items: Iterable[Mapping[str, Any]]) -> tuple[Box, ...]:
    return tuple(Box(**item) for item in items)
