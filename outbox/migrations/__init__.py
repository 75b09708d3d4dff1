"""Versions of outbox's tables, for revisions of an application's Alembic history.

::

    def upgrade() -> None:
        migrations.upgrade(op, version=4, from_version=3)


    def downgrade() -> None:
        migrations.downgrade(op, version=3, from_version=4)

``version`` is the version of the tables afterwards.
"""

from outbox.drivers.database.versions import LATEST
from outbox.migrations.migrate import downgrade, upgrade, version_of

__all__ = ["LATEST", "downgrade", "upgrade", "version_of"]
