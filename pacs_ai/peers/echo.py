"""Is a peer there? C-ECHO, the Verification Service (PS3.4 Annex A)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from pacs_ai.errors import TransientError
from pacs_ai.peers.association import TIMEOUTS, RejectedError, Timeouts, associate
from pacs_ai.settings import ClientTLS


@dataclass(frozen=True, slots=True)
class EchoAnswer:
    """What came back of a C-ECHO.

    Attributes
    ----------
    ok : bool
        The peer answered success (0x0000).
    seconds : float
        From the first packet to the answer.
    detail : str
        Empty when ok; otherwise what happened and what to check.
    is_called : bool
        An AE of the called title is there, whether it takes this caller or not.
    """

    ok: bool
    seconds: float
    detail: str = ""
    is_called: bool = False


def echo(
    *,
    host: str,
    port: int,
    called: str,
    calling: str,
    tls: ClientTLS | None = None,
    timeouts: Timeouts = TIMEOUTS,
) -> EchoAnswer:
    """Ask a peer whether it is there; never raises for what the network or the peer does.

    Parameters
    ----------
    host : str
        Name or address of the peer.
    port : int
    called, calling : str
        AE titles of the peer and of this gateway.
    tls : ClientTLS, optional
        Without it the association is plain.
    timeouts : Timeouts, optional
    """
    began = time.monotonic()
    is_called = True
    try:
        detail = _ask(host, port, called, calling, tls, timeouts)
    except RejectedError as error:
        detail, is_called = str(error), not error.called_unknown
    except TransientError as error:
        detail, is_called = str(error), False
    seconds = time.monotonic() - began
    return EchoAnswer(ok=not detail, seconds=seconds, detail=detail, is_called=is_called)


def _ask(
    host: str, port: int, called: str, calling: str, tls: ClientTLS | None, timeouts: Timeouts
) -> str:
    peer = f"{called} at {host}:{port}"
    with associate(
        host=host,
        port=port,
        called=called,
        calling=calling,
        contexts=[(Verification, ImplicitVRLittleEndian)],
        tls=tls,
        timeouts=timeouts,
    ) as association:
        if not association.is_established:
            return f"{peer} does not offer the Verification Service: enable C-ECHO there"
        answer = association.send_c_echo()
        if "Status" not in answer:
            return f"{peer} took the association but did not answer the C-ECHO: look at its log"
        if answer.Status != 0x0000:
            return f"{peer} answered the C-ECHO with status 0x{answer.Status:04X}: look at its log"
    return ""
