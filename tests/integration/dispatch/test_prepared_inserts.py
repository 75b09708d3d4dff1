"""A server parses the INSERT of single jobs once for each connection, where it can."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import asyncmy.connection
import pytest
from asyncmy.errors import OperationalError
from sqlalchemy import text

from outbox.connections import open_driver
from outbox.drivers.base import Driver
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import Envelope
from outbox.ids import new_job_id
from outbox.settings import DATABASE, Settings
from tests.conformance.jobs import envelopes
from tests.integration.dispatch.test_inserting_many import ON_SERVERS, nasty
from tests.servers import Server, sql

SEVERAL = 40
"""Far more than are sent as text first."""


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
    for job in jobs:
        stored = await driver.jobs.get(job.id)
        assert stored is not None
        assert stored.priority == job.priority
        waits = (stored.available_at - stored.created_at).total_seconds()
        assert stored.available_at == due if job.available_at else waits == job.delay


async def test_a_job_that_is_written_again_is_left_alone(dispatching: Driver, driver: DatabaseDriver) -> None:
    jobs = envelopes(SEVERAL)
    await insert_each(dispatching, [*jobs, *jobs])
    await assert_stored(driver, jobs)


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
