"""Servers and databases for the tests.

| a test asks for | and gets |
|---|---|
| `database_url` | an empty database; the test runs on SQLite, MySQL and MariaDB |
| `migrated_url` | the same, with outbox's tables, all empty |
| `redis_url` | an empty Redis database |
| `mysql_server`, `mariadb_server`, `redis_server`, `mosquitto_server` | the session's server of that kind |
| `local_mysql`, `local_mariadb`, `local_redis` | a server of its own, which it may kill and restart |
| `local_database` | the same, on MySQL and on MariaDB |

Each of these marks the test with its backend: `pytest -m sqlite`, `pytest -m "not mysql"`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis as RedisClient

import outbox
from tests.servers import BACKENDS, LocalServer, MariaDB, MySQL, Redis, Server, databases, find, summary

SQLITE = "sqlite"
SQL_SERVERS = (pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb))
MARKERS = {f"{kind}_server": kind for kind in BACKENDS} | {f"local_{kind}": kind for kind in BACKENDS}
MARKERS["redis_url"] = "redis"


def pytest_configure(config: pytest.Config) -> None:
    for kind in (SQLITE, *BACKENDS):
        config.addinivalue_line("markers", f"{kind}: uses {kind} (set by the fixtures in tests/conftest.py)")
    config.pluginmanager.register(summary.MissingServers())
    forget_settings()


def pytest_itemcollected(item: pytest.Item) -> None:
    for fixture in getattr(item, "fixturenames", ()):
        if fixture in MARKERS:
            item.add_marker(MARKERS[fixture])


def forget_settings() -> None:
    """A developer's own queue must never be what a test works on: only the tests' own variables stay."""
    for name in list(os.environ):
        ours = name.startswith("OUTBOX_TEST_") or name == "OUTBOX_MYSQL9_DIR"
        setting = name.startswith("OUTBOX_") or name in ("DATABASE_URL", "REDIS_URL", "QUEUE_CONNECTION")
        if setting and not ours:
            del os.environ[name]


# --- servers: started by the first test that asks, stopped when the session ends


def session_server(kind: str, factory: pytest.TempPathFactory) -> Iterator[Server]:
    with summary.skipping(), find(kind, factory.mktemp(kind)) as server:
        yield server


@pytest.fixture(scope="session")
def mysql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from session_server("mysql", tmp_path_factory)


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from session_server("mariadb", tmp_path_factory)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from session_server("redis", tmp_path_factory)


@pytest.fixture(scope="session")
def mosquitto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from session_server("mosquitto", tmp_path_factory)


# --- servers of a test's own, running when the test begins


def own_server(kind: type[LocalServer], directory: Path, template: Path | None = None) -> Iterator[LocalServer]:
    with summary.skipping(), kind(directory / kind.kind, template=template) as server:
        yield server
    shutil.rmtree(server.data)  # pytest keeps the directories of its last three runs, and this can be 300 MB


@pytest.fixture
def local_mysql(prepared_mysql: Path, tmp_path: Path) -> Iterator[LocalServer]:
    yield from own_server(MySQL, tmp_path, prepared_mysql)


@pytest.fixture
def local_mariadb(prepared_mariadb: Path, tmp_path: Path) -> Iterator[LocalServer]:
    yield from own_server(MariaDB, tmp_path, prepared_mariadb)


@pytest.fixture
def local_redis(tmp_path: Path) -> Iterator[LocalServer]:
    yield from own_server(Redis, tmp_path)


@pytest.fixture(params=SQL_SERVERS)
def local_database(request: pytest.FixtureRequest) -> LocalServer:
    server: LocalServer = request.getfixturevalue(f"local_{request.param}")
    return server


@pytest.fixture(scope="session")
def prepared_mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from prepared(MySQL, tmp_path_factory)


@pytest.fixture(scope="session")
def prepared_mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from prepared(MariaDB, tmp_path_factory)


def prepared(kind: type[LocalServer], factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = factory.mktemp("prepared")
    with summary.skipping():
        yield kind.prepared(directory)
    shutil.rmtree(directory)


# --- databases


@pytest.fixture(params=(pytest.param(SQLITE, marks=pytest.mark.sqlite), *SQL_SERVERS))
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of database that this run of the test uses: sqlite, mysql or mariadb."""
    return str(request.param)


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The async SQLAlchemy URL of an empty database of the test's own. The test disposes of its engines."""
    if backend == SQLITE:
        yield databases.fresh_file(tmp_path)
        return
    with databases.fresh_database(request.getfixturevalue(f"{backend}_server")) as url:
        yield url


@pytest.fixture
def migrated_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The same with outbox's tables, all empty. Making them is slow, so tests share them, one after the other."""
    template = request.getfixturevalue(f"migrated_{backend}")
    if backend == SQLITE:
        yield databases.fresh_file(tmp_path, template)
        return
    yield template
    databases.restore(template, outbox.metadata)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp(SQLITE)
    databases.create_tables(databases.fresh_file(directory), outbox.metadata)
    return directory / "outbox.db"


@pytest.fixture(scope="session")
def migrated_mysql(mysql_server: Server) -> Iterator[str]:
    yield from migrated(mysql_server)


@pytest.fixture(scope="session")
def migrated_mariadb(mariadb_server: Server) -> Iterator[str]:
    yield from migrated(mariadb_server)


def migrated(server: Server) -> Iterator[str]:
    with databases.fresh_database(server) as url:
        databases.create_tables(url, outbox.metadata)
        yield url


@pytest.fixture
def redis_url(redis_server: Server) -> Iterator[str]:
    """The URL of an empty Redis database. It is emptied afterwards, so one with somebody's data in it is refused."""
    with RedisClient.from_url(redis_server.url) as client:
        if client.dbsize():
            pytest.fail(f"{redis_server.url} is not empty: name a database that tests may empty")
        yield redis_server.url
        client.flushdb()
