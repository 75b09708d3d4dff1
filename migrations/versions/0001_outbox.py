"""The tables of outbox."""

from __future__ import annotations

from alembic import op

from outbox import migrations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    migrations.upgrade(op, version=1, from_version=0)


def downgrade() -> None:
    migrations.downgrade(op, version=0, from_version=1)
