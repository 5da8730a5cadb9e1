"""DCMTK's Storage SCP and SCU: the other toolkit's reading of the same standard."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers import free_port, require


@contextmanager
def storescp(folder: Path, *arguments: str) -> Iterator[int]:
    """Run ``storescp``, which keeps what it gets byte for byte in a folder; yields its port.

    Parameters
    ----------
    folder : Path
        For the received files; made when it does not exist.
    *arguments : str
        Further options of ``storescp``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    program = require("storescp")
    with (folder.parent / "storescp.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                "--bit-preserving",
                "--unique-filenames",
                "--output-directory",
                folder,
                *arguments,
                str(port),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_open(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def storescu(paths: list[Path], *arguments: str, port: int, called: str, calling: str) -> None:
    """Send files (or whole folders) with ``storescu``, proposing the SOP Classes that they have.

    Parameters
    ----------
    paths : list of Path
    *arguments : str
        Further options; it proposes a compressed transfer syntax only when told
        (``--propose-jpeg8`` for JPEG baseline).
    port : int
        Of the receiver, on loopback.
    called, calling : str
        AE titles.

    Raises
    ------
    subprocess.CalledProcessError
        When it says that one of them did not arrive.
    """
    subprocess.run(
        [
            require("storescu"),
            "--required",
            "--scan-directories",
            "--recurse",
            *("--aetitle", calling),
            *("--call", called),
            *arguments,
            "127.0.0.1",
            str(port),
            *paths,
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )


def _wait_until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("storescp does not listen")
