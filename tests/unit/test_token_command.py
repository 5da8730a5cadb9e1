"""``pacs-ai token``: made once, shown once, listed without its secret, revoked for good."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pacs_ai.cli.commands import app
from pacs_ai.errors import PacsAiError
from pacs_ai.ledger.engine import Database
from pacs_ai.ledger.tokens import Scope, Tokens


@pytest.fixture
def config(tmp_path: Path) -> Path:
    site = {"name": "test", "time_zone": "UTC", "use": "research", "responsible": "nobody"}
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"site": site, "data": str(tmp_path / "data")}))
    return path


def call(config: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["token", *words, "--config", str(config)])
    return result.exit_code, result.stdout


def test_a_token_lives_from_its_making_to_its_end(config: Path, tmp_path: Path) -> None:
    code, printed = call(config, "create", "--name", "pacs", "--scope", "stow", "--expires", "12h")
    assert code == 0
    token = printed.strip()
    tokens = Tokens(Database(f"sqlite:///{tmp_path / 'data' / 'ledger.sqlite'}"))
    found = tokens.find(token)
    assert found is not None
    assert (found.name, found.scope) == ("pacs", Scope.STOW)
    assert found.expires_at is not None
    assert (found.expires_at - found.created_at).total_seconds() == 12 * 3600
    code, printed = call(config, "list")
    assert code == 0
    assert found.id in printed
    assert "valid" in printed
    assert token.split("_", 2)[2] not in printed
    assert call(config, "revoke", found.id)[0] == 0
    assert tokens.find(token) is None
    assert "revoked" in call(config, "list")[1]
    assert call(config, "revoke", found.id)[0] == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--name", "pacs", "--scope", "all"),
        ("--name", "pacs", "--scope", "stow", "--expires", "soon"),
        ("--name", "pacs", "--scope", "stow", "--expires", "0s"),
        ("--name", "pacs", "--scope", "stow", "--expires", "999999999d"),
        ("--name", "pacs", "--scope", "stow", "--expires", "9999999999999d"),
        ("--scope", "stow"),
    ],
)
def test_wrong_use_is_2(config: Path, words: tuple[str, ...]) -> None:
    assert call(config, "create", *words)[0] == 2


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65, "-x", "Doe^Jane"])
def test_a_name_is_one_that_a_peer_may_have(tmp_path: Path, name: str) -> None:
    database = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    database.upgrade()
    with pytest.raises(PacsAiError, match="--name"):
        Tokens(database).create(name, scope=Scope.STOW, lifetime=None, actor="test")


def test_a_token_without_end_is_asked_for_by_word(config: Path, tmp_path: Path) -> None:
    call(config, "create", "--name", "pacs", "--scope", "status", "--expires", "off")
    (made,) = Tokens(Database(f"sqlite:///{tmp_path / 'data' / 'ledger.sqlite'}")).listed()
    assert made.expires_at is None
