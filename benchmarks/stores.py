"""Where jobs are kept while something is measured: servers of this run, and one empty database on each."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis as RedisClient
from sqlalchemy import Connection, text

from outbox import configure, disconnect, metadata
from outbox.connections import open_driver
from outbox.drivers.base import Driver
from outbox.settings import DATABASE, Settings
from tests.servers import BACKENDS, Server, databases, find
from tests.servers.sql import connection, engine

SQL_SERVERS = ("mysql", "mariadb")
DATABASES = (*SQL_SERVERS, "sqlite")
KINDS = (*DATABASES, "redis", "redis-aof")
"""`redis` keeps what it has in memory, as it does by default; `redis-aof` has written every command to the disk before
it answers, as the databases have."""

# Memory enough for three million rows. What makes a commit durable stays as the tests have it: the safe settings.
_INNODB = ("--innodb-buffer-pool-size=1G", "--max-connections=300")
_OPTIONS: Mapping[str, Sequence[str]] = {
    "mysql": (*_INNODB, "--innodb-redo-log-capacity=1G"),
    "mariadb": (*_INNODB, "--innodb-log-file-size=1G"),
    "redis": ("--appendonly", "no"),
    "redis-aof": (),
}


@dataclass(frozen=True, slots=True)
class Store:
    """One database, or one Redis, that belongs to this run: it is emptied at will."""

    kind: str
    url: str
    owned: bool
    """Whether this run started the server, and may therefore throw away its logs."""

    @property
    def is_sql_server(self) -> bool:
        return self.kind in SQL_SERVERS

    @property
    def is_redis(self) -> bool:
        return self.kind not in DATABASES

    @property
    def connection(self) -> str:
        return "redis" if self.is_redis else DATABASE

    def environment(self) -> dict[str, str]:
        """The variables that make this the store of a process."""
        variable = "REDIS_URL" if self.is_redis else "DATABASE_URL"
        return {variable: self.url, "QUEUE_CONNECTION": self.connection}

    def driver(self, pool_size: int = 5) -> Driver:
        settings = Settings.load(connection=self.connection, **{f"{self.connection}_url": self.url})
        return open_driver(settings, self.connection, pool_size=pool_size)

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """While this is the store of what this process dispatches."""
        configure(connection=self.connection, **{f"{self.connection}_url": self.url})
        try:
            yield
        finally:
            await disconnect()
            configure()

    @contextmanager
    def sql(self) -> Iterator[Connection]:
        """A synchronous connection in autocommit, through none of the code that is measured."""
        with connection(self.url) as opened:
            yield opened

    def clear(self) -> None:
        """Empty it so that nothing of what was measured before is left, not even deleted rows that await their
        removal."""
        if self.is_redis:
            with RedisClient.from_url(self.url) as client:
                client.flushdb()
            return
        database = engine(self.url)
        metadata.drop_all(database)
        metadata.create_all(database)
        if self.is_sql_server and self.owned:
            with database.connect() as opened:
                opened.execute(text("PURGE BINARY LOGS BEFORE NOW()"))
        database.dispose()


@contextmanager
def opened(kind: str, directory: Path) -> Iterator[Store]:
    """A store of this kind: from a URL in the environment (that of the tests, OUTBOX_TEST_…_URL), from a server program
    on this machine, else from a container. What this run starts keeps its data in ``directory``.

    :raises ServerMissingError: there is none, and nothing here can start one.
    """
    if kind == "sqlite":
        directory.mkdir()
        store = Store(kind, databases.fresh_file(directory), owned=True)
        store.clear()
        yield store
        return
    with _server(kind, directory) as (server, owned):
        if kind in SQL_SERVERS:
            with databases.fresh_database(server) as url:
                store = Store(kind, url, owned)
                store.clear()
                yield store
            return
        store = Store(kind, server.url, owned)
        _refuse_data(store)
        yield store
        store.clear()


@contextmanager
def _server(kind: str, directory: Path) -> Iterator[tuple[Server, bool]]:
    """A server, and whether this run has started its program."""
    backend = BACKENDS[kind.partition("-")[0]]
    if backend.variable in os.environ or backend.local.program_on_this_machine() is None:
        with find(backend.local.kind, directory) as server:
            yield server, False
        return
    with backend.local(directory, options=_OPTIONS[kind]) as process:
        yield Server(backend.local.kind, process.url), True


def _refuse_data(store: Store) -> None:
    with RedisClient.from_url(store.url) as client:
        if not store.owned and client.dbsize():
            raise SystemExit(f"{store.url} is not empty: name a Redis database that may be emptied")
