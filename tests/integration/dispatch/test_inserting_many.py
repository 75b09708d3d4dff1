"""Many jobs are written in another form than a few, and must be what each of them alone would have been."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine

import outbox
from outbox import dispatch
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.dialects import MySQL
from outbox.drivers.database.jobs.insert import own_insert_statements
from outbox.envelope import Envelope
from outbox.ids import new_job_id
from outbox.settlement import Settlement
from tests.conformance.jobs import envelope, envelopes
from tests.servers import Server, databases, sql
from tests.support.orders import Receipt

ON_SERVERS = [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
MODES = ["NO_BACKSLASH_ESCAPES", "ANSI", ""]
MANY = 100
NASTY = [
    "'; DROP TABLE queue_jobs; --",
    "''",
    '"quoted"',
    "back\\slash \\' \\\\' \\\" \\0 \\n \\x41 \\u0041 \\",
    "100% %s %(name)s %% %d",
    "? :name {} ${}",
    "null \0 bell \a tab \t line \n return \r delete \x7f ctrl-z \x1a",
    "J\N{LATIN SMALL LETTER U WITH DIAERESIS}rgen \N{CYRILLIC CAPITAL LETTER ZHE} \N{CJK UNIFIED IDEOGRAPH-8868}",
    "\N{PILE OF POO} \N{MUSICAL SYMBOL G CLEF} \N{FAMILY}\N{ZERO WIDTH JOINER}\N{VARIATION SELECTOR-16}",
    "\N{LINE SEPARATOR}\N{BYTE ORDER MARK}\N{RIGHT-TO-LEFT OVERRIDE}\N{REPLACEMENT CHARACTER}\U0010ffff",
    "/* comment */ -- comment\n# comment",
    "long " * 40_000,
    "\\" * 10_000 + "'" * 10_000 + '"' * 10_000 + "\N{PILE OF POO}" * 10_000,
    "",
]


@pytest.fixture(params=ON_SERVERS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def holding(value: object, *, ascii_only: bool) -> Envelope:
    return envelope(payload=json.dumps({"text": value, str(value)[:50]: 1}, ensure_ascii=ascii_only))


def nasty() -> list[Envelope]:
    jobs = [holding(value, ascii_only=ascii_only) for value in NASTY for ascii_only in (True, False)]
    return jobs + envelopes(MANY - len(jobs))


async def sql_mode(connection: AsyncConnection) -> str:
    return str((await connection.exec_driver_sql("SELECT @@sql_mode")).scalar_one())


async def assert_stored(driver: DatabaseDriver, jobs: Sequence[Envelope]) -> None:
    claims = {claim.fence.job_id: claim for claim in await driver.jobs.claim(["default"], len(jobs) + 1, 30)}
    assert len(claims) == len(jobs)
    for job in jobs:
        assert json.loads(claims[job.id].payload) == json.loads(job.payload)


@pytest.fixture
def server_in_mode(sql_server: Server, mode: str) -> Iterator[None]:
    """What connections begin with, until the test is over."""
    with sql.connection(sql_server.url) as operator:
        before = operator.scalar(text("SELECT @@GLOBAL.sql_mode"))
        operator.execute(text("SET GLOBAL sql_mode = :mode"), {"mode": mode})
        yield
        operator.execute(text("SET GLOBAL sql_mode = :mode"), {"mode": before})


@pytest.mark.alone_on_its_server("one by one")
@pytest.mark.usefixtures("server_in_mode")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("listened_to", [False, True])
async def test_any_text_is_stored_as_it_is_whatever_the_sql_mode(
    migrated_url: str, mode: str, *, listened_to: bool
) -> None:
    """The token of each claim, random bytes, is written as well."""
    driver = DatabaseDriver(migrated_url)
    if listened_to:
        # Through SQLAlchemy then, which gives the statement to the driver in another way.
        event.listen(driver.database.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    assert mode == "" or mode not in await driver.database.read(sql_mode)
    for _ in range(10):
        [job] = few = envelopes(1)
        await driver.jobs.insert(few)
        [claim] = await driver.jobs.claim(["default"], 1, 30)
        assert claim.fence.job_id == job.id
        settled = await driver.jobs.settle([Settlement.completed(claim.fence)])
        assert settled.stale == ()
    jobs = nasty()
    await driver.jobs.insert(jobs)
    await assert_stored(driver, jobs)
    await driver.close()


@pytest.mark.alone_on_its_server("one by one")
@pytest.mark.usefixtures("server_in_mode")
@pytest.mark.parametrize("mode", MODES)
async def test_an_application_may_dispatch_on_connections_of_any_sql_mode(migrated_url: str, mode: str) -> None:
    engine = create_async_engine(migrated_url)
    async with AsyncSession(engine) as session, session.begin():
        connection = await session.connection()
        assert mode in await sql_mode(connection)
        ids = [await dispatch(Receipt(order_id=number), session=session, queue="default") for number in range(50)]
    await engine.dispose()
    driver = DatabaseDriver(migrated_url)
    claims = await driver.jobs.claim(["default"], 100, 30)
    assert [claim.fence.job_id for claim in claims] == ids
    await driver.close()


async def test_any_text_is_stored_as_it_is_where_the_databases_character_set_could_not_hold_it(
    sql_server: Server,
) -> None:
    with databases.fresh_database(sql_server) as url:
        with sql.connection(url) as connection:
            connection.execute(text(f"ALTER DATABASE `{make_url(url).database}` CHARACTER SET latin1"))
        databases.create_tables(url, outbox.metadata)
        driver = DatabaseDriver(url)
        jobs = nasty()
        await driver.jobs.insert(jobs)
        await assert_stored(driver, jobs)
        await driver.close()


async def test_jobs_that_differ_in_everything_are_each_what_they_would_be_alone(driver: DatabaseDriver) -> None:
    tomorrow = datetime(2040, 2, 29, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=2)))
    names, queues = ["tests.Job", "it's%s\\\"", "~" * 255], ["default", "mail", "q" * 64, ">it's%s\\"]
    jobs = [
        Envelope(
            new_job_id(),
            queues[number % 4],
            names[number % 3],
            number % 10,
            f'{{"number": {number}}}',
            json.dumps({"max_tries": number}) if number % 2 else "{}",
            delay=number * 1000.000001 if number % 5 == 0 else 0.0,
            available_at=tomorrow + timedelta(days=number) if number % 7 == 0 else None,
        )
        for number in range(MANY)
    ]
    await driver.jobs.insert(jobs)
    now = await driver.now()
    for job in jobs:
        stored = await driver.jobs.get(job.id)
        assert stored is not None
        assert (stored.id, stored.queue, stored.name, stored.priority) == job[:4]
        assert json.loads(stored.payload) == json.loads(job.payload)
        assert json.loads(stored.headers) == json.loads(job.headers)
        assert (stored.attempts, stored.reserved_until) == (0, None)
        assert now - timedelta(seconds=60) < stored.created_at <= now
        expected = job.available_at or stored.created_at + timedelta(microseconds=int(job.delay * 1_000_000))
        assert stored.available_at == expected.astimezone(UTC)


@pytest.mark.parametrize("options", [{"delay": 3600.25}, {"available_at": datetime(2040, 1, 1, 12, tzinfo=UTC)}])
async def test_a_delay_that_all_have_is_that_of_each(driver: DatabaseDriver, options: dict[str, Any]) -> None:
    jobs = [job._replace(**options) for job in envelopes(MANY)]
    await driver.jobs.insert(jobs)
    for job in jobs:
        stored = await driver.jobs.get(job.id)
        assert stored is not None
        delayed = stored.created_at + timedelta(seconds=job.delay)
        assert stored.available_at == (job.available_at or delayed)


async def test_many_that_are_written_again_are_not_written_twice(driver: DatabaseDriver) -> None:
    jobs = envelopes(MANY)
    await driver.jobs.insert(jobs)
    claims = await driver.jobs.claim(["default"], 10, 30)
    await driver.jobs.insert([*jobs, *envelopes(MANY)])
    assert len(claims) == 10
    assert len(await driver.jobs.claim(["default"], 3 * MANY, 30)) == 2 * MANY - 10


async def test_nothing_of_many_is_stored_when_the_database_refuses_one(driver: DatabaseDriver) -> None:
    jobs = envelopes(2_500)
    jobs[2_200] = envelope(payload='{"broken": ')
    with pytest.raises(Exception, match="(?i)json|constraint"):
        await driver.jobs.insert(jobs)
    assert await driver.queues.counts() == []


def test_no_statement_is_larger_than_the_smallest_packet_in_use() -> None:
    worst = '"\\' * 100_000
    dialect = MySQL()
    for payload, count in ((worst, 100), (worst * 40, 3), ("{}", 5_000)):
        jobs = [envelope(payload=payload) for _ in range(count)]
        sizes = [len(statement) for statement, _ in own_insert_statements(dialect, jobs)]
        assert max(sizes) < 16 * 1024 * 1024
    # What is alone too large is not made larger than its quoting makes it.
    [(statement, parameters)] = own_insert_statements(dialect, [envelope(payload=worst * 100)])
    assert len(statement) < 1_000
    assert max(len(each) for each in parameters if isinstance(each, str)) == len(worst) * 100
