"""The Instances of one STOW-RS request on their way in, part by part, through the one receive path."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pydicom.dataset import Dataset

from pacs_ai.gateway import Gateway
from pacs_ai.intake import OUT_OF_RESOURCES, UNREADABLE, Context, Incoming, Refused
from pacs_ai.spool import SpoolFullError
from pacs_ai.web.file_meta import FileMeta, FileMetaError
from pacs_ai.web.multipart import DICOM

log = logging.getLogger(__name__)

PROCESSING_FAILURE = 0x0110
MAXIMUM_PARTS = 20_000
"""Most Instances in one request, as in one Study."""


class TooLargeError(ValueError):
    """A request is larger than what is taken; the message says by which limit."""


class Storing:
    """Takes the parts of a request (``multipart.Parts``), and keeps what became of each.

    Nothing that a part brings ends the request: it fails alone, and what stands before and after it is
    stored. Success is noted only when the Instance is durable.

    Parameters
    ----------
    gateway : Gateway
    peer : str
        Name of the token that it came with.
    study : str or None
        The one Study that the request is for, when it names one.

    Attributes
    ----------
    stored : list of Context
        What is durable now, or was before.
    failed : list of (Context or None, int)
        What was not taken, and its Failure Reason (PS3.18 Table I.2-2); without a Context where the part
        did not say what it is.
    oversized : bool
        Whether an Instance was larger than ``listener.maximum_object``.
    """

    def __init__(self, gateway: Gateway, *, peer: str, study: str | None) -> None:
        self._gateway = gateway
        self._peer = peer
        self._study = study
        self._count = 0
        self._size = 0
        self._meta: FileMeta | None = None
        self._context: Context | None = None
        self._incoming: Incoming | None = None
        self.stored: list[Context] = []
        self.failed: list[tuple[Context | None, int]] = []
        self.oversized = False

    # ------------------------------------------------------------------ the parts

    def begin(self, media_type: str) -> None:
        """Begin a part.

        Raises
        ------
        TooLargeError
            When there are too many.
        """
        self._count += 1
        if self._count > MAXIMUM_PARTS:
            raise TooLargeError(
                f"more than {MAXIMUM_PARTS} Instances: send them in several requests"
            )
        self._size = 0
        self._context = None
        self._meta = FileMeta(self._study)
        if media_type not in ("", DICOM):
            self._fail(f"a part that is not {DICOM}", UNREADABLE)

    def write(self, piece: memoryview) -> None:
        """Take a piece of a part: its File Meta Information first, then its data set as it is."""
        self._guarded(lambda: self._write(piece))

    def end(self) -> None:
        """End a part: make its Instance durable."""
        self._guarded(self._commit)

    def discard(self) -> None:
        """Forget the part that is under way; what is stored stays."""
        incoming, self._incoming, self._meta = self._incoming, None, None
        if incoming is not None:
            incoming.discard()

    def cut_off(self) -> None:
        """Note that the body ended within a part, or is no multipart body from here on."""
        if self._incoming is not None or self._meta is not None:
            self._fail("a part that is not whole", UNREADABLE)
        elif self.stored or self.failed:
            self.failed.append((None, UNREADABLE))  # told, not counted: it is no Instance

    def response(self) -> Dataset:
        """Return the Store Instances Response Module (PS3.18 Table I.1-1)."""
        module = Dataset()
        module.RetrieveURL = None  # nothing can be retrieved here
        if self.stored:
            module.ReferencedSOPSequence = [_reference(one) for one in self.stored]
        known = [_failure(context, reason) for context, reason in self.failed if context]
        if known:
            module.FailedSOPSequence = known
        other = [_failure(None, reason) for context, reason in self.failed if context is None]
        if other:
            module.OtherFailuresSequence = other
        return module

    # ------------------------------------------------------------------ one part

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except FileMetaError as error:
            self._context = error.context
            self._fail(str(error), error.status)
        except SpoolFullError:
            self._fail("the disk does not take it now", OUT_OF_RESOURCES)
        except Exception:  # the rim of STOW-RS: whatever happens, the other parts go on
            log.exception("an Instance could not be taken in")
            self._fail("the gateway could not take it in", PROCESSING_FAILURE)

    def _write(self, piece: memoryview) -> None:
        if self._incoming is not None:
            self._write_data_set(self._incoming, piece)
        elif self._meta is not None:
            found = self._meta.feed(piece)
            if found is None:
                return
            self._context, rest = found
            if not self._gateway.has_room():
                self._fail("the disk is nearly full", OUT_OF_RESOURCES)
                return
            self._meta = None
            self._incoming = self._gateway.incoming(self._peer, self._context)
            self._write_data_set(self._incoming, rest)

    def _write_data_set(self, incoming: Incoming, piece: memoryview) -> None:
        self._size += len(piece)
        if self._size > self._gateway.settings.listener.maximum_object:
            self.oversized = True
            self._fail("larger than the configured object limit", UNREADABLE)
        else:
            incoming.write(piece)

    def _commit(self) -> None:
        if self._meta is not None:
            self._fail("shorter than its File Meta Information", UNREADABLE)
        if self._incoming is None or self._context is None:
            return  # it has failed already
        answer = self._incoming.commit()
        if isinstance(answer, Refused):
            self._fail(answer.reason, answer.status)
        else:
            self.stored.append(self._context)
            self.discard()

    def _fail(self, phrase: str, reason: int) -> None:
        log.warning("instance refused", extra={"reason": phrase, "peer": self._peer})
        self.failed.append((self._context, reason))
        self._gateway.refused(reason)
        self.discard()


def _reference(context: Context) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = context.SOPClassUID
    item.ReferencedSOPInstanceUID = context.SOPInstanceUID
    return item


def _failure(context: Context | None, reason: int) -> Dataset:
    item = Dataset() if context is None else _reference(context)
    item.FailureReason = reason
    return item
