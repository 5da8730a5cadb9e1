"""``pacs-ai status``, ``instances``, ``pause``, ``resume``, ``release``: asking and steering a gateway."""

from __future__ import annotations

import getpass
import json
import sys
from typing import Any, Literal

import typer
from rich.table import Column, Table

from pacs_ai.certificates import held
from pacs_ai.cli import disk
from pacs_ai.cli.screen import screen
from pacs_ai.ledger.presence import found_database, found_ledger
from pacs_ai.ledger.rows import Kind
from pacs_ai.ledger.views import Views
from pacs_ai.processes import listening
from pacs_ai.settings import Settings

_UID_COLUMNS, _LONGEST_UID = 32, 64
_NO_STUDY = "no such Study is held: check its UID or Accession Number, and the peer's send log"
_SAY_WHICH = (
    "Instances of this Study contradict each other, so that nothing of it can start: find out at the sender "
    "which are right, and say it with --take first or --take newest"
)
_REFUSALS = {
    "0x0110": "unexpected: the log says what",
    "0x0122": "of no Storage SOP Class",
    "0x0124": "not a configured peer",
    "0xA700": "out of resources: disk or ledger",
    "0xA900": "data set and request differ",
    "0xC000": "cannot be read, or too large",
    "0xC122": "in no transfer syntax of the standard",
}


def print_status(
    settings: Settings, study: str | None, accession: str | None, form: Literal["json", "text"]
) -> int:
    """Print where every Study stands, or the timelines of those asked for; 1 when none is found."""
    database = found_database(settings)
    views = Views(database)
    try:
        if study is None and accession is None:
            face = settings.listener
            processes = {"wanted": face.processes, "listening_here": listening(face.port)}
            health = views.health()
            unusable = filter(None, (one.problem for one in held(settings)))
            problems = [*health["problems"], *disk.problems(settings), *unusable]
            report: Any = {
                **health,
                "healthy": not problems,
                "problems": problems,
                "disk": disk.report(settings, database),
                "listener_processes": processes,
                "studies": views.studies(),
            }
        else:
            found = views.find(study=study, accession_number=accession)
            if not found:
                typer.echo(_NO_STUDY, err=True)
                return 1
            report = [views.timeline(uid) for uid in found]
        if form == "json":
            typer.echo(json.dumps(report))
        elif isinstance(report, list):
            _print_timelines(report)
        else:
            _print_overview(report)
            typer.echo("\n".join(disk.lines(settings, database)))
    finally:
        database.close()
    return 0


def print_instances(settings: Settings, study: str | None) -> int:
    """Print every Instance that was taken in, one a line, for reconciling with a PACS; 1 for no Study."""
    database = found_database(settings)
    try:
        found = Views(database).instances(study)
    finally:
        database.close()
    for one in found:
        typer.echo(f"{one['SOPInstanceUID']} {one['digest']} {one['role']} {one['state']}")
    if study is not None and not found:
        typer.echo(_NO_STUDY, err=True)
        return 1
    return 0


def set_switch(settings: Settings, name: str, wish: Literal["pause", "resume"]) -> str:
    """Pause or resume delivery or routing; return what to tell."""
    ledger = found_ledger(settings)
    try:
        ledger.set_switch(name, actor=getpass.getuser(), paused=wish == "pause")
    finally:
        ledger.close()
    if wish == "pause":
        return f"{name} is paused; everything else goes on, and nothing is lost"
    return f"{name} goes on"


def release_study(settings: Settings, study: str, take: str | None) -> int:
    """Let a Study's held and failed work start again; 1 when nothing of it is held."""
    ledger = found_ledger(settings)
    try:
        views = Views(ledger.database)
        if not views.find(study=study, accession_number=None):
            typer.echo(_NO_STUDY, err=True)
            return 1
        if take is None and any(one["state"] == "conflict" for one in views.instances(study)):
            typer.echo(_SAY_WHICH, err=True)
            return 1
        patience = {
            Kind.INFER: settings.defaults.deadline,
            Kind.DELIVER: settings.defaults.delivery_deadline,
        }
        count = ledger.release(study, actor=getpass.getuser(), take=take, patience=patience)
    finally:
        ledger.close()
    again = "1 piece of work starts again" if count == 1 else f"{count} pieces of work start again"
    typer.echo(again if count else "nothing of this Study is held")
    return 0 if count else 1


def _print_overview(report: dict[str, Any]) -> None:
    for problem in report["problems"]:
        typer.echo(f"PROBLEM: {problem}")
    for name in report["paused"]:
        typer.echo(f"PAUSED: {name} (pacs-ai resume {name})")
    processes = report["listener_processes"]
    typer.echo(
        f"listener: {processes['listening_here']} of {processes['wanted']} processes listen on this machine"
    )
    for status, one in report["refused"].items():
        why = _REFUSALS.get(status, "")
        typer.echo(f"refused: {one['number']} with {status} ({why}), the last at {one['last']}")
    # A UID that is cut is no UID; where nobody watches it stands on one line, to be searched for.
    width = _UID_COLUMNS if sys.stdout.isatty() else _LONGEST_UID
    uid = Column("Study", overflow="fold", min_width=width)
    at = Column("last Instance (UTC)", overflow="fold")
    table = Table(uid, "from", at, "Instances", "state", "why")
    for study in report["studies"]:
        count = ", ".join(f"{number} {role}" for role, number in study["instances"].items())
        if study["removed"]:
            count += f" ({study['removed']} removed)"
        table.add_row(
            study["StudyInstanceUID"],
            study["peer"],
            study["last_received"],
            count,
            study["state"],
            study["reason"],
        )
    screen().print(table)


def _print_timelines(timelines: list[dict[str, Any]]) -> None:
    for one in timelines:
        typer.echo(f"Study {one['StudyInstanceUID']} from {one['peer']}: {one['state']}")
        typer.echo(f"  {one['reason']}")
        for version in one["versions"]:
            note = version["not_current"] or version["evidence"]
            typer.echo(f"  version {version['number']} frozen {version['frozen']}: {note}")
        for verdict in one["verdicts"]:
            said = "yes" if verdict["matched"] else "no"
            typer.echo(f"  rule {verdict['rule']}: {said}: {verdict['deciding']}")
        for refusal in one["refusals"]:
            typer.echo(f"  not suitable: {refusal['rule']}: {refusal['reason']}")
        for job in one["jobs"]:
            why = f": {job['reason']}" if job["reason"] else ""
            typer.echo(f"  {job['model']} ({job['rule']}): {job['outcome']}{why}")
        for delivery in one["deliveries"]:
            last = delivery["receipts"][-1] if delivery["receipts"] else {}
            detail = f" {last.get('detail', '')}".rstrip()
            typer.echo(
                f"  {delivery['kind']} to {delivery['destination']}: {delivery['state']}{detail}"
            )
        for item in one["workitems"]:
            typer.echo(f"  Workitem {item['label']} {item['priority']}: {item['comments']}")
        for event in one["events"]:
            why = f": {event['reason']}" if event["reason"] else ""
            typer.echo(f"  {event['at']} {event['kind']} by {event['actor']}{why}")
