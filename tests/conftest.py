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

import gc
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from redis import Redis as RedisClient

import outbox
from tests.servers import BACKENDS, LocalServer, MariaDB, MySQL, Redis, Server, databases, find, summary
from tests.servers.broker import PREPARED
from tests.servers.sharing import SharedServers
from tests.servers.storage import in_memory

SQLITE = "sqlite"
SQL_SERVERS = (pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb))
MARKERS = {f"{kind}_server": kind for kind in BACKENDS} | {f"local_{kind}": kind for kind in BACKENDS}
MARKERS["redis_url"] = "redis"
ALONE = "alone_on_its_server"


# How long Hypothesis takes for an example says something of the machine. It tries 100, and fewer in `make test-fast`.
settings.register_profile("whole", deadline=None, max_examples=100)
settings.register_profile("fast", deadline=None, max_examples=32)
settings.load_profile("whole")


def pytest_configure(config: pytest.Config) -> None:
    for kind in (SQLITE, *BACKENDS):
        config.addinivalue_line("markers", f"{kind}: uses {kind} (set by the fixtures in tests/conftest.py)")
    config.addinivalue_line(
        "markers", f"{ALONE}(name): counts what a server does for all of its clients, or changes it for all of them"
    )
    config.addinivalue_line("markers", "xdist_group(name): tests that run in one process, one after the other")
    if memory := in_memory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))  # pytest makes the directories of tests there
    config.pluginmanager.register(summary.MissingServers())
    config.pluginmanager.register(SharedServers(config), "shared_servers")
    forget_settings()


