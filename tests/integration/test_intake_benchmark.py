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


def test_every_receiver_is_measured_at_every_number_of_associations() -> None:
    found = intake.run(runs=1, count=2, size=20_000, associations=(1, 2))
    rows = found["medians"]
    assert isinstance(rows, list)
    measured = {(row["associations"], row["receiver"]) for row in rows}
    assert measured == {(at_once, one) for at_once in (1, 2) for one in intake.RECEIVERS}
    assert all(row["instances"] > 0 and row["memory"] > 1 for row in rows)


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
