"""The log says what happened and where, and nothing of a patient, whoever speaks."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from pacs_ai.cli.log import JsonLines
from pacs_ai.errors import PixelError


def _line(logger: str, message: str, **extra: object) -> dict[str, object]:
    record = logging.getLogger(logger).makeRecord(
        logger, logging.WARNING, "/somewhere/module.py", 7, message, (), None, extra=dict(extra)
    )
    line: dict[str, object] = json.loads(JsonLines().format(record))
    return line


def test_our_own_words_and_fields_are_shown() -> None:
    line = _line("pacs_ai.intake", "instance refused", reason="no SOPInstanceUID")
    assert line["message"] == "instance refused"
    assert line["reason"] == "no SOPInstanceUID"


@pytest.mark.parametrize("logger", ["pydicom", "pynetdicom.acse", "highdicom.seg.sop", "root"])
def test_a_librarys_words_are_withheld_and_its_place_is_told(logger: str) -> None:
    line = _line(logger, "Invalid value for VR DA: 'CANARY'")
    assert "CANARY" not in json.dumps(line)
    assert line["place"] == "module.py:7"


def test_a_name_that_only_begins_like_ours_is_a_library() -> None:
    assert "CANARY" not in json.dumps(_line("pacs_ai_other", "CANARY"))


def test_a_new_line_in_a_message_stays_in_its_line() -> None:
    record = logging.makeLogRecord({"name": "pacs_ai", "msg": "one\ntwo\x1b[31m"})
    assert "\n" not in JsonLines().format(record)
    assert "\x1b" not in JsonLines().format(record)


def test_an_error_of_a_library_shows_its_type_and_place_but_not_its_words() -> None:
    def fail() -> None:
        try:
            raise ValueError("could not read CANARY")
        except ValueError as error:
            raise PixelError("Instance 1.2.3: PixelData is short") from error

    try:
        fail()
    except PixelError as error:
        trace = (type(error), error, error.__traceback__)
    record = logging.makeLogRecord({"name": "pacs_ai", "msg": "step failed", "exc_info": trace})
    text = JsonLines().format(record)
    assert "CANARY" not in text
    assert "PixelError: Instance 1.2.3: PixelData is short" in text
    assert "builtins.ValueError" in text
    assert "test_log.py" in text


SURPRISES = """
import threading, warnings
from pacs_ai.cli.log import log_to_stderr
log_to_stderr()
warnings.warn("CANARY")
def fail():
    raise ValueError("CANARY")
lost = threading.Thread(target=fail)
lost.start()
lost.join()
fail()
"""


def test_warnings_and_lost_threads_come_as_json_lines_without_their_words() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SURPRISES], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    said = [line["message"] for line in lines]
    assert said == ["a library warned", *["a thread ended by an error"] * 2]
    assert "CANARY" not in ended.stderr
