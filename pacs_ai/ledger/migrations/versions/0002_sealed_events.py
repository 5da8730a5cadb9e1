"""Events can be sealed into a chain; PostgreSQL counts sizes above 2 GiB."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pacs_ai.ledger.tables import Instant

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("position", sa.Integer(), nullable=True))
    op.add_column("events", sa.Column("seal", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_events_position"), "events", ["position"], unique=True)
    op.create_table(
        "chain",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("seal", sa.String(length=64), nullable=False),
        sa.Column("sealed_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chain")),
    )
    if op.get_bind().dialect.name == "postgresql":  # SQLite's INTEGER has 64 bits
        for table in ("instances", "objects"):
            op.alter_column(table, "size", type_=sa.BigInteger(), existing_nullable=False)
