"""UIDs that the gateway makes: always derived, never drawn by chance.

The same work makes the same UIDs, so that a retry sends what was sent before and a PACS that already
holds the result answers "duplicate" (``2.25`` roots: PS3.5 B.2; UUID version 5: RFC 9562).
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence

from pydicom.uid import UID

Digestible = None | bool | int | float | str | Sequence["Digestible"] | Mapping[str, "Digestible"]

_NAMESPACE = uuid.UUID("6b2d8c54-0e0f-5c29-9d0a-0a2b51c3f7d1")

IMPLEMENTATION_CLASS_UID = UID("2.25.206213098723451340985613204598713204")
IMPLEMENTATION_VERSION_NAME = "PACS_AI_0.1"


UID_PATTERN, LONGEST_UID = rb"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*", 64
"""What a UID is, without padding (PS3.5 section 9.1)."""

_UID = re.compile(UID_PATTERN)


def is_uid(value: bytes) -> bool:
    """Tell whether bytes, without padding, are a UID (PS3.5 section 9.1)."""
    return len(value) <= LONGEST_UID and _UID.fullmatch(value) is not None


def digest(value: Digestible) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def derived_uid(role: str, *parts: Digestible) -> UID:
    """Derive a UID for a role from everything that decides what it names.

    Parameters
    ----------
    role : str
        What the UID names: ``"series"``, ``"instance"``, ``"tracking"``, ``"device"``, ``"workitem"``, ...
    *parts
        Everything that reaches the bytes of what it names (``reliability.md`` §1.6).
    """
    name = digest([role, *parts])
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")
