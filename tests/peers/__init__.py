"""Real peers that tests start and stop: PACS, toolkits and model servers, each in a module of its own."""

import os
import random
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

_PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/bin"])
_CHANCE = random.SystemRandom()  # tests run side by side, and some set a seed


def require(binary: str) -> Path:
    """Return where a program of a peer is; a missing one fails the test.

    ``ALLOW_MISSING_PEERS=1`` in the environment skips the test instead; CI never sets it.
    """
    found = shutil.which(binary, path=_PLACES)
    if found is None:
        missing(f"the program {binary}")
    return Path(found)


def require_file(path: Path) -> Path:
    """Return a file that a peer needs, or fail (or skip) as :func:`require` does."""
    if not path.is_file():
        missing(f"the file {path}")
    return path


def missing(what: str) -> NoReturn:
    """Fail the running test because a peer is not there, or skip it where that is allowed."""
    message = f"{what} is not here: `make test` installs the packages of the peers"
    if os.environ.get("ALLOW_MISSING_PEERS") == "1":
        pytest.skip(message)
    pytest.fail(message)


def free_port() -> int:
    """Return a TCP port that nobody listens on now.

    It is below those that the kernel hands out (ip(7), ``ip_local_port_range``): one of them may become
    the own port of whoever connects somewhere, before the peer that this is meant for listens.
    """
    while True:
        port = _CHANCE.randrange(12_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
