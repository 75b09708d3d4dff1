"""The example application's tables: a shop's orders, sensor readings and their days.

An application that uses outbox has migrations like this one; it imports nothing of outbox or of the
application, so that it still says the same when their code has moved on.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "shop_orders",
        sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("customer", sa.String(254), nullable=False),
        sa.Column("item", sa.String(100), nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("total_cents", sa.Integer, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("receipted_at", MOMENT, nullable=True),
        sa.Column("receipt_problem", sa.String(200), nullable=True),
    )
    op.create_table(
        "sensor_readings",
        sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("sensor", sa.String(64), nullable=False),
        sa.Column("measured_at", MOMENT, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("unit", sa.String(1), nullable=False),
        sa.Column("celsius", sa.Double, nullable=True),
        sa.Column("outlier", sa.Boolean, nullable=True),
        sa.Column("processed_at", MOMENT, nullable=True),
        sa.UniqueConstraint("sensor", "measured_at", name="uq_sensor_readings_key"),
    )
    op.create_table(
        "sensor_days",
        sa.Column("sensor", sa.String(64), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("readings", sa.Integer, nullable=False),
        sa.Column("total", sa.Double, nullable=False),
        sa.Column("total_squares", sa.Double, nullable=False),
        sa.Column("minimum", sa.Double, nullable=False),
        sa.Column("maximum", sa.Double, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("sensor_days")
    op.drop_table("sensor_readings")
    op.drop_table("shop_orders")
