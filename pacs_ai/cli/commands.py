"""Every command and its options; what a command does is imported when it runs."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pacs_ai import __version__
from pacs_ai.settings import Identity, Settings, load

DEMO_CONFIG = Path(__file__).resolve().parents[2] / "config" / "demo.yaml"

app = typer.Typer(
    name="pacs-ai",
    help="The gateway that puts foundation models to work inside a hospital's PACS.",
    epilog="Start with: pacs-ai demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="The built-in reference models.", no_args_is_help=True)
app.add_typer(models_app, name="models")

Config = Annotated[
    Path,
    typer.Option("--config", "-c", help="Settings file (YAML).", envvar="PACS_AI_CONFIG"),
]
Files = Annotated[list[Path], typer.Argument(help="DICOM files or folders of them.", exists=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class Take(StrEnum):
    """Which of two Instances of one UID counts."""

    FIRST = "first"
    NEWEST = "newest"


class Switch(StrEnum):
    """What can be stopped at once."""

    DELIVERY = "delivery"
    ROUTING = "routing"


def _settings(config: Path) -> Settings:
    return load(config)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,  # noqa: FBT002 - typer's way
) -> None:
    if version:
        typer.echo(f"pacs-ai {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for results and pictures.")] = Path(
        "demo-output"
    ),
) -> None:
    """Start everything, send phantom Studies over C-STORE, and show what comes back."""
    from pacs_ai.cli.demo import run  # noqa: PLC0415 - heavy modules only where they are needed

    sys.exit(run(out, DEMO_CONFIG))


@app.command()
def serve(config: Config = DEMO_CONFIG) -> None:
    """Run the whole gateway on this machine until Ctrl-C: listener, worker, web, reference models."""
    from pacs_ai.cli.serve import run  # noqa: PLC0415

    sys.exit(run(config, _settings(config)))


@app.command()
def check(config: Config = DEMO_CONFIG) -> None:
    """Look for every problem at once: settings, rules, imports, ports, endpoints, peers, disk."""
    from pacs_ai.cli.check import run  # noqa: PLC0415

    sys.exit(run(config))


@app.command()
def process(
    paths: Files,
    out: Annotated[Path, typer.Option(help="Folder for results, pictures and report.json.")],
    config: Config = DEMO_CONFIG,
    identity: Annotated[
        Identity | None, typer.Option(help="Override how Instances without identity are met.")
    ] = None,
) -> None:
    """Take DICOM files through every step without a PACS; only the models are asked over HTTP."""
    from pacs_ai.cli.log import log_to_stderr  # noqa: PLC0415
    from pacs_ai.cli.process import run  # noqa: PLC0415

    log_to_stderr()
    sys.exit(run(paths, out, config, identity))


@app.command()
def explain(paths: Files, config: Config = DEMO_CONFIG) -> None:
    """Say for every rule yes or no, and the condition and value that decided."""
    from pacs_ai.cli.log import log_to_stderr  # noqa: PLC0415
    from pacs_ai.cli.process import explain as run  # noqa: PLC0415

    log_to_stderr()
    sys.exit(run(paths, _settings(config)))


@app.command()
def status(
    config: Config = DEMO_CONFIG,
    study: Annotated[str | None, typer.Option(help="A Study Instance UID.")] = None,
    accession: Annotated[str | None, typer.Option(help="An Accession Number.")] = None,
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Show where every Study stands and why, or the timeline of one."""
    from pacs_ai.cli.status import print_status  # noqa: PLC0415

    sys.exit(print_status(_settings(config), study, accession, "json" if as_json else "text"))


@app.command()
def instances(
    config: Config = DEMO_CONFIG,
    study: Annotated[str | None, typer.Option(help="Only this Study Instance UID.")] = None,
) -> None:
    """List what is held, one Instance a line: SOP Instance UID, SHA-256 of its data set, state."""
    from pacs_ai.cli.status import print_instances  # noqa: PLC0415

    print_instances(_settings(config), study)


@app.command()
def pause(what: Switch, config: Config = DEMO_CONFIG) -> None:
    """Stop delivery or routing at once; what is accepted stays safe and waits."""
    from pacs_ai.cli.status import set_switch  # noqa: PLC0415

    typer.echo(set_switch(_settings(config), what, "pause"))


@app.command()
def resume(what: Switch, config: Config = DEMO_CONFIG) -> None:
    """Let delivery or routing go on."""
    from pacs_ai.cli.status import set_switch  # noqa: PLC0415

    typer.echo(set_switch(_settings(config), what, "resume"))


@app.command()
def release(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: Config = DEMO_CONFIG,
    take: Annotated[
        Take | None,
        typer.Option(help="Which of Instances that contradict each other counts from now on."),
    ] = None,
) -> None:
    """Let a Study's held, failed and refused work start again, after a person has looked."""
    from pacs_ai.cli.status import release_study  # noqa: PLC0415

    sys.exit(release_study(_settings(config), study, take))


@app.command()
def listener(config: Config = DEMO_CONFIG) -> None:
    """Run the DICOM listener alone."""
    from pacs_ai.cli.roles import listener as run  # noqa: PLC0415

    run(_settings(config))


@app.command()
def worker(config: Config = DEMO_CONFIG) -> None:
    """Run a Celery worker alone; without a broker in the settings it brings its own."""
    from pacs_ai.cli.roles import worker as run  # noqa: PLC0415

    run(_settings(config))


@app.command()
def web(config: Config = DEMO_CONFIG) -> None:
    """Run the web face alone: worklist by UPS-RS, status, health."""
    from pacs_ai.cli.roles import web as run  # noqa: PLC0415

    run(_settings(config))


@models_app.command("serve")
def models_serve(config: Config = DEMO_CONFIG) -> None:
    """Run the reference models that the settings name, one process and port each."""
    from pacs_ai.cli.roles import models as run  # noqa: PLC0415

    sys.exit(run(_settings(config)))


def echo_json(value: object) -> None:
    """Print one JSON document on one line."""
    typer.echo(json.dumps(value, separators=(",", ":")))
