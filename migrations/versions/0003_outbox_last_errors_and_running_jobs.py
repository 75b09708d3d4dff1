"""The last error of jobs that wait for another attempt, and what workers run."""

from __future__ import annotations

from alembic import op

from outbox import migrations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    migrations.upgrade(op, version=2, from_version=1)


def downgrade() -> None:
    migrations.downgrade(op, version=1, from_version=2)
