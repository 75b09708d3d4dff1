"""Schedules that applications add, change and remove: in a session's transaction, or in one of outbox's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
import outbox.sync
from outbox import schedules
from outbox.drivers.database import DatabaseDriver
from outbox.errors import ConfigurationError, InvalidJob, InvalidOption, SessionUnusable
from tests.support.orders import sync_engine
from tests.support.schedule_jobs import Digest, stored


@pytest.fixture(autouse=True)
def settings(migrated_url: str) -> Iterator[None]:
    outbox.configure(database_url=migrated_url)
    yield
    outbox.configure()


@pytest.fixture
async def engine(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(migrated_url)
    yield engine
    await engine.dispose()


async def names(driver: DatabaseDriver) -> list[str]:
    return [each.name for each in await driver.schedules.list()]


async def test_a_schedule_commits_with_the_transaction(engine: AsyncEngine, database: DatabaseDriver) -> None:
    async with AsyncSession(engine) as session, session.begin():
        assert await schedules.add("digest", "@daily", Digest(tenant=7), session=session, tz="Europe/Berlin")
        if engine.dialect.name != "sqlite":
            assert await names(database) == []
    assert await names(database) == ["digest"]
    found = await stored(database)
    assert (found.definition.tz, found.definition.job and found.definition.job.payload) == (
        "Europe/Berlin",
        '{"tenant":7}',
    )
    assert found.next_at is not None
    assert found.next_at > await database.now()


async def test_a_schedule_is_rolled_back_with_the_transaction(engine: AsyncEngine, database: DatabaseDriver) -> None:
    async with AsyncSession(engine) as session:
        await schedules.add("digest", "@daily", Digest(), session=session)
        await session.rollback()
    assert await names(database) == []


async def test_a_schedule_is_rolled_back_with_its_savepoint(engine: AsyncEngine, database: DatabaseDriver) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await schedules.add("kept", "@daily", Digest(), session=session)
        savepoint = await session.begin_nested()
        await schedules.add("dropped", "@daily", Digest(), session=session)
        await savepoint.rollback()
        async with session.begin_nested():
            await schedules.add("also", "@daily", Digest(), session=session)
    assert await names(database) == ["also", "kept"]


async def test_removing_pausing_and_resuming_are_part_of_a_transaction(
    engine: AsyncEngine, database: DatabaseDriver
) -> None:
    await schedules.add("digest", "@daily", Digest())
    async with AsyncSession(engine) as session:
        assert await schedules.pause("digest", session=session)
        assert not await schedules.pause("digest", session=session)
        assert await schedules.resume("digest", session=session)
        assert await schedules.remove("digest", session=session)
        assert not await schedules.remove("digest", session=session)
        await session.rollback()
    assert (await stored(database)).paused_at is None
    async with AsyncSession(engine) as session, session.begin():
        await schedules.pause("digest", session=session)
    assert (await stored(database)).paused_at is not None
    async with AsyncSession(engine) as session, session.begin():
        await schedules.remove("digest", session=session)
    assert await names(database) == []


async def test_without_a_session(database: DatabaseDriver) -> None:
    assert await schedules.add("digest", "@daily", Digest())
    assert not await schedules.add("digest", None, Digest(), every="90s"), "changed"
    assert (await stored(database)).definition.when == "90s"
    assert await schedules.pause("digest")
    assert await schedules.resume("digest")
    assert await schedules.remove("digest")
    assert not await schedules.remove("digest")
    assert not await schedules.pause("digest")
    assert not await schedules.resume("digest")


def test_without_async(migrated_url: str) -> None:
    engine = sync_engine(migrated_url)
    with Session(engine) as session, session.begin():
        assert outbox.sync.schedules.add("digest", "@daily", Digest(), session=session)
        assert outbox.sync.schedules.pause("digest", session=session)
    with Session(engine) as session:
        assert outbox.sync.schedules.remove("digest", session=session)
        session.rollback()
    assert outbox.sync.schedules.resume("digest")
    assert outbox.sync.schedules.remove("digest")
    assert not outbox.sync.schedules.remove("digest")
    outbox.sync.disconnect()
    engine.dispose()


async def test_sync_code_takes_no_async_session(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        with pytest.raises(SessionUnusable, match=r"outbox\.schedules"):
            outbox.sync.schedules.remove("digest", session=session)


async def test_one_statement_after_another_and_no_deadlock(engine: AsyncEngine, database: DatabaseDriver) -> None:
    """Eight transactions add, change and remove the same schedules; the first is rolled back."""
    if engine.dialect.name == "sqlite":
        pytest.skip("one writer at a time")
    begun = asyncio.Event()

    async def work(number: int) -> None:
        async with AsyncSession(engine) as session:
            if number:
                await begun.wait()
            await schedules.add("digest", "@daily", Digest(tenant=number), session=session)
            if not number:
                begun.set()
                await asyncio.sleep(0.3)
                await session.rollback()
                return
            await schedules.remove("digest", session=session)
            await schedules.add("digest", "@hourly", Digest(tenant=number), session=session)
            await session.commit()

    await asyncio.gather(*map(work, range(8)))
    assert await names(database) == ["digest"]


async def test_what_a_change_costs(engine: AsyncEngine) -> None:
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    async with AsyncSession(engine) as session, session.begin():
        await schedules.add("digest", "@daily", Digest(), session=session)
    assert len(statements) == 3, statements


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tz": "Europe/Nowhere"}, "there is no time zone"),
        ({"when": "0 0 30 2 *"}, "never ticks"),
        ({"when": "x" * 10_000}, "at most 255 characters"),
        ({"when": "often"}, "no crontab line"),
        ({"grace": -1}, "grace is a number of seconds"),
        ({"misfire": "never"}, "misfire is one of"),
        ({"overlap": "both"}, "overlap is one of"),
        ({"delay": 5}, "leave out `delay`"),
        ({"name": ""}, "a schedule's name"),
        ({"queue": "No Queue"}, "queue"),
    ],
)
async def test_what_is_refused(database: DatabaseDriver, options: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"name": "digest", "when": "@daily", "job": Digest()} | options
    with pytest.raises(InvalidOption, match=message):
        await schedules.add(**given)  # type: ignore[arg-type]
    assert await names(database) == []


async def test_a_job_that_cannot_be_dispatched_is_refused() -> None:
    with pytest.raises(InvalidJob):
        await schedules.add("digest", "@daily", "Digest")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no option 'retries'"):
        await schedules.add("digest", "@daily", Digest(), retries=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        await schedules.add("digest", "@daily", Digest(), connection="redis")


async def test_a_job_for_redis_cannot_be_cancelled_by_a_schedule(migrated_url: str) -> None:
    outbox.configure(database_url=migrated_url, redis_url="redis://localhost:1/0")
    with pytest.raises(InvalidOption, match="overlap='cancel'"):
        await schedules.add("digest", "@daily", Digest(), overlap="cancel", connection="redis")
    assert await schedules.add("digest", "@daily", Digest(), overlap="queue_one", connection="redis")
