"""Statements on SQLite in one hop to the connection's thread each, or a whole write transaction in one.

aiosqlite sends every call of a cursor to that thread and waits for its answer: eight changes of threads for one INSERT
and its COMMIT, which take longer than SQLite does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.drivers.database.connection.raw_connection import Answer, RawConnection
from outbox.drivers.database.dialects import Statement

if TYPE_CHECKING:
    import sqlite3  # takes 1.5 MiB, and servers need none of it

READS = "outbox_reads"
"""Execution option of an engine whose transactions write nothing."""

MAY_BLOCK = "outbox_may_block"
"""Attribute of an event loop that runs nothing else meanwhile: a hop to another thread would gain nothing."""

_listeners = attrgetter("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute", "commit")


class SQLiteRawConnection(RawConnection):
    """A pooled connection to a file of SQLite. A transaction begins with its first statement."""

    _begin = True

    @staticmethod
    def fits(engine: AsyncEngine) -> bool:
        """Whether it can be used: not where a listener of the engine would miss the statements."""
        sync = engine.sync_engine
        # A database in memory has one connection, which must not leave the pool.
        in_file = isinstance(sync.pool, AsyncAdaptedQueuePool)
        return sync.dialect.name == "sqlite" and in_file and not any(_listeners(sync.dispatch))

    async def exec_driver_sql(self, statement: str, parameters: tuple[Any, ...] = (), /) -> Answer:
        return Answer(*await self._hop(statement, _execute, self._begin, statement, parameters))

    def execute(self, statement: str, parameters: tuple[Any, ...]) -> Awaitable[None]:
        """Run a statement that is a transaction by itself and returns no rows."""
        return self._hop(statement, _execute_alone, statement, parameters)

    def write(self, statements: Iterable[Statement]) -> Awaitable[None]:
        """Run ``statements`` in one transaction and commit it. They are made in the connection's thread."""
        return self._hop(None, _write, statements)

    async def _hop(self, statement: str | None, function: Any, *arguments: Any) -> Any:
        driver = self._driver
        try:
            if getattr(asyncio.get_running_loop(), MAY_BLOCK, False):
                return function(driver._conn, *arguments)  # noqa: SLF001 - as below
            return await driver._execute(function, driver._conn, *arguments)  # noqa: SLF001 - no public call is one hop
        except Exception as error:
            raise self._translated(error, statement) from error


class SQLiteReading(SQLiteRawConnection):
    """A connection for statements that only read, and are each a transaction of their own."""

    _begin = False


def _execute(
    connection: sqlite3.Connection, begin: bool, statement: str, parameters: tuple[Any, ...]
) -> tuple[list[Any], int]:
    if begin and not connection.in_transaction:
        connection.execute("BEGIN IMMEDIATE")
    cursor = connection.execute(statement, parameters)
    return cursor.fetchall(), cursor.rowcount


def _execute_alone(connection: sqlite3.Connection, statement: str, parameters: tuple[Any, ...]) -> None:
    connection.execute(statement, parameters)


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
