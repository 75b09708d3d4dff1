"""A whole write transaction on SQLite in one hop to the connection's thread.

aiosqlite sends every call of a cursor to that thread and waits for its answer: eight changes of threads for one INSERT
and its COMMIT, which take longer than SQLite does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from itertools import chain, islice
from typing import Any

from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.drivers.database.dialects import Statement
from outbox.drivers.database.wire import Wire

_OBSERVED = ("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute", "commit")


class SQLiteWrite(Wire):
    """A pooled connection for one write transaction. A connection in doubt is closed, as `Wire` does."""

    @staticmethod
    def fits(engine: AsyncEngine) -> bool:
        """Whether it can be used: not where a listener of the engine would miss the statements."""
        listeners = engine.sync_engine.dispatch
        # A database in memory has one connection, which must not leave the pool.
        in_file = isinstance(engine.sync_engine.pool, AsyncAdaptedQueuePool)
        return engine.dialect.name == "sqlite" and in_file and not any(getattr(listeners, name) for name in _OBSERVED)

    async def write(self, statements: Iterable[Statement]) -> None:
        """Run ``statements`` in one transaction and commit it. They are made in the connection's thread."""
        driver: Any = self._driver
        try:
            await driver._execute(_write, driver._conn, statements)  # noqa: SLF001 - no public call is one hop
        except Exception as error:
            raise self._translated(error, None) from error

    async def _rolled_back(self) -> bool:
        """`_write` has done it."""
        return True


def _write(connection: sqlite3.Connection, statements: Iterable[Statement]) -> None:
    made = iter(statements)
    some = list(islice(made, 2))
    if len(some) == 1:
        # It is a transaction by itself.
        connection.execute(*some[0])
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement, parameters in chain(some, made):
            connection.execute(statement, parameters)
        connection.execute("COMMIT")
    except BaseException:
        # SQLite ends a transaction by itself after some errors, such as a full disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
