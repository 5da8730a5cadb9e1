"""The ``input_data`` of a scoring request: a pandas *split* frame, read as the real servers do.

Columns with rows, a row as a list in column order or as an object by column name; ``index`` is
optional and without meaning; unknown columns are dropped (MLflow's input enforcement).
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Row = Mapping[str, Any]

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded."""


class BadInputError(ValueError):
    """The request is not one the model can answer; the container says 400."""


class UndecodableError(Exception):
    """The bytes are no picture or volume: the real wrappers fail, and the container says 500."""


def rows(input_data: object, *, required: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """Return the rows of a split frame, each with the columns the model knows.

    Raises
    ------
    BadInputError
        When it is no split frame, a row has another length than the columns, or a required column
        is missing.
    """
    if not isinstance(input_data, Mapping):
        raise BadInputError("input_data must be an object with columns and data")
    unknown = sorted(set(input_data) - {"columns", "index", "data"})
    if unknown:
        raise BadInputError(f"input_data has unknown keys: {', '.join(map(str, unknown))}")
    columns, data = input_data.get("columns"), input_data.get("data")
    if not isinstance(columns, list) or not isinstance(data, list) or not data:
        raise BadInputError("input_data needs a list of columns and at least one row of data")
    missing = [name for name in required if name not in columns]
    if missing:
        raise BadInputError(f"input_data lacks the column {missing[0]}")
    known = {*required, *optional}
    return [_row(columns, values, known) for values in data]


def _row(columns: list[Any], values: object, known: set[str]) -> Row:
    if isinstance(values, Mapping):
        found = dict(values)
    elif isinstance(values, list) and len(values) == len(columns):
        found = dict(zip(columns, values, strict=True))
    else:
        raise BadInputError("a row of data must have one value for each column")
    return {name: value for name, value in found.items() if name in known}


def text(row: Row, column: str) -> str:
    """Return a text of a row; ``null`` and a missing column read as empty.

    Raises
    ------
    BadInputError
        When the value is not text.
    """
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadInputError(f"the column {column} holds text")
    return value


def binary(row: Row, column: str) -> bytes:
    """Return the bytes of a base64 value; white space in it is allowed, an empty value gives none.

    Raises
    ------
    BadInputError
        When the value is not base64.
    """
    value = "".join(text(row, column).split())
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInputError(f"the column {column} is not base64") from error


def picture(row: Row, column: str) -> NDArray[np.uint8] | None:
    """Return a row's PNG or JPEG as grey values, or None when the row has none.

    Returns
    -------
    ndarray of uint8, shape (rows, columns), or None

    Raises
    ------
    UndecodableError
        When the bytes are no PNG or JPEG.
    BadInputError
        When it is not one of 8 bits, or exceeds :data:`MAX_PIXELS`.
    """
    data = binary(row, column)
    if not data:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadInputError(f"the image in {column} is too large")
            if image.mode not in ("L", "RGB", "RGBA", "LA", "P", "1"):
                raise BadInputError(f"the image in {column} is not one of 8 bits")
            return np.asarray(image.convert("L"), np.uint8)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UndecodableError(f"the image in {column} is not a PNG or JPEG") from error


def prompts(row: Row) -> list[str]:
    """Split a row's text on ``&`` into its prompts.

    Raises
    ------
    BadInputError
        When the text or one of its prompts is empty.
    """
    found = [part.strip() for part in text(row, "text").split("&")]
    if not all(found):
        raise BadInputError("the column text holds an empty prompt")
    return found


def target(prompt: str) -> tuple[str, str]:
    """Split ``<target> in <site> <modality>`` into target and the rest, in lower case."""
    what, _, where = " ".join(prompt.casefold().split()).partition(" in ")
    return what, where
