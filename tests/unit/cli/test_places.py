"""Where a gateway would listen and what it would work with is looked at before anything starts."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.peers import free_port
from tests.peers.postgresql import Cluster
from tests.unit.cli.conftest import Command, begun, write_config


def _with_model_at(folder: Path, port: int) -> Path:
    config = write_config(folder)
    values = yaml.safe_load(config.read_text())
    values["endpoints"]["insight"]["url"] = f"http://127.0.0.1:{port}/score"
    config.write_text(yaml.safe_dump(values, sort_keys=False))
    return config


@pytest.mark.parametrize("command", ["serve", "models serve", "web", "listener"])
def test_a_role_whose_port_is_taken_says_so_at_once_and_starts_nothing(
    pacs_ai: Command, tmp_path: Path, taken: int, command: str
) -> None:
    if command in ("serve", "models serve"):
        config, place = _with_model_at(tmp_path, taken), "endpoints.insight.url"
    else:
        face = {"port": taken, "processes": 2} if command == "listener" else {"port": taken}
        config, place = write_config(tmp_path, **{command: face}), command
    ended = pacs_ai(*command.split(), "--config", config)
    assert ended.code == 1
    assert f"{place}: cannot listen at 127.0.0.1:{taken} (Address already in use)" in ended.err
    assert "end the program that listens there" in ended.err
    if command != "listener":
        assert not (tmp_path / "gateway").exists()


def test_every_place_that_is_taken_is_told_at_once(
    pacs_ai: Command, tmp_path: Path, taken: int
) -> None:
    config = _with_model_at(tmp_path, taken)
    values = yaml.safe_load(config.read_text())
    with socket.create_server(("127.0.0.1", 0)) as other:
        values["web"]["port"] = other.getsockname()[1]
        config.write_text(yaml.safe_dump(values, sort_keys=False))
        ended = pacs_ai("serve", "--config", config)
    assert "web: cannot listen" in ended.err
    assert "endpoints.insight.url: cannot listen" in ended.err


def test_check_finds_another_program_in_the_place_of_a_reference_model(
    pacs_ai: Command, tmp_path: Path, taken: int
) -> None:
    ended = pacs_ai("check", "--config", _with_model_at(tmp_path, taken))
    assert ended.code == 1
    assert f"endpoints.insight.url: {taken} is taken by another program" in ended.err


@pytest.mark.parametrize(("key", "code"), [("ours", 0), ("another's", 1)])
def test_check_knows_its_own_reference_model_by_its_key(
    pacs_ai: Command, tmp_path: Path, key: str, code: int
) -> None:
    port = free_port()
    config = _with_model_at(tmp_path, port)
    (tmp_path / "gateway" / "keys").mkdir(parents=True, mode=0o700)
    ours = tmp_path / "gateway" / "keys" / "reference.key"
    theirs = tmp_path / "their.key"
    for path, words in ((ours, "ours"), (theirs, key)):
        path.write_text(words)
        path.chmod(0o600)
    command = [sys.executable, "-m", "pacs_ai.reference.server", "--model", "insight"]
    with subprocess.Popen(
        [*command, "--port", str(port), "--key-file", str(theirs)], stdout=subprocess.PIPE
    ) as model:
        try:
            assert model.stdout is not None
            assert model.stdout.readline()
            ended = pacs_ai("check", "--config", config)
        finally:
            model.terminate()
    assert ended.code == code
    assert ("is taken by another program" in ended.err) == bool(code)


def test_an_empty_database_is_a_gateway_that_has_never_run(
    pacs_ai: Command, tmp_path: Path, postgresql: Cluster
) -> None:
    config = write_config(tmp_path, ledger=postgresql.url(postgresql.empty_database()))
    assert pacs_ai("check", "--config", config).code == 0
    ended = pacs_ai("status", "--config", config)
    assert ended.code == 1
    assert "no gateway has run with these settings" in ended.err
    assert "earlier version" not in ended.err


@pytest.mark.parametrize("command", ["check", "status", "web"])
def test_an_empty_database_beside_a_spool_that_holds_instances_is_a_lost_ledger(
    pacs_ai: Command, tmp_path: Path, postgresql: Cluster, command: str
) -> None:
    folder = tmp_path / "gateway" / "spool" / "instances" / "ab"
    folder.mkdir(parents=True)
    (folder / "ab.1.2.dcm").touch()
    config = write_config(tmp_path, ledger=postgresql.url(postgresql.empty_database()))
    ended = pacs_ai(command, "--config", config)
    assert ended.code == 1
    assert ("put its backup back" in ended.err) == (command != "status")


def test_a_ledger_that_others_can_read_is_told(pacs_ai: Command, tmp_path: Path) -> None:
    config = begun(write_config(tmp_path))
    (tmp_path / "gateway").chmod(0o755)
    (tmp_path / "gateway" / "ledger.sqlite").chmod(0o644)
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert "ledger: other users can read its file, which names patients: chmod 600 it" in ended.err
    (tmp_path / "gateway" / "ledger.sqlite").chmod(0o600)
    assert pacs_ai("check", "--config", config).code == 0