def pytest_itemcollected(item: pytest.Item) -> None:
    for fixture in getattr(item, "fixturenames", ()):
        if fixture in MARKERS:
            item.add_marker(MARKERS[fixture])
    # A test that names its own backends may have given them no marks.
    kind = item.callspec.params.get("backend") if hasattr(item, "callspec") else None
    if kind in (SQLITE, *BACKENDS) and not item.get_closest_marker(kind):
        item.add_marker(kind)
    # A server that was named to the tests is the only one of its kind: no test may disturb another that counts on it.
    if any(item.get_closest_marker(kind) for kind in BACKENDS if os.environ.get(BACKENDS[kind].variable)):
        item.add_marker(pytest.mark.xdist_group("named servers"))
    elif item.get_closest_marker("mysql") or item.get_closest_marker("mariadb"):
        if "limited_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.alone_on_its_server("one by one"))
        if alone := item.get_closest_marker(ALONE):
            kind = "mysql" if item.get_closest_marker("mysql") else "mariadb"
            item.add_marker(pytest.mark.xdist_group(f"{alone.args[0]} on {kind}"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What was imported and collected stays to the end, a million objects: no search for garbage looks at them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def forget_settings() -> None:
    """A developer's own queue must never be what a test works on: only the tests' own variables stay."""
    for name in list(os.environ):
        ours = name.startswith("OUTBOX_TEST_") or name == "OUTBOX_MYSQL9_DIR"
        setting = name.startswith("OUTBOX_") or name in ("DATABASE_URL", "REDIS_URL", "QUEUE_CONNECTION")
        if setting and not ours:
            del os.environ[name]
    os.environ.pop("COLUMNS", None)  # pytest-xdist tells its workers how wide the terminal is


# --- limits of outbox itself that a machine exceeds which stands still for a few seconds

SHORT_TIMEOUTS = (
    "outbox.drivers.database.connection.engine.INSPECTION_SECONDS",
    "outbox.drivers.database.connection.opened_connections.THREAD_SECONDS",
    "outbox.listeners.FLUSH_SECONDS",
    "outbox.loop_cleanup.CLOSE_SECONDS",
)
"""For statements of operators, and for what ends with a client or an event loop. A test of one sets its own."""


@pytest.fixture(scope="session", autouse=True)
def long_timeouts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for limit in SHORT_TIMEOUTS:
            patch.setattr(limit, 20)
        yield


# --- servers: started when the first test asks, stopped when the session ends. Processes of one run share them, but for
# Redis: each has its own, because a test of Redis often is about what the whole server says or is told.


@pytest.fixture(scope="session")
def shared_servers(pytestconfig: pytest.Config) -> SharedServers:
    plugin = pytestconfig.pluginmanager.get_plugin("shared_servers")
    assert isinstance(plugin, SharedServers)
    return plugin


def shared_server(kind: str, servers: SharedServers) -> Server:
    with summary.skipping():
        return Server(kind, servers.ask(kind))


@pytest.fixture(scope="session")
def mysql_server(shared_servers: SharedServers) -> Server:
    return shared_server("mysql", shared_servers)


@pytest.fixture(scope="session")
def mariadb_server(shared_servers: SharedServers) -> Server:
    return shared_server("mariadb", shared_servers)


@pytest.fixture(scope="session")
def mosquitto_server(shared_servers: SharedServers) -> Server:
    return shared_server("mosquitto", shared_servers)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with summary.skipping(), find("redis", tmp_path_factory.mktemp("redis")) as server:
        yield server


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
def prepared_mysql(shared_servers: SharedServers) -> Path:
    with summary.skipping():
        return Path(shared_servers.ask(PREPARED + "mysql"))


@pytest.fixture(scope="session")
def prepared_mariadb(shared_servers: SharedServers) -> Path:
    with summary.skipping():
        return Path(shared_servers.ask(PREPARED + "mariadb"))


# --- servers of which only the tests marked `alone_on_its_server` know


def lone_server(kind: str, servers: SharedServers, directory: Path) -> Iterator[Server]:
    with summary.skipping(), find(kind, directory, lambda: Path(servers.ask(PREPARED + kind))) as server:
        yield server


@pytest.fixture(scope="session")
def lone_mysql_server(shared_servers: SharedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from lone_server("mysql", shared_servers, tmp_path_factory.mktemp("lone"))


@pytest.fixture(scope="session")
def lone_mariadb_server(shared_servers: SharedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from lone_server("mariadb", shared_servers, tmp_path_factory.mktemp("lone"))


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
    with databases.fresh_database(request.getfixturevalue("sql_server")) as url:
        yield url


@pytest.fixture
def sql_server(backend: str, request: pytest.FixtureRequest) -> Server:
    """The server of the test's databases."""
    server: Server = request.getfixturevalue(f"{lone(request)}{backend}_server")
    return server


def lone(request: pytest.FixtureRequest) -> str:
    """The prefix of the fixtures for this test: nobody else is there when the tests run in one process."""
    alone = request.node.get_closest_marker(ALONE) and hasattr(request.config, "workerinput")
    return "lone_" if alone else ""


@pytest.fixture
def migrated_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The same with outbox's tables, all empty. Making them is slow, so tests share them, one after the other."""
    prefix = lone(request) if backend != SQLITE else ""
    template = request.getfixturevalue(f"{prefix}migrated_{backend}")
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


@pytest.fixture(scope="session")
def lone_migrated_mysql(lone_mysql_server: Server) -> Iterator[str]:
    yield from migrated(lone_mysql_server)


@pytest.fixture(scope="session")
def lone_migrated_mariadb(lone_mariadb_server: Server) -> Iterator[str]:
    yield from migrated(lone_mariadb_server)


def migrated(server: Server) -> Iterator[str]:
    with databases.fresh_database(server) as url:
        databases.create_shared_tables(url, outbox.metadata)
        yield url


@pytest.fixture
def redis_url(redis_server: Server) -> Iterator[str]:
    """The URL of an empty Redis database. It is emptied afterwards, so one with somebody's data in it is refused."""
    with RedisClient.from_url(redis_server.url) as client:
        if client.dbsize():
            pytest.fail(f"{redis_server.url} is not empty: name a database that tests may empty")
        yield redis_server.url
        client.flushdb()
