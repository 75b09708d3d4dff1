"""A server parses the INSERT of single jobs once for each connection, where it can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncmy.connection
import pytest
from asyncmy.errors import OperationalError
from sqlalchemy import Connection, text

from outbox.connections import open_driver
from outbox.drivers.base import Driver
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import Envelope
from outbox.ids import new_job_id
from outbox.settings import DATABASE, Settings
from tests.conformance.jobs import envelope, envelopes
from tests.integration.dispatch.test_inserting_many import ON_SERVERS, nasty
from tests.servers import Server, sql
from tests.support.row_locks import locked

pytestmark = pytest.mark.skipif(
    not hasattr(asyncmy.connection.Connection, "prepare"), reason="asyncmy prepares statements from 0.2.13 on"
)

SEVERAL = 40
"""Far more than are sent as text first."""
EXECUTES_ON_MARIADB = "SELECT id FROM information_schema.processlist WHERE command = 'Execute' AND db = :name"
EXECUTES = (
    "SELECT processlist_id FROM performance_schema.threads "
    "WHERE processlist_command = 'Execute' AND processlist_db = :name"
)


@pytest.fixture(params=ON_SERVERS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def dispatching(migrated_url: str) -> AsyncIterator[Driver]:
    """What a dispatch without a session uses."""
    dispatching = open_driver(Settings.load(database_url=migrated_url), DATABASE, dispatches=True)
    yield dispatching
    await dispatching.close()


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that is prepared, from now on."""
    found: list[str] = []
    prepare = asyncmy.connection.Connection.prepare

    async def note(connection: Any, statement: str) -> Any:
        found.append(statement)
        return await prepare(connection, statement)

    monkeypatch.setattr(asyncmy.connection.Connection, "prepare", note)
    return found


async def insert_each(dispatching: Driver, jobs: list[Envelope]) -> None:
    for job in jobs:
        await dispatching.jobs.insert([job])


def all_executing(operator: Connection) -> list[int]:
    """The ids of the connections that wait in a prepared statement."""
    query = text(EXECUTES_ON_MARIADB if operator.dialect.is_mariadb else EXECUTES)  # type: ignore[attr-defined]
    return list(operator.scalars(query, {"name": operator.engine.url.database}))


async def executing(operator: Connection) -> int:
    """The id of the connection that waits in a prepared statement, when there is one."""
    async with asyncio.timeout(20):
        while not (found := all_executing(operator)):
            await asyncio.sleep(0.01)
    return int(found[0])


async def none_executing(operator: Connection) -> None:
    """A server goes on with what was asked over a connection that has been closed since."""
    async with asyncio.timeout(20):
        while all_executing(operator):
            await asyncio.sleep(0.01)


async def assert_stored(driver: DatabaseDriver, jobs: list[Envelope]) -> None:
    claims = {claim.fence.job_id: claim for claim in await driver.jobs.claim(["default"], len(jobs) + 1, 30)}
    assert claims.keys() == {job.id for job in jobs}
    for job in jobs:
        assert json.loads(claims[job.id].payload) == json.loads(job.payload)


async def test_an_insert_is_prepared_once_when_it_was_sent_often(
    dispatching: Driver, driver: DatabaseDriver, prepared: list[str]
) -> None:
    jobs = nasty()
    await insert_each(dispatching, jobs[:5])
    assert prepared == [], "it would be a round trip for nothing"
    await insert_each(dispatching, jobs[5:])
    assert len(prepared) == 1
    await assert_stored(driver, jobs)


