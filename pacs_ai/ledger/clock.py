"""The clock of the ledger.

SQLite runs on the gateway's own host, so the host's clock is the database's clock. Display and leases
between processes use it; durations inside a process use the monotonic clock.
"""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """Return the time, aware, UTC."""
    return datetime.now(UTC)
