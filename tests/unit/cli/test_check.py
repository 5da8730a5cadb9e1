"""``pacs-ai check`` finds every problem at once, and says what to do about each."""

from __future__ import annotations

import errno
import os
import re
import socket
import sqlite3
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from pacs_ai.cli import check
from pacs_ai.cli.packages import refuse_strangers
from pacs_ai.errors import ConfigError, SpoolError
from pacs_ai.gateway import Gateway
from pacs_ai.ledger import arrivals
from pacs_ai.ledger.engine import Database
from pacs_ai.ledger.tokens import Scope, Tokens
from pacs_ai.settings import load
from tests.peers import free_port
from tests.peers.rejecting import CALLED_NOT_RECOGNISED, CALLING_NOT_RECOGNISED, rejecting
from tests.unit.cli.conftest import Command, begun, write_config
from tests.unit.test_grouping import arrival


def _endpoint(**values: object) -> dict[str, object]:
    return {"kind": "parse3d", "name": "Parse", "version": "1", **values}


def test_the_demo_has_no_problem_on_a_fresh_machine(pacs_ai: Command, tmp_path: Path) -> None:
    ended = pacs_ai("check", "--config", write_config(tmp_path))
    disk, verdict = ended.out.splitlines()
    assert (ended.code, verdict, ended.err) == (0, "no problem found", "")
    assert re.fullmatch(r"disk: .+ free; below 1 B Instances are refused", disk)
    assert not (tmp_path / "gateway").exists(), "check looks, and makes nothing"


def test_several_problems_are_reported_together_each_with_a_remedy(
    pacs_ai: Command, tmp_path: Path, taken: int
) -> None:
    (tmp_path / "a-file").touch()
    config = write_config(
        tmp_path,
        data=str(tmp_path / "a-file" / "gateway"),
        listener={"port": taken},
        endpoints={
            "parse3d": _endpoint(
                url=f"https://127.0.0.1:{free_port()}/score", key="env:PACS_AI_NO_SUCH_KEY"
            )
        },
        destinations={
            "pacs": {
                "kind": "dicom",
                "host": "127.0.0.1",
                "port": free_port(),
                "ae_title": "PACS",
            },
        },
        delivery=["pacs"],
        rules=[{"name": "ct", "when": {"Modality": "CT"}, "run": [{"parse3d": ["no such label"]}]}],
    )
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 2
    found = {
        "rule": f"{config}:",
        "data": "choose another `data`",
        "port": f"listener.port: {taken} is taken by another program: choose another port",
        "key": "endpoints.parse3d.key:",
        "endpoint": "endpoints.parse3d.url: nothing answers there: check the address",
        "peer": "pacs: C-ECHO failed:",
    }
    assert {name for name, text in found.items() if text not in ended.err} == set()
    assert "no such label" in ended.err
    assert "no problem found" not in ended.out


