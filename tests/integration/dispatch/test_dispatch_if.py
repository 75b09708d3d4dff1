"""`dispatch_if`: a dispatch that makes no job, by itself, in a session, in chains and in batches."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import outbox
import outbox.sync
from outbox import Batch, Job, dispatch, dispatch_batch, dispatch_chain, dispatch_many, schedules
from outbox.client_state import default_client
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import Headers
from outbox.errors import InvalidJob, InvalidOption
from outbox.events import JobDispatched
from outbox.testing import fake, perform
from tests.support.orders import async_engine, sync_engine

asked: list[int] = []


class Even(Job):
    name = "tests.dispatch_if.Even"
    number: int = 0

    def dispatch_if(self) -> bool:
        asked.append(self.number)
        return self.number % 2 == 0

    async def handle(self) -> None: ...


class Never(Job):
    name = "tests.dispatch_if.Never"
    dispatch_if = False

    async def handle(self) -> None: ...


class Undecided(Job):
    name = "tests.dispatch_if.Undecided"

    def dispatch_if(self) -> int:
        return 1

    async def handle(self) -> None: ...


@pytest.fixture(autouse=True)
def nobody_asked() -> None:
    asked.clear()


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    outbox.configure(database_url=migrated_url)
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()
    await outbox.disconnect()
    outbox.configure()


async def test_what_is_left_out_has_an_id_that_says_so(driver: DatabaseDriver) -> None:
    ids = await dispatch_many([Even(number=number) for number in (1, 2, 3, 4, 5)])
    assert [each.created for each in ids] == [False, True, False, True, False]
    assert sorted(each.id for each in await driver.jobs.list_jobs()) == sorted((ids[1], ids[3]))
    assert asked == [1, 2, 3, 4, 5]
    assert not (await dispatch(Never())).created
    assert (await dispatch(Never(), dispatch_if=True)).created, "a dispatch goes before the class"
    assert not (await dispatch(Even(number=2), dispatch_if=False)).created
    assert asked == [1, 2, 3, 4, 5], "nothing is asked where the dispatch says it"
    with pytest.raises(InvalidOption, match="dispatch_if is True or False, not 1"):
        await dispatch(Undecided())


async def test_it_holds_in_sessions_and_for_sync_code(driver: DatabaseDriver, migrated_url: str) -> None:
    engine = async_engine(migrated_url)
    async with AsyncSession(engine) as session, session.begin():
        assert not (await dispatch(Even(number=1), session=session)).created
        assert (await dispatch(Even(number=2), session=session)).created
    await engine.dispose()
    plain = sync_engine(migrated_url)
    with Session(plain) as session, session.begin():
        assert not outbox.sync.dispatch(Never(), session=session).created
    plain.dispose()
    assert not outbox.sync.dispatch(Never()).created
    outbox.sync.disconnect()
    assert len(await driver.jobs.list_jobs()) == 1


async def test_nothing_is_opened_for_a_dispatch_that_makes_no_job(driver: DatabaseDriver) -> None:
    events: list[object] = []
    client = outbox.Outbox(default_client.settings())
    client.listen(events.append, JobDispatched)
    with client.use():
        await dispatch(Never())
        await dispatch_chain([Never(), Even(number=1)])
    await client.close()
    assert events == []


async def test_a_chain_leaves_out_the_steps_that_say_no(driver: DatabaseDriver) -> None:
    first = await dispatch_chain([Never(), Even(number=2), Even(number=3), Even(number=4)], catch=Never())
    [job] = await driver.jobs.list_jobs()
    assert (job.id, first.created) == (first, True)
    chain = Headers.load(job.headers).chain
    assert chain is not None
    assert (len(chain.rest), chain.catch) == (1, None)
    assert asked == [2, 3, 4], "each is asked once"
    assert not (await dispatch_chain([Never(), Even(number=1)])).created
    assert not outbox.sync.dispatch_chain([Never()]).created
    assert len(await driver.jobs.list_jobs()) == 1


async def test_a_batch_counts_the_members_that_it_has(driver: DatabaseDriver) -> None:
    batch_id = await dispatch_batch(
        [Even(number=1), Even(number=2), Batch([Even(number=4), Never()])], then=Never(), finally_=Even(number=6)
    )
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.total, status.outstanding) == (2, 2)
    assert len(await driver.jobs.list_jobs()) == 2
    assert sorted(asked) == [1, 2, 4, 6], "each is asked once"
    with pytest.raises(InvalidJob, match="`dispatch_if` leaves out all of this one"):
        await dispatch_batch([Never(), Even(number=1)])
    assert [each.created for each in await outbox.add_to_batch(batch_id, [Even(number=8), Never()])] == [True, False]
    assert [each.created for each in await outbox.add_to_batch(batch_id, [Never()])] == [False]
    status = await outbox.batch(batch_id)
    assert status is not None
    assert status.total == 3


async def test_a_schedule_refuses_it(driver: DatabaseDriver) -> None:
    for job in (Even(number=2), Never()):
        with pytest.raises(InvalidOption, match="a schedule asks no dispatch_if at its ticks"):
            await schedules.add("tests.never", "@daily", job)


async def test_the_testing_kit_knows_it() -> None:
    with fake() as recorder:
        await dispatch(Never())
        await dispatch(Even(number=2))
        recorder.assert_not_dispatched(Never)
        recorder.assert_dispatched(Even, number=2)
    assert (await perform(Never())).completed
