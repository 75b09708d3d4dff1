"""Sessions for jobs whose ``handle`` takes one, on the database that keeps the job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from importlib.util import find_spec

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from outbox.drivers.database.connection.plans import run_in_session
from outbox.drivers.database.dialects import dialect_for
from outbox.drivers.database.jobs.lease import current_tokens
from outbox.errors import ConfigurationError
from outbox.settlement import Fence

_MYSQL_MODULES = {"pymysql": "pymysql", "MySQLdb": "mysqldb", "mysql.connector": "mysqlconnector"}
_RECYCLE_SECONDS = 1800


class JobSessions:
    """Engines are made when the first job needs one. Each running job has at most one connection.

    Transactions have the isolation that the server gives to any application. On SQLite they begin without a lock, and
    take the only one of the database with their first write.
    """

    def __init__(self, urls: Mapping[str, str], size: int) -> None:
        """``urls`` are the databases of connections, by name; ``size`` is how many jobs run at once."""
        self._urls = {name: make_url(url) for name, url in urls.items()}
        self._size = size
        self._engines: dict[str, AsyncEngine] = {}
        self._sync_engines: dict[str, Engine] = {}
        self._lock = threading.Lock()
        """Threads make sync engines: jobs that begin at once share one."""

    def open(self, connection: str) -> AsyncSession:
        """
        Raises:
            ConfigurationError: jobs of this connection are not in a database.
        """
        engine = self._engines.get(connection)
        if engine is None:
            engine = create_async_engine(self.url(connection), **self._pool())
            _begin_on_sqlite(engine.sync_engine)
            self._engines[connection] = engine
        return AsyncSession(engine, expire_on_commit=False)

    def open_sync(self, connection: str) -> Session:
        """The same for a plain ``def handle``, with another driver of the database.

        Raises:
            ConfigurationError: jobs of this connection are not in a database, or no sync driver is installed.
        """
        with self._lock:
            engine = self._sync_engines.get(connection)
            if engine is None:
                engine = create_engine(_sync_url(self.url(connection)), **self._pool())
                _begin_on_sqlite(engine)
                self._sync_engines[connection] = engine
        return Session(engine, expire_on_commit=False)

    async def is_gone(self, connection: str, fence: Fence) -> bool:
        """Whether the row of a job is no longer held under its token: a COMMIT without an answer was done."""
        async with self.open(connection) as session:
            tokens = await session.run_sync(lambda sync: _tokens(sync.connection(), fence))
        return tokens.get(fence.job_id.bytes) != fence.token

    async def start(self) -> None:
        """Engines are made when they are needed."""

    async def stop(self) -> None:
        """Close all connections."""
        for engine in self._engines.values():
            await engine.dispose()
        for sync_engine in self._sync_engines.values():
            await asyncio.to_thread(sync_engine.dispose)

    def url(self, connection: str) -> URL:
        """
        Raises:
            ConfigurationError: jobs of this connection are not in a database.
        """
        url = self._urls.get(connection)
        if url is None:
            raise ConfigurationError(
                f"jobs of the connection {connection!r} are not in a database, so none of them can end in a "
                "session's transaction: dispatch the job to a connection on a database"
            )
        return url

    def _pool(self) -> dict[str, int | bool]:
        return {"pool_size": self._size, "pool_pre_ping": True, "pool_recycle": _RECYCLE_SECONDS}


def _tokens(connection: Connection, fence: Fence) -> dict[bytes, bytes | None]:
    return run_in_session(connection, current_tokens(dialect_for(connection.dialect), [fence.job_id.bytes], lock=False))


def _sync_url(url: URL) -> URL:
    if url.get_backend_name() == "sqlite":
        return url.set(drivername="sqlite+pysqlite")
    for module, driver in _MYSQL_MODULES.items():
        if find_spec(module.partition(".")[0]) is not None:
            return url.set(drivername=f"{url.get_backend_name()}+{driver}")
    raise ConfigurationError(
        "a plain `def handle(self, session)` needs a sync driver of the database, and none is installed: "
        "`pip install pymysql`, or make it `async def handle(self, session: AsyncSession)`"
    )


def _begin_on_sqlite(engine: Engine) -> None:
    """Python's driver begins with the first write only, so that a savepoint before it would be a transaction."""
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def leave_begin_to_us(connection: object, _: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")
