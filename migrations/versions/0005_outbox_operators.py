"""What operators need: pauses with a reason and an end, of job classes and keys too, and circuit breakers."""

from __future__ import annotations

from alembic import op

from outbox import migrations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    migrations.upgrade(op, version=4, from_version=3)


def downgrade() -> None:
    migrations.downgrade(op, version=3, from_version=4)