def test_beside_wrong_settings_disk_clock_and_imports_are_looked_at(
    pacs_ai: Command, tmp_path: Path, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_YEARS", range(1900, 1901))
    (tmp_path / "a-file").touch()
    for sections in ({"delivery": 7}, {"web": {"port": "none"}}):
        config = write_config(tmp_path, data=str(tmp_path / "a-file" / "gateway"), **sections)
        ended = pacs_ai("check", "--config", config)
        assert ended.code == 2
        for part in (
            "choose another `data`",
            "clock says",
            "'worker'",
            "not looked at, for want of",
        ):
            assert part in ended.err
    assert f"{next(iter(sections))}" in ended.err


def test_what_is_wrong_in_one_section_hides_nothing_of_another(
    pacs_ai: Command, tmp_path: Path, taken: int
) -> None:
    config = write_config(
        tmp_path,
        web={"port": "none"},
        retention={"sources": "soon"},
        endpoints={"parse3d": _endpoint(url=f"http://127.0.0.1:{free_port()}/score", key="env:NO")},
        rules=[{"name": "ct", "when": {"Modality": "CT"}, "run": [{"parse3d": ["no such label"]}]}],
        broker=f"redis://127.0.0.1:{free_port()}/0",
        delivery="origin",
    )
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 2
    for said in (
        *("web.port:", "retention.sources:", "no such label", "endpoints.parse3d.url: nothing"),
        *("broker:", "peers.demo: delivery sends results there"),
        "certificates, ports: not looked at, for want of sound settings",
    ):
        assert said in ended.err


def test_sections_that_do_not_go_together_hide_nothing_of_the_others(
    pacs_ai: Command, tmp_path: Path
) -> None:
    config = write_config(
        tmp_path, delivery=["archive"], broker=f"redis://127.0.0.1:{free_port()}/0"
    )
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 2
    assert "delivery: 'archive' is no destination and no peer" in ended.err
    assert "broker:" in ended.err
    assert "rules, ledger, destinations: not looked at" in ended.err


def test_a_folder_that_cannot_be_reached_is_told_with_what_to_do(
    pacs_ai: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied")  # as root, nothing is locked

    monkeypatch.setattr("pacs_ai.cli.disk.existing", locked)
    monkeypatch.setattr("pacs_ai.cli.check.is_there", locked)
    ended = pacs_ai("check", "--config", write_config(tmp_path))
    assert ended.code == 1
    assert "cannot be reached: change the owner of the folders above it, or `data`" in ended.err
    assert "ledger: its file cannot be reached" in ended.err


def test_a_section_whose_name_is_misspelt_is_not_taken_for_one_that_was_left_out(
    pacs_ai: Command, tmp_path: Path
) -> None:
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace("endpoints:", "endpoint:"))
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 2
    first, last = ended.err.splitlines()
    assert "endpoint: no such setting" in first
    assert last.startswith("rules, ")


def test_settings_that_are_no_yaml_hide_neither_clock_nor_imports(
    pacs_ai: Command, tmp_path: Path, stranger: Path
) -> None:
    (tmp_path / "settings.yaml").write_text("data: [")
    ended = pacs_ai("check", "--config", tmp_path / "settings.yaml")
    assert ended.code == 2
    assert "'worker'" in ended.err
    assert "not looked at, for want of" in ended.err


def test_a_ledgers_server_that_is_away_is_reported_with_what_to_do(
    pacs_ai: Command, tmp_path: Path
) -> None:
    url = f"postgresql+psycopg://pacsai@127.0.0.1:{free_port()}/pacsai"
    ended = pacs_ai("check", "--config", write_config(tmp_path, ledger=url))
    assert ended.code == 1
    assert "busy or gone: start its server, or correct host, port, name and role" in ended.err


def test_a_destination_that_does_not_say_what_it_is_gets_told_how(
    pacs_ai: Command, tmp_path: Path
) -> None:
    config = write_config(tmp_path, destinations={"pacs": {"host": "127.0.0.1", "port": 104}})
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 2
    assert "destinations.pacs: say what it is: kind: folder or kind: dicom" in ended.err


def test_a_problem_that_is_no_setting_ends_with_1(
    pacs_ai: Command, tmp_path: Path, taken: int
) -> None:
    config = write_config(tmp_path, web={"port": taken})
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert f"web.port: {taken}" in ended.err


def test_a_running_gateway_that_takes_nobody_from_this_machine_is_no_problem(
    pacs_ai: Command, tmp_path: Path
) -> None:
    with rejecting(CALLING_NOT_RECOGNISED) as port:
        config = write_config(tmp_path, listener={"port": port, "processes": 1})
        ended = pacs_ai("check", "--config", config)
    assert (ended.code, ended.err) == (0, "")


def test_another_ae_on_the_listener_s_port_is_reported(pacs_ai: Command, tmp_path: Path) -> None:
    with rejecting(CALLED_NOT_RECOGNISED) as port:
        ended = pacs_ai("check", "--config", write_config(tmp_path, listener={"port": port}))
        assert ended.code == 1
    assert f"listener.port: {port} is taken by another program" in ended.err


def test_a_folder_that_cannot_be_written_is_reported(
    pacs_ai: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever runs the tests may be root, who may write everywhere.
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)
    ended = pacs_ai("check", "--config", write_config(tmp_path))
    assert ended.code == 1
    assert "cannot be written: change its owner" in ended.err


@pytest.mark.parametrize("name", ["", "tmp", "instances", "results", "removed"])
def test_a_folder_of_the_spool_that_cannot_be_written_is_reported(
    pacs_ai: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = begun(write_config(tmp_path))
    folder = tmp_path / "gateway" / "spool" / name
    access = os.access

    def refused(path: str | Path, mode: int) -> bool:  # whoever runs the tests may be root
        return Path(path) != folder and access(path, mode)

    monkeypatch.setattr(os, "access", refused)
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert f"spool: {folder} cannot be written: change its owner or mode" in ended.err


def test_a_file_in_place_of_the_spool_is_reported_and_starts_nothing(
    pacs_ai: Command, tmp_path: Path
) -> None:
    config = write_config(tmp_path)
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "spool").touch()
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert "spool is a file, not a folder: move it away" in ended.err
    with pytest.raises(SpoolError, match="no folder"):
        begun(config)


def test_a_folder_for_results_that_cannot_be_used_is_reported(
    pacs_ai: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "locked").mkdir()
    access = os.access

    def refused(path: str | Path, mode: int) -> bool:  # whoever runs the tests may be root
        return Path(path).name != "locked" and access(path, mode)

    monkeypatch.setattr(os, "access", refused)
    for place, said in (
        ("a-file", f"{tmp_path}/a-file is a file, not a folder: choose another path"),
        ("a-file/results", f"{tmp_path}/a-file is a file, not a folder: choose another path"),
        ("locked", f"{tmp_path}/locked cannot be written: change the owner"),
        ("locked/results", f"{tmp_path}/locked/results cannot be made: change the owner"),
    ):
        results = {"kind": "folder", "path": str(tmp_path / place)}
        config = write_config(tmp_path, destinations={"results": results})
        ended = pacs_ai("check", "--config", config)
        assert ended.code == 1
        assert ended.err.count("\n") == 1
        assert f": destinations.results.path: {said}" in ended.err


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_reported(
    pacs_ai: Command, tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_ai.cli.neighbours.connects", lambda *_: False)
    monkeypatch.setattr("pacs_ai.cli.check._is_ours", lambda _: False)
    tls = {"certificate": str(tmp_path / "none.pem"), "key": str(tmp_path / "none.key")}
    config = write_config(
        tmp_path,
        listener={"port": free_port(), "host": host, "unsafe_plain_network": True},
        web={"port": free_port(), "host": host, **tls},
    )
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    for name in ("listener", "web"):
        assert f": {name}.host: {host} is no address of this machine: choose one" in ended.err


def test_a_port_that_this_user_may_not_open_is_reported(
    pacs_ai: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pacs_ai.cli.neighbours.connects", lambda *_: False)
    monkeypatch.setattr("pacs_ai.cli.check._is_ours", lambda _: False)
    config = write_config(tmp_path, listener={"port": 104}, web={"port": 80})
    monkeypatch.setattr(socket.socket, "bind", refused)  # whoever runs the tests may be root
    ended = pacs_ai("check", "--config", config)
    assert "listener.port: this user cannot listen at 104 (Permission denied)" in ended.err
    assert "web.port: this user cannot listen at 80 (Permission denied)" in ended.err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104
def test_one_port_for_both_faces_is_reported(pacs_ai: Command, tmp_path: Path, host: str) -> None:
    port = free_port()
    listener = {"port": port, "host": host, "unsafe_plain_network": True, "minimum_free": 1}
    config = write_config(tmp_path, listener=listener, web={"port": port})
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert f"web.port: {port} is listener.port too: choose another port for one" in ended.err


def test_a_nearly_full_disk_is_reported(pacs_ai: Command, tmp_path: Path) -> None:
    config = write_config(tmp_path, listener={"port": free_port(), "minimum_free": "1000TB"})
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert "every Instance is refused: make room, keep less (retention), or set" in ended.err


def test_a_ledger_that_is_none_is_reported(pacs_ai: Command, tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "ledger.sqlite").write_bytes(b"this is no database" * 100)
    ended = pacs_ai("check", "--config", write_config(tmp_path))
    assert ended.code == 1
    assert "ledger:" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("place", [None, "gateway/l.sqlite", "elsewhere/l.sqlite"])
@pytest.mark.parametrize(
    "command",
    ["check", "status", "instances", "token list", "audit verify", "release 1.2", "pause routing"],
)
def test_a_lost_ledger_is_reported_and_no_other_is_made(
    pacs_ai: Command, tmp_path: Path, command: str, place: str | None
) -> None:
    folder = tmp_path / "gateway" / "spool" / "instances" / "ab"
    folder.mkdir(parents=True)
    (folder / "ab.1.2.dcm").touch()
    sections = {} if place is None else {"ledger": f"sqlite:///{tmp_path / place}"}
    ended = pacs_ai(*command.split(), "--config", write_config(tmp_path, **sections))
    assert ended.code != 0
    assert "the ledger's file is gone" in ended.err
    assert "put its backup back" in ended.err
    assert not [*tmp_path.rglob("*.sqlite*")]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "command",
    ["status", "instances", "strays", "audit verify", "release 1.2", "pause delivery"],
)
def test_a_gateway_that_has_never_run_is_neither_asked_nor_steered(
    pacs_ai: Command, tmp_path: Path, command: str
) -> None:
    ended = pacs_ai(*command.split(), "--config", write_config(tmp_path))
    assert ended.code != 0
    assert "no gateway has run with these settings" in ended.err
    assert "--config" in ended.err
    assert not [*tmp_path.rglob("*.sqlite*")]


def test_a_lost_spool_is_reported_and_no_other_is_made(pacs_ai: Command, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    gateway = Gateway(load(Path(config)))
    with gateway.ledger.database.write() as connection:
        arrivals.record(connection, [arrival(1)])
    gateway.close()
    gateway.spool.path.rename(tmp_path / "unmounted")
    gateway.spool.path.mkdir()
    for _ in range(2):
        ended = pacs_ai("check", "--config", config)
        assert ended.code == 1
        assert "spool:" in ended.err
        assert "mount its disk" in ended.err
        pacs_ai("strays", "--config", config)
        assert [*gateway.spool.path.iterdir()] == []


def test_check_makes_no_ledger_where_the_settings_name_one(
    pacs_ai: Command, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'mistyped' / 'l.sqlite'}"
    ended = pacs_ai("check", "--config", write_config(tmp_path, ledger=url))
    assert (ended.code, ended.err) == (0, "")
    assert not (tmp_path / "mistyped").exists()


def test_a_ledgers_url_that_cannot_be_read_is_reported_and_not_quoted(
    pacs_ai: Command, tmp_path: Path
) -> None:
    for url in ("postgresql+psycopg://u@db.example:sesame/x", "sqlite:sesame"):
        config = write_config(tmp_path, ledger=url)
        for command in ("check", "status"):
            ended = pacs_ai(command, "--config", config)
            assert ended.code == 1
            assert "the ledger is SQLite or PostgreSQL: leave `ledger` out" in ended.err
            assert "sesame" not in ended.err


def test_a_server_that_may_not_be_used_as_ledger_is_reported(
    pacs_ai: Command, tmp_path: Path
) -> None:
    url = "postgresql+psycopg://pacsai:sesame@db.example/pacsai"
    ended = pacs_ai("check", "--config", write_config(tmp_path, ledger=url))
    assert ended.code == 1
    assert "ledger: the ledger's URL holds a password" in ended.err
    assert "sesame" not in ended.err


def test_a_ledger_of_a_later_version_is_reported(pacs_ai: Command, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    begun(config)
    with closing(sqlite3.connect(tmp_path / "gateway" / "ledger.sqlite")) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
        other.commit()
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert "ledger:" in ended.err


def test_results_that_nobody_can_get_are_reported(pacs_ai: Command, tmp_path: Path) -> None:
    config = write_config(tmp_path, delivery="origin")
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert "peers.demo: delivery sends results there, but it has no host and port" in ended.err
    ended = pacs_ai("check", "--config", write_config(tmp_path, delivery=["demo"]))
    assert ended.code == 1
    assert "peers.demo: delivery sends results there, but it has no host and port" in ended.err


def test_a_look_that_fails_is_a_fault_itself_and_hides_no_other(
    pacs_ai: Command, tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bool:
        raise RecursionError("sesame")

    for place in ("neighbours.ping_broker", "check._is_ours", "check.worklist_rules.parse"):
        with monkeypatch.context() as patched:
            patched.setattr(f"pacs_ai.cli.{place}", fails)
            config = write_config(tmp_path, broker="redis://127.0.0.1:1/0", delivery="origin")
            ended = pacs_ai("check", "--config", config)
        assert ended.code
        (name,) = {"broker", "ports", "rules"} & set(re.findall(r"\w+", _failing(ended.err)))
        assert f": {name}: not looked at to the end (RecursionError)" in ended.err
        assert "peers.demo: delivery sends results there" in ended.err
        assert "sesame" not in ended.err


def _failing(said: str) -> str:
    (line,) = (one for one in said.splitlines() if "RecursionError" in one)
    return line.partition("not looked at")[0]


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another package named ``worker`` that Python finds first, and that tells when it is run."""
    other = tmp_path / "site" / "worker"
    other.mkdir(parents=True)
    told = tmp_path / "it-was-run"
    (other / "__init__.py").write_text(f"open({str(told)!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(other.parent))
    for name in [one for one in sys.modules if one.partition(".")[0] == "worker"]:
        monkeypatch.delitem(sys.modules, name)
    return told


def test_a_stranger_in_the_workers_place_is_reported_and_not_run(
    pacs_ai: Command, tmp_path: Path, stranger: Path
) -> None:
    ended = pacs_ai("check", "--config", write_config(tmp_path))
    assert ended.code == 1
    assert "'worker'" in ended.err
    assert "is not the one beside pacs_ai" in ended.err
    assert not stranger.exists()


@pytest.mark.parametrize("command", ["listener", "worker", "serve"])
def test_nothing_starts_beside_a_stranger(
    pacs_ai: Command, tmp_path: Path, stranger: Path, command: str
) -> None:
    ended = pacs_ai(command, "--config", write_config(tmp_path))
    assert ended.code == 2
    assert "is not the one beside pacs_ai" in ended.err
    assert not stranger.exists()


def test_our_own_packages_are_no_strangers() -> None:
    refuse_strangers()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pacs_ai.cli.packages._FACES", ("no_such_package",))
        with pytest.raises(ConfigError, match="nowhere"):
            refuse_strangers()


# ---------------------------------------------------------------------- tokens


def _tokens(folder: Path) -> Tokens:
    return Tokens(Database(f"sqlite:///{folder / 'gateway' / 'ledger.sqlite'}"))


def test_a_token_that_ends_soon_is_reported_until_it_has_a_successor(
    pacs_ai: Command, tmp_path: Path
) -> None:
    config = write_config(tmp_path)
    begun(config)
    tokens = _tokens(tmp_path)
    _, soon = tokens.create("pacs", scope=Scope.STOW, lifetime=timedelta(days=29), actor="x")
    _, past = tokens.create("old", scope=Scope.STATUS, lifetime=timedelta(0), actor="x")
    tokens.create("other", scope=Scope.STOW, lifetime=timedelta(days=31), actor="x")
    tokens.create("never", scope=Scope.STOW, lifetime=None, actor="x")
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert ended.err.count("\n") == 2
    assert f"token {soon.id} of pacs (stow) ends on" in ended.err
    assert f"token {past.id} of old (status) ended on" in ended.err
    tokens.create("pacs", scope=Scope.STOW, lifetime=timedelta(days=90), actor="x")
    tokens.revoke(past.id, actor="x")
    assert pacs_ai("check", "--config", config).code == 0


def test_a_ledger_from_before_there_were_tokens_is_only_an_earlier_one(
    pacs_ai: Command, tmp_path: Path
) -> None:
    config = write_config(tmp_path)
    begun(config)
    with closing(sqlite3.connect(tmp_path / "gateway" / "ledger.sqlite")) as other:
        other.execute("DROP TABLE tokens")
        other.execute("UPDATE alembic_version SET version_num = '0001'")
        other.commit()
    ended = pacs_ai("check", "--config", config)
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "ledger: its schema is of an earlier version" in ended.err


def test_a_token_whose_results_go_nowhere_is_reported(pacs_ai: Command, tmp_path: Path) -> None:
    peers = {"pacs": {"ae_titles": ["A"], "host": "127.0.0.1", "port": free_port()}}
    config = write_config(tmp_path, peers=peers, delivery="origin")
    begun(config)
    tokens = _tokens(tmp_path)
    for name, scope in (("pacs", Scope.STOW), ("other", Scope.STOW), ("viewer", Scope.STATUS)):
        tokens.create(name, scope=scope, lifetime=None, actor="x")
    said = pacs_ai("check", "--config", config).err
    assert "token of other: delivery is origin" in said
    assert said.count("token of") == 1
