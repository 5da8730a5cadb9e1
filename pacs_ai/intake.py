"""The one way in: an Instance that a peer sends becomes durable, or is refused with a reason.

C-STORE and STOW-RS both push through :class:`Incoming`. Success is said only after the bytes are in a
temporary file, synced, linked under their name, the folder synced, and the ledger has committed, in this
order. The last is shared by those that come at the same time (:mod:`pacs_ai.grouping`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

from pacs_ai.errors import ReceiveError, TransientError
from pacs_ai.grouping import GroupCommit
from pacs_ai.ledger import Ledger, arrivals
from pacs_ai.ledger.arrivals import Arrival
from pacs_ai.settings import Settings
from pacs_ai.spool import Spool, SpoolFullError, Writer
from pacs_ai.study import HEAD_LIMIT, plain_head, read_head
from pacs_ai.tally import Tally

log = logging.getLogger(__name__)

OUT_OF_RESOURCES = 0xA700
MISMATCH = 0xA900
UNREADABLE = 0xC000

_FIRST_LOOK = 16 * 1024
"""Bytes in which the head of a data set ends, as a rule."""


class Context(NamedTuple):
    """What the transfer says of an Instance before its data set comes.

    Attributes
    ----------
    SOPClassUID, SOPInstanceUID, transfer_syntax_uid : str
        Of the command set and presentation context, or of the File Meta Information.
    StudyInstanceUID : str or None
        The one Study that the transfer is for, when it names one (PS3.18 10.5.1).
    """

    SOPClassUID: str
    SOPInstanceUID: str
    transfer_syntax_uid: str
    StudyInstanceUID: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """The Instance is durable: bytes, name and ledger."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Exactly these bytes were durable already."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The Instance was not taken; the sender still owns it.

    Attributes
    ----------
    reason : str
        A fixed phrase of at most 64 characters, never dataset text.
    status : int
        C-STORE status (PS3.4 B.2.3).
    """

    reason: str
    status: int


_TOO_LARGE = Refused("larger than the configured object limit", UNREADABLE)

Receipt = Stored | Duplicate | Refused


class Incoming:
    """An Instance on its way in: ``write`` its data set in pieces, ``commit``, and always ``discard``.

    Parameters
    ----------
    settings : Settings
    ledger : Ledger
    spool : Spool
    group : GroupCommit
        Of this process.
    tally : Tally
        Told when the spool does not take bytes.
    peer : str
        Name of the peer (settings) that sends it.
    context : Context

    Attributes
    ----------
    room : callable
        Of :class:`pacs_ai.spool.Writer`: where the next piece goes.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        spool: Spool,
        group: GroupCommit,
        tally: Tally,
        *,
        peer: str,
        context: Context,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._group = group
        self._tally = tally
        self._peer = peer
        self._context = context
        self._spool = spool
        try:
            self._writer = self._begun()
        except SpoolFullError:
            tally.spool_failed()
            raise
        self.room = self._writer.room

    @property
    def size(self) -> int:
        """Bytes of the data set so far."""
        return self._writer.size

    def write(self, view: bytes | memoryview) -> None:
        """Add a piece of the data set, as it came.

        Raises
        ------
        SpoolFullError
            When the disk does not take it: discard the Instance and answer 0xA700.
        """
        if self._writer.size > self._settings.listener.maximum_object:
            return  # it is refused, and need not be kept
        try:
            self._writer.write(view)
        except SpoolFullError:
            self._tally.spool_failed()
            raise

    def commit(self) -> Receipt:
        """Make the Instance durable, in the order of the promise; ``discard`` comes after it."""
        try:
            if self._writer.size > self._settings.listener.maximum_object:
                return _TOO_LARGE
            return self._commit()
        except ReceiveError as error:
            log.warning("instance refused", extra={"reason": str(error)})
            self._writer.quarantine()
            return Refused(str(error), error.status)
        except SpoolFullError:
            self._tally.spool_failed()
            return Refused("the disk does not take it now", OUT_OF_RESOURCES)
        except TransientError as error:
            log.warning("instance refused", extra={"reason": str(error)})
            return Refused("the ledger is busy", OUT_OF_RESOURCES)

    def discard(self) -> None:
        """Let go of what came; only what ``commit`` made durable is kept."""
        self._writer.discard()

    def _begun(self) -> Writer:
        writer = self._spool.writer()
        try:
            writer.begin(
                sop_class_uid=self._context.SOPClassUID,
                sop_instance_uid=self._context.SOPInstanceUID,
                transfer_syntax_uid=self._context.transfer_syntax_uid,
            )
        except BaseException:
            writer.discard()
            raise
        return writer

    def _commit(self) -> Receipt:
        syntax = self._context.transfer_syntax_uid
        head = plain_head(self._writer.beginning(_FIRST_LOOK), syntax) or read_head(
            self._writer.beginning(HEAD_LIMIT), syntax
        )
        if head.SOPInstanceUID != self._context.SOPInstanceUID:
            return Refused("data set and command differ in SOP Instance UID", MISMATCH)
        if head.SOPClassUID != self._context.SOPClassUID:
            return Refused("data set and command differ in SOP Class UID", MISMATCH)
        if self._context.StudyInstanceUID not in (None, head.StudyInstanceUID):
            return Refused("of another Study than the request's", MISMATCH)
        arrival = Arrival(
            head=head,
            digest=self._writer.digest(),
            size=self._writer.size,
            transfer_syntax_uid=syntax,
            peer=self._peer,
            quiet=self._settings.quiet(head.Modality, self._peer),
        )
        resting = self._spool.resting(arrival.digest, syntax)
        # A file that is not there is written, whether the ledger knows of it or not.
        if self._spool.has(resting) and self._is_held(arrival, resting):
            return Duplicate()
        self._writer.sync()
        return Stored() if self._group.record(arrival, self._writer, resting) else Duplicate()

    def _is_held(self, arrival: Arrival, resting: str) -> bool:
        with self._ledger.database.read() as connection:
            known = arrivals.known(connection, arrival)
        # The row first, then its file: pacs_ai.retention says why that is enough.
        return known and self._spool.has(resting)
