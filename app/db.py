"""The application's engines and sessions: its own, apart from those that outbox's workers use.

There are two of a kind: asynchronous ones for the API, the consumer and jobs that wait for others, and
blocking ones for jobs that compute, which outbox runs in threads.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from app.settings import settings

BUSY_TIMEOUT = 30_000  # milliseconds that SQLite waits for another writer
THREADS = 20  # connections for jobs in threads: as many as a worker runs at once by default

ASYNC_DRIVERS = {"sqlite": "aiosqlite", "mysql": "asyncmy", "mariadb": "asyncmy"}
BLOCKING_DRIVERS = {"sqlite": "pysqlite", "mysql": "pymysql", "mariadb": "pymysql"}


@cache
def engine() -> AsyncEngine:
    """The engine of this process, made at first use, so after a worker's processes have parted."""
    url = _url(ASYNC_DRIVERS)
    made = create_async_engine(url, **_pool(url))
    _tune(made.sync_engine)
    return made


@cache
def blocking_engine() -> Engine:
    """The same database for code in threads."""
    url = _url(BLOCKING_DRIVERS)
    made = create_engine(url, **_pool(url))
    _tune(made)
    return made


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncSession]:
    """A session in a transaction: commits at the end of the block, rolls back on any exception."""
    async with AsyncSession(engine(), expire_on_commit=False) as session, session.begin():
        yield session


@asynccontextmanager
async def snapshot() -> AsyncIterator[AsyncSession]:
    """A session for reading only: on SQLite it takes no lock that another process would wait for."""
    reader = engine().execution_options(sqlite_begin="DEFERRED")
    async with AsyncSession(reader, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def blocking_transaction() -> Iterator[Session]:
    """`transaction`, for code in threads."""
    with Session(blocking_engine(), expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def blocking_snapshot() -> Iterator[Session]:
    """`snapshot`, for code in threads."""
    reader = blocking_engine().execution_options(sqlite_begin="DEFERRED")
    with Session(reader, expire_on_commit=False) as session, session.begin():
        yield session


async def dispose() -> None:
    """Close this process' connections; the next use opens new ones."""
    if engine.cache_info().currsize:
        await engine().dispose()
        engine.cache_clear()
    if blocking_engine.cache_info().currsize:
        blocking_engine().dispose()
        blocking_engine.cache_clear()


def _url(drivers: dict[str, str]) -> URL:
    url = make_url(settings().database_url)
    backend = url.get_backend_name()
    if backend not in drivers:
        raise ValueError(f"DATABASE_URL: this application runs on {', '.join(drivers)}, not on {backend}")
    return url.set(drivername=f"{backend}+{drivers[backend]}")


def _pool(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        # SQLite has one writer at a time. Queueing for it here, in order, beats letting twenty connections
        # poll the file's lock, where the unlucky wait longest.
        return {"pool_size": 1, "max_overflow": 0, "pool_timeout": 60}
    return {"pool_size": THREADS, "pool_pre_ping": True, "pool_recycle": 1800}


def _tune(engine: Engine) -> None:
    """On SQLite, let transactions wait for a writer instead of failing.

    SQLAlchemy's documented recipe: the driver begins nothing by itself, we say BEGIN IMMEDIATE. A deferred
    transaction that reads first and writes later fails at once with "database is locked" if somebody wrote
    in between, whatever the busy timeout: its snapshot cannot be upgraded.
    """
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")
