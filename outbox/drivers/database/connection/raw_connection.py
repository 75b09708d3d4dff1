"""Connections for the hot path: SQLAlchemy's pool and errors, without its connection, transaction and result.

A worker that was idle claims with cold processor caches. There SQLAlchemy's objects take 0.6 ms, a third of a claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn


class Rows(Protocol):
    @property
    def rowcount(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class SqlConnection(Protocol):
    """What a `RawConnection` and SQLAlchemy's ``AsyncConnection`` have in common."""

    async def exec_driver_sql(self, statement: str, parameters: tuple[Any, ...], /) -> Rows: ...

    async def rollback(self) -> None: ...


class Answer(Sequence[Any]):
    """Rows as the driver returns them."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)


class RawConnection:
    """A connection of the engine's pool to MySQL or MariaDB. What was not committed when the context is left with an
    error is rolled back; a connection in doubt is closed."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._dialect = engine.dialect
        self._pooled: Any = None
        self._driver: Any = None

    @staticmethod
    def fits(engine: AsyncEngine) -> bool:
        """Whether it can be used. Listeners of the engine would miss these statements."""
        sync = engine.sync_engine
        return sync.dialect.name != "sqlite" and not (sync._has_events or sync.dialect._has_events)  # noqa: SLF001

    async def __aenter__(self) -> Self:
        try:
            self._pooled = await self._engine.raw_connection()
        except Exception as error:
            raise self._translated(error, None) from error
        self._driver = self._pooled.driver_connection
        return self

    async def exec_driver_sql(self, statement: str, parameters: tuple[Any, ...] = (), /) -> Answer:
        try:
            async with self._driver.cursor() as cursor:
                await cursor.execute(statement, parameters)
                return Answer(await cursor.fetchall(), cursor.rowcount)
        except Exception as error:
            raise self._translated(error, statement) from error

    async def commit(self) -> None:
        try:
            await greenlet_spawn(self._dialect.do_commit, self._pooled.dbapi_connection)
        except Exception as error:
            raise self._translated(error, None) from error

    async def rollback(self) -> None:
        """Undo what was done, to begin again."""
        try:
            await self._driver.rollback()
        except Exception as error:
            raise self._translated(error, None) from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or await self.recovered(error):
            # A connection more than the pool keeps is closed here, which takes a round trip.
            await greenlet_spawn(self._pooled.close)
        else:
            await greenlet_spawn(self._give_up, error)

    async def open_alone(self) -> None:
        """Open it outside of the pool, for as long as the caller wants."""
        await self.__aenter__()
        self._pooled.detach()

    async def recovered(self, error: BaseException) -> bool:
        """Whether it can be used again after ``error``: the server refused, and undid what was begun."""
        return self._is_only_refused(error) and await self._rolled_back()

    async def close(self) -> None:
        """Close a connection that `open_alone` opened, even in the middle of a statement."""
        await greenlet_spawn(self._pooled.close)

    def _is_only_refused(self, error: BaseException) -> bool:
        """Whether the server answered: what it was, then, is known to be over."""
        return isinstance(error, DBAPIError) and not error.connection_invalidated

    async def _rolled_back(self) -> bool:
        try:
            await self._driver.rollback()
        except Exception:  # noqa: BLE001 - whatever it is, this connection is not used again
            return False
        return True

    def _give_up(self, error: BaseException) -> None:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            # The others of the pool were most likely lost with it: they are opened anew, as SQLAlchemy does it.
            self._engine.sync_engine.pool._invalidate(self._pooled, error)  # noqa: SLF001
        else:
            self._pooled.invalidate(error)

    def _translated(self, error: Exception, statement: str | None) -> Exception:
        driver = self._dialect.loaded_dbapi
        if not isinstance(error, driver.Error):
            return error
        lost = self._dialect.is_disconnect(error, None, None)
        return DBAPIError.instance(
            statement, None, error, driver.Error, connection_invalidated=lost, dialect=self._dialect
        )
