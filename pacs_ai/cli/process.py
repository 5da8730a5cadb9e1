"""``pacs-ai process`` and ``pacs-ai explain``: the steps on files, without a PACS."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer

from pacs_ai import assembly, routing
from pacs_ai.cli.files import PEER, studies, take_in, walk
from pacs_ai.cli.folders import make_anew
from pacs_ai.cli.roles import reference_commands
from pacs_ai.cli.serve import prepare
from pacs_ai.cli.supervisor import Supervisor
from pacs_ai.errors import InferenceError
from pacs_ai.gateway import Gateway
from pacs_ai.intake import Refused
from pacs_ai.ledger.views import Views
from pacs_ai.processes import heed_interrupts
from pacs_ai.records import identity_fault
from pacs_ai.settings import Identity, Settings, load

_POLL_SECONDS = 0.05
_NO_FILE = "no DICOM file is there: name files, or a folder that holds some"


def explain(paths: Sequence[Path], settings: Settings) -> int:
    """Print every rule's answer for each Study among files; exit code 1 when there is none.

    What would stop a Study before the rules are asked, its age or its identity, is said first.
    """
    rules = routing.parse(settings)
    found, refused = studies(paths)
    for sentence in refused:
        typer.echo(sentence, err=True)
    for study in found:
        typer.echo(f"Study {study.StudyInstanceUID}")
        current = assembly.currency(
            study.header,
            study.received_at,
            max_age=settings.defaults.max_age,
            time_zone=settings.site.time_zone,
        )
        if isinstance(current, assembly.NotCurrent):
            typer.echo(f"not current, so that nothing starts: {current.reason}")
        fault = identity_fault(study, settings.identity)
        if fault:
            typer.echo(f"held, so that nothing starts: {fault}")
        typer.echo(routing.explain_text(routing.route(study, rules, now=study.received_at)))
    if not found and not refused:
        typer.echo(_NO_FILE, err=True)
    return 0 if found else 1


def run(paths: Sequence[Path], out: Path, config: Path, identity: Identity | None) -> int:
    """Take files through every step; results, pictures and ``report.json`` are left in a folder.

    The ledger and spool of the run live in the folder too. Reference models that the settings name are
    started for the run when nothing answers at their address.
    """
    heed = heed_interrupts()
    settings = _file_settings(config, out, identity)
    prepare(settings)
    with running_models(settings):
        gateway = Gateway(settings)
        try:
            refused = _take_in_all(gateway, paths)
            _carry_out_all(gateway, heed)
            report = _report(gateway, refused)
        finally:
            gateway.close()
    (out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    for study in report["studies"]:
        typer.echo(f"{study['StudyInstanceUID']}: {study['state']} ({study['reason']})")
    for line in refused:
        typer.echo(f"refused: {line['file']}: {line['reason']}", err=True)
    if not report["studies"] and not refused:
        typer.echo(_NO_FILE, err=True)
        return 1
    typer.echo(f"results in {out}")
    bad = any(study["state"] in ("failed", "held") for study in report["studies"])
    return 1 if bad or refused or not report["studies"] else 0


def _file_settings(config: Path, out: Path, identity: Identity | None) -> Settings:
    base = load(config)
    data = out / "gateway"
    make_anew(data)  # a run starts from nothing, or it would say "duplicate"
    released = any(one.narrative for one in base.destinations.values())
    folder = {"kind": "folder", "path": str(out), "profile": "all", "narrative": released}
    return load(
        config,
        overrides={
            "data": str(data),
            "ledger": None,
            "peers": {PEER: {"ae_titles": ["FILE"], "quiet": "0s"}},
            "destinations": {"folder": folder},
            "delivery": ["folder"],
            "identity": str(identity or base.identity),
        },
    )


@contextmanager
def running_models(settings: Settings) -> Iterator[None]:
    """Run the reference models whose ports nobody answers, for the length of the block."""
    commands = {
        name: command
        for name, command in reference_commands(settings).items()
        if not _answers(settings.endpoints[name].url)
    }
    supervisor = Supervisor(commands, log_folder=settings.data / "log")
    supervisor.start()
    try:
        late = supervisor.wait_ready(seconds=60)
        if late:
            raise InferenceError(f"reference models did not start: {', '.join(late)} (see the log)")
        yield
    finally:
        supervisor.stop()


def _answers(url: str) -> bool:
    address = urlsplit(url)
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address.hostname or "", address.port or 443)) == 0


def _take_in_all(gateway: Gateway, paths: Sequence[Path]) -> list[dict[str, str]]:
    refused = []
    for path in walk(paths):
        answer = take_in(gateway, path)
        if isinstance(answer, str):
            refused.append({"file": path.name, "reason": answer})
        elif isinstance(answer, Refused):
            refused.append({"file": path.name, "reason": answer.reason})
    return refused


def _carry_out_all(gateway: Gateway, heed: Callable[[], None]) -> None:
    """Carry out work in this process until none is left, waiting for what is put off."""
    queues = Gateway.queue_names(gateway.settings)
    while True:
        heed()
        busy = [queue for queue in queues if gateway.carry_out(queue)]
        if busy:
            continue
        if not gateway.ledger.waits():
            return
        time.sleep(_POLL_SECONDS)


def _report(gateway: Gateway, refused: list[dict[str, str]]) -> dict[str, Any]:
    views = Views(gateway.ledger.database)
    timelines = [views.timeline(study["StudyInstanceUID"]) for study in views.studies()]
    return {"studies": timelines, "workitems": views.workitems(), "refused": refused}
