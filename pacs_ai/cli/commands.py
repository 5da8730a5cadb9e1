"""Every command and its options; what a command does is imported when it runs."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pacs_ai import __version__
from pacs_ai.ledger.tokens import Scope as TokenScope
from pacs_ai.settings import Identity, Settings, load, parse_duration

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
token_app = typer.Typer(help="Tokens of the HTTP face.", no_args_is_help=True)
app.add_typer(token_app, name="token")
audit_app = typer.Typer(help="The record of what happened.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")
prototypes_app = typer.Typer(
    help="What pictures look like to the site's own embedding model.", no_args_is_help=True
)
app.add_typer(prototypes_app, name="prototypes")

Config = Annotated[
    Path,
    typer.Option("--config", "-c", help="Settings file (YAML).", envvar="PACS_AI_CONFIG"),
]
Files = Annotated[list[Path], typer.Argument(help="DICOM files or folders of them.", exists=True)]
AsSheet = Annotated[
    bool, typer.Option("--sheet", help="Print what the vendor of the PACS must set up instead.")
]
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
def check(
    config: Config = DEMO_CONFIG,
    sheet: AsSheet = False,  # noqa: FBT002
) -> None:
    """Look for every problem at once: settings, rules, ledger, tokens, clock, disk, ports, neighbours."""
    from pacs_ai.cli.check import run  # noqa: PLC0415
    from pacs_ai.cli.sheet import text  # noqa: PLC0415

    if sheet:
        typer.echo(text(_settings(config)))
        return
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

    sys.exit(print_instances(_settings(config), study))


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
def strays(
    config: Config = DEMO_CONFIG,
    remove: Annotated[bool, typer.Option("--remove", help="Remove them, after a look.")] = False,  # noqa: FBT002 - typer's way
) -> None:
    """Tell which files in the spool no row of the ledger knows: refused, or another ledger's."""
    from pacs_ai.cli.disk import tell_strays  # noqa: PLC0415

    tell_strays(_settings(config), remove=remove)


@app.command()
def listener(
    config: Config = DEMO_CONFIG,
    number: Annotated[int | None, typer.Option("--process", hidden=True)] = None,
) -> None:
    """Run the DICOM listener alone."""
    from pacs_ai.cli.roles import listener as run  # noqa: PLC0415
    from pacs_ai.cli.roles import listener_process  # noqa: PLC0415

    if number is None:
        sys.exit(run(_settings(config), config))
    listener_process(_settings(config), number)


@app.command()
def worker(config: Config = DEMO_CONFIG) -> None:
    """Run a Celery worker alone; without a broker in the settings it brings its own."""
    from pacs_ai.cli.roles import worker as run  # noqa: PLC0415

    run(_settings(config))


@app.command()
def web(config: Config = DEMO_CONFIG) -> None:
    """Run the web face alone: STOW-RS in, worklist by UPS-RS, status, health."""
    from pacs_ai.cli.roles import web as run  # noqa: PLC0415

    run(_settings(config))


@models_app.command("serve")
def models_serve(config: Config = DEMO_CONFIG) -> None:
    """Run the reference models that the settings name, one process and port each."""
    from pacs_ai.cli.roles import models as run  # noqa: PLC0415

    sys.exit(run(_settings(config)))


@token_app.command("create")
def token_create(
    name: Annotated[str, typer.Option(help="Who uses it: the peer of what is stored with it.")],
    scope: Annotated[TokenScope, typer.Option(help="What it opens.")],
    expires: Annotated[str, typer.Option(help="How long it is valid: 90d, 12h, or off.")] = "90d",
    config: Config = DEMO_CONFIG,
) -> None:
    """Make a token and print it, for the only time."""
    from pacs_ai.cli.tokens import create  # noqa: PLC0415

    create(_settings(config), name, scope, _lifetime(expires))


@token_app.command("list")
def token_list(config: Config = DEMO_CONFIG) -> None:
    """List every token that was made, without its secret."""
    from pacs_ai.cli.tokens import print_tokens  # noqa: PLC0415

    print_tokens(_settings(config))


@token_app.command("revoke")
def token_revoke(
    token: Annotated[str, typer.Argument(help="Its id, as listed.")], config: Config = DEMO_CONFIG
) -> None:
    """Make a token worth nothing from now on."""
    from pacs_ai.cli.tokens import revoke  # noqa: PLC0415

    sys.exit(revoke(_settings(config), token))


_LONGEST_LIFETIME = timedelta(days=36_525)


def _lifetime(text: str) -> timedelta | None:
    try:
        lifetime = None if text == "off" else parse_duration(text)
        if lifetime is not None and not timedelta() < lifetime < _LONGEST_LIFETIME:
            raise ValueError("a token holds for more than nothing and less than a hundred years")
        return lifetime
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires") from error


@prototypes_app.command("make")
def prototypes_make(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Labelled DICOM files: view/frontal, body/chest, modality/CT ...",
            exists=True,
            file_okay=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    config: Config = DEMO_CONFIG,
    endpoint: Annotated[
        str | None, typer.Option(help="Of several insight endpoints the one to ask.")
    ] = None,
) -> None:
    """Have the site's labelled Studies embedded, and write what tells their pictures apart."""
    from pacs_ai.cli.log import log_to_stderr  # noqa: PLC0415
    from pacs_ai.cli.prototypes import make  # noqa: PLC0415

    log_to_stderr()
    sys.exit(make(folder, _settings(config), endpoint, out))


@audit_app.command("verify")
def audit_verify(
    config: Config = DEMO_CONFIG,
    noted: Annotated[
        str | None, typer.Option(help="A seal noted before, which must still be in the chain.")
    ] = None,
) -> None:
    """Look whether any sealed event was changed, taken out, put in or moved; exit 1 when one was."""
    from pacs_ai.cli.audit import verify  # noqa: PLC0415

    sys.exit(verify(_settings(config), noted))


def echo_json(value: object) -> None:
    """Print one JSON document on one line."""
    typer.echo(json.dumps(value, separators=(",", ":")))
