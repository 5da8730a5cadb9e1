"""The log of a role: JSON lines on standard error, for people, with nothing of a patient in them.

What libraries say is not ours to trust: they print headers, values and statements when something
surprises them. Of a library that may have seen a data set only the place is told, and of an error that is
not the gateway's own only its type and where it was.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO

import pydicom

from pacs_ai.errors import PacsAiError

log = logging.getLogger(__name__)

_TEXT_IS_SAFE = (
    "pacs_ai",
    "listener",
    "worker",
    "celery.worker",
    "celery.beat",
    "kombu",
    "uvicorn",
)
"""Loggers whose words are shown: our own, and those that never meet a data set."""


class JsonLines(logging.Formatter):
    """One JSON object a line; control characters escaped, extra fields kept."""

    _STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        if _is_safe(record.name):
            line["message"] = record.getMessage()
            line |= {k: v for k, v in record.__dict__.items() if k not in self._STANDARD}
        else:
            line["message"] = "a library spoke; its words are withheld"
            line["place"] = f"{Path(record.pathname).name}:{record.lineno}"
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = [*_told(record.exc_info[1])]
        return json.dumps(line, default=str)


def log_to_stderr() -> None:
    """Send the log of this process to standard error as JSON lines, warnings and lost threads too.

    pydicom warns of bad values by printing them, and a value may be a patient's: it is told not to.
    """
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module="pydicom")
    warnings.showwarning = _show_warning
    sys.excepthook = _show_error
    threading.excepthook = lambda lost: _show_error(
        lost.exc_type, lost.exc_value, lost.exc_traceback
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _is_safe(logger: str) -> bool:
    return any(logger == name or logger.startswith(f"{name}.") for name in _TEXT_IS_SAFE)


def _told(error: BaseException) -> Iterator[str]:
    """Yield an error's type and places, innermost cause last; its words only when they are ours."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    yield f"{kind}: {error}" if isinstance(error, PacsAiError) else kind
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
    cause = error.__cause__ or error.__context__
    if cause is not None and cause is not error:
        yield from _told(cause)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    place = f"{Path(filename).name}:{lineno}"
    log.warning("a library warned", extra={"category": category.__name__, "place": place})


def _show_error(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt):
        return
    log.error("a thread ended by an error", exc_info=(kind, error, trace))
