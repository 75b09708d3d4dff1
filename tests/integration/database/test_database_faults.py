"""What a database's refusals become: errors that say what to do, and retries where they are right."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

import outbox
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.connection.engine import check_version
from outbox.drivers.database.jobs.claim import ClaimTransaction
from outbox.drivers.database.jobs.settle import SettleTransaction
from outbox.drivers.values import WorkerStatus
from outbox.errors import BackendUnavailable, ConfigurationError, TablesMissing, UnsupportedServer
from outbox.settlement import InsertJobs, Settlement
from tests.conformance.jobs import FAILURE, envelope, envelopes
from tests.servers import LocalServer, databases, sql
from tests.support.aiosqlite_threads import before_each_call

SERVERS = [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
WORKER = WorkerStatus(b"w" * 16, "name", "host", 1, "default", 1, 0, 0, 0)


async def test_check_names_the_server(driver: DatabaseDriver, backend: str) -> None:
    await driver.check()
    assert {"sqlite": "SQLite 3.", "mysql": "MySQL ", "mariadb": "MariaDB 1"}[backend] in driver.description


async def test_missing_tables_say_what_to_run(database_url: str) -> None:
    driver = DatabaseDriver(database_url)
    for call in (
        driver.check(),
        driver.jobs.claim(["default"], 1, 30),
        driver.jobs.insert([envelope()]),
        driver.queues.counts(),
    ):
        with pytest.raises(TablesMissing, match="alembic upgrade head"):
            await call
    await driver.close()


@pytest.mark.parametrize(
    ("product", "version", "needed"),
    [("MySQL", "5.7.44-log", (8, 0, 4)), ("MySQL", "8.0.3", (8, 0, 4)), ("MariaDB", "10.5.23-MariaDB", (10, 6))],
)
def test_a_server_without_skip_locked_is_refused(product: str, version: str, needed: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedServer, match=rf"{product} {version} .*SKIP LOCKED.*upgrade to {product}"):
        check_version(product, version, needed, "SELECT … FOR UPDATE SKIP LOCKED")


@pytest.mark.parametrize("version", ["8.0.4", "8.4.3", "9.7.0-commercial", "10.6.0"])
def test_servers_that_have_it_are_taken(version: str) -> None:
    check_version("MySQL", version, (8, 0, 4), "SKIP LOCKED")


async def test_an_unreachable_server_is_one_clear_line() -> None:
    driver = DatabaseDriver("mysql+asyncmy://shop:secret@127.0.0.1:1/shop")
    with pytest.raises(BackendUnavailable, match="127.0.0.1:1/shop does not answer") as caught:
        await driver.check()
    assert "secret" not in str(caught.value)
    await driver.close()


async def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("this is not a database, and long enough to be looked at " * 20)
    for path in (tmp_path / "note.txt", tmp_path / "no" / "such" / "directory.db"):
        driver = DatabaseDriver(f"sqlite+aiosqlite:///{path}")
        with pytest.raises(ConfigurationError, match="cannot be opened"):
            await driver.check()
        await driver.close()


async def test_a_file_that_cannot_be_opened_leaves_no_thread_behind(tmp_path: Path) -> None:
    """It would tell its end to an event loop that may have ended before it."""
    seen: set[int] = set()

    def slowly(thread: int) -> None:
        seen.add(thread)
        time.sleep(0.2)

    driver = DatabaseDriver(f"sqlite+aiosqlite:///{tmp_path}/no/such/directory.db")
    with before_each_call(slowly):
        with pytest.raises(ConfigurationError, match="cannot be opened"):
            await driver.check()
        left = seen & {thread.ident for thread in threading.enumerate()}
    assert seen
    assert not left
    await driver.close()


async def test_a_wrong_password_is_a_matter_of_configuration(local_database: LocalServer) -> None:
    url = f"{local_database.url}/shop".replace("root", "nobody:wrong", 1)
    driver = DatabaseDriver(url)
    with pytest.raises(ConfigurationError, match="refuses this user or database"):
        await driver.check()
    await driver.close()


class Losing:
    """Cuts the connection of the next commits: before they are sent, or after the server has done them."""

    def __init__(self, driver: DatabaseDriver, *, after: bool) -> None:
        self.left = 1
        engine = driver.database.engine.sync_engine
        commit = engine.dialect.do_commit

        def do_commit(connection: object) -> None:
            if not self.left:
                commit(connection)  # type: ignore[arg-type]
                return
            self.left -= 1
            if after:
                commit(connection)  # type: ignore[arg-type]
            raise engine.dialect.dbapi.OperationalError(2013, "Lost connection to server during query")  # type: ignore[union-attr]

        engine.dialect.do_commit = do_commit  # type: ignore[method-assign]


@pytest.mark.parametrize("after", [True, False], ids=["committed", "not committed"])
async def test_a_claim_whose_commit_was_not_answered_is_neither_lost_nor_doubled(
    driver: DatabaseDriver, backend: str, after: bool
) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite has no connection that could be lost")
    await driver.jobs.insert(envelopes(3))
    Losing(driver, after=after)
    claims = await driver.jobs.claim(["default"], 10, 30)
    assert len(claims) == 3
    assert {claim.attempt for claim in claims} == {1}
    job = await driver.jobs.get(claims[0].fence.job_id)
    assert job is not None
    assert job.attempts == 1, "an attempt was counted twice"
    settled = await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    assert len(settled.accepted) == 3


@pytest.mark.parametrize("after", [True, False], ids=["committed", "not committed"])
async def test_a_settlement_whose_commit_was_not_answered_is_written_once(
    driver: DatabaseDriver, backend: str, after: bool
) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite has no connection that could be lost")
    await driver.jobs.insert(envelopes(3))
    claims = await driver.jobs.claim(["default"], 10, 30)
    ends = [
        Settlement.completed(claims[0].fence, (InsertJobs((envelope(queue="next"),)),)),
        Settlement.retried(claims[1].fence, 0, FAILURE),
        Settlement.failed(claims[2].fence, FAILURE),
    ]
    Losing(driver, after=after)
    settled = await driver.jobs.settle(ends)
    assert len(settled.accepted) == 3
    assert settled.stale == ()
    assert len(await driver.jobs.claim(["next"], 10, 30)) == 1
    assert len(await driver.failed.page()) == 1
    [again] = await driver.jobs.claim(["default"], 10, 30)
    assert again.attempt == 2


@pytest.mark.parametrize("verb", ["claim", "settle"])
async def test_a_node_that_learns_of_a_commit_only_after_it_was_asked_about_it(
    driver: DatabaseDriver, backend: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit's answer is lost, the next connection leads to another node of a cluster, which knows nothing yet,
    and refuses the second try because the first one reaches it meanwhile."""
    if backend == "sqlite":
        pytest.skip("SQLite has no nodes")
    await driver.jobs.insert(envelopes(3))
    claims = [] if verb == "claim" else await driver.jobs.claim(["default"], 3, 30)
    work = {"claim": ClaimTransaction, "settle": SettleTransaction}[verb]
    asked: list[str] = []
    recover, attempt = work.recover, getattr(work, "run" if verb == "claim" else "write")

    async def know_nothing_at_first(self: Any, connection: Any) -> Any:
        asked.append("recover")
        return None if len(asked) == 1 else await recover(self, connection)

    async def refused_the_second_time(self: Any, connection: Any) -> Any:
        if asked:
            raise OperationalError("", {}, driver.database.engine.dialect.dbapi.OperationalError(1213, "Deadlock"))  # type: ignore[union-attr]
        return await attempt(self, connection)

    monkeypatch.setattr(work, "recover", know_nothing_at_first)
    monkeypatch.setattr(work, attempt.__name__, refused_the_second_time)
    Losing(driver, after=True)
    if verb == "claim":
        assert {claim.attempt for claim in await driver.jobs.claim(["default"], 10, 30)} == {1}
    else:
        settled = await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
        assert len(settled.accepted) == 3
    assert asked == ["recover", "recover"]


