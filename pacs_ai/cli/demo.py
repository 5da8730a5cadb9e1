"""``pacs-ai demo``: the whole gateway on loopback, phantom Studies over C-STORE, and what comes back."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pydicom
import typer
import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table

from pacs_ai import phantom
from pacs_ai.cli.folders import make_anew
from pacs_ai.cli.screen import screen
from pacs_ai.cli.serve import commands, prepare
from pacs_ai.cli.supervisor import Supervisor
from pacs_ai.delivery import Answer, Outgoing, sender
from pacs_ai.errors import DeliveryError
from pacs_ai.ledger.engine import Database
from pacs_ai.ledger.views import Views
from pacs_ai.processes import heed_interrupts
from pacs_ai.settings import DicomDestination, Settings, load

_STEPS = ("assemble", "route", "infer", "encode", "deliver", "worklist")
_ENDED = ("done", "nothing_found", "not_suitable", "held", "failed", "no_rule", "not_current")
_WAIT_SECONDS = 600.0
_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Sent:
    """A phantom Study on its way: what it is called here, and what must come of it."""

    title: str
    uid: str
    expected: str
    workitem: str | None


def run(out: Path, config: Path) -> int:
    """Show the main job; return 0 only when everything arrived."""
    heed = heed_interrupts()
    out = out.resolve()
    make_anew(out)
    path = out / "settings.yaml"
    settings = demo_settings(config, path, out)
    prepare(settings)
    console = screen()
    console.print("Starting listener, worker, web face and four reference models ...")
    supervisor = Supervisor(commands(path, settings), log_folder=out / "log")
    supervisor.start()
    database = Database(settings.ledger_url)
    try:
        late = supervisor.wait_ready(seconds=90)
        if late:
            typer.echo(f"did not start: {', '.join(late)} (see {out / 'log'})", err=True)
            return 1
        sent = _send_phantoms(console, settings)
        views = Views(database)
        _watch(console, supervisor, views, sent, heed)
        report = [views.timeline(one.uid) for one in sent]
    finally:
        supervisor.stop()
        database.close()
    (out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return _conclude(console, settings, sent, report, out)


def demo_settings(config: Path, path: Path, out: Path) -> Settings:
    """Write the demo's settings with free ports and its own folders."""
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    ports = _free_ports(2 + len(values["endpoints"]))
    values["data"] = str(out / "gateway")
    values["listener"]["port"] = next(ports)
    values["web"]["port"] = next(ports)
    for endpoint in values["endpoints"].values():
        address = urlsplit(endpoint["url"])
        endpoint["url"] = urlunsplit(address._replace(netloc=f"{address.hostname}:{next(ports)}"))
        endpoint["key"] = f"file:{out / 'gateway' / 'keys' / 'reference.key'}"
    for destination in values["destinations"].values():
        destination["path"] = str(out / "results")
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return load(path)


def _free_ports(count: int) -> Iterator[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return iter(ports)


def _send_phantoms(console: Console, settings: Settings) -> list[Sent]:
    when = datetime.now(UTC)
    name = when.isoformat()
    chest, thorax = phantom.chest_radiographs, phantom.thorax_ct
    studies: tuple[tuple[str, Callable[[], Sequence[pydicom.Dataset]], str, str | None], ...] = (
        (
            "chest, normal",
            lambda: chest(name=f"{name}/normal", when=when, opacity=False),
            "nothing_found",
            None,
        ),
        (
            "chest, opacity",
            lambda: chest(name=f"{name}/opacity", when=when, opacity=True),
            "done",
            "AI-CXR-REVIEW",
        ),
        ("thorax CT", lambda: thorax(name=f"{name}/ct", when=when), "done", None),
    )
    sent = []
    for title, make, expected, workitem in studies:
        with console.status(f"Making phantom: {title}"):
            data_sets = make()
        seconds = send(data_sets, settings)
        console.print(f"Sent {title}: {len(data_sets)} Instances by C-STORE in {seconds:.1f} s")
        sent.append(Sent(title, str(data_sets[0].StudyInstanceUID), expected, workitem))
    return sent


def send(data_sets: Sequence[pydicom.Dataset], settings: Settings) -> float:
    """Send a Study to the gateway's listener by C-STORE over one association; return the seconds.

    Raises
    ------
    DeliveryError
        When the listener did not take every Instance.
    """
    peer = next(iter(settings.peers.values()))
    face = settings.listener
    target = DicomDestination(
        host=face.host,
        port=face.port,
        ae_title=face.ae_title,
        calling_ae_title=peer.ae_titles[0],
    )
    with tempfile.TemporaryDirectory(prefix="pacs-ai-demo-") as folder:
        batch = tuple(_to_file(one, Path(folder)) for one in data_sets)
        began = time.monotonic()
        receipts = sender("dicom")(batch, target)
        seconds = time.monotonic() - began
    refused = [one for one in receipts if one.answer is not Answer.STORED]
    if refused:
        raise DeliveryError(f"{len(refused)} Instances were not taken: {refused[0].detail}")
    return seconds


def _to_file(data_set: pydicom.Dataset, folder: Path) -> Outgoing:
    path = folder / f"{data_set.SOPInstanceUID}.dcm"
    data_set.save_as(path, enforce_file_format=True)
    return Outgoing(
        SOPInstanceUID=str(data_set.SOPInstanceUID),
        SOPClassUID=str(data_set.SOPClassUID),
        StudyInstanceUID=str(data_set.StudyInstanceUID),
        transfer_syntax_uid=str(data_set.file_meta.TransferSyntaxUID),
        kind="source",
        path=path,
    )


# ---------------------------------------------------------------------- watching


def _watch(
    console: Console,
    supervisor: Supervisor,
    views: Views,
    sent: list[Sent],
    heed: Callable[[], None],
) -> None:
    """Show every Study's steps until all have ended: live on a terminal, JSON lines elsewhere."""
    deadline = time.monotonic() + _WAIT_SECONDS
    told: set[str] = set()
    with live(console) as display:
        while time.monotonic() < deadline:
            supervisor.look()
            timelines = [views.timeline(one.uid) for one in sent]
            heed()
            if display is None:
                _tell_events(timelines, told)
            else:
                display.update(_progress(sent, timelines))
            if all(_over(one) for one in timelines):
                return
            time.sleep(_LOOK_SECONDS)


@contextmanager
def live(console: Console) -> Iterator[Live | None]:
    """Yield a display when a terminal watches, else None."""
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, refresh_per_second=4) as display:
        yield display


