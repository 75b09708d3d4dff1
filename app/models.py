"""The application's tables. Nothing here knows of outbox; migration 0002 creates them."""

from datetime import UTC, date, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Dialect,
    Double,
    Integer,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored as UTC to the microsecond.

    Neither MySQL's DATETIME nor SQLite keeps a time zone, and MySQL's DATETIME without a precision rounds
    to whole seconds, so two readings of one second would claim the same key.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> object:  # type: ignore[override]
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=UTC)


# SQLite numbers rows by itself only in a column whose type is exactly INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Root of the application's tables."""


metadata = Base.metadata


class Order(Base):
    __tablename__ = "shop_orders"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    customer: Mapped[str] = mapped_column(String(254))
    item: Mapped[str] = mapped_column(String(100))
    quantity: Mapped[int] = mapped_column(Integer)
    total_cents: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    receipted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    receipt_problem: Mapped[str | None] = mapped_column(String(200))


class Reading(Base):
    """One measurement. `(sensor, measured_at)` is what makes a redelivered message recognisable."""

    __tablename__ = "sensor_readings"
    __table_args__ = (UniqueConstraint("sensor", "measured_at", name="uq_sensor_readings_key"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    sensor: Mapped[str] = mapped_column(String(64))
    measured_at: Mapped[datetime] = mapped_column(UtcDateTime)
    value: Mapped[float] = mapped_column(Double)
    unit: Mapped[str] = mapped_column(String(1))
    celsius: Mapped[float | None] = mapped_column(Double)
    outlier: Mapped[bool | None] = mapped_column(Boolean)
    processed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SensorDay(Base):
    """A sensor's day so far, in sums: they can be added to in any order, and give mean and spread."""

    __tablename__ = "sensor_days"

    sensor: Mapped[str] = mapped_column(String(64), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    readings: Mapped[int] = mapped_column(Integer)
    total: Mapped[float] = mapped_column(Double)
    total_squares: Mapped[float] = mapped_column(Double)
    minimum: Mapped[float] = mapped_column(Double)
    maximum: Mapped[float] = mapped_column(Double)
