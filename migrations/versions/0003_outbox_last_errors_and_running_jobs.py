"""The last error of jobs that wait for another attempt, and what workers run.

Nullable columns at the end of their tables: MySQL 8.0.12 and MariaDB 10.3 add them instantly, without copying a row.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SUMMARY = sa.String(1000).with_variant(
    mysql.VARCHAR(1000, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("queue_jobs", sa.Column("last_error", SUMMARY))
    op.add_column("queue_jobs", sa.Column("last_error_at", MOMENT))
    op.add_column("queue_workers", sa.Column("running_jobs", LONG_TEXT))


def downgrade() -> None:
    op.drop_column("queue_workers", "running_jobs")
    op.drop_column("queue_jobs", "last_error_at")
    op.drop_column("queue_jobs", "last_error")
