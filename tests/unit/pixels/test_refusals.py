"""Every refusal of pixels says what a person can do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pacs_ai.pixels

REMEDY = re.compile(r"[:;.] (?:correct|send|select|[Hh]ave the sender|let the rule|name)\b")
ELSEWHERE = {"nifti.py"}
"""What a model's server answered is no input of the PACS: its operator is told."""


def _refusals() -> Iterator[tuple[str, str]]:
    """Yield where a refusal is written and its words; what is filled in stands as a dot."""
    for path in sorted(Path(pacs_ai.pixels.__file__).parent.glob("*.py")):
        if path.name in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            words = _words(node.args[0])
            # A text that is handed on was written where it came from.
            if name in ("PixelError", "error") and words.removeprefix("Instance").strip(". "):
                yield f"{path.name}:{node.lineno}", words


def _words(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_words, node.values))
    if isinstance(node, ast.BinOp):
        return _words(node.left) + _words(node.right)
    return "."


REFUSALS = dict(_refusals())


def test_the_refusals_are_found() -> None:
    assert len(REFUSALS) > 40


@pytest.mark.parametrize("where", REFUSALS)
def test_a_refusal_ends_in_what_a_person_can_do(where: str) -> None:
    assert REMEDY.search(REFUSALS[where]), REFUSALS[where]
