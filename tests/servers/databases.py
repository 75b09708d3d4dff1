"""Databases for single tests: made, emptied, dropped."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import compress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, MetaData, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database.tables import SEEDS
from tests.servers.server import Server
from tests.servers.sql import connection, engine

LEAK_SECONDS = 10.0
DDL = ", ".join(
    f"'Com_{verb}_{noun}'"
    for verb in ("alter", "create", "drop", "rename")
    for noun in ("index", "table", "trigger", "view")
)

_UNKNOWN_THREAD = 1094

_numbers = itertools.count(1)


@dataclass
class _Created:
    """The tables of a database as they were made."""

    definitions: dict[str, str]
    ddl: int
    """How many statements of DDL the server had counted when they were last seen like that."""


_created: dict[str, _Created] = {}


class ConnectionLeakError(Exception):
    """A test ended, and something still holds a connection to its database."""


@contextmanager
def fresh_database(server: Server) -> Iterator[str]:
    """Yield the async URL of an empty database, and drop it afterwards.

    :raises ConnectionLeakError: at the end somebody was still connected to it. It is dropped all the same.
    """
    address = make_url(server.url)
    # The process's number in the name lets several runs share one server.
    name = f"outbox_test_{os.getpid()}_{next(_numbers)}"
    with connection(server.url) as admin:
        admin.execute(text(f"CREATE DATABASE {name} CHARACTER SET utf8mb4"))
    url = _url(address.set(database=name))
    try:
        yield url
        refuse_leaks(url)
    finally:
        with connection(server.url) as admin:
            _disconnect(admin, name)
            admin.execute(text(f"DROP DATABASE {name}"))


def fresh_file(directory: Path, template: Path | None = None) -> str:
    """The async URL of an SQLite database in `directory`: a new one, or a copy of `template`."""
    file = directory / "outbox.db"
    if template:
        shutil.copyfile(template, file)
    return f"sqlite+aiosqlite:///{file}"


def create_tables(url: str, metadata: MetaData) -> None:
    database = engine(url)
    metadata.create_all(database)
    database.dispose()


def create_shared_tables(url: str, metadata: MetaData) -> None:
    """On a server, for tests that share them: `restore` brings them back to what they are now."""
    create_tables(url, metadata)
    with connection(url) as database:
        ddl = _count_ddl(database)
        _created[url] = _Created(_definitions(database, _table_names(database)), ddl)


def restore(url: str, metadata: MetaData) -> None:
    """Empty the tables of `metadata`, and drop every other: as right after `create_shared_tables`, and quicker. Tables
    that are made with rows keep them.

    DELETE, because TRUNCATE makes a file anew for every table, empty or not. If a test has altered a table, all tables
    are created anew. Their definitions are read only after DDL, of which the server keeps count: mostly there was none.

    :raises ConnectionLeakError: somebody was still connected. The tables are emptied all the same.
    """
    name = make_url(url).database or ""
    with _kept_engine(url).connect() as database:
        try:
            _refuse_leaks(database, name)
        except ConnectionLeakError:
            _disconnect(database, name)
            raise
        finally:
            _empty(database, metadata, _created[url])


@cache
def _kept_engine(url: str) -> Engine:
    """An engine asks a server for its settings once. This one holds no connection."""
    return engine(url)


def _empty(database: Connection, metadata: MetaData, created: _Created) -> None:
    ddl = _count_ddl(database)
    if ddl != created.ddl:
        created.ddl = ddl if _undo_ddl(database, metadata, created.definitions) else -1
    names = [name for name in created.definitions if name not in SEEDS]
    used = database.execute(text("SELECT " + ", ".join(f"EXISTS (SELECT 1 FROM `{name}`)" for name in names))).one()
    for name in compress(names, used):
        database.execute(text(f"DELETE FROM `{name}`"))


def _undo_ddl(database: Connection, metadata: MetaData, created: dict[str, str]) -> bool:
    """Whether there was nothing to undo."""
    names = _table_names(database)
    altered = _definitions(database, [name for name in names if name in created]) != created
    superfluous = [name for name in names if altered or name not in created]
    if superfluous:
        database.execute(text("SET SESSION foreign_key_checks = 0"))
        database.execute(text("DROP TABLE " + ", ".join(f"`{name}`" for name in superfluous)))
    if altered:
        metadata.create_all(database)
    return not superfluous


def _count_ddl(database: Connection) -> int:
    """How many statements of its clients have changed a table of the server, in any of its databases."""
    rows = database.execute(text(f"SHOW GLOBAL STATUS WHERE Variable_name IN ({DDL})")).all()
    return sum(int(count) for _, count in rows)


def _table_names(database: Connection) -> list[str]:
    rows = database.execute(text("SHOW FULL TABLES")).all()
    return [str(name) for name, kind in rows if kind == "BASE TABLE"]


def _definitions(database: Connection, names: Iterable[str]) -> dict[str, str]:
    """What the server says of how each table was made, without the counter of AUTO_INCREMENT, which rows move."""
    made = {name: database.execute(text(f"SHOW CREATE TABLE `{name}`")).one()[1] for name in names}
    return {name: re.sub(r" AUTO_INCREMENT=\d+", "", definition) for name, definition in made.items()}


def refuse_leaks(url: str) -> None:
    """Ask the server who is still connected: it also knows of pools that the test has lost sight of.

    :raises ConnectionLeakError: somebody is, and has been for ten seconds. The server takes a moment to see that a
        client has gone.
    """
    with connection(url) as database:
        _refuse_leaks(database, make_url(url).database or "")


def _refuse_leaks(database: Connection, name: str) -> None:
    deadline = time.monotonic() + LEAK_SECONDS
    while others := _others(database, name):
        if time.monotonic() > deadline:
            count = f"{len(others)} connection{'s' if len(others) > 1 else ''}"
            raise ConnectionLeakError(f"{count} to {name} still open: the test must dispose of its engines")
        time.sleep(0.01)


def _others(database: Connection, name: str) -> list[int]:
    """The ids of the connections, this one left out, that use the database `name`."""
    own = database.scalar(text("SELECT CONNECTION_ID()"))
    return [each for each in database.scalars(text(connections_of(database)), {"name": name}) if each != own]


def connections_of(database: Connection | AsyncConnection, column: str = "db") -> str:
    """A query for the ids of the connections whose ``column`` is ``:name``: ``db``, ``user`` or ``command``.

    SHOW PROCESSLIST would do, but for statements of others that are no text: neither it nor its client can write them.
    """
    if database.dialect.is_mariadb:  # type: ignore[attr-defined]
        return f"SELECT id FROM information_schema.processlist WHERE {column} = :name"
    return f"SELECT processlist_id FROM performance_schema.threads WHERE processlist_{column} = :name"


def _disconnect(database: Connection, name: str) -> None:
    """Ends what still holds locks in there: to empty or to drop a table waits for them."""
    kill(database, _others(database, name))


def kill(database: Connection, ids: Iterable[int]) -> None:
    """Ends connections. A server keeps one whose client has gone for some time: it may be gone before it is killed."""
    for each in ids:
        try:
            database.execute(text(f"KILL {each}"))
        except OperationalError as error:
            if error.orig is None or error.orig.args[0] != _UNKNOWN_THREAD:
                raise


def _url(address: URL) -> str:
    return address.render_as_string(hide_password=False)
