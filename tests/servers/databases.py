"""Databases for single tests: made, emptied, dropped."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, MetaData, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database.tables import SEEDS
from tests.servers.server import Server
from tests.servers.sql import connection, engine

LEAK_SECONDS = 2.0

_numbers = itertools.count(1)
_created: dict[str, dict[str, str]] = {}
"""How the tables of each database were made."""


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
    if database.name != "sqlite":
        with database.connect() as connected:
            _created[url] = _definitions(connected, _table_names(connected))
    database.dispose()


def restore(url: str, metadata: MetaData) -> None:
    """Empty the tables of `metadata`, and drop every other: as right after `create_tables`, and quicker. Tables that
    are made with rows keep them.

    DELETE, because TRUNCATE makes a file anew for every table, empty or not. If a test has altered a table, all tables
    are created anew.

    :raises ConnectionLeakError: somebody was still connected. The tables are emptied all the same.
    """
    name = make_url(url).database or ""
    with connection(url) as database:
        try:
            _refuse_leaks(database, name)
        finally:
            _disconnect(database, name)
            _empty(database, metadata, _created[url])


def _empty(database: Connection, metadata: MetaData, created: dict[str, str]) -> None:
    database.execute(text("SET SESSION foreign_key_checks = 0"))
    names = _table_names(database)
    altered = _definitions(database, [name for name in names if name in metadata.tables]) != created
    for name in names:
        keep = name in metadata.tables and not altered
        if keep and name in SEEDS:
            continue
        database.execute(text(f"DELETE FROM `{name}`" if keep else f"DROP TABLE `{name}`"))
    if altered:
        metadata.create_all(database)


def _table_names(database: Connection) -> list[str]:
    rows = database.execute(text("SHOW FULL TABLES")).all()
    return [str(name) for name, kind in rows if kind == "BASE TABLE"]


def _definitions(database: Connection, names: Iterable[str]) -> dict[str, str]:
    """What the server says of how each table was made, without the counter of AUTO_INCREMENT, which rows move."""
    made = {name: database.execute(text(f"SHOW CREATE TABLE `{name}`")).one()[1] for name in names}
    return {name: re.sub(r" AUTO_INCREMENT=\d+", "", definition) for name, definition in made.items()}


def refuse_leaks(url: str) -> None:
    """Ask the server who is still connected: it also knows of pools that the test has lost sight of.

    :raises ConnectionLeakError: somebody is, and has been for two seconds. The server takes a moment to see that a
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


def connections_of(database: Connection | AsyncConnection) -> str:
    """A query for the ids of the connections that use the database ``:name``.

    SHOW PROCESSLIST would do, but for statements of others that are no text: neither it nor its client can write them.
    """
    if database.dialect.is_mariadb:  # type: ignore[attr-defined]
        return "SELECT id FROM information_schema.processlist WHERE db = :name"
    return "SELECT processlist_id FROM performance_schema.threads WHERE processlist_db = :name"


def _disconnect(database: Connection, name: str) -> None:
    """Ends what still holds locks in there: to empty or to drop a table waits for them."""
    for other in _others(database, name):
        database.execute(text(f"KILL {other}"))


def _url(address: URL) -> str:
    return address.render_as_string(hide_password=False)
