"""Retention: what was let go, and the files that are still to be removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pacs_ai.ledger.tables import Instant

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instances", sa.Column("removed_at", Instant(), nullable=True))
    op.add_column("objects", sa.Column("removed_at", Instant(), nullable=True))
    op.add_column("jobs", sa.Column("results_removed_at", Instant(), nullable=True))
    op.create_index(
        op.f("ix_instances_digest_transfer_syntax_uid"),
        "instances",
        ["digest", "transfer_syntax_uid"],
    )
    op.create_index(op.f("ix_objects_digest"), "objects", ["digest"])
    op.create_index(op.f("ix_jobs_results_digest"), "jobs", ["results_digest"])
    op.create_table(
        "removals",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("digest", "transfer_syntax_uid", name=op.f("pk_removals")),
    )
