"""Forcing two transactions to meet: one holds a lock, and the test knows when others have come to wait for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import DatabaseDriver
from outbox.ids import JobId
from tests.servers.databases import connections_of

# Its table of transactions has their statements, and cannot be read while one of them is no text.
_WAITING_ON_MYSQL = (
    "SELECT COUNT(DISTINCT requesting_thread_id) FROM performance_schema.data_lock_waits "
    "JOIN performance_schema.threads ON thread_id = requesting_thread_id WHERE processlist_db = :name"
)


@asynccontextmanager
async def locked(driver: DatabaseDriver, table: str, job_id: JobId) -> AsyncIterator[None]:
    """While somebody else is writing this row; on SQLite, while somebody else is writing."""
    async with driver.database.engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            await connection.execute(text(f"SELECT 1 FROM {table} WHERE id = :id FOR UPDATE"), {"id": job_id.bytes})
        else:
            await connection.execute(text("SELECT 1"))  # begins; SQLite's transactions lock when they begin
        yield
        await connection.rollback()


class Arrivals:
    """How many transactions have come as far as they can while the lock is held."""

    def __init__(self, drivers: Sequence[DatabaseDriver]) -> None:
        self._looking = drivers[0]
        self.begun = 0

    async def wait_for(self, count: int) -> None:
        try:
            async with asyncio.timeout(60):
                while await self._waiting() < count:
                    # MariaDB renews the view when nobody has read it for 0.1 s. Others may look on the same server:
                    # pauses of varying length keep them from doing that in turns for ever.
                    await asyncio.sleep(random.uniform(0.12, 0.3))
        except TimeoutError:
            raise AssertionError(f"{await self._waiting()} of {count} wait: {await self._connections()}") from None

    async def _connections(self) -> list[tuple[object, ...]]:
        """What the server's connections to the database do."""
        engine = self._looking.database.engine
        if engine.dialect.name == "sqlite":
            return []
        async with engine.connect() as connection:
            if connection.dialect.is_mariadb:  # type: ignore[attr-defined]
                of = "id, command, time, state FROM information_schema.processlist WHERE db = :name"
            else:
                of = (
                    "processlist_id, processlist_command, processlist_time, processlist_state "
                    "FROM performance_schema.threads WHERE processlist_db = :name"
                )
            rows = await connection.execute(text(f"SELECT {of}"), {"name": engine.url.database})
            return [tuple(row) for row in rows]

    async def _waiting(self) -> int:
        engine = self._looking.database.engine
        if engine.dialect.name == "sqlite":
            return self.begun
        async with engine.connect() as connection:
            waiting = text(self._of_mariadb(connection) if connection.dialect.is_mariadb else _WAITING_ON_MYSQL)  # type: ignore[attr-defined]
            return int((await connection.execute(waiting, {"name": engine.url.database})).scalar_one())

    def _of_mariadb(self, connection: AsyncConnection) -> str:
        return (
            "SELECT COUNT(*) FROM information_schema.innodb_trx "
            f"WHERE trx_state = 'LOCK WAIT' AND trx_mysql_thread_id IN ({connections_of(connection)})"
        )


@contextmanager
def arrivals(*drivers: DatabaseDriver) -> Iterator[Arrivals]:
    """Of ``drivers``. InnoDB says who waits; on SQLite, which does not, whoever is about to begin counts."""
    seen = Arrivals(drivers)

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        seen.begun += statement == "BEGIN IMMEDIATE"

    engines = [driver.database.engine.sync_engine for driver in drivers]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    yield seen
    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)
