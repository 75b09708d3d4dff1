"""outbox's tables: version 2.

A revision of the application's own history. It goes into migrations/versions, after the revision that was the last one.
"""

from alembic import op

from outbox import migrations

revision = "outbox_2"
down_revision = None  # the id of the revision before


def upgrade() -> None:
    migrations.upgrade(op, version=2, from_version=1)


def downgrade() -> None:
    migrations.downgrade(op, version=1, from_version=2)
