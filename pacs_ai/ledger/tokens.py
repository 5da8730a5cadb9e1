"""Tokens of the HTTP face: made once, shown once, kept as a digest.

A token is ``pacsai_ID_SECRET``: the id finds its row, the secret of 256 random bits proves it. The ledger
holds the SHA-256 of the whole, so that a stolen copy of the ledger opens nothing.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, insert, select, update

from pacs_ai.errors import PacsAiError
from pacs_ai.ledger import events, tables
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.engine import Database

_TOKEN = re.compile(r"pacsai_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOBODY = "0" * 64


class Scope(StrEnum):
    """What a token opens."""

    STOW = "stow"
    WORKLIST = "worklist"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; never the token itself.

    Attributes
    ----------
    id : str
        The part of it that may be shown.
    name : str
        Who uses it; the peer of what is stored with it.
    scope : Scope
    created_at : datetime
    created_by : str
    expires_at, revoked_at : datetime or None
    """

    id: str
    name: str
    scope: Scope
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None

    def state(self, at: datetime) -> str:
        """Return ``valid``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= at:
            return "expired"
        return "valid"


class Tokens:
    """The tokens that a ledger knows.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, *, scope: Scope, lifetime: timedelta | None, actor: str
    ) -> tuple[str, Token]:
        """Make a token; return it, for the only time, and what is known of it.

        Raises
        ------
        PacsAiError
            When the name is none that a peer may have.
        """
        if not _NAME.fullmatch(name):
            raise PacsAiError(
                "a token's name has 1 to 64 letters, digits, dots, dashes and underscores, and "
                "begins with a letter or digit: choose another --name"
            )
        key, at = secrets.token_hex(8), now()
        text = f"pacsai_{key}_{secrets.token_urlsafe(32)}"
        made = Token(
            id=key,
            name=name,
            scope=scope,
            created_at=at,
            created_by=actor,
            expires_at=None if lifetime is None else at + lifetime,
            revoked_at=None,
        )
        with self._database.write() as connection:
            connection.execute(
                insert(tables.tokens).values(
                    id=made.id,
                    name=made.name,
                    scope=made.scope.value,
                    digest=_digest(text),
                    created_at=made.created_at,
                    created_by=made.created_by,
                    expires_at=made.expires_at,
                )
            )
            detail = {"id": key, "name": name, "scope": scope.value}
            events.record(connection, "token created", actor=actor, detail=detail)
        return text, made

    def listed(self) -> list[Token]:
        """Return every token there ever was, the oldest first."""
        table = tables.tokens
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.created_at, table.c.id)).all()
        return [_token(row) for row in rows]

    def revoke(self, key: str, *, actor: str) -> bool:
        """Make a token worth nothing from now on; False when there is no valid one of this id."""
        table = tables.tokens
        with self._database.write() as connection:
            found = connection.execute(
                update(table)
                .where(table.c.id == key, table.c.revoked_at.is_(None))
                .values(revoked_at=now())
                .returning(table.c.name)
            ).first()
            if found is None:
                return False
            detail = {"id": key, "name": found.name}
            events.record(connection, "token revoked", actor=actor, detail=detail)
        return True

    def find(self, text: str) -> Token | None:
        """Return the token of this text while it is valid; None says nothing of why."""
        shape = _TOKEN.fullmatch(text)
        table = tables.tokens
        with self._database.read() as connection:
            query = select(table).where(table.c.id == (shape[1] if shape else ""))
            row = connection.execute(query).first()
        # Compared even where there is no row, so that the time it takes tells nothing.
        proven = hmac.compare_digest(_digest(text), row.digest if row else _NOBODY)
        if row is None or not proven:
            return None
        token = _token(row)
        return token if token.state(now()) == "valid" else None

    def expiring(self, *, before: datetime) -> list[Token]:
        """Return the tokens that end before a time and have no successor, the soonest first.

        A successor has the same name and scope and ends later.
        """
        last: dict[tuple[str, Scope], Token] = {}
        for one in self.listed():
            key = one.name, one.scope
            if one.revoked_at is None and (key not in last or _end(one) > _end(last[key])):
                last[key] = one
        return sorted((one for one in last.values() if _end(one) < before), key=_end)

    def used(self, token: Token, *, stored: int, failed: int, study: str | None) -> None:
        """Record that Instances were sent with a token."""
        detail = {"token": token.id, "stored": stored, "failed": failed}
        with self._database.write() as connection:
            events.record(
                connection, "stored by STOW-RS", actor=token.name, study=study, detail=detail
            )


def _end(token: Token) -> datetime:
    return token.expires_at or datetime.max.replace(tzinfo=UTC)


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()


def _token(row: Row[Any]) -> Token:
    fields = row._mapping
    return Token(
        id=fields["id"],
        name=fields["name"],
        scope=Scope(fields["scope"]),
        created_at=fields["created_at"],
        created_by=fields["created_by"],
        expires_at=fields["expires_at"],
        revoked_at=fields["revoked_at"],
    )
