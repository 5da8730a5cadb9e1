"""The ledger's tables. Facts and events are only added to; progress lives in ``work`` alone.

Times are UTC. Identifiers of patients stand nowhere but in the accession number and the Workitem's data
set, which must be found again; everything else is UIDs and digests.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class Instant(TypeDecorator[datetime]):
    """An aware UTC time, stored so that text order is time order on SQLite too."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store as naive UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Give back aware UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

UidType = String(64)
DigestType = String(64)
KeyType = String(36)
SizeType = BigInteger().with_variant(Integer, "sqlite")  # an Instance may have 4 GiB

installation = Table("installation", metadata, Column("id", KeyType, primary_key=True))

instances = Table(
    "instances",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sop_instance_uid", UidType, nullable=False),
    Column("sop_class_uid", UidType, nullable=False),
    Column("transfer_syntax_uid", UidType, nullable=False),
    Column("study_instance_uid", UidType, nullable=False),
    Column("series_instance_uid", UidType, nullable=False),
    Column("modality", String(16), nullable=False),
    Column("digest", DigestType, nullable=False),
    Column("size", SizeType, nullable=False),
    Column("role", String(8), nullable=False),  # source | derived | own
    Column(
        "state", String(16), nullable=False
    ),  # kept | unchecked | duplicate | replaced | conflict | rejected
    Column("peer", String(64), nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("removed_at", Instant),  # retention let its bytes go; the digest stays, for reconciling
    UniqueConstraint("sop_instance_uid", "digest", "transfer_syntax_uid"),
    Index(None, "digest", "transfer_syntax_uid"),
    Index(None, "study_instance_uid", "role"),
)

studies = Table(
    "studies",
    metadata,
    Column("study_instance_uid", UidType, primary_key=True),
    Column("peer", String(64), nullable=False),
    Column("accession_number", String(64), nullable=False, index=True),
    Column("first_at", Instant, nullable=False),
    Column("last_at", Instant, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("id", KeyType, primary_key=True),
    Column("study_instance_uid", ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("content_key", DigestType, nullable=False),
    Column("frozen_at", Instant, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("not_current", Text),  # the reason why this Study starts nothing
    Column("routed_at", Instant),
    Column("superseded_at", Instant),
    UniqueConstraint("study_instance_uid", "number"),
)

version_instances = Table(
    "version_instances",
    metadata,
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("instance_id", ForeignKey("instances.id"), primary_key=True),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("matched", Boolean, nullable=False),
    Column("deciding", Text, nullable=False),
)

refusals = Table(
    "refusals",
    metadata,
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("endpoint", String(64)),
    Column("reason", Text, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", KeyType, primary_key=True),
    Column("key", DigestType, nullable=False, unique=True),
    Column("study_instance_uid", ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("rule", Text, nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("inputs", JSON, nullable=False),  # role -> ids of instances
    Column("parameters", JSON, nullable=False),
    Column("model", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("outcome", String(16)),  # done | nothing_found | not_suitable | held
    Column("flagged", Boolean, nullable=False),  # a finding is present among its results
    Column("reason", Text),
    Column("results_digest", DigestType, index=True),
    Column("results_removed_at", Instant),
    Column("ended_at", Instant),
)

version_jobs = Table(
    "version_jobs",
    metadata,
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("position", Integer, nullable=False),
)

objects = Table(
    "objects",
    metadata,
    Column("sop_instance_uid", UidType, primary_key=True),
    Column("sop_class_uid", UidType, nullable=False),
    Column("study_instance_uid", ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("series_instance_uid", UidType, nullable=False),
    Column("transfer_syntax_uid", UidType, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("volumetric", Boolean, nullable=False),
    Column("subject", DigestType, nullable=False, index=True),  # key of the Job, or of the page
    Column("digest", DigestType, nullable=False, index=True),
    Column("size", SizeType, nullable=False),
    Column("made_at", Instant, nullable=False),
    Column("superseded_at", Instant),
    Column("removed_at", Instant),
)

removals = Table(  # files that no row counts on any more and that may still be on the disk
    "removals",
    metadata,
    Column("digest", DigestType, primary_key=True),
    Column("transfer_syntax_uid", UidType, primary_key=True),  # empty for the results of a Job
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("sop_instance_uid", ForeignKey("objects.sop_instance_uid"), primary_key=True),
    Column("destination", String(64), primary_key=True),
    Column(
        "state", String(16), nullable=False
    ),  # pending | stored | refused | withheld | superseded
    Column("created_at", Instant, nullable=False),
)

receipts = Table(
    "receipts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sop_instance_uid", ForeignKey("objects.sop_instance_uid"), nullable=False, index=True),
    Column("destination", String(64), nullable=False),
    Column("answer", String(16), nullable=False),
    Column("status", Integer),
    Column("detail", Text, nullable=False),
    Column("at", Instant, nullable=False),
)

workitems = Table(
    "workitems",
    metadata,
    Column("uid", UidType, primary_key=True),
    Column("study_instance_uid", ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("label", String(64), nullable=False),
    Column("audience", String(16), nullable=False),
    Column("data_set", JSON, nullable=False),  # PS3.18 Annex F
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Index(None, "study_instance_uid", "label"),
)

work = Table(
    "work",
    metadata,
    Column("id", KeyType, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("queue", String(96), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("study_instance_uid", ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("strikes", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("seats", Integer, nullable=False, server_default="1"),  # of its queue's limit, running
    Column("lease_until", Instant),
    Column("not_before", Instant, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("deadline", Instant),
    Column("reason", Text),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Index(None, "queue", "state", "not_before"),
    Index(None, "kind", "subject", "state"),
    Index(None, "study_instance_uid", "kind", "state"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("study_instance_uid", UidType, index=True),
    Column("work_id", KeyType),
    Column("kind", String(32), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("position", Integer, unique=True, index=True),  # in the chain of sealed events, from 1
    Column("seal", DigestType),
)

chain = Table(
    "chain",
    metadata,
    Column("id", Integer, primary_key=True),  # there is one, 1: where the chain ends
    Column("position", Integer, nullable=False),
    Column("seal", DigestType, nullable=False),
    Column("sealed_at", Instant, nullable=False),
)

switches = Table(
    "switches",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("paused_at", Instant),
    Column("actor", String(64), nullable=False),
)

tallies = Table(
    "tallies",
    metadata,
    Column("name", String(16), primary_key=True),  # a status, or what failed
    Column("number", Integer, nullable=False),
    Column("last_at", Instant, nullable=False),
)

leaders = Table(
    "leaders",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("until", Instant, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),  # stands in the token, in the open
    Column("name", String(64), nullable=False),
    Column("scope", String(16), nullable=False),  # stow | worklist | status
    Column("digest", DigestType, nullable=False),  # SHA-256 of the whole token
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
)
