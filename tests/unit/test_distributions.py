"""The publisher's distribution file is read whole or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pacs_ai import distributions
from pacs_ai.errors import ConfigError

GOOD = {"CT-Chest": {"nodule": [[1.5, 2], [3, 4.25], [5, 6], [7, 8]]}}


def test_what_the_file_says_of_a_target(tmp_path: Path) -> None:
    path = tmp_path / "target_dist.json"
    path.write_text(json.dumps(GOOD))
    known = distributions.read(path)
    assert known.of("CT-Chest", "nodule") == ((1.5, 2), (3, 4.25), (5, 6), (7, 8))
    assert known.of("CT-Chest", "tumor") is None
    assert known.of("CT-Abdomen", "nodule") is None


def test_another_file_is_another_identity(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text(json.dumps(GOOD))
    other.write_text(json.dumps({"CT-Chest": {"nodule": [[1, 2]] * 4}}))
    assert distributions.read(one).identity != distributions.read(other).identity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"CT-Chest": []}',
        '{"CT-Chest": {"nodule": [[1, 2], [1, 2], [1, 2]]}}',
        '{"CT-Chest": {"nodule": [[1, 2], [1, 2], [1, 2], [1]]}}',
        '{"CT-Chest": {"nodule": [[1, 2], [1, 2], [1, 2], [1, -2]]}}',
        '{"CT-Chest": {"nodule": [[1, 2], [1, 2], [1, 2], [1, NaN]]}}',
        '{"CT-Chest": {"nodule": [[1, 2], [1, 2], [1, 2], [1, true]]}}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "target_dist.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match="is not the publisher's distribution file"):
        distributions.read(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        distributions.read(tmp_path / "nothing.json")
