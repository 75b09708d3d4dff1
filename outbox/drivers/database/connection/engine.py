"""Engines of outbox's own: READ COMMITTED on MySQL and MariaDB, and as `sqlite` has them. What URLs may say."""

from __future__ import annotations

import re
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from outbox import clock
from outbox.drivers.database.connection.errors import needs_new_connection
from outbox.drivers.database.connection.lazy_asyncmy import load_asyncmy
from outbox.drivers.database.connection.tls import check_tls
from outbox.errors import ConfigurationError, UnsupportedServer
from outbox.url_secrets import without_secrets

_CONNECT_SECONDS = 10
RECYCLE_SECONDS = 1800
IDLE_SECONDS = 30
"""After which the server closes a connection, and undoes what was begun on it. Until then, a machine that was lost in
the middle of a transaction locks what it was about to claim or to settle. A server's own time is eight hours."""
LEFT_AFTER = 20.0
"""Seconds after which a connection that was idle is not used again."""
_SQL_MODE = "'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"
"""Whatever the server's is. NO_BACKSLASH_ESCAPES above all: asyncmy quotes bytes, such as a claim's token, for servers
without it."""
_SESSION = (
    "completion_type = 0, sql_safe_updates = 0, sql_select_limit = 18446744073709551615, sql_big_selects = 1"
    " /*!80000 , transaction_read_only = 0 */ /*M! , tx_read_only = 0 */"
)
"""An administrator may have made others the default for all sessions, with which outbox's statements cannot work: a new
transaction or the end of the connection after each COMMIT, limits on rows, no writes. MariaDB does not read the first
comment, MySQL not the second."""
INSPECTION_SECONDS = 2
"""For which a server carries out one statement of an operator."""
_INSPECTORS = 2
"""Connections for operators: more of them at once wait for one."""
_IDLE_SINCE = "outbox.idle_since"
_LAST_PORT = 65_535
_MYSQL, _MARIADB, _SQLITE = (8, 0, 4), (10, 6), (3, 35)
_EXAMPLE = "mysql+asyncmy://user:password@host/shop"
_NAMES_DATABASE = {"db", "database", "read_default_file"}
"""Options of a URL that can say which database is meant."""
_NEEDED = "SELECT … FOR UPDATE SKIP LOCKED and JSON_TABLE"


def parse_url(url: str) -> URL:
    """
    Raises:
        ConfigurationError: it is not the URL of a database that outbox can use.
    """
    parsed = read_url(url)
    shown = shown_url(parsed)
    backend = parsed.get_backend_name()
    if backend not in {"mysql", "mariadb", "sqlite"}:
        raise ConfigurationError(f"outbox keeps jobs in MySQL, MariaDB or SQLite, not in {backend}")
    if backend != "sqlite" and not parsed.database and not _NAMES_DATABASE & set(parsed.query):
        raise ConfigurationError(f"{shown} names no database: write it after the host, as in {_EXAMPLE}")
    driver = "asyncmy" if backend != "sqlite" else "aiosqlite"
    if parsed.drivername == backend:
        return parsed.set(drivername=f"{backend}+{driver}")
    if not parsed.drivername.endswith(f"+{driver}"):
        raise ConfigurationError(
            f"outbox reaches {backend} through {driver}: write {backend}+{driver}://… "
            f"instead of {parsed.drivername}://…"
        )
    return parsed


def replica_of(url: URL, replica_url: str) -> URL:
    """The URL of a replica of the database at ``url``.

    Raises:
        ConfigurationError: it is not the URL of a database that outbox can use, or not of the same kind.
    """
    try:
        replica = parse_url(replica_url)
    except ConfigurationError as error:
        raise ConfigurationError(f"its replica: {error}") from error
    if (replica.get_backend_name() == "sqlite") is not (url.get_backend_name() == "sqlite"):
        raise ConfigurationError(f"{shown_url(replica)} cannot be a replica of {shown_url(url)}: they are of two kinds")
    return replica


