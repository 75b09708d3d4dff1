"""What policies of jobs need: a column of jobs and of failed jobs, and tables of their own."""

from __future__ import annotations

from alembic import op

from outbox import migrations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    migrations.upgrade(op, version=3, from_version=2)


def downgrade() -> None:
    migrations.downgrade(op, version=2, from_version=3)
