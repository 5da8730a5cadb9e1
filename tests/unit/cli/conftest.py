"""The command line inside the test's own process, with every global it sets put back."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml

from pacs_ai.cli import main
from pacs_ai.gateway import Gateway
from pacs_ai.settings import load
from tests.peers import free_port

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit code and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def pacs_ai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``pacs-ai`` with the given arguments."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "dumb")

    def run(*arguments: object) -> Ended:
        root, reading = logging.getLogger(), pydicom.config.settings
        former = root.handlers[:], root.level, reading.reading_validation_mode
        hooks = sys.excepthook, threading.excepthook
        with monkeypatch.context() as patched, warnings.catch_warnings():
            patched.setattr(sys, "argv", ["pacs-ai", *map(str, arguments)])
            try:
                with pytest.raises(SystemExit) as caught:
                    main()
            finally:
                root.handlers[:], root.level, reading.reading_validation_mode = former
                sys.excepthook, threading.excepthook = hooks
        said = capsys.readouterr()
        return Ended(int(caught.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of loopback that another program listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def write_config(folder: Path, **sections: Any) -> Path:
    """Write the demo's settings with a folder and ports of the test's own; return the file."""
    values = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    values["data"] = str(folder / "gateway")
    values["listener"] |= {"port": free_port(), "minimum_free": 1, "processes": 1}
    values["web"]["port"] = free_port()
    values["peers"]["demo"]["quiet"] = "0s"
    values["destinations"]["results"]["path"] = str(folder / "results")
    for endpoint in values["endpoints"].values():
        endpoint["url"] = f"http://127.0.0.1:{free_port()}/score"
        endpoint["key"] = f"file:{folder / 'gateway' / 'keys' / 'reference.key'}"
    values |= sections
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def begun(config: Path) -> Path:
    """Let a gateway of these settings have run once; return the file."""
    Gateway(load(config)).close()
    return config
