"""The scoring script of the reference models, as the Azure ML inference server runs one.

``init()`` is called once and reads from the environment which model this process is;
``run(input_data, params)`` answers a request. One process serves one model.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from pacs_ai.reference.frame import BadInputError

VARIABLE = "PACS_AI_REFERENCE_MODEL"
"""Environment variable that names the model."""

Answer = Callable[[object, object], list[dict[str, Any]]]

MODELS: dict[str, str] = {
    "cxrreport": "pacs_ai.reference.report:answer",
    "insight": "pacs_ai.reference.descriptors:answer",
    "parse2d": "pacs_ai.reference.projection:answer",
    "parse3d": "pacs_ai.reference.volume:answer",
}
"""Model by name: the function that answers its requests, imported by :func:`init`."""

_loaded: dict[str, Answer] = {}


def init() -> None:
    """Load the model that the environment names.

    Raises
    ------
    ValueError
        When the variable names none.
    """
    # The inference server offers a scoring script no other way to learn what it is.
    load(os.environ.get(VARIABLE, ""))


def load(name: str) -> None:
    """Load a model by name.

    Raises
    ------
    ValueError
        When there is no such model.
    """
    if name not in MODELS:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(MODELS)}")
    module, _, function = MODELS[name].partition(":")
    _loaded.clear()
    _loaded[name] = getattr(import_module(module), function)


def run(input_data: object, params: object = None) -> list[dict[str, Any]]:
    """Answer a scoring request: one record for each row.

    Parameters
    ----------
    input_data : object
        A pandas *split* frame as JSON gives it.
    params : object, optional
        Model parameters; a model without any ignores whatever stands there.

    Raises
    ------
    BadInputError
        When the input is not one the model can answer.
    """
    (answer,) = _loaded.values()
    return answer(input_data, params)


__all__ = ["MODELS", "VARIABLE", "BadInputError", "init", "load", "run"]
