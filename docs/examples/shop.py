"""The tables of an application and its engine."""

import os
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DATABASE_URL = os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///shop.db")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)


def sqlite_engine() -> AsyncEngine:
    """An engine whose writers wait for each other, as SQLAlchemy's documentation advises for SQLite."""
    engine = create_async_engine("sqlite+aiosqlite:///shop.db")

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy begins transactions, not Python's driver
        connection.execute("PRAGMA busy_timeout = 5000")

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


engine = sqlite_engine() if DATABASE_URL.startswith("sqlite") else create_async_engine(DATABASE_URL)
Session = async_sessionmaker(engine)
