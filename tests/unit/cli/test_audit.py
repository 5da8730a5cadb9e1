"""``pacs-ai audit verify``, and what an auditor finds about settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from sqlalchemy import select, update

from pacs_ai import __version__
from pacs_ai.cli.roles import configured
from pacs_ai.ledger import Ledger, tables
from pacs_ai.settings import load
from tests.unit.cli.conftest import Command, begun, write_config


@pytest.fixture
def config(tmp_path: Path, ledger_url: str) -> Path:
    return begun(write_config(tmp_path, ledger=ledger_url))


def _ledger(config: Path) -> Ledger:
    settings = load(config)
    return Ledger(settings.ledger_url, settings.work)


def _events(config: Path) -> list[tuple[str, str, object]]:
    ledger = _ledger(config)
    table = tables.events
    with ledger.database.read() as connection:
        rows = connection.execute(
            select(table.c.kind, table.c.actor, table.c.detail).order_by(table.c.id)
        ).all()
    ledger.close()
    return [(row.kind, row.actor, row.detail) for row in rows]


def test_a_whole_chain_ends_with_0_and_its_last_seal_can_be_noted(
    pacs_ai: Command, config: Path
) -> None:
    pacs_ai("pause", "routing", "--config", config)
    ledger = _ledger(config)
    ledger.seal_events()
    ledger.close()
    pacs_ai("resume", "routing", "--config", config)
    ended = pacs_ai("audit", "verify", "--config", config)
    assert ended.code == 0
    assert "sealed events that hold: 1;" in ended.out
    assert "not sealed yet: 1," in ended.out
    seal = ended.out.split("the last seal: ")[1].split()[0]
    assert pacs_ai("audit", "verify", "--noted", seal, "--config", config).code == 0
    for no_seal in ("SEAL", seal[:-1], seal.upper()):
        ended = pacs_ai("audit", "verify", "--noted", no_seal, "--config", config)
        assert (ended.code, ended.out) == (2, "")
        assert "a seal is 64 hexadecimal digits" in ended.err
    ended = pacs_ai("audit", "verify", "--noted", "0" * 64, "--config", config)
    assert (ended.code, "noted" in ended.err) == (1, True)


def test_a_changed_event_ends_with_1_and_is_named(pacs_ai: Command, config: Path) -> None:
    pacs_ai("pause", "routing", "--config", config)
    pacs_ai("resume", "routing", "--config", config)
    ledger = _ledger(config)
    ledger.seal_events()
    with ledger.database.write() as connection:
        table = tables.events
        connection.execute(update(table).where(table.c.position == 2).values(actor="nobody"))
        event = connection.scalar(select(table.c.id).where(table.c.position == 2))
    ledger.close()
    ended = pacs_ai("audit", "verify", "--config", config)
    assert ended.code == 1
    assert f"BROKEN at position 2, event {event}:" in ended.err


def test_other_settings_than_before_are_an_event_and_the_same_are_not(config: Path) -> None:
    for role in ("serve", "listener", "worker"):
        configured(load(config), role).close()
    values = yaml.safe_load(config.read_text())
    values["rules"][-1]["name"] = "renamed"
    first = load(config).digest
    config.write_text(yaml.safe_dump(values, sort_keys=False))
    configured(load(config), "listener").close()
    second = load(config).digest
    assert first != second
    assert _events(config) == [
        ("configured", "serve", {"settings": first, "version": __version__}),
        ("configured", "listener", {"settings": second, "version": __version__}),
    ]
