"""What a damaged input brought to light."""

from __future__ import annotations

import logging
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

FIXTURES = Path(__file__).parents[1] / "data" / "fuzz"
"""Inputs that once showed a fault; each is played in CI for ever."""


@dataclass(frozen=True)
class Fuzz:
    """How many inputs of which seed the long form plays: ``--fuzz-count``, ``--fuzz-seed``."""

    count: int
    seed: int


class Findings(logging.Handler):
    """Gathers what went wrong, while :func:`watched` lasts.

    Attributes
    ----------
    found : list of str
        Each with the name of the input, from which it can be made again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.name_of_input = ""

    def add(self, what: str) -> None:
        """Note something about the input that is under way."""
        self.found.append(f"{self.name_of_input}: {what}")

    def emit(self, record: logging.LogRecord) -> None:
        """Note a record with an exception: a rim caught what should have been refused by name."""
        library = record.name.startswith("pydicom")  # it tells of what it raises as well
        if record.exc_info and record.exc_info[1] is not None and not library:
            self.add(f"{record.getMessage()}: {_told(record.exc_info[1])}")

    def uncaught(self, arguments: threading.ExceptHookArgs) -> None:
        """Note an exception that ended a thread."""
        if arguments.exc_value is not None:
            self.add(f"a thread ended: {_told(arguments.exc_value)}")


def _told(error: BaseException) -> str:
    places = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(places))
    return f"{type(error).__name__}: {str(error)[:200]} ({where})"


@contextmanager
def watched() -> Iterator[Findings]:
    """Gather findings for the length of the block, the ends of threads included.

    pydicom is told to ignore bad values, as ``pacs_ai.cli.log`` tells it in every role.
    """
    findings = Findings()
    hook: Any = threading.excepthook
    threading.excepthook = findings.uncaught
    logging.getLogger().addHandler(findings)
    strict = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pydicom")
            yield findings
    finally:
        pydicom.config.settings.reading_validation_mode = strict
        logging.getLogger().removeHandler(findings)
        threading.excepthook = hook
