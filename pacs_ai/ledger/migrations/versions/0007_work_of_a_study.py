"""An index by which the work of a Study is found by kind and state: a delivery asks for each that waits."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    name = op.f("ix_work_study_instance_uid_kind_state")
    op.create_index(name, "work", ["study_instance_uid", "kind", "state"])
    op.drop_index(op.f("ix_work_study_instance_uid"), table_name="work")