@pytest.mark.parametrize("count", [3, 1_500])
@pytest.mark.parametrize("after", [True, False], ids=["committed", "not committed"])
async def test_jobs_whose_commit_was_not_answered_are_there_once(
    driver: DatabaseDriver, backend: str, after: bool, count: int
) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite has no connection that could be lost")
    Losing(driver, after=after)
    await driver.jobs.insert(envelopes(count))
    assert len(await driver.jobs.claim(["default"], 2 * count, 30)) == count


async def test_deadlocks_and_lock_waits_are_tried_again(driver: DatabaseDriver, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite knows neither")
    await driver.jobs.insert(envelopes(1))
    refusals = [1213, 1205, 3101, 1213]
    engine = driver.database.engine.sync_engine

    @event.listens_for(engine, "before_cursor_execute")
    def refuse(*_: object) -> None:
        if refusals:
            raise engine.dialect.dbapi.OperationalError(refusals.pop(), "try restarting transaction")  # type: ignore[union-attr]

    assert len(await driver.jobs.claim(["default"], 1, 30)) == 1
    assert refusals == []


async def test_a_server_that_became_read_only_is_left_for_the_one_that_took_its_place(local_mysql: LocalServer) -> None:
    """A proxy or a name that leads to the new primary is of no use to connections that are kept."""
    with sql.connection(local_mysql.url) as operator:
        operator.execute(text("CREATE DATABASE jobs"))
        url = f"{local_mysql.url}/jobs"
        databases.create_tables(url, outbox.metadata)
        driver = DatabaseDriver(url)
        await driver.jobs.insert(envelopes(1))
        await driver.queues.pause("other")
        await driver.workers.heartbeat(WORKER)

        def connections() -> set[int]:
            return set(operator.scalars(text(databases.connections_of(operator)), {"name": "jobs"}))

        before = connections()
        assert before
        operator.execute(text("SET GLOBAL super_read_only = ON"))
        for call in (lambda: driver.jobs.claim(["default"], 1, 30), lambda: driver.workers.heartbeat(WORKER)):
            with pytest.raises(BackendUnavailable, match="read-only"):
                await call()
        operator.execute(text("SET GLOBAL super_read_only = OFF"))
        operator.execute(text("SET GLOBAL read_only = OFF"))
        assert len(await driver.jobs.claim(["default"], 1, 30)) == 1
        await driver.workers.heartbeat(WORKER)
        async with asyncio.timeout(20):  # the server takes a moment to see that a client has gone
            while before & connections():
                await asyncio.sleep(0.05)
        await driver.close()


async def test_retries_are_bounded(driver: DatabaseDriver, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite knows no deadlocks")
    tries = 0
    engine = driver.database.engine.sync_engine

    @event.listens_for(engine, "before_cursor_execute")
    def refuse(*_: object) -> None:
        nonlocal tries
        tries += 1
        raise engine.dialect.dbapi.OperationalError(1213, "Deadlock found")  # type: ignore[union-attr]

    with pytest.raises(BackendUnavailable):
        await driver.jobs.claim(["default"], 1, 30)
    assert tries == 10


async def test_a_locked_sqlite_file_is_waited_for(driver: DatabaseDriver, backend: str, migrated_url: str) -> None:
    if backend != "sqlite":
        pytest.skip("about SQLite's one writer")
    await driver.jobs.insert(envelopes(1))
    engine = create_async_engine(migrated_url)
    async with engine.connect() as writer:
        await writer.exec_driver_sql("BEGIN IMMEDIATE")
        claiming = asyncio.create_task(driver.jobs.claim(["default"], 1, 30))
        await asyncio.sleep(0.2)  # the claim waits inside SQLite, where nothing can be seen of it
        assert not claiming.done()
        await writer.exec_driver_sql("ROLLBACK")
        assert len(await claiming) == 1
    await engine.dispose()


async def test_a_lock_that_is_waited_for_is_not_waited_for_ten_times(
    driver: DatabaseDriver, backend: str, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try waits by itself, five seconds on SQLite."""
    if backend != "sqlite":
        pytest.skip("servers have settings of their own for it")
    await driver.queues.counts()
    seconds = iter(range(0, 1_000, 5))
    monkeypatch.setattr("outbox.clock.now", lambda: float(next(seconds)))
    tries = 0

    @event.listens_for(driver.database.engine.sync_engine, "begin")
    def refuse(_: object) -> None:
        nonlocal tries
        tries += 1
        raise OperationalError("BEGIN IMMEDIATE", {}, sqlite3.OperationalError("database is locked"))

    async def write(connection: AsyncConnection) -> None:
        await connection.execute(text("DELETE FROM queue_pauses"))

    with pytest.raises(BackendUnavailable, match="locked"):
        await driver.database.write(write)
    assert tries == 2


# --- refusals that pass


async def test_a_full_disk_is_an_outage(driver: DatabaseDriver, backend: str) -> None:
    if backend != "sqlite":
        pytest.skip("a trigger says it for servers")
    await driver.jobs.insert(envelopes(1))
    engine = driver.database.engine

    @event.listens_for(engine.sync_engine, "checkout")
    def leave_no_room(connection: Any, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA max_page_count = 1")
        cursor.close()

    with pytest.raises(BackendUnavailable, match=r"has no room left.*full"):
        await driver.jobs.insert(envelopes(2_000))
    event.remove(engine.sync_engine, "checkout", leave_no_room)
    await engine.dispose()
    assert len(await driver.jobs.claim(["default"], 10, 30)) == 1


@pytest.mark.parametrize("code", [1114, 1969, 9001])
async def test_an_end_that_is_refused_for_a_while_can_be_written_later(
    driver: DatabaseDriver, backend: str, migrated_url: str, code: int
) -> None:
    """A worker that took it for a refusal of this end would run the job again."""
    if backend == "sqlite":
        pytest.skip("SQLite has other words")
    await driver.jobs.insert(envelopes(1))
    claim = (await driver.jobs.claim(["default"], 1, 30))[0]
    with sql.connection(migrated_url) as operator:
        operator.exec_driver_sql(
            "CREATE TRIGGER refuses BEFORE DELETE ON queue_jobs FOR EACH ROW "
            f"SIGNAL SQLSTATE 'HY000' SET mysql_errno = {code}, message_text = 'not now'"
        )
    with pytest.raises(BackendUnavailable, match="not now"):
        await driver.jobs.settle([Settlement.completed(claim.fence)])
    with sql.connection(migrated_url) as operator:
        operator.exec_driver_sql("DROP TRIGGER refuses")
    assert len((await driver.jobs.settle([Settlement.completed(claim.fence)])).accepted) == 1


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
async def test_a_user_who_has_no_connection_left_waits_for_one(migrated_url: str, limited_url: str) -> None:
    with sql.connection(migrated_url) as operator:
        operator.exec_driver_sql("ALTER USER limited@'%%' WITH MAX_USER_CONNECTIONS 2")
    first, second = DatabaseDriver(limited_url), DatabaseDriver(limited_url)
    await first.check()
    with pytest.raises(BackendUnavailable, match="max_user_connections|connections"):
        await second.check()
    await first.close()
    await second.check()
    await second.close()


# --- refusals that do not


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
@pytest.mark.parametrize("change", ["ACCOUNT LOCK", "PASSWORD EXPIRE"])
async def test_a_user_who_may_not_log_in_is_a_matter_of_configuration(
    migrated_url: str, limited_url: str, change: str
) -> None:
    with sql.connection(migrated_url) as operator:
        operator.exec_driver_sql(f"ALTER USER limited@'%%' {change}")
    driver = DatabaseDriver(limited_url)
    with pytest.raises(ConfigurationError, match="refuses this user or database"):
        await driver.check()
    await driver.close()


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
async def test_a_user_who_may_only_read_is_refused_when_a_worker_starts(migrated_url: str, limited_url: str) -> None:
    database = make_url(migrated_url).database
    with sql.connection(migrated_url) as operator:
        operator.exec_driver_sql(f"REVOKE ALL ON {database}.* FROM limited@'%%'")
        operator.exec_driver_sql(f"GRANT SELECT ON {database}.* TO limited@'%%'")
    driver = DatabaseDriver(limited_url)
    with pytest.raises(ConfigurationError, match="command denied"):
        await driver.check()
    await driver.close()


async def test_a_file_that_cannot_be_written_is_refused_when_a_worker_starts(
    driver: DatabaseDriver, backend: str
) -> None:
    if backend != "sqlite":
        pytest.skip("about SQLite's file")

    @event.listens_for(driver.database.engine.sync_engine, "connect")
    def forbid(connection: Any, _: object) -> None:
        # As the mode of the file would, for everybody but root.
        cursor = connection.cursor()
        cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    with pytest.raises(ConfigurationError, match=r"cannot be written.*write access to the file"):
        await driver.check()


async def test_a_file_that_can_be_written_again_is_not_left_to_connections_that_cannot(
    driver: DatabaseDriver, backend: str, migrated_url: str
) -> None:
    """SQLite opens a file that it may not write for reading alone, and keeps it so."""
    if backend != "sqlite":
        pytest.skip("about SQLite's file")
    forbidden = True

    def open_for_reading(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA query_only = {int(forbidden)}")
        cursor.close()

    await driver.jobs.insert(envelopes(1))
    await driver.queues.pause("other")
    event.listen(driver.database.engine.sync_engine, "connect", open_for_reading)
    for write in (lambda: driver.jobs.insert(envelopes(1)), lambda: driver.jobs.claim(["default"], 1, 30)):
        forbidden = True
        await driver.close()  # and is opened again
        with pytest.raises(BackendUnavailable, match=r"cannot be written.*write access to the file"):
            await write()
        forbidden = False
        await write()
    assert len(await driver.jobs.list_jobs()) == 2


# --- connections that nobody uses


async def test_a_machine_that_is_lost_in_a_transaction_does_not_lock_its_jobs_for_ever(
    driver: DatabaseDriver, backend: str, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection stays open for the server, which hears nothing of it any more."""
    if backend == "sqlite":
        pytest.skip("SQLite has no connections")
    monkeypatch.setattr("outbox.drivers.database.connection.engine.IDLE_SECONDS", 4)
    await driver.jobs.insert(envelopes(3))
    lost = DatabaseDriver(migrated_url)
    taken = asyncio.Event()

    async def hang(_: object) -> None:
        taken.set()
        await asyncio.sleep(60)

    monkeypatch.setattr("outbox.drivers.database.connection.raw_connection.RawConnection.commit", hang)
    claiming = asyncio.create_task(lost.jobs.claim(["default"], 10, 1))
    await taken.wait()
    monkeypatch.undo()
    assert await driver.jobs.claim(["default"], 10, 30) == []
    async with asyncio.timeout(30):
        while not (claims := await driver.jobs.claim(["default"], 10, 30)):
            await asyncio.sleep(0.1)
    assert {claim.attempt for claim in claims} == {1}
    claiming.cancel()
    await asyncio.wait([claiming])
    await lost.close()


async def test_a_connection_that_was_idle_is_left_before_the_server_closes_it(
    driver: DatabaseDriver, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite has no connections")
    now = 1_000.0
    monkeypatch.setattr("outbox.clock.now", lambda: now)

    async def ask(connection: Any) -> Any:
        return (await connection.exec_driver_sql("SELECT CONNECTION_ID(), @@wait_timeout")).one()

    used, seconds = await driver.database.write(ask)
    now += 19
    assert await driver.database.write(ask) == (used, seconds)
    now += 21
    assert seconds == 30 > 21
    assert (await driver.database.write(ask))[0] != used
