"""A dispatcher and a worker in one process: a commit wakes it, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

import outbox
from outbox import dispatch, sync
from outbox.client_state import configure
from outbox.open_drivers import disconnect
from outbox.wakeups.base import Wake
from outbox.wakeups.local_hub import local_hub
from outbox.wakeups.polling import Polling
from tests.support.embedded_worker import Arrival, Embedded, working
from tests.support.orders import async_engine, sync_engine


@pytest.fixture
async def worker(migrated_url: str) -> AsyncIterator[Embedded]:
    configure(database_url=migrated_url)
    async with working(migrated_url, wake="poll", queue=("default", "mail")) as worker:
        yield worker
    await disconnect()
    configure()


@pytest.fixture
async def engine(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(migrated_url)
    yield engine
    await engine.dispose()


async def test_a_commit_wakes_the_worker_of_this_process(worker: Embedded, engine: AsyncEngine) -> None:
    arrival = Arrival()
    async with AsyncSession(engine) as session, session.begin():
        await dispatch(arrival.job, session=session, queue="mail")
    assert await arrival() == "mail"


async def test_a_sync_session_in_a_thread_wakes_it(worker: Embedded, migrated_url: str) -> None:
    arrival = Arrival()

    def commit() -> None:
        engine = sync_engine(migrated_url)
        with Session(engine) as session, session.begin():
            sync.dispatch(arrival.job, session=session)
        engine.dispose()

    await asyncio.to_thread(commit)
    await arrival()


async def test_a_dispatch_without_a_session_wakes_it(worker: Embedded) -> None:
    arrival = Arrival()
    await dispatch(arrival.job)
    await arrival()


async def test_a_handler_that_dispatches_wakes_its_own_worker(worker: Embedded) -> None:
    arrival = Arrival()

    class Dispatches(outbox.Job):
        name = "tests.Dispatches"

        async def handle(self) -> None:
            await dispatch(arrival.job)
            await disconnect()

    await dispatch(Dispatches())
    await arrival()


async def test_a_delayed_job_is_woken_for_and_runs_when_it_is_due(worker: Embedded) -> None:
    arrival = Arrival()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await dispatch(arrival.job, delay=0.5)
    await arrival()
    assert 0.4 <= loop.time() - began < 10


@pytest.fixture
def listener() -> Polling:
    listener = Polling()
    local_hub.listen(["mail"], listener)
    return listener


async def test_a_commit_announces_what_was_committed_and_a_rollback_nothing(
    migrated_url: str, engine: AsyncEngine, listener: Polling
) -> None:
    async with AsyncSession(engine) as session:
        await dispatch(Arrival().job, session=session, queue="mail")
        await session.flush()
        assert listener.clear() is Wake.NOTHING, "nothing is committed yet"
        await session.rollback()
        assert listener.clear() is Wake.NOTHING
        await dispatch(Arrival().job, session=session, queue="default")
        await session.commit()
        assert listener.clear() is Wake.NOTHING, "another queue"
        await dispatch(Arrival().job, session=session, queue="mail")
        await session.commit()
        assert listener.clear() is Wake.JOBS


async def test_a_rolled_back_savepoint_announces_nothing_and_a_released_one_waits_for_the_commit(
    migrated_url: str, engine: AsyncEngine, listener: Polling
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        with pytest.raises(ZeroDivisionError):
            async with session.begin_nested():
                await dispatch(Arrival().job, session=session, queue="mail")
                await session.flush()
                raise ZeroDivisionError
    assert listener.clear() is Wake.NOTHING
    async with AsyncSession(engine) as session, session.begin():
        async with session.begin_nested():
            await dispatch(Arrival().job, session=session, queue="mail")
        assert listener.clear() is Wake.NOTHING
    assert listener.clear() is Wake.JOBS
