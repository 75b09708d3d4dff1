"""A business table, and jobs, for tests that dispatch in transactions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, String, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool

from outbox import Job


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(String(50), unique=True)


class Receipt(Job):
    queue = "mail"

    order_id: int
    note: str = ""
    extra: Any = None

    async def handle(self) -> None:
        """Never run: these tests end at the queue."""


_PATIENT = {"timeout": 60}
"""Seconds for which a connection to an SQLite file waits until others have written: see `tests/servers/sql.py`."""


def async_engine(url: str, **options: Any) -> AsyncEngine:
    if make_url(url).get_backend_name() == "sqlite":
        options = {"connect_args": _PATIENT} | options
    # Its pool counts connections. Before SQLAlchemy 2.0.38, that of an SQLite file did not.
    engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, **options)
    _begin_immediately(engine.sync_engine)
    return engine


def sync_engine(url: str, **options: Any) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        options = {"connect_args": _PATIENT} | options
        engine = create_engine(parsed.set(drivername="sqlite"), **options)
    else:  # without TLS: PyMySQL reads the system's certificates for each connection, which takes 35 ms
        without_tls = {"ssl_disabled": True}
        engine = create_engine(parsed.set(drivername="mysql+pymysql"), connect_args=without_tls, **options)
    _begin_immediately(engine)
    return engine


def _begin_immediately(engine: Engine) -> None:
    """What SQLAlchemy's documentation advises for SQLite: working savepoints, and writers that wait for each other."""
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def leave_transactions_to_sqlalchemy(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


COUNT = text("SELECT COUNT(*) FROM queue_jobs")
