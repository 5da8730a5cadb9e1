"""Who may ask for what: bearer tokens (RFC 6750), one scope each."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pacs_ai.ledger.tokens import Scope, Token
from pacs_ai.settings import Reading

Endpoint = Callable[[Request], Response]

_CHALLENGE = 'Bearer realm="pacs-ai"'


class Tokens(Protocol):
    """Where tokens are known; ``pacs_ai.ledger.tokens`` is the real place. Called in threads."""

    def find(self, text: str) -> Token | None:
        """Return the token of this text while it is valid."""


class Guard:
    """Lets a request pass, or answers 401 (no valid token) or 403 (a token for something else).

    Parameters
    ----------
    tokens : Tokens
    reading : Reading
        Whether reading needs a token; storing always does.
    """

    def __init__(self, tokens: Tokens, reading: Reading) -> None:
        self._tokens = tokens
        self._reading = reading

    def reads(self, scope: Scope, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that reads, behind the guard."""

        @wraps(endpoint)
        def guarded(request: Request) -> Response:
            if self._reading is Reading.TOKEN:
                self.admit(request, scope)
            return endpoint(request)

        return guarded

    def admit(self, request: Request, scope: Scope) -> Token:
        """Return the token that a request brings.

        Raises
        ------
        HTTPException
            401 without a valid one; the answer does not tell unknown, expired and revoked apart. 403
            when its scope is another.
        """
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise _refused(401, "a token is needed: pacs-ai token create", _CHALLENGE)
        token = self._tokens.find(text.strip())
        if token is None:
            challenge = f'{_CHALLENGE}, error="invalid_token"'
            raise _refused(401, "the token is not valid: pacs-ai token list", challenge)
        if token.scope is not scope:
            challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            raise _refused(403, f"this needs a token of scope {scope}", challenge)
        return token


def _refused(status: int, detail: str, challenge: str) -> HTTPException:
    return HTTPException(status, detail, headers={"WWW-Authenticate": challenge})
