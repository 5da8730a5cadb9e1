"""The reference model behind the contract of MedImageParse (2-D): prompts on a projection."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs_ai.reference import frame
from pacs_ai.reference.breast import find_breast
from pacs_ai.reference.frame import BadInputError
from pacs_ai.reference.lungfield import Chest, Square, find_chest, probability

_TARGETS = {
    "left lung": "lung",
    "right lung": "lung",
    "lung": "lung",
    "lungs": "lung",
    "heart": "heart anatomies",
}
"""What can be found, with the category of the contract's sixteen that it belongs to."""

_BREAST = "breast"

_CATEGORIES = (
    *("liver", "lung", "kidney", "pancreas", "vessel", "tumor", "infection"),
    *("fluid disturbance", "histology structure"),
)


def answer(input_data: object, params: object) -> list[dict[str, Any]]:
    """Answer a scoring request: probability maps of every prompt of every row.

    Raises
    ------
    BadInputError
        When a row lacks image or text.
    """
    rows = frame.rows(input_data, required=("image", "text"))
    return [_record(row) for row in rows]


def _record(row: frame.Row) -> dict[str, Any]:
    wanted = frame.prompts(row)
    picture = frame.picture(row, "image")
    if picture is None:
        raise BadInputError("the column image is empty")
    maps = segment(picture, wanted)
    encoded = {
        "data": base64.b64encode(maps.tobytes()).decode(),
        "shape": list(maps.shape),
        "dtype": "uint8",
    }
    return {
        "image_features": json.dumps(encoded),
        "text_features": [category(prompt) for prompt in wanted],
    }


def segment(picture: NDArray[np.uint8], prompts: list[str]) -> NDArray[np.uint8]:
    """Return a probability map for each prompt.

    Returns
    -------
    ndarray of uint8, shape (prompts, rows, columns)
        Probability × 255, smooth across borders; at most 127 everywhere where nothing was found.
    """
    square = Square(picture.shape)
    maps = np.zeros((len(prompts), *picture.shape), np.uint8)
    known = [_known(prompt) for prompt in prompts]
    for number, what in enumerate(known):
        mask = _mask(picture, what) if what else None
        if mask is not None and mask.any():
            found = square.to_picture(probability(mask))
            maps[number] = np.rint(np.clip(found, 0, 1) * 255)
    return maps


def category(prompt: str) -> str:
    """Guess a prompt's category from its words; it says nothing about presence."""
    what, _ = frame.target(prompt)
    if what in _TARGETS:
        return _TARGETS[what]
    return next((name for name in _CATEGORIES if name in what), "other")


def _known(prompt: str) -> str:
    what, where = frame.target(prompt)
    if "mammography" in where.split():
        return what if what == _BREAST else ""
    elsewhere = {"ct", "mri", "mr", "ultrasound", "abdomen", "brain"} & set(where.split())
    return what if what in _TARGETS and not elsewhere else ""


def _mask(picture: NDArray[np.uint8], what: str) -> NDArray[np.bool_] | None:
    if what == _BREAST:
        return find_breast(Square(picture.shape).to_working(picture))
    chest = find_chest(picture)
    return _of_chest(chest, what) if chest.found else None


def _of_chest(chest: Chest, what: str) -> NDArray[np.bool_]:
    if what == "heart":
        return chest.heart
    if what == "left lung":
        return chest.left
    if what == "right lung":
        return chest.right
    return chest.left | chest.right
