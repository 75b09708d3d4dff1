"""What a server refuses and may allow later is an outage: errors that no list knows, and, after a good start, rights,
passwords and tables that are gone for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from outbox import Outbox, Settings
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import serialize
from outbox.errors import BackendUnavailable, ConfigurationError, RequestRefused
from outbox.settlement import Settlement
from tests.conformance.jobs import envelopes
from tests.servers import databases, sql
from tests.support.recorded_jobs import Counted
from tests.support.worker_processes import Workers, until

SERVERS = [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
NO_LIST_KNOWS = 7777
PASSING = [3032, 3168, 1135, 9501, 1105, 9006, 1815, 1206, NO_LIST_KNOWS]
FINAL = [1406, 1366, 3140]

on_servers = pytest.mark.parametrize("backend", SERVERS, indirect=True)


@contextmanager
def refusing(url: str, code: int, *events: str) -> Iterator[None]:
    """A trigger says that the server refuses these statements, or SQLite that its file cannot be written."""
    says = f"SIGNAL SQLSTATE 'HY000' SET mysql_errno = {code}, message_text = 'not now'"
    if url.startswith("sqlite"):
        says = "BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
    with sql.connection(url) as operator:
        for event in events:
            operator.exec_driver_sql(f"CREATE TRIGGER refuses_{event} BEFORE {event} ON queue_jobs FOR EACH ROW {says}")
    try:
        yield
    finally:
        with sql.connection(url) as operator:
            for event in events:
                operator.exec_driver_sql(f"DROP TRIGGER refuses_{event}")


@on_servers
@pytest.mark.parametrize("code", PASSING)
async def test_an_error_that_may_pass_is_an_outage(driver: DatabaseDriver, migrated_url: str, code: int) -> None:
    await driver.jobs.insert(envelopes(2))
    claims = await driver.jobs.claim(["default"], 1, 30)
    with refusing(migrated_url, code, "INSERT", "UPDATE", "DELETE"):
        for call in (
            lambda: driver.jobs.insert(envelopes(1)),
            lambda: driver.jobs.claim(["default"], 1, 30),
            lambda: driver.jobs.extend([claims[0].fence], 30),
            lambda: driver.jobs.settle([Settlement.completed(claims[0].fence)]),
            lambda: driver.jobs.settle([Settlement.snoozed(claims[0].fence)]),
        ):
            with pytest.raises(BackendUnavailable, match="not now"):
                await call()
    settled = await driver.jobs.settle([Settlement.completed(claims[0].fence)])
    assert len(settled.accepted) == 1
    [claim] = await driver.jobs.claim(["default"], 2, 30)
    assert claim.attempt == 1


@on_servers
@pytest.mark.parametrize("code", FINAL)
async def test_an_error_about_values_is_none(driver: DatabaseDriver, migrated_url: str, code: int) -> None:
    await driver.jobs.insert(envelopes(1))
    [claim] = await driver.jobs.claim(["default"], 1, 30)
    with refusing(migrated_url, code, "DELETE"), pytest.raises(DBAPIError, match="not now"):
        await driver.jobs.settle([Settlement.completed(claim.fence)])


TABLES = (
    ("ALTER TABLE queue_jobs RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO queue_jobs"),
    (
        "ALTER TABLE queue_jobs RENAME COLUMN attempts TO tries",
        "ALTER TABLE queue_jobs RENAME COLUMN tries TO attempts",
    ),
)


@pytest.mark.parametrize(("away", "back"), TABLES, ids=["table", "column"])
async def test_what_is_renamed_for_a_moment_is_an_outage_once_it_was_there(
    driver: DatabaseDriver, migrated_url: str, away: str, back: str
) -> None:
    fresh = DatabaseDriver(migrated_url)
    await driver.jobs.insert(envelopes(2))
    [claim] = await driver.jobs.claim(["default"], 1, 30)
    with sql.connection(migrated_url) as operator:
        operator.exec_driver_sql(away)
    try:
        for call in (
            lambda: driver.jobs.claim(["default"], 1, 30),
            lambda: driver.jobs.settle([Settlement.snoozed(claim.fence)]),
            lambda: driver.jobs.insert(envelopes(1)),
        ):
            with pytest.raises(RequestRefused, match="alembic upgrade head"):
                await call()
        with pytest.raises(ConfigurationError, match="alembic upgrade head"):
            await fresh.check()
    finally:
        with sql.connection(migrated_url) as operator:
            operator.exec_driver_sql(back)
    assert len((await driver.jobs.settle([Settlement.completed(claim.fence)])).accepted) == 1
    await fresh.close()


@pytest.mark.parametrize("count", [1, 40])
async def test_what_is_renamed_for_a_moment_is_an_outage_for_a_process_that_only_dispatches(
    database: DatabaseDriver, migrated_url: str, count: int
) -> None:
    away, back = TABLES[0]
    jobs = [Counted(number=number) for number in range(count)]
    async with Outbox(Settings(database_url=migrated_url)) as client:
        await client.dispatch_many(jobs)
        with sql.connection(migrated_url) as operator:
            operator.exec_driver_sql(away)
        try:
            with pytest.raises(RequestRefused, match="alembic upgrade head"):
                await client.dispatch_many(jobs)
        finally:
            with sql.connection(migrated_url) as operator:
                operator.exec_driver_sql(back)
        await client.dispatch_many(jobs)
    assert len(await database.jobs.list_jobs()) == 2 * count


RIGHTS: Sequence[tuple[str, str]] = (
    ("REVOKE DELETE ON {database}.* FROM limited@'%%'", "GRANT DELETE ON {database}.* TO limited@'%%'"),
    ("REVOKE ALL ON {database}.* FROM limited@'%%'", "GRANT ALL ON {database}.* TO limited@'%%'"),
    ("ALTER USER limited@'%%' IDENTIFIED BY 'other'", "ALTER USER limited@'%%' IDENTIFIED BY 'secret'"),
    ("ALTER USER limited@'%%' ACCOUNT LOCK", "ALTER USER limited@'%%' ACCOUNT UNLOCK"),
)


@on_servers
@pytest.mark.parametrize(("away", "back"), RIGHTS, ids=["right", "rights", "password", "account"])
async def test_rights_and_passwords_that_change_are_an_outage_after_a_good_start(
    migrated_url: str, limited_url: str, away: str, back: str
) -> None:
    driver, fresh = DatabaseDriver(limited_url), DatabaseDriver(limited_url)
    await driver.jobs.insert(envelopes(1))
    [claim] = await driver.jobs.claim(["default"], 1, 30)
    database = make_url(migrated_url).database
    with sql.connection(migrated_url) as operator:
        operator.exec_driver_sql(away.format(database=database))
        # Whoever is logged in stays so: what changed is met by new connections.
        theirs = text(databases.connections_of(operator, "user"))
        databases.kill(operator, operator.scalars(theirs, {"name": "limited"}).all())
    for _ in range(2):
        with pytest.raises(RequestRefused, match="refuses this user or database"):
            await driver.jobs.settle([Settlement.completed(claim.fence)])
    with pytest.raises(ConfigurationError, match="refuses this user or database"):
        await fresh.check()
    with sql.connection(migrated_url) as operator:
        operator.exec_driver_sql(back.format(database=database))
    assert len((await driver.jobs.settle([Settlement.completed(claim.fence)])).accepted) == 1
    await driver.close()
    await fresh.close()


@pytest.mark.parametrize("backend", ["sqlite", *SERVERS], indirect=True)
async def test_a_worker_whose_table_is_gone_for_a_while_says_so_once_and_writes_the_ends(
    migrated_url: str, database: DatabaseDriver, tmp_path: Path
) -> None:
    workers = Workers(migrated_url, tmp_path)
    worker = await workers.started("--lease", "30", "--sleep", "0.05")
    await database.jobs.insert([serialize(Counted(number=number, seconds=0.5)) for number in range(3)])
    await workers.oracle.wait("begin", 3)
    with sql.connection(migrated_url) as operator:
        operator.exec_driver_sql(TABLES[0][0])
    await workers.oracle.wait("end", 3)
    await worker.event("connection_down")
    with sql.connection(migrated_url) as operator:
        operator.exec_driver_sql(TABLES[0][1])
    await worker.event("connection_up")
    await database.jobs.insert([serialize(Counted(number=3))])
    await workers.oracle.wait("end", 4)
    await until(lambda: len(worker.of("job_settled")) == 4)
    assert await worker.terminate() == 0
    assert len(workers.oracle.runs("begin")) == 4
    assert len(worker.of("connection_down")) == len(worker.of("connection_up")) == 1
    assert (await database.jobs.list_jobs(), await database.failed.page(), worker.other) == ([], [], [])
    await workers.close()


@pytest.mark.parametrize("backend", ["sqlite", *SERVERS], indirect=True)
@pytest.mark.parametrize("ending", ["back", "term"])
async def test_a_database_that_can_be_read_but_not_written_is_away_until_it_can_be_written(
    migrated_url: str, database: DatabaseDriver, tmp_path: Path, ending: str
) -> None:
    workers = Workers(migrated_url, tmp_path)
    worker = await workers.started("--lease", "3", "--sleep", "0.05", "--grace", "1")
    await database.jobs.insert([serialize(Counted(number=1, seconds=0.5))])
    await workers.oracle.wait("begin", 1)
    with refusing(migrated_url, 1105, "UPDATE", "DELETE"):
        await worker.event("connection_down")
        await database.jobs.insert([serialize(Counted(number=2))])
        for _ in range(2):
            await _heartbeat(database)
        assert worker.of("connection_up") == []
        if ending == "term":
            assert await worker.terminate() == 0
    if ending == "back":
        await worker.event("connection_up")
        await worker.event("job_settled", 2)
        assert await worker.terminate() == 0
    assert len(worker.of("connection_down")) == 1
    assert len(worker.of("connection_up")) == (ending == "back")
    await workers.close()


async def _heartbeat(database: DatabaseDriver) -> None:
    """Until the worker has written its row once more, which is one request that is carried out."""
    async with asyncio.timeout(60):
        while True:
            [before] = await database.workers.all()
            await asyncio.sleep(0.05)
            [after] = await database.workers.all()
            if after.seen < before.seen:
                return