def _over(timeline: dict[str, Any]) -> bool:
    waiting = any(one["state"] in ("ready", "running") for one in timeline["work"])
    return timeline["state"] in _ENDED and not waiting


def _tell_events(timelines: list[dict[str, Any]], told: set[str]) -> None:
    for timeline in timelines:
        for event in timeline["events"]:
            line = json.dumps({"study": timeline["StudyInstanceUID"], **event})
            if line not in told:
                told.add(line)
                sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _progress(sent: list[Sent], timelines: list[dict[str, Any]]) -> Table:
    table = Table("Study", *_STEPS, "state")
    for one, timeline in zip(sent, timelines, strict=True):
        cells = [_step_cell([w for w in timeline["work"] if w["kind"] == step]) for step in _STEPS]
        table.add_row(one.title, *cells, timeline["state"])
    return table


def _step_cell(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    done = sum(row["state"] == "done" for row in rows)
    bad = [row["state"] for row in rows if row["state"] in ("held", "failed")]
    if bad:
        return f"[red]{bad[0]}[/red]"
    colour = "green" if done == len(rows) else "yellow"
    return f"[{colour}]{'■' * done}{'□' * (len(rows) - done)}[/{colour}]"


# ---------------------------------------------------------------------- the end


def _conclude(
    console: Console,
    settings: Settings,
    sent: list[Sent],
    report: list[dict[str, Any]],
    out: Path,
) -> int:
    table = Table("Study", "rule → model", "outcome", "results → destination", "Workitem", "s")
    faults = []
    for one, timeline in zip(sent, report, strict=True):
        table.add_row(
            f"{one.title}\n{timeline['state']}",
            "\n".join(f"{job['rule']} → {job['endpoint']}" for job in timeline["jobs"]),
            "\n".join(str(job["outcome"]) for job in timeline["jobs"]),
            _delivered(timeline["deliveries"]),
            "\n".join(f"{item['label']}\n{item['priority']}" for item in timeline["workitems"]),
            f"{_seconds(timeline):.1f}",
        )
        faults += _missing(one, timeline)
    console.print(table)
    for timeline, one in zip(report, sent, strict=True):
        console.print(f"{one.title}: {timeline['reason']}")
    results = out / "results"
    pictures = sorted(results.rglob("*.png"))
    if len(pictures) < len(sent):
        faults.append(f"{len(pictures)} pictures instead of {len(sent)} in {results}")
    console.print(f"DICOM results and {len(pictures)} pictures: {results}", soft_wrap=True)
    console.print(f"Everything else (settings, log, ledger, report.json): {out}", soft_wrap=True)
    console.print(
        "These are reference models: image analysis for demonstration, not for clinical use."
    )
    for fault in faults:
        typer.echo(f"MISSING: {fault}", err=True)
    return 1 if faults else 0


def _delivered(deliveries: list[dict[str, Any]]) -> str:
    """Return one line for each kind, destination and state, with how many there are."""
    counted = Counter((one["kind"], one["destination"], one["state"]) for one in deliveries)
    return "\n".join(
        f"{number} {kind} → {destination}: {state}"
        for (kind, destination, state), number in counted.items()
    )


def _missing(one: Sent, timeline: dict[str, Any]) -> list[str]:
    faults = []
    if timeline["state"] != one.expected:
        faults.append(f"{one.title} is {timeline['state']}, expected {one.expected}")
    if not timeline["deliveries"]:
        faults.append(f"{one.title}: nothing was delivered")
    faults += [
        f"{one.title}: {delivery['kind']} is {delivery['state']}"
        for delivery in timeline["deliveries"]
        if delivery["state"] != "stored"
    ]
    labels = {item["label"] for item in timeline["workitems"]}
    if one.workitem is not None and one.workitem not in labels:
        faults.append(f"{one.title}: no Workitem {one.workitem}")
    return faults


def _seconds(timeline: dict[str, Any]) -> float:
    """Return seconds from the last Instance to the end of the last delivery."""
    ends = [
        datetime.fromisoformat(one["ended"])
        for one in timeline["work"]
        if one["kind"] == "deliver" and one["ended"]
    ]
    last = datetime.fromisoformat(timeline["last_received"])
    return max(((end - last).total_seconds() for end in ends), default=0.0)
