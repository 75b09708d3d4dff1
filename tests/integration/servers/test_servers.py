"""The servers that every other test stands on are what they claim to be, survive a crash, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from redis import Redis as RedisClient
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.ext.asyncio import create_async_engine

import outbox
from outbox.drivers.database.tables import SEEDS
from tests.servers import LocalServer, Redis, Server, ServerFailedError, databases, find, summary
from tests.servers.ping import ping
from tests.servers.process import free_port
from tests.servers.sql import connection, engine
from tests.support.table_versions import add_job, table_id

ROOT = Path(__file__).parents[3]


async def ask(url: str, *statements: str) -> object:
    """The first value that the last of `statements` returns, over the driver that outbox uses."""
    pool = create_async_engine(url)
    try:
        async with pool.begin() as database:
            for statement in statements:
                result = await database.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await pool.dispose()


# --- they are what they claim to be


async def test_mysql_is_mysql_8_or_later(mysql_server: Server) -> None:
    version = str(await ask(mysql_server.url, "SELECT VERSION()"))
    assert "MariaDB" not in version
    assert int(version.split(".")[0]) >= 8


async def test_mariadb_is_mariadb_10_6_or_later(mariadb_server: Server) -> None:
    version = str(await ask(mariadb_server.url, "SELECT VERSION()"))
    assert "MariaDB" in version
    assert tuple(map(int, re.findall(r"\d+", version)[:2])) >= (10, 6)


def test_redis_is_redis_7_or_later(redis_server: Server) -> None:
    with RedisClient.from_url(redis_server.url) as client:
        assert int(client.info("server")["redis_version"].split(".")[0]) >= 7


def test_the_broker_answers(mosquitto_server: Server) -> None:
    ping(mosquitto_server.url)


async def test_a_database_server_of_our_own_is_durable(local_database: LocalServer) -> None:
    wanted = {
        "innodb_flush_log_at_trx_commit": 1,
        "sync_binlog": 1,
        "log_bin": 1,
        "binlog_format": "ROW",
        "character_set_server": "utf8mb4",
        "skip_name_resolve": 1,
        "max_connections": 300,
    }
    assert {name: await ask(local_database.url, f"SELECT @@{name}") for name in wanted} == wanted


def test_temporary_tables_of_two_database_servers_never_meet(local_database: LocalServer) -> None:
    with connection(local_database.url) as database:
        assert database.scalar(text("SELECT @@tmpdir")) == str(local_database.directory / "tmp")


# --- a database for each test


async def test_a_database_is_empty_and_the_tests_own(database_url: str, backend: str) -> None:
    assert backend in ("sqlite", "mysql", "mariadb")
    await ask(database_url, "CREATE TABLE things (id INT PRIMARY KEY)")  # every run of this test can make it


@pytest.mark.parametrize("run", [1, 2])
async def test_a_migrated_database_starts_empty(migrated_url: str, run: int) -> None:
    assert await ask(migrated_url, "SELECT COUNT(*) FROM queue_jobs") == 0
    await ask(migrated_url, "CREATE TABLE left_behind (id INT PRIMARY KEY)", "INSERT INTO left_behind VALUES (1)")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("mysql", "mariadb")]
)
def test_shared_tables_are_restored(kind: str, request: pytest.FixtureRequest) -> None:
    tables = outbox.metadata.tables
    Table("orders", application := MetaData(), Column("id", Integer, primary_key=True))
    with databases.fresh_database(request.getfixturevalue(f"{kind}_server")) as url:
        databases.create_shared_tables(url, outbox.metadata)

        def restored(*statements: str) -> tuple[object, ...]:
            """What the test after these would see: the names of the tables, their rows, and one of them."""
            with connection(url) as database:
                for statement in statements:
                    database.execute(text(statement))
            databases.restore(url, outbox.metadata)
            with connection(url) as database:
                names = set(database.scalars(text("SHOW TABLES")))
                rows = sum(int(database.scalar(text(f"SELECT COUNT(*) FROM {name}")) or 0) for name in names - {*SEEDS})
                columns = len(database.execute(text("SHOW COLUMNS FROM queue_jobs")).all())
                return names, rows, columns, table_id(database, kind)

        made = restored()
        assert made[:3] == ({*tables}, 0, len(tables["queue_jobs"].columns))
        add_job(url)
        assert restored() == made, "no table is made anew that can be emptied"
        assert restored("CREATE TABLE left_behind (id INT)") == made
        databases.create_tables(url, application)
        assert restored() == made, "an application has made its tables beside them"
        add_job(url)
        assert restored("ALTER TABLE queue_jobs ADD COLUMN policy INT")[:3] == made[:3]
        assert restored("DROP TABLE queue_jobs")[:3] == made[:3]


def test_a_leaked_connection_is_noticed(local_database: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(local_database.kind, local_database.url)
    monkeypatch.setattr(databases, "LEAK_SECONDS", 0.1)
    with pytest.raises(databases.ConnectionLeakError, match="1 connection to"), databases.fresh_database(server) as url:
        leaked = engine(url).connect()
    leaked.close()


async def test_an_empty_redis(redis_url: str) -> None:
    with RedisClient.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


# --- crashes


async def test_a_killed_database_server_comes_back_with_its_data(local_database: LocalServer) -> None:
    server, port = local_database, local_database.port
    with databases.fresh_database(Server(server.kind, server.url)) as url:
        await ask(url, "CREATE TABLE things (id INT PRIMARY KEY)")
        await ask(url, "INSERT INTO things VALUES (42)")
        server.kill()
        with pytest.raises(ServerFailedError):
            ping(server.url)
        await asyncio.to_thread(server.restart)
        assert server.port == port
        assert await ask(url, "SELECT id FROM things") == 42


def test_a_killed_redis_comes_back_with_its_data(local_redis: LocalServer) -> None:
    with RedisClient.from_url(local_redis.url) as client:
        client.set("answer", "42")
        local_redis.kill()
        local_redis.restart()
        assert client.get("answer") == b"42"


def test_a_server_outlives_the_thread_that_started_it(local_redis: LocalServer) -> None:
    local_redis.stop()
    starter = threading.Thread(target=local_redis.start)
    starter.start()
    starter.join()
    ping(local_redis.url)


# --- nothing stays behind

RUN_A_SERVER = """
import pathlib, sys
from tests.servers import Redis
server = Redis(pathlib.Path(sys.argv[1]))
server.start()
print(server.url, flush=True)
sys.stdin.read()
"""


def test_a_stopped_server_leaves_no_process(local_redis: LocalServer) -> None:
    pid = local_redis.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)  # even a paused one
    local_redis.stop()
    local_redis.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie one process's life to another's")
@pytest.mark.redis
def test_a_server_dies_with_tests_that_are_killed(tmp_path: Path) -> None:
    with summary.skipping():
        Redis.find_program()
    command = [sys.executable, "-c", RUN_A_SERVER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout
        url = tests.stdout.readline().strip()
        ping(url)
        tests.kill()
    wait_for_silence(url)


def wait_for_silence(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            ping(url)
        except ServerFailedError:
            return
    pytest.fail(f"{url} still answers")


# --- no server


def test_a_server_named_in_the_environment_has_to_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_TEST_MYSQL_URL", f"mysql://root@127.0.0.1:{free_port()}")
    with pytest.raises(ServerFailedError, match="OUTBOX_TEST_MYSQL_URL is set, but"), find("mysql", tmp_path):
        pass


def test_a_server_named_in_the_environment_is_used(
    local_redis: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_TEST_REDIS_URL", local_redis.url)
    with find("redis", tmp_path) as server:
        assert server == Server("redis", local_redis.url)


@pytest.mark.parametrize(
    ("ci", "code", "verdict"), [("", 0, "NOT TESTED: "), ("true", 1, "FAILED, because CI is set: ")]
)
def test_a_missing_server_is_the_last_thing_that_a_run_says(tmp_path: Path, ci: str, code: int, verdict: str) -> None:
    run = run_tests_without_programs(tmp_path, "-k", "test_redis_is_redis_7_or_later", CI=ci)
    assert run.returncode == code, run.stdout
    assert run.stdout.splitlines()[-1].startswith(f"{verdict}1 test skipped, no redis server: install Redis 7")


def test_tests_that_were_not_asked_for_need_no_server(tmp_path: Path) -> None:
    run = run_tests_without_programs(tmp_path, "-k", "test_a_database_is_empty", "-m", "sqlite", CI="true")
    assert run.returncode == 0, run.stdout
    assert "CI is set" not in run.stdout


def run_tests_without_programs(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run this file's own tests where no server, no container engine and no program can be found."""
    nowhere = {"PATH": "/nonexistent", "DOCKER_HOST": "unix:///nonexistent", "HOME": os.environ.get("HOME", "/")}
    # Two runs that clean one directory of temporary files at once can fail.
    nowhere["PYTEST_DEBUG_TEMPROOT"] = str(directory)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, *arguments]
    return subprocess.run(command, cwd=ROOT, env=nowhere | variables, capture_output=True, text=True, check=False)


def test_two_servers_are_not_given_one_port_before_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = free_port(), free_port()
    drawn = [first, second, *(port for port in range(second + 1, second + 99))]
    monkeypatch.setattr("random.sample", lambda _, k: drawn[:k])
    assert free_port() not in (first, second)