def read_url(url: str) -> URL:
    """
    Raises:
        ConfigurationError: it is not the URL of a database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the second for a port that is no number
        raise ConfigurationError(f"{without_secrets(url)!r} is not a database URL; an example: {_EXAMPLE}") from None
    if parsed.get_backend_name() != "sqlite" and url.partition("://")[2].count("@") > 1:
        # The first of them would end the password, and the rest of it be taken for the name of the server.
        raise ConfigurationError(
            f"{without_secrets(url)!r} has more than one @: write %40 for those in a password, a name or an option"
        )
    return parsed


def shown_url(url: URL) -> str:
    """``url`` for people, without passwords."""
    return without_secrets(url.render_as_string(hide_password=True))


def certainly_differ(one: URL, other: URL) -> bool:
    """Whether two URLs certainly name different databases.

    Hosts and ports do not tell: a server has many names, and proxies. Nor does a URL without a database, whose engine
    has another way to find it; nor a file of SQLite that is not there, or a ``file:`` URI.
    """
    if not one.database or not other.database:
        return False
    sqlite = [url.get_backend_name() == "sqlite" for url in (one, other)]
    if not any(sqlite):
        # Whether a server tells names apart by case is its own setting.
        return one.database.casefold() != other.database.casefold()
    if not all(sqlite):
        return True
    files = Path(one.database), Path(other.database)
    return all(file.is_file() for file in files) and not files[0].samefile(files[1])


def create_engine(url: URL, pool_size: int) -> AsyncEngine:
    """
    Raises:
        ConfigurationError: the driver's package is not installed, or an option of the URL is none of its.
    """
    try:
        if url.get_backend_name() == "sqlite":
            # Imported only here, because servers need nothing of it.
            from outbox.drivers.database.connection import sqlite_engine as sqlite

            engine = sqlite.create_engine(url, pool_size)
            _leave_useless_connections(engine)
            return engine
        engine = _server_engine(url, "READ COMMITTED", pool_size, pool_size)
        _check_options(engine)
        return engine
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        package = "aiosqlite" if url.get_backend_name() == "sqlite" else "'outbox-queue[mysql]'"
        raise ConfigurationError(f"{url.drivername} needs a package: pip install {package} ({error})") from error
    except ValueError as error:
        raise ConfigurationError(f"an option of {shown_url(url)} has a value that it cannot have: {error}") from error


def _check_options(engine: AsyncEngine) -> None:
    """asyncmy would refuse them too, but at every attempt to connect, which looks like a server that is away."""
    _, options = engine.dialect.create_connect_args(engine.url)
    check_tls(shown_url(engine.url), options.get("ssl"))
    port = options.get("port", 0)
    if not isinstance(port, int) or not 0 <= port <= _LAST_PORT:
        raise ConfigurationError(f"{shown_url(engine.url)}: a port is after the host, from 1 to {_LAST_PORT:,}")
    if options.get("read_timeout", 1) <= 0:
        raise ConfigurationError(f"{shown_url(engine.url)}: a read_timeout is more than 0 seconds")
    try:
        known = signature(import_module("asyncmy").connect).parameters
    except ValueError:  # compiled without
        return
    for option in options:
        if option not in known:
            raise ConfigurationError(f"{shown_url(engine.url)}: {engine.dialect.driver} has no option {option!r}")


def create_inspector(engine: AsyncEngine, url: URL | None = None) -> AsyncEngine:
    """An engine for what operators read, from the replica at ``url`` if it is given: each connection is one transaction
    that cannot write and sees one state of the tables. Of servers it has few connections, and a statement ends after
    `INSPECTION_SECONDS`."""
    if engine.dialect.name == "sqlite":
        return create_reader(engine if url is None else create_engine(url, _INSPECTORS), 0)
    session = (
        _SESSION.replace("read_only = 0", "read_only = 1")
        + f" /*!80000 , max_execution_time = {INSPECTION_SECONDS * 1000} */"
        + f" /*M! , max_statement_time = {INSPECTION_SECONDS} */"
    )
    return _server_engine(engine.url if url is None else url, "REPEATABLE READ", _INSPECTORS, 0, session)


def create_reader(engine: AsyncEngine, pool_size: int) -> AsyncEngine:
    """An engine for statements that are each a transaction of their own, with nothing sent before or after."""
    if engine.dialect.name == "sqlite":
        from outbox.drivers.database.connection import sqlite_engine as sqlite

        return sqlite.create_reader(engine)
    reader = _server_engine(engine.url, "AUTOCOMMIT", 1, pool_size)
    dialect = reader.sync_engine.dialect
    roll_back = dialect.do_rollback

    def roll_back_what_is_broken(connection: Any) -> None:
        # There is no transaction. But a connection that was lost must not go back to the pool, and this finds out.
        if not dialect.get_driver_connection(connection).connected:
            roll_back(connection)

    dialect.do_rollback = roll_back_what_is_broken  # type: ignore[assignment, method-assign]
    return reader


def _server_engine(
    url: URL, isolation_level: str, pool_size: int, max_overflow: int, session: str = _SESSION
) -> AsyncEngine:
    load_asyncmy()
    alone = isolation_level == "AUTOCOMMIT"
    engine = create_async_engine(
        url,
        isolation_level=isolation_level,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_recycle=RECYCLE_SECONDS,
        # A transaction that was not committed is rolled back when its connection is closed. After a commit there is
        # nothing to roll back: to ask the server all the same would cost every claim a round trip.
        pool_reset_on_return=None,
        connect_args={
            "connect_timeout": _CONNECT_SECONDS,
            "charset": "utf8mb4",
            # All settings in one statement: an init_command would be two round trips more.
            "sql_mode": f"{_SQL_MODE}, wait_timeout = {IDLE_SECONDS}, autocommit = {int(alone)}, {session}",
            "autocommit": alone,
        },
    )
    _leave_useless_connections(engine)
    _leave_idle_connections(engine)
    return engine


def _leave_useless_connections(engine: AsyncEngine) -> None:
    """Drop connections to a primary that became read-only. Otherwise every retry meets the old primary, although a
    proxy or a name leads to the new one. Connections without the rights that they need are dropped too: a file of
    SQLite that was opened while it could not be written is never written over that connection."""
    dialect = engine.sync_engine.dialect
    is_disconnect = dialect.is_disconnect

    def is_lost(error: Any, connection: Any, cursor: Any) -> bool:
        return needs_new_connection(error) or is_disconnect(error, connection, cursor)

    dialect.is_disconnect = is_lost  # type: ignore[assignment, method-assign]


def _leave_idle_connections(engine: AsyncEngine) -> None:
    """Drop idle connections before the server closes them: a closed connection looks like an outage."""

    def note(_: Any, record: ConnectionPoolEntry) -> None:
        record.info[_IDLE_SINCE] = clock.now()

    def look(_: Any, record: ConnectionPoolEntry, __: Any) -> None:
        if clock.now() - record.info.get(_IDLE_SINCE, float("inf")) > LEFT_AFTER:
            raise DisconnectionError

    event.listen(engine.sync_engine.pool, "checkin", note)
    event.listen(engine.sync_engine.pool, "checkout", look)


async def server_version(connection: AsyncConnection) -> str:
    """The server's name and version.

    Raises:
        UnsupportedServer: it is too old to give the guarantees.
    """
    if connection.dialect.name == "sqlite":
        found = str((await connection.exec_driver_sql("SELECT sqlite_version()")).scalar_one())
        return check_version("SQLite", found, _SQLITE, "RETURNING and upserts")
    found = str((await connection.exec_driver_sql("SELECT VERSION()")).scalar_one())
    if "mariadb" in found.lower():
        # Some releases put a version of MySQL that old replicas understood before their own.
        return check_version("MariaDB", found.removeprefix("5.5.5-"), _MARIADB, _NEEDED)
    return check_version("MySQL", found, _MYSQL, _NEEDED)


def check_version(product: str, found: str, needed: tuple[int, ...], feature: str) -> str:
    """
    Raises:
        UnsupportedServer: ``found`` is older than ``needed``, or no version at all.
    """
    numbers = tuple(int(number) for number in re.findall(r"\d+", found)[:3])
    least = ".".join(str(number) for number in needed)
    if numbers < needed:
        raise UnsupportedServer(
            f"{product} {found} has no {feature}, which outbox needs to claim jobs: "
            f"upgrade to {product} {least} or later"
        )
    return f"{product} {'.'.join(str(number) for number in numbers)}"
