"""Engines on SQLite: one short write transaction at a time."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from outbox.drivers.database.connection.sqlite_raw_connection import READS
from outbox.drivers.database.connection.sqlite_text import AnyTextConnection

_BUSY_MILLISECONDS = 5_000


def create_engine(url: URL, pool_size: int) -> AsyncEngine:
    in_memory = url.database in {None, "", ":memory:"}
    # The class is named, because before SQLAlchemy 2.0.38 a file had a pool that keeps no connection.
    pool: dict[str, Any] = (
        {} if in_memory else {"poolclass": AsyncAdaptedQueuePool, "pool_size": pool_size, "max_overflow": pool_size}
    )
    engine = create_async_engine(url, **pool, connect_args={"async_creator_fn": _connect})
    _roll_back_only_what_is_open(engine)
    event.listen(engine.sync_engine, "connect", _tune)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def create_reader(engine: AsyncEngine) -> AsyncEngine:
    """An engine for transactions that only read: they do not wait for writers."""
    return engine.execution_options(**{READS: True})


def _roll_back_only_what_is_open(engine: AsyncEngine) -> None:
    """A rollback of nothing is a hop to the connection's thread."""
    dialect = engine.sync_engine.dialect
    roll_back = dialect.do_rollback

    def roll_back_what_is_open(connection: Any) -> None:
        if dialect.get_driver_connection(connection).in_transaction:
            roll_back(connection)

    dialect.do_rollback = roll_back_what_is_open  # type: ignore[assignment, method-assign]


async def _connect(*args: Any, **options: Any) -> Any:
    _refuse_to_create(args[0], uri=bool(options.get("uri")))
    connecting = aiosqlite.connect(*args, factory=AnyTextConnection, **options)
    # Since 0.22 it has a thread, before that it was one.
    thread: Any = getattr(connecting, "_thread", connecting)
    thread.daemon = True
    try:
        return await connecting
    except sqlite3.Error:
        # The thread has yet to tell the loop that it ends, and dies with a traceback where the loop has ended first.
        await asyncio.to_thread(thread.join)
        raise


def _refuse_to_create(file: str, *, uri: bool) -> None:
    """A file without tables is of no use, and a trace of every command in a wrong directory."""
    path = Path(file)
    if file != ":memory:" and not uri and path.parent.is_dir() and not path.exists():
        raise sqlite3.OperationalError(f"no such table, because there is no file {path.absolute()}")


def _tune(connection: Any, _record: Any) -> None:
    # Python's sqlite3 would begin transactions by itself, and begin them deferred.
    connection.isolation_level = None
    # SQLite takes text that is no UTF-8, and a row with such a payload must not keep others from being read.
    connection.driver_connection.text_factory = _decoded
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        cursor.execute("PRAGMA journal_mode")
        if cursor.fetchone()[0] not in {"wal", "memory"}:
            # The file keeps its mode, so this happens once. It fails during a write; then a later connection does it.
            with suppress(sqlite3.OperationalError):
                cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
    finally:
        cursor.close()


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _begin(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails at once, instead of waiting, when another one wrote
    # in between.
    reads = connection.get_execution_options().get(READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
