"""``pacs-ai token``: who may use the HTTP face."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import typer
from rich.table import Table

from pacs_ai.cli.screen import screen
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.presence import open_database
from pacs_ai.ledger.tokens import Scope, Tokens
from pacs_ai.settings import Settings


def create(settings: Settings, name: str, scope: Scope, lifetime: timedelta | None) -> None:
    """Make a token and print it, for the only time."""
    with _tokens(settings) as tokens:
        text, made = tokens.create(name, scope=scope, lifetime=lifetime, actor=getpass.getuser())
    until = "without end" if made.expires_at is None else f"until {made.expires_at:%Y-%m-%d} (UTC)"
    typer.echo(f"token {made.id} of {name}, for {scope}, {until}; shown this once:", err=True)
    typer.echo(text)


def print_tokens(settings: Settings) -> None:
    """Print every token that was made, without its secret."""
    at = now()
    table = Table("id", "name", "scope", "made (UTC)", "by", "expires (UTC)", "state")
    with _tokens(settings) as tokens:
        for one in tokens.listed():
            expires = "never" if one.expires_at is None else f"{one.expires_at:%Y-%m-%d %H:%M}"
            made = f"{one.created_at:%Y-%m-%d %H:%M}"
            row = (one.id, one.name, str(one.scope), made, one.created_by, expires, one.state(at))
            table.add_row(*row)
    screen().print(table)


def revoke(settings: Settings, key: str) -> int:
    """Make a token worth nothing from now on; 1 when there is no such token."""
    with _tokens(settings) as tokens:
        done = tokens.revoke(key, actor=getpass.getuser())
    typer.echo(
        "revoked" if done else "no valid token has this id: see pacs-ai token list", err=not done
    )
    return 0 if done else 1


@contextmanager
def _tokens(settings: Settings) -> Iterator[Tokens]:
    database = open_database(settings)
    try:
        yield Tokens(database)
    finally:
        database.close()
