"""Reading what a model answered: strictly, so that no result is made from half an answer.

Three of the four models nest JSON inside a JSON string; all of it goes through :func:`parse`, which
refuses NaN and Infinity, deep nesting and endless arrays. No message quotes an answer.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import sys
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import InferenceError

DEPTH_LIMIT = 32
LENGTH_LIMIT = 1_000_000

_DTYPES = ("uint8",)
_LARGEST = sys.float_info.max


def parse(text: str | bytes, *, what: str) -> Any:
    """Parse JSON.

    Parameters
    ----------
    text : str or bytes
    what : str
        What it is, for the message.

    Raises
    ------
    InferenceError
        When it is not JSON, holds NaN, Infinity or a number that no float holds, is nested deeper than
        :data:`DEPTH_LIMIT` or has an array longer than :data:`LENGTH_LIMIT`.
    """
    try:
        value = json.loads(text, parse_constant=_not_finite, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise InferenceError(f"{what} is not the JSON it should be") from error
    _check_bounds(value, what)
    return value


def nested(value: Any, *, what: str) -> Any:
    """Return a field that is JSON in a string; one that is decoded already is taken as it is."""
    return parse(value, what=what) if isinstance(value, str) else value


def records(value: Any, *, count: int) -> list[dict[str, Any]]:
    """Return the records of an answer: a list of them, one alone, or ``{"predictions": ...}``.

    Raises
    ------
    InferenceError
        When there are not as many records as rows were sent.
    """
    if isinstance(value, dict) and set(value) == {"predictions"}:
        value = value["predictions"]
    found = [value] if isinstance(value, dict) else value
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InferenceError("the answer is not a list of records")
    # Some servers spread the fields of one row over several records.
    if count == 1 and len(found) > 1 and _spread(found):
        return [{key: item for one in found for key, item in one.items()}]
    if len(found) != count:
        raise InferenceError(f"the answer has {len(found)} records for {count} rows")
    return found


def _spread(found: list[dict[str, Any]]) -> bool:
    keys = [key for one in found for key in one]
    return len(keys) == len(set(keys))


def array(value: Any, *, dimensions: int, what: str) -> NDArray[np.uint8]:
    """Decode ``{"data": base64, "shape": [...], "dtype": "uint8"}``.

    Returns
    -------
    ndarray of uint8
        Of the shape stated, C order.

    Raises
    ------
    InferenceError
        When a key is missing, the type is another, or the bytes are not as many as the shape says.
    """
    value = nested(value, what=what)
    if not isinstance(value, dict) or not {"data", "shape", "dtype"} <= set(value):
        raise InferenceError(f"{what} has no data, shape and dtype")
    shape, dtype = value["shape"], value["dtype"]
    if dtype not in _DTYPES:
        raise InferenceError(f"{what} is not of dtype uint8")
    if not isinstance(shape, list) or len(shape) != dimensions or not all(map(_size, shape)):
        raise InferenceError(f"{what} has no shape of {dimensions} sizes")
    data = decoded(value["data"], what=what)
    if len(data) != math.prod(shape):
        raise InferenceError(
            f"{what} has {len(data)} bytes where its shape says {math.prod(shape)}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def decoded(text: Any, *, what: str) -> bytes:
    """Decode base64, with or without line breaks in it.

    Raises
    ------
    InferenceError
        When it is not base64.
    """
    if not isinstance(text, str):
        raise InferenceError(f"{what} is not base64 text")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InferenceError(f"{what} is not base64 text") from error


def numbers(value: Any, *, length: int, what: str) -> list[float]:
    """Return a list of finite numbers of a given length.

    Raises
    ------
    InferenceError
        When it is anything else.
    """
    if not isinstance(value, list) or len(value) != length:
        raise InferenceError(f"{what} is not a list of {length} numbers")
    for one in value:
        if isinstance(one, bool) or not isinstance(one, int | float) or not abs(one) <= _LARGEST:
            raise InferenceError(f"{what} holds something that is not a finite number")
    return [float(one) for one in value]


def _size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _not_finite(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number too large")
    return value


def _whole(text: str) -> int:
    # One without a fraction has no limit in Python, and then fails wherever it is calculated with.
    _finite(text)
    return int(text)


def _check_bounds(value: Any, what: str) -> None:
    level = [value]
    for _ in range(DEPTH_LIMIT):
        below: list[Any] = []
        for one in level:
            if isinstance(one, list | dict) and len(one) > LENGTH_LIMIT:
                raise InferenceError(f"{what} has more than {LENGTH_LIMIT} values in one array")
            members = (
                one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
            )
            below.extend(member for member in members if isinstance(member, list | dict))
        if not below:
            return
        level = below
    raise InferenceError(f"{what} is nested deeper than {DEPTH_LIMIT} levels")
