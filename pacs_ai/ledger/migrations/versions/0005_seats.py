"""Seats: how much of its queue's limit a row under way takes up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("work", sa.Column("seats", sa.Integer(), nullable=False, server_default="1"))
