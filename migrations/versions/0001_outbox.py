"""The tables of outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BINARY16 = sa.LargeBinary(16).with_variant(sa.BINARY(16), "mysql", "mariadb")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
SMALL = sa.SmallInteger().with_variant(mysql.SMALLINT(unsigned=True), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
INNODB = {
    "mysql_engine": "InnoDB",
    "mariadb_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_charset": "utf8mb4",
}


def ascii_text(length: int) -> sa.types.TypeEngine[str]:
    column = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(column, "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "queue_jobs",
        sa.Column("id", BINARY16, primary_key=True),
        sa.Column("queue", ascii_text(64), nullable=False),
        sa.Column("name", ascii_text(255), nullable=False),
        sa.Column("priority", SMALL, nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("attempts", SMALL, nullable=False),
        sa.Column("available_at", MOMENT, nullable=False),
        sa.Column("reserved_by", BINARY16),
        sa.Column("reserved_until", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        **INNODB,
    )
    op.create_index("queue_jobs_claim", "queue_jobs", ["queue", "priority", "available_at"])
    op.create_table(
        "queue_failed_jobs",
        sa.Column("id", BINARY16, primary_key=True),
        sa.Column("connection", ascii_text(64), nullable=False),
        sa.Column("queue", ascii_text(64), nullable=False),
        sa.Column("name", ascii_text(255), nullable=False),
        sa.Column("priority", SMALL, nullable=False),
        sa.Column("payload", LONG_TEXT, nullable=False),
        sa.Column("headers", LONG_TEXT, nullable=False),
        sa.Column("attempts", SMALL, nullable=False),
        sa.Column("exception", sa.JSON(), nullable=False),
        sa.Column("failed_at", MOMENT, nullable=False),
        **INNODB,
    )
    op.create_index("queue_failed_jobs_failed_at", "queue_failed_jobs", ["failed_at"])
    op.create_index("queue_failed_jobs_queue", "queue_failed_jobs", ["queue", "failed_at"])
    op.create_table(
        "queue_workers",
        sa.Column("id", BINARY16, primary_key=True),
        sa.Column("name", ascii_text(64), nullable=False),
        sa.Column("host", ascii_text(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", LONG_TEXT, nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("processed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        **INNODB,
    )
    op.create_table(
        "queue_pauses",
        sa.Column("queue", ascii_text(64), primary_key=True),
        sa.Column("paused_at", MOMENT, nullable=False),
        **INNODB,
    )


def downgrade() -> None:
    op.drop_table("queue_pauses")
    op.drop_table("queue_workers")
    op.drop_table("queue_failed_jobs")
    op.drop_table("queue_jobs")
