"""A gateway that runs for a test: real processes, short times said openly, models shared by a session."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import yaml

from pacs_ai.cli.demo import send
from pacs_ai.cli.roles import reference_commands
from pacs_ai.cli.serve import commands, prepare
from pacs_ai.cli.supervisor import Supervisor
from pacs_ai.errors import DeliveryError
from pacs_ai.ledger import Ledger
from pacs_ai.ledger.views import Views
from pacs_ai.settings import Settings, load
from tests.peers import free_port

ROOT = Path(__file__).parents[1]
ENDED = ("done", "nothing_found", "not_suitable", "held", "failed", "no_rule", "not_current")
SHORT_TIMES = {"lease": "2s", "renew": "500ms", "bell": "200ms", "backoff": ["300ms", "1s"]}


@dataclass(frozen=True)
class Models:
    """Reference models that are up: their addresses and key."""

    urls: Mapping[str, str]
    key: str


@dataclass
class Running:
    """A gateway under a supervisor."""

    settings: Settings
    supervisor: Supervisor
    views: Views
    ledger: Ledger

    def send(self, data_sets: Sequence[pydicom.Dataset], *, seconds: float = 30) -> None:
        """Send as a modality does: again after a failure, until everything was taken."""
        deadline = time.monotonic() + seconds
        while True:
            self.supervisor.look()
            try:
                send(data_sets, self.settings)
            except DeliveryError:
                assert time.monotonic() < deadline, "the listener takes nothing"
                time.sleep(0.2)
            else:
                return

    def wait_ended(self, study: str, *, seconds: float = 90) -> dict[str, Any]:
        """Return a Study's timeline once nothing of it is under way."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.supervisor.look()
            if self.views.find(study=study, accession_number=None):
                timeline = self.views.timeline(study)
                waiting = [w for w in timeline["work"] if w["state"] in ("ready", "running")]
                if timeline["state"] in ENDED and not waiting:
                    return timeline
            time.sleep(0.1)
        raise AssertionError(f"not ended in {seconds} s: {self.views.timeline(study)['work']}")

    def wait(self, true: Callable[[], bool], *, seconds: float = 30) -> None:
        """Wait until something is true."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, "it did not come true in time"
            self.supervisor.look()
            time.sleep(0.1)


def write_settings(folder: Path, models: Models, **sections: Any) -> Path:
    """Write the demo's settings with a test's own folder, ports, short times and sections."""
    values = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    values["data"] = str(folder / "gateway")
    values["listener"] |= {"port": free_port(), "processes": 1}  # starts in half the time
    values["web"]["port"] = free_port()
    values["peers"]["demo"]["quiet"] = "500ms"
    values["destinations"]["results"]["path"] = str(folder / "results")
    values["work"] = SHORT_TIMES
    values["worker_processes"] = 2
    for name, endpoint in values["endpoints"].items():
        endpoint["url"] = models.urls[name]
        endpoint["key"] = models.key
    values.update(sections)
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@contextmanager
def running_models(folder: Path) -> Iterator[Models]:
    """Run every reference model of the demo for the length of the block."""
    values = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    key = f"file:{folder / 'gateway' / 'keys' / 'reference.key'}"
    urls = {name: f"http://127.0.0.1:{free_port()}/score" for name in values["endpoints"]}
    models = Models(urls, key)
    settings = load(write_settings(folder, models))
    prepare(settings)
    supervisor = Supervisor(reference_commands(settings), log_folder=folder / "log")
    supervisor.start()
    try:
        assert not supervisor.wait_ready(seconds=90)
        yield models
    finally:
        supervisor.stop()


@contextmanager
def running_gateway(
    path: Path,
    *,
    failpoints: Sequence[str] = (),
    once: bool = True,
    roles: Sequence[str] = ("worker", "listener"),
) -> Iterator[Running]:
    """Run the roles of a settings file, with failpoints armed in all of them.

    ``once``: the process that dies disarms its place; otherwise every process dies there.
    """
    settings = load(path)
    prepare(settings)
    wanted = {name: line for name, line in commands(path, settings).items() if name in roles}
    environment = {"PACS_AI_FAILPOINT": ",".join(failpoints)}
    if once:
        armed = path.parent / "armed"
        armed.mkdir(exist_ok=True)
        for place in failpoints:
            (armed / place).touch()
        environment["PACS_AI_FAILPOINT_ONCE"] = str(armed)
    supervisor = Supervisor(
        wanted, log_folder=path.parent / "log", restart_delay=0.1, environment=environment
    )
    ledger = Ledger(settings.ledger_url, settings.work)
    supervisor.start()
    try:
        late = supervisor.wait_ready(seconds=60)
        assert not late, f"did not start: {late}: {_logs(path.parent / 'log')}"
        yield Running(settings, supervisor, Views(ledger.database), ledger)
    finally:
        supervisor.stop()
        ledger.close()


def _logs(folder: Path) -> str:
    return "\n".join(
        one.read_text()[-2000:] for one in sorted(folder.iterdir()) if one.stat().st_size
    )
