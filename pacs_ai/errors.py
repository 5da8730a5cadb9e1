"""Every error the gateway raises, as one tree.

::

    PacsAiError
    ├── ConfigError        settings or rules are wrong; carries every fault found
    ├── ReceiveError       an Instance cannot be taken in; carries the C-STORE status
    ├── SpoolError         bytes at rest are missing or not what the ledger says
    ├── SourceError        a stored Instance cannot be read beyond its head
    ├── PixelError         pixel data cannot be turned into an image without guessing
    ├── InferenceError     an endpoint refused or answered something that is not an answer
    ├── EncodingError      a result cannot be written as a conformant SOP Instance
    ├── DeliveryError      a destination refused for good
    ├── WorklistError      a Workitem cannot be made or changed
    └── LeaseLostError     another process took the work over while this one slept

:class:`TransientError` is mixed in where trying again later helps; the ledger retries by this type and
never by text. Expected refusals (not suitable, held) are outcomes (:mod:`pacs_ai.results`), not exceptions.

No message of an error carries dataset text: UIDs, keywords and setting names only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class PacsAiError(Exception):
    """Something went wrong in the gateway; the message says what, where and what to do."""


class TransientError(PacsAiError):
    """Trying again later may help.

    Parameters
    ----------
    message : str
        What happened and where.
    retry_after : float, optional
        Seconds the other side asked for, when it did.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a settings file: where it is, what it is, what to do."""

    message: str
    file: Path | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.file or 'settings'}{f':{self.line}' if self.line else ''}"
        return f"{where}: {self.message}"


class ConfigError(PacsAiError):
    """Settings or rules are wrong.

    Parameters
    ----------
    faults : list of Fault
        Every fault found, not only the first.
    """

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class ReceiveError(PacsAiError):
    """An Instance cannot be taken in.

    Parameters
    ----------
    message : str
        What is wrong with it: a fixed phrase of at most 64 characters, which the peer is told (Error Comment,
        PS3.7 C.4.2), never text of the data set.
    status : int
        The C-STORE status that tells the peer (PS3.4 B.2.3).
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class SpoolError(PacsAiError):
    """Bytes at rest are missing or are not what the ledger says."""


class SourceError(PacsAiError):
    """A stored Instance cannot be read: its head was sound when it was received, the rest is not."""


class PixelError(PacsAiError):
    """Pixel data cannot be turned into an image without guessing; the job is *not suitable*."""


class InferenceError(PacsAiError):
    """An endpoint refused the request or its answer is not an answer to it."""


class InferenceUnavailableError(InferenceError, TransientError):
    """An endpoint cannot answer now."""


class EncodingError(PacsAiError):
    """A result cannot be written as a conformant SOP Instance."""


class DeliveryError(PacsAiError):
    """A destination refused for good."""


class DeliveryUnavailableError(DeliveryError, TransientError):
    """A destination cannot be reached, or does not take Instances now."""


class WorklistError(PacsAiError):
    """A Workitem cannot be made or changed as asked."""


class LeaseLostError(PacsAiError):
    """Another process took this work over; nothing of this attempt may be written."""


def unusable(error: OSError) -> str:
    """Return what to tell a person of a file that this user cannot use."""
    return (
        f"{error.filename} cannot be used ({error.strerror}): run this as the gateway's user, or change the "
        "owner or mode of what it names"
    )
