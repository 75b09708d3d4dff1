"""One database: its engine, its dialect, and transactions that are tried again where that is right."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from outbox.drivers.database.connection.direct_connections import DirectConnections
from outbox.drivers.database.connection.engine import (
    INSPECTION_SECONDS,
    LEFT_AFTER,
    RECYCLE_SECONDS,
    create_engine,
    create_inspector,
    create_reader,
    shown_url,
)
from outbox.drivers.database.connection.error_codes import TOO_LONG
from outbox.drivers.database.connection.errors import Fault, RetryBudget, classify, code_of, translate
from outbox.drivers.database.connection.opened_connections import OpenedConnections
from outbox.drivers.database.connection.preparing_connection import PreparingConnection
from outbox.drivers.database.connection.raw_connection import RawConnection, SqlConnection
from outbox.drivers.database.connection.sqlite_raw_connection import READS, SQLiteRawConnection, SQLiteReading
from outbox.drivers.database.connection.write_turn import WriteTurn
from outbox.drivers.database.dialects import Statement, dialect_for
from outbox.drivers.values import PolicyNews
from outbox.errors import BackendUnavailable, RequestRefused

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
AnyWork = Callable[[Any], Awaitable[T]]
PlainWork = Callable[[SqlConnection], Awaitable[T]]
Connect = Callable[[AsyncEngine], AbstractAsyncContextManager[Any]]

# Longer than any wait of the server's own (innodb_lock_wait_timeout is 50 s by default), and shorter than for ever:
# what a network that swallows packets would be.
_TRANSACTION_SECONDS = 60.0

_reading: ContextVar[tuple[Database, AsyncConnection] | None] = ContextVar("outbox_reading", default=None)
"""The transaction of `Database.read_only` that this code is in."""

_MAY_BE_COMMITTED = {Fault.UNREACHABLE, Fault.REFUSED}
"""Proxies answer for servers that they have lost."""


class Database:
    """Runs short transactions on connections of outbox's own.

    `write` and `read` hand out connections of SQLAlchemy. `write_plain` and `read_plain` do without, for claims and
    settlements. `write_alone`, `write_directly`, `write_often` and `write_in_one_hop` are for what may be done twice.
    `inspect` and `read_only` are for operators.
    """

    def __init__(self, url: URL, pool_size: int = 5, note: str = "", replica: URL | None = None) -> None:
        """``note`` is said after the address, wherever that is said. Operators read from ``replica``, if it is given:
        see `inspect`.

        Raises:
            ConfigurationError: a package is missing, or an option of a URL is wrong.
        """
        self.url = url
        self._note = note and f" ({note})"
        self._replica = replica
        self.engine = create_engine(url, pool_size)
        self._is_sqlite = self.engine.dialect.name == "sqlite"
        self.reader = create_reader(self.engine, pool_size)
        """For statements that are each a transaction of their own."""
        self.inspector = create_inspector(self.engine, replica)
        """For what operators read: see `inspect`."""
        self._opened = OpenedConnections(self.engine, self.reader, self.inspector)
        self._writer: AbstractAsyncContextManager[Any] = (
            WriteTurn(_TRANSACTION_SECONDS) if self._is_sqlite else nullcontext()
        )
        self._direct = DirectConnections(
            self.reader,
            PreparingConnection,
            asyncio.Semaphore(2 * pool_size),
            unused_seconds=LEFT_AFTER,
            oldest_seconds=RECYCLE_SECONDS,
        )
        self._direct_sqlite = DirectConnections(
            self.engine, SQLiteRawConnection, self._writer, unused_seconds=math.inf, oldest_seconds=math.inf
        )
        self.dialect = dialect_for(self.engine.dialect)
        self.on_policy_news: Callable[[PolicyNews], None] = lambda _: None
        """Called after a commit in which policies made jobs claimable, or that they report."""
        self._proven = False
        """Whether something was written. Then this user and these tables were right once, and what is wrong with them
        is an outage."""

    @property
    def engines(self) -> tuple[AsyncEngine, ...]:
        """Each pool of connections once. On SQLite all share that of the first."""
        found = {engine.pool: engine for engine in (self.inspector, self.reader, self.engine)}
        return tuple(found.values())

    @property
    def address(self) -> str:
        return f"{shown_url(self.url)}{self._note}"

    @property
    def _read_address(self) -> str:
        return self.address if self._replica is None else f"the replica {shown_url(self._replica)}"

    async def write(self, work: Work[T], *, confirm: Work[T | None] | None = None) -> T:
        """Run ``work`` in one transaction, and again after a deadlock, a lock wait timeout or a lost connection.

        When the connection is lost while committing, it is unknown whether it was committed. ``confirm`` looks in a new
        transaction and returns the result if it was, else None; without it the work is simply done again.

        Raises:
            BackendUnavailable: the database does not answer, or refused all retries; once something was written, also
                what would be one of the next.
            TablesMissing, ConfigurationError: as their names say.
        """
        return await self._write(_connect, work, confirm)

    async def read(self, work: Work[T]) -> T:
        """Run ``work``, which writes nothing, with the same retries and errors as `write`."""
        return await self._read(_connect, work)

    async def inspect(self, work: Work[T]) -> T:
        """Run ``work`` for an operator: in a transaction that cannot write, over a connection of a small pool that
        nothing else uses, to the replica if there is one. Retries and errors are those of `write`.

        Raises:
            RequestRefused: a statement took longer than `INSPECTION_SECONDS`, which servers watch.
        """

        async def limited(connection: AsyncConnection) -> T:
            try:
                return await work(connection)
            except DBAPIError as error:
                if code_of(error) not in TOO_LONG:
                    raise
                raise RequestRefused(
                    f"{self._read_address}: a reading took longer than {INSPECTION_SECONDS} s and was stopped: "
                    "ask for less, or when the server is less busy"
                ) from error

        return await self._read(_connect, limited, self.inspector)

    async def read_only(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run ``work``, whose reads of this database are those of one transaction, as `inspect` has it. After a lost
        connection it is run again.

        Raises:
            RequestRefused: as `inspect`.
        """

        async def inside(connection: AsyncConnection) -> T:
            token = _reading.set((self, connection))
            try:
                return await work()
            finally:
                _reading.reset(token)

        return await self.inspect(inside)

    async def write_alone(self, work: Work[T]) -> T:
        """Run ``work``, which is one statement that may be done twice: on servers, without a COMMIT to send."""
        return await (self.write(work) if self._is_sqlite else self.read(work))

    async def write_plain(
        self,
        work: PlainWork[T],
        *,
        confirm: PlainWork[T | None] | None = None,
        on_unconfirmed: Callable[[], None] | None = None,
    ) -> T:
        """`write` for statements that need nothing of SQLAlchemy, and are in a hurry. ``on_unconfirmed`` is called when
        it becomes unknown whether ``work`` was committed: this may give up before it has found out."""
        return await self._write(_plainly, work, confirm, on_unconfirmed)

    async def read_plain(self, work: PlainWork[T]) -> T:
        """`read` for statements that need nothing of SQLAlchemy, and are in a hurry."""
        return await self._read(_plainly, work)

    @property
    def runs_in_one_hop(self) -> bool:
        """Whether `write_in_one_hop` can be used: on SQLite, unless a listener of the engine would miss it."""
        return self._is_sqlite and SQLiteRawConnection.fits(self.engine)

    async def write_in_one_hop(self, statements: Callable[[], Iterable[Statement]]) -> None:
        """Run ``statements``, which may be done twice, in one transaction on SQLite, with the retries and errors of
        `write`."""
        await self._retried(lambda: self._direct_sqlite.run(lambda connection: connection.write(statements())))

    async def write_directly(self, work: PlainWork[T]) -> T:
        """`write_alone` for a statement that needs nothing of SQLAlchemy: on servers over a connection that stays
        checked out."""
        if RawConnection.fits(self.reader):
            return await self._retried(lambda: self._run_directly(work))
        return await (self.write_plain(work) if self._is_sqlite else self.read_plain(work))

    async def write_often(self, statement: Statement) -> None:
        """`write_directly` for one of few statements, which servers parse once for each connection. On SQLite it is one
        hop to the connection's thread."""
        if RawConnection.fits(self.reader):
            await self._retried(lambda: self._run_directly(lambda connection: connection.execute_often(*statement)))
        elif self.runs_in_one_hop:
            await self._retried(lambda: self._direct_sqlite.run(lambda connection: connection.execute(*statement)))
        else:
            await self.write_directly(lambda connection: connection.exec_driver_sql(*statement))

    async def _run_directly(self, work: Callable[[PreparingConnection], Awaitable[T]]) -> T:
        async with asyncio.timeout(_TRANSACTION_SECONDS):
            return await self._direct.run(work)

    async def _retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        budget = RetryBudget()
        while True:
            try:
                result = await attempt()
                self._proven = True
                return result
            except Exception as error:  # noqa: BLE001 - sorted and raised again below
                await self._pause_or_raise(error, budget)

    async def _write(
        self,
        connect: Connect,
        work: AnyWork[T],
        confirm: AnyWork[T | None] | None,
        on_unconfirmed: Callable[[], None] | None = None,
    ) -> T:
        budget = RetryBudget()
        in_doubt = False
        while True:
            committing = False
            try:
                if in_doubt and confirm is not None:
                    known = await self._once(connect, confirm)
                    if known is not None:
                        return known
                async with asyncio.timeout(_TRANSACTION_SECONDS), self._writer, connect(self.engine) as connection:
                    result = await work(connection)
                    committing = True
                    await connection.commit()
                self._proven = True
                return result
            except Exception as error:  # noqa: BLE001 - sorted and raised again below
                if committing and classify(error) in _MAY_BE_COMMITTED:
                    # Once in doubt, always: another node of a cluster may learn of the first commit only after it was
                    # asked about it, and refuse the second because of it.
                    in_doubt = True
                    if on_unconfirmed is not None:
                        on_unconfirmed()
                await self._pause_or_raise(error, budget)

    async def _read(self, connect: Connect, work: AnyWork[T], engine: AsyncEngine | None = None) -> T:
        reading = _reading.get()
        if reading is not None and reading[0] is self:
            return await work(reading[1])
        budget = RetryBudget()
        while True:
            try:
                return await self._once(connect, work, engine)
            except Exception as error:  # noqa: BLE001 - sorted and raised again below
                await self._pause_or_raise(error, budget, self.address if engine is None else self._read_address)

    async def _once(self, connect: Connect, work: AnyWork[T], engine: AsyncEngine | None = None) -> T:
        async with asyncio.timeout(_TRANSACTION_SECONDS), connect(engine or self.reader) as connection:
            return await work(connection)

    async def _pause_or_raise(self, error: Exception, budget: RetryBudget, address: str = "") -> None:
        address = address or self.address
        if isinstance(error, TimeoutError):
            raise BackendUnavailable(f"{address} did not answer within {_TRANSACTION_SECONDS:.0f} s") from error
        if await budget.pause_after(error):
            return
        translated = translate(error, address)
        if translated is None:
            raise error
        if self._proven and classify(error) is Fault.MISCONFIGURED:
            translated = RequestRefused(str(translated))
        raise translated from error

    def drop(self) -> None:
        """Close every connection without its event loop, which is closed."""
        for engine in self.engines:
            engine.sync_engine.dispose(close=False)
        self._opened.drop()

    async def close(self) -> None:
        await self._direct.close()
        await self._direct_sqlite.close()
        await self.inspector.dispose()
        await self.reader.dispose()
        await self.engine.dispose()


@asynccontextmanager
async def _connect(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
    """A connection of the engine's pool, which gets it back even where the event loop ends meanwhile.

    SQLAlchemy closes it in a task of its own. A loop that ends cancels all tasks, and this one before it has begun.
    """
    connection = engine.connect()
    try:
        async with connection:
            yield connection
    finally:
        if connection.sync_connection is not None and not connection.closed:
            await connection.close()


def _plainly(engine: AsyncEngine) -> AbstractAsyncContextManager[Any]:
    if RawConnection.fits(engine):
        return RawConnection(engine)
    if SQLiteRawConnection.fits(engine):
        return SQLiteReading(engine) if engine.get_execution_options().get(READS) else SQLiteRawConnection(engine)
    return _connect(engine)
