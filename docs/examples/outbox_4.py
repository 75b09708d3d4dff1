"""outbox's tables: version 4.

A revision of the application's own history. It goes into migrations/versions, after the revision that was the last one.
"""

from alembic import op

from outbox import migrations

revision = "outbox_4"
down_revision = None  # the id of the revision before


def upgrade() -> None:
    migrations.upgrade(op, version=4, from_version=3)


def downgrade() -> None:
    migrations.downgrade(op, version=3, from_version=4)
