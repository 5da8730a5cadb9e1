"""The benchmark of intake measures every receiver, and only what arrived."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import intake
from tests.peers import require


@pytest.fixture(autouse=True)
def _peers() -> None:
    require("storescu")
    require("storescp")


def _measured(
    associations: tuple[int, ...], receivers: tuple[str, ...] = intake.RECEIVERS
) -> set[tuple[int, str]]:
    found = intake.run(runs=1, count=2, size=20_000, associations=associations, receivers=receivers)
    rows = found["medians"]
    assert isinstance(rows, list)
    assert all(row["instances"] > 0 and row["memory"] > 1 for row in rows)
    return {(row["associations"], row["receiver"]) for row in rows}


def test_every_receiver_is_measured() -> None:
    assert _measured((2,)) == {(2, one) for one in intake.RECEIVERS}


def test_every_number_of_associations_is_measured() -> None:
    assert _measured((1, 2), ("hardened", "bare")) == {
        (number, one) for number in (1, 2) for one in ("hardened", "bare")
    }


def test_a_receiver_that_takes_nothing_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.write_instances(tmp_path / "sender", 1, size=20_000)
    command = intake._command

    def stranger(name: str, folder: Path, port: int) -> list[str]:
        made = command(name, folder, port)
        settings = folder / "settings.yaml"
        settings.write_text(settings.read_text().replace("SENDER", "OTHER"))
        return made

    monkeypatch.setattr(intake, "_command", stranger)
    with pytest.raises(intake.BenchmarkError, match="storescu failed"):
        intake.measure("hardened", [tmp_path / "sender"], tmp_path / "kept")