async def test_jobs_of_every_time_are_prepared_each_in_its_form(
    dispatching: Driver, driver: DatabaseDriver, prepared: list[str]
) -> None:
    due = datetime(2040, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
    forms: list[dict[str, Any]] = [{}, {"delay": 3600.25}, {"available_at": due}]
    jobs = [job._replace(**form) for job in envelopes(SEVERAL) for form in forms]
    jobs = [job._replace(id=new_job_id(), priority=number % 10) for number, job in enumerate(jobs)]
    await insert_each(dispatching, jobs)
    assert len(prepared) == 3
    created: set[datetime] = set()
    for job in jobs:
        stored = await driver.jobs.get(job.id)
        assert stored is not None
        created.add(stored.created_at)
        assert stored.priority == job.priority
        waits = (stored.available_at - stored.created_at).total_seconds()
        assert stored.available_at == due if job.available_at else waits == job.delay
    assert len(created) == len(jobs), "each has the time of its own INSERT"


async def test_a_job_that_is_written_again_is_left_alone(dispatching: Driver, driver: DatabaseDriver) -> None:
    jobs = envelopes(SEVERAL)
    await insert_each(dispatching, [*jobs, *jobs])
    await assert_stored(driver, jobs)


async def test_each_connection_prepares_for_itself(
    dispatching: Driver, driver: DatabaseDriver, prepared: list[str]
) -> None:
    jobs = envelopes(400)
    shares = [jobs[start::20] for start in range(20)]
    await asyncio.gather(*(insert_each(dispatching, share) for share in shares))
    assert 1 < len(prepared) <= 10
    await assert_stored(driver, jobs)


async def test_a_payload_may_take_nearly_the_whole_of_the_largest_packet(
    dispatching: Driver, driver: DatabaseDriver, prepared: list[str]
) -> None:
    await insert_each(dispatching, envelopes(SEVERAL))
    assert prepared
    large = envelope(payload=json.dumps("\\" * 7_500_000))
    await dispatching.jobs.insert([large])
    stored = await driver.jobs.get(large.id)
    assert stored is not None
    assert json.loads(stored.payload) == json.loads(large.payload)


async def test_a_table_may_change_under_a_prepared_insert(
    dispatching: Driver, driver: DatabaseDriver, migrated_url: str, prepared: list[str]
) -> None:
    jobs = envelopes(SEVERAL)
    await insert_each(dispatching, jobs[:20])
    with sql.connection(migrated_url) as operator:
        operator.execute(text("ALTER TABLE queue_jobs ADD COLUMN more INT NULL AFTER id"))
        await insert_each(dispatching, jobs[20:30])
        operator.execute(text("ALTER TABLE queue_jobs DROP COLUMN more"))
    await insert_each(dispatching, jobs[30:])
    assert prepared
    await assert_stored(driver, jobs)


async def test_a_table_may_be_exchanged_under_a_prepared_insert(
    dispatching: Driver, driver: DatabaseDriver, migrated_url: str, prepared: list[str]
) -> None:
    """As tools do that change tables while they are used."""
    jobs = envelopes(SEVERAL)
    await insert_each(dispatching, jobs[:20])
    assert len(prepared) == 1
    with sql.connection(migrated_url) as operator:
        operator.execute(text("CREATE TABLE other_jobs LIKE queue_jobs"))
        operator.execute(text("INSERT INTO other_jobs SELECT * FROM queue_jobs"))
        operator.execute(text("RENAME TABLE queue_jobs TO old_jobs, other_jobs TO queue_jobs"))
        await insert_each(dispatching, jobs[20:])
        operator.execute(text("DROP TABLE old_jobs"))
    await assert_stored(driver, jobs)


@pytest.mark.parametrize("kill", ["KILL", "KILL QUERY"])
async def test_a_prepared_insert_that_is_killed_is_sent_again(
    dispatching: Driver, driver: DatabaseDriver, migrated_url: str, prepared: list[str], kill: str
) -> None:
    jobs = envelopes(SEVERAL)
    await insert_each(dispatching, jobs[:20])
    with sql.connection(migrated_url) as operator:
        async with locked(driver, "queue_jobs", jobs[0].id):
            waiting = asyncio.create_task(insert_each(dispatching, [jobs[0], *jobs[20:]]))
            operator.execute(text(f"{kill} {await executing(operator)}"))
        await waiting
    assert len(prepared) == (2 if kill == "KILL" else 1), "a new connection has prepared nothing yet"
    await assert_stored(driver, jobs)


async def test_a_prepared_insert_that_is_cancelled_leaves_no_connection_in_doubt(
    dispatching: Driver, driver: DatabaseDriver, migrated_url: str
) -> None:
    """Its answer would be taken for that of the next INSERT."""
    jobs = envelopes(SEVERAL)
    await insert_each(dispatching, jobs[:20])
    with sql.connection(migrated_url) as operator:
        async with locked(driver, "queue_jobs", jobs[0].id):
            waiting = asyncio.create_task(dispatching.jobs.insert([jobs[0]]))
            await executing(operator)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await insert_each(dispatching, jobs[20:])
        await none_executing(operator)
    await assert_stored(driver, jobs)


@pytest.fixture
def unusual_server(sql_server: Server) -> Iterator[None]:
    """What connections begin with, until the test is over."""
    names = ("sql_mode", "time_zone")
    with sql.connection(sql_server.url) as operator:
        before = {name: operator.scalar(text(f"SELECT @@GLOBAL.{name}")) for name in names}
        operator.execute(text("SET GLOBAL sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES', GLOBAL time_zone = '-09:30'"))
        yield
        operator.execute(text("SET GLOBAL sql_mode = :sql_mode, GLOBAL time_zone = :time_zone"), before)


@pytest.mark.alone_on_its_server("others would have its modes")
@pytest.mark.usefixtures("unusual_server")
async def test_what_is_prepared_is_the_same_in_any_mode_and_time_zone(
    dispatching: Driver, driver: DatabaseDriver, prepared: list[str]
) -> None:
    jobs = nasty()
    await insert_each(dispatching, jobs)
    assert len(prepared) == 1
    now = await driver.now()
    stored = await driver.jobs.get(jobs[-1].id)
    assert stored is not None
    assert now - timedelta(seconds=60) < stored.created_at == stored.available_at <= now
    await assert_stored(driver, jobs)


@pytest.fixture
def nothing_can_be_prepared(sql_server: Server) -> Iterator[None]:
    with sql.connection(sql_server.url) as operator:
        before = operator.scalar(text("SELECT @@GLOBAL.max_prepared_stmt_count"))
        operator.execute(text("SET GLOBAL max_prepared_stmt_count = 0"))
        yield
        operator.execute(text(f"SET GLOBAL max_prepared_stmt_count = {before:d}"))


@pytest.mark.alone_on_its_server("it refuses to prepare anything")
@pytest.mark.usefixtures("nothing_can_be_prepared")
async def test_a_server_that_prepares_nothing_more_is_sent_text(
    dispatching: Driver, driver: DatabaseDriver, prepared: list[str]
) -> None:
    jobs = envelopes(SEVERAL)
    await insert_each(dispatching, jobs)
    assert len(prepared) == 1, "it is asked once"
    await assert_stored(driver, jobs)


@pytest.mark.parametrize("code", [1243, 1615])
async def test_a_prepared_insert_that_is_no_more_known_is_sent_as_text(
    dispatching: Driver, driver: DatabaseDriver, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    jobs = envelopes(SEVERAL)
    await insert_each(dispatching, jobs[:20])
    refused = 0

    async def refuse(*_: object) -> None:
        nonlocal refused
        refused += 1
        raise OperationalError(code, "as a proxy that has changed servers")

    monkeypatch.setattr(asyncmy.connection.PreparedStatement, "execute", refuse)
    await insert_each(dispatching, jobs[20:])
    assert refused == 1, "the connection does not try it again"
    await assert_stored(driver, jobs)


async def test_a_driver_without_prepared_statements_sends_text(
    dispatching: Driver, driver: DatabaseDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(asyncmy.connection.Connection, "prepare")
    jobs = envelopes(SEVERAL)
    await insert_each(dispatching, jobs)
    await assert_stored(driver, jobs)
