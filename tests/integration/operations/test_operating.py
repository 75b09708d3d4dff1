"""What applications do as operators: look, cancel, put back, remove, pause; with and without async."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, create_async_engine
from sqlalchemy.orm import Session

import outbox
import outbox.sync
from outbox import dispatch
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.errors import InvalidOption, JobNotWaiting, SessionUnusable, TablesMissing
from outbox.ids import new_job_id
from outbox.relay.route import relay_queue
from outbox.settlement import Settlement
from outbox.wakeups.base import Wake
from outbox.wakeups.local_hub import local_hub
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes
from tests.conformance.test_looking import worker
from tests.support.commands import fail
from tests.support.orders import Receipt

SYNC_DRIVERS = {"sqlite": "sqlite", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    outbox.configure(database_url=migrated_url)
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()
    await outbox.disconnect()
    await asyncio.to_thread(outbox.sync.disconnect)
    outbox.configure()


@pytest.fixture
async def engine(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(migrated_url)
    yield engine
    await engine.dispose()


# --- looking


async def test_jobs_are_found_live_and_failed(driver: DatabaseDriver) -> None:
    waiting = envelope(queue="mail", delay=60)
    await driver.jobs.insert([waiting])
    [claim] = await fail(driver, envelope(queue="mail"))
    live, failed = await outbox.find(waiting.id), await outbox.find(str(claim.fence.job_id))
    assert isinstance(live, outbox.StoredJob)
    assert live.state is outbox.JobState.DELAYED
    assert isinstance(failed, outbox.FailedJob)
    assert failed.failure.type == "ConnectionRefusedError"
    assert await outbox.find(new_job_id()) is None
    [counts] = await outbox.counts()
    assert (counts.queue, counts.delayed, counts.failed) == ("mail", 1, 1)
    assert [job.id for job in await outbox.failed_jobs(queue="mail", since=timedelta(hours=1))] == [failed.id]
    assert [group.count for group in await outbox.failed_groups(error="ConnectionRefusedError")] == [1]


async def test_pages_of_jobs_follow_each_other(driver: DatabaseDriver) -> None:
    await driver.jobs.insert(envelopes(5, queue="mail"))
    page = await outbox.jobs(queue="mail", state="ready", limit=3)
    rest = await outbox.jobs(queue="mail", state=outbox.JobState.READY, after=str(page.next))
    assert (len(page.jobs), len(rest.jobs), rest.next) == (3, 2, None)
    assert list((await outbox.jobs(key="customer:7")).jobs) == []


async def test_workers_are_listed(driver: DatabaseDriver) -> None:
    await driver.workers.heartbeat(worker("mail"))
    assert [each.queues for each in await outbox.workers()] == ["mail"]


# --- orders


async def test_failed_jobs_are_put_back_and_removed(driver: DatabaseDriver) -> None:
    one, two, three = await fail(driver, envelope(), envelope(), envelope())
    assert await outbox.retry(one.fence.job_id)
    assert not await outbox.retry(one.fence.job_id)
    assert await outbox.forget(str(two.fence.job_id))
    assert await outbox.forget_all(older_than=3600) == 0
    assert await outbox.retry_all(name="tests.Job", error="ConnectionRefusedError", since=3600) == 1
    assert {job.id for job in await driver.jobs.list_jobs()} == {one.fence.job_id, three.fence.job_id}
    await fail(driver, envelope(queue="other"))
    assert await outbox.forget_all(queue="other") == 1


async def test_queues_are_paused_resumed_and_cleared(driver: DatabaseDriver) -> None:
    await driver.jobs.insert(envelopes(2, queue="mail"))
    assert (await outbox.pause("mail"), await outbox.pause("mail")) == (True, False)
    assert await driver.jobs.claim(["mail"], 1, 30) == []
    assert (await outbox.resume("mail"), await outbox.resume("mail")) == (True, False)
    assert await outbox.clear("mail") == 2


async def test_another_connection_is_reached_by_its_name(
    driver: DatabaseDriver, redis: RedisDriver, redis_url: str, migrated_url: str
) -> None:
    outbox.configure(database_url=migrated_url, redis_url=redis_url)
    job = envelope(queue="fast")
    await redis.jobs.insert([job])
    assert await outbox.find(job.id) is None
    assert await outbox.find(job.id, connection="redis") is not None
    assert [each.queue for each in await outbox.counts(connection="redis")] == ["fast"]
    assert await outbox.cancel(job.id, connection="redis")


class Listener:
    """An idle worker of this process."""

    def __init__(self) -> None:
        self.woken: list[Wake] = []

    def wake(self, wake: Wake = Wake.JOBS) -> None:
        self.woken.append(wake)


async def test_a_waiting_job_is_changed_and_idle_workers_are_woken(driver: DatabaseDriver) -> None:
    job = envelope(queue="mail", delay=3_600)
    await driver.jobs.insert([job])
    listener = Listener()
    local_hub.listen(["mail", "urgent"], listener)  # type: ignore[arg-type]
    assert await outbox.change(job.id, queue="urgent", priority=0)
    assert await outbox.reschedule(str(job.id), delay=timedelta(hours=2))
    assert await outbox.reschedule(job.id, at=await driver.now())
    assert listener.woken == [Wake.JOBS] * 3
    claim = await claim_one(driver, "urgent")
    assert (claim.fence.job_id, claim.priority) == (job.id, 0)
    with pytest.raises(JobNotWaiting, match="runs"):
        await outbox.reschedule(job.id, delay=0)
    assert not await outbox.change(new_job_id(), priority=1)
    assert len(listener.woken) == 3


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: outbox.change(new_job_id()), "nothing is to change"),
        (lambda: outbox.change(new_job_id(), priority=10), "a priority is a whole number"),
        (lambda: outbox.change(new_job_id(), queue=">redis"), "a queue's name is"),
        (lambda: outbox.reschedule(new_job_id()), "one of the two"),
        (lambda: outbox.reschedule(new_job_id(), at=datetime.now(UTC), delay=1), "one of the two"),
        (lambda: outbox.reschedule(new_job_id(), at=datetime(2026, 1, 1)), "needs a time zone"),  # noqa: DTZ001
        (lambda: outbox.reschedule(new_job_id(), at=5), "an aware datetime, not 5"),  # type: ignore[arg-type]
        (lambda: outbox.reschedule(new_job_id(), delay=-1), "a time is a number of seconds"),
        (lambda: outbox.reschedule(new_job_id(), delay=1e12), "up to ten years"),
        (lambda: outbox.find("nonsense"), "a job's id is a UUID"),
        (lambda: outbox.cancel(7), "a job's id is a UUID"),  # type: ignore[arg-type]
        (lambda: outbox.jobs(name=outbox.Job), "name is a text, not <class"),  # type: ignore[arg-type]
        (lambda: outbox.jobs(key=7), "key is a text, not 7"),  # type: ignore[arg-type]
        (lambda: outbox.jobs(after=7), "`next` of an earlier page, not 7"),  # type: ignore[arg-type]
        (lambda: outbox.failed_jobs(error=ValueError), "error is a text, not <class"),  # type: ignore[arg-type]
        (lambda: outbox.failed_groups(group=b"x"), "group is a text, not b'x'"),  # type: ignore[arg-type]
        (lambda: outbox.forget_all(name=outbox.Job), "name is a text, not <class"),  # type: ignore[arg-type]
        (lambda: outbox.finished_jobs(name=7), "name is a text, not 7"),  # type: ignore[arg-type]
        (lambda: outbox.metrics(name=7), "name is a text, not 7"),  # type: ignore[arg-type]
        (lambda: outbox.workers(connection=["x"]), "connection is a text, not"),  # type: ignore[arg-type]
        (lambda: outbox.jobs(state="done"), "a state is one of ready, delayed, retrying, reserved"),
        (lambda: outbox.jobs(limit=0), "a limit is a whole number"),
        (lambda: outbox.jobs(queue="Größe"), "a queue's name is"),
        (lambda: outbox.jobs(after="nonsense"), "no place"),
        (lambda: outbox.failed_jobs(since=-1), "a time is a number of seconds"),
        (lambda: outbox.forget_all(older_than=float("nan")), "a time is a number of seconds"),
        (lambda: outbox.forget_all(queue=""), "a queue's name is"),
        (lambda: outbox.forget_all(error=""), "error is a text that is not empty"),
        (lambda: outbox.retry_all(name=""), "name is a text that is not empty"),
        (lambda: outbox.counts(connection=""), "connection is a text that is not empty"),
        (lambda: outbox.pause("mail", connection=""), "a connection is the name of one, not ''"),
        (lambda: outbox.pauses(connection=""), "a connection is the name of one, not ''"),
        (lambda: outbox.bulk.operations(connection=""), "a connection is the name of one, not ''"),
        (lambda: outbox.schedules.remove("daily", connection=""), "a connection is the name of one, not ''"),
        (lambda: outbox.pause("Größe"), "a queue's name is"),
        (lambda: outbox.clear(">redis"), "a queue's name is"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_done(call: object, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        await call()  # type: ignore[operator]


# --- cancelling in a transaction


async def test_a_cancellation_is_part_of_the_transaction(driver: DatabaseDriver, engine: AsyncEngine) -> None:
    kept, cancelled = envelope(), envelope()
    await driver.jobs.insert([kept, cancelled])
    async with AsyncSession(engine) as session:
        assert await outbox.cancel(kept.id, session=session)
        await session.rollback()
        assert await outbox.cancel(str(cancelled.id), session=session)
        async with session.begin_nested() as savepoint:
            assert await outbox.cancel(kept.id, session=session)
            await savepoint.rollback()
        await session.commit()
        assert not await outbox.cancel(new_job_id(), session=session)
    assert [job.id for job in await driver.jobs.list_jobs()] == [kept.id]


async def test_what_was_dispatched_in_the_transaction_is_cancelled_in_it(
    driver: DatabaseDriver, engine: AsyncEngine
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        job_id = await dispatch(Receipt(order_id=1), session=session)
        other = await dispatch(Receipt(order_id=2), session=session)
        assert await outbox.cancel(job_id, session=session)
    assert [job.id for job in await driver.jobs.list_jobs()] == [other]


async def test_a_running_job_whose_cancellation_commits_is_lost_to_its_worker(
    driver: DatabaseDriver, engine: AsyncEngine
) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver)
    async with AsyncSession(engine) as session, session.begin():
        assert await outbox.cancel(claim.fence.job_id, session=session)
    assert (await driver.jobs.extend([claim.fence], 30)).lost == {claim.fence}
    assert (await driver.jobs.settle([Settlement.retried(claim.fence, 0, FAILURE)])).accepted == ()


async def test_a_row_on_its_way_to_another_connection_is_not_reached(
    driver: DatabaseDriver, engine: AsyncEngine
) -> None:
    job = envelope(queue=relay_queue("redis"))
    await driver.jobs.insert([job])
    async with AsyncSession(engine) as session, session.begin():
        assert not await outbox.cancel(job.id, session=session)
    assert len(await driver.jobs.list_jobs()) == 1


async def test_any_kind_of_session_carries_it(
    driver: DatabaseDriver, engine: AsyncEngine, migrated_url: str, backend: str
) -> None:
    jobs = envelopes(3)
    await driver.jobs.insert(jobs)
    scoped = async_scoped_session(lambda: AsyncSession(engine), scopefunc=asyncio.current_task)
    assert await outbox.cancel(jobs[0].id, session=scoped)
    await scoped.commit()
    await scoped.remove()

    def in_thread() -> bool:
        plain = create_engine(make_url(migrated_url).set(drivername=SYNC_DRIVERS[backend]))
        with Session(plain) as session, session.begin():
            done = outbox.sync.cancel(jobs[1].id, session=session)
        plain.dispose()
        return done

    assert await asyncio.to_thread(in_thread)
    assert [job.id for job in await driver.jobs.list_jobs()] == [jobs[2].id]


async def test_a_session_that_cannot_carry_it_is_refused(
    driver: DatabaseDriver, engine: AsyncEngine, database_url: str
) -> None:
    job_id = new_job_id()
    async with AsyncSession(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        with pytest.raises(SessionUnusable, match="AUTOCOMMIT"):
            await outbox.cancel(job_id, session=session)
    with pytest.raises(SessionUnusable, match="not a str"):
        await outbox.cancel(job_id, session="session")  # type: ignore[arg-type]
    async with AsyncSession() as session:
        with pytest.raises(SessionUnusable, match="no engine"):
            await outbox.cancel(job_id, session=session)
    async with AsyncSession(engine) as session:
        with pytest.raises(InvalidOption, match="not both"):
            await outbox.cancel(job_id, session=session, connection="database")


async def test_a_session_of_a_database_without_the_tables_is_told(tmp_path: object) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with AsyncSession(engine) as session:
        with pytest.raises(TablesMissing, match="alembic upgrade head"):
            await outbox.cancel(new_job_id(), session=session)
    await engine.dispose()


# --- without async


async def test_all_of_it_works_without_async(driver: DatabaseDriver) -> None:
    waiting = envelope(queue="mail")
    await driver.jobs.insert([waiting, envelope(queue="slow")])
    [claim] = await fail(driver, envelope(queue="failing"))

    def without_async() -> None:
        sync = outbox.sync
        assert [counts.queue for counts in sync.counts()] == ["failing", "mail", "slow"]
        assert len(sync.jobs(queue="mail").jobs) == 1
        assert sync.find(waiting.id) is not None
        assert sync.reschedule(waiting.id, delay=60)
        assert sync.change(waiting.id, priority=1)
        assert sync.cancel(waiting.id)
        assert sync.pause("mail")
        assert sync.resume("mail")
        assert sync.clear("slow") == 1
        assert [job.id for job in sync.failed_jobs()] == [claim.fence.job_id]
        assert [group.count for group in sync.failed_groups()] == [1]
        assert sync.retry(claim.fence.job_id)
        assert not sync.forget(claim.fence.job_id)
        assert (sync.retry_all(), sync.forget_all()) == (0, 0)
        assert sync.workers() == []

    await asyncio.to_thread(without_async)
    assert [job.id for job in await driver.jobs.list_jobs()] == [claim.fence.job_id]
