"""What a fake counts as dispatched, and what it says otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox import Batch, Job, Outbox, sync
from outbox.client_state import current_client
from outbox.errors import ConfigurationError, InvalidJob, InvalidOption, SessionUnusable
from outbox.events import JobDispatched
from outbox.testing import Fake, fake


class Ship(Job):
    name = "fake.Ship"
    queue = "post"

    order_id: int

    async def handle(self) -> None: ...


class Bill(Job):
    name = "fake.Bill"

    order_id: int
    note: str = ""

    async def handle(self) -> None: ...


@pytest.fixture
def faked() -> Iterator[Fake]:
    with fake() as recorder:
        yield recorder


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[AsyncSession]:
    """On a database without outbox's tables: a fake writes nothing."""
    engine = create_async_engine(database_url)
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


async def test_what_was_dispatched_is_found_by_class_fields_and_a_condition(faked: Fake) -> None:
    job_id = await outbox.dispatch(Ship(order_id=7), delay=30, priority=2)
    await outbox.dispatch_many([Bill(order_id=7, note="a"), Bill(order_id=8, note="b")], queue="money")

    found = faked.assert_dispatched(Ship, order_id=7)
    assert found is not None
    assert (found.id, found.queue, found.delay, found.priority) == (job_id, "post", 30, 2)
    faked.assert_dispatched(Bill, times=2)
    faked.assert_dispatched(Bill, where=lambda job: job.note == "b", times=1)
    faked.assert_not_dispatched(Ship, order_id=8)
    assert [each.job for each in faked.dispatched(Bill)] == [Bill(order_id=7, note="a"), Bill(order_id=8, note="b")]
    assert {each.queue for each in faked.dispatched(Bill)} == {"money"}


async def test_an_assertion_that_fails_prints_what_was_dispatched(faked: Fake, engine: Engine) -> None:
    await outbox.dispatch(Ship(order_id=7), delay=30)
    with Session(engine) as session:
        sync.dispatch(Bill(order_id=1), session=session)
        session.rollback()

    listed = (
        "Dispatched were:\n"
        "  Ship(order_id=7) to the queue 'post' of 'database', after 30 s: stored\n"
        "  Bill(order_id=1, note='') to the queue 'default' of 'database': rolled back"
    )
    for attempt, what in [
        (lambda: faked.assert_dispatched(Ship, order_id=8), "Ship(order_id=8) was not dispatched"),
        (lambda: faked.assert_dispatched(Bill, order_id=1), "Bill(order_id=1) was not dispatched"),
        (lambda: faked.assert_dispatched(Ship, times=2), "Ship() was dispatched once, not 2 times"),
        (
            lambda: faked.assert_dispatched(Ship, where=lambda job: job.order_id > 7),
            "Ship() where that holds was not dispatched",
        ),
        (lambda: faked.assert_not_dispatched(Ship), "Ship() was dispatched once"),
        (faked.assert_nothing_dispatched, "1 job was dispatched"),
    ]:
        with pytest.raises(AssertionError) as failed:
            attempt()
        assert str(failed.value) == f"{what}. {listed}"


def test_an_assertion_on_nothing_says_so(faked: Fake) -> None:
    faked.assert_nothing_dispatched()
    with pytest.raises(AssertionError, match=r"^Ship\(\) was not dispatched. Nothing was dispatched.$"):
        faked.assert_dispatched(Ship)
    with pytest.raises(TypeError, match="Ship has no field 'order'; its fields: order_id"):
        faked.assert_not_dispatched(Ship, order=7)


async def test_a_dispatch_is_validated_as_ever(faked: Fake, engine: Engine) -> None:
    job = Ship(order_id=7)
    job.order_id = "seven"  # type: ignore[assignment]
    with pytest.raises(InvalidJob, match="order_id"):
        await outbox.dispatch(job)
    with pytest.raises(InvalidOption):
        await outbox.dispatch(Ship(order_id=7), priority=10)
    with Session() as unbound, pytest.raises(SessionUnusable, match="no engine"):
        await outbox.dispatch(Ship(order_id=7), session=unbound)
    with Session(engine, autobegin=False) as session, pytest.raises(SessionUnusable):
        sync.dispatch(Ship(order_id=7), session=session)
    faked.assert_nothing_dispatched()


async def test_a_job_counts_until_its_transaction_is_rolled_back(faked: Fake, session: AsyncSession) -> None:
    await outbox.dispatch(Ship(order_id=1), session=session)
    faked.assert_dispatched(Ship, order_id=1)
    await session.rollback()
    faked.assert_nothing_dispatched()

    await outbox.dispatch(Ship(order_id=2), session=session)
    await session.commit()
    await session.execute(text("SELECT 1"))
    await session.rollback()
    faked.assert_dispatched(Ship, order_id=2)

    await outbox.dispatch(Ship(order_id=3), session=session)
    await session.close()
    faked.assert_not_dispatched(Ship, order_id=3)


async def test_a_savepoint_takes_its_own_jobs(faked: Fake, session: AsyncSession) -> None:
    async with session.begin():
        await outbox.dispatch(Ship(order_id=1), session=session)
        undone = await session.begin_nested()
        await outbox.dispatch(Ship(order_id=2), session=session)
        async with session.begin_nested():
            await outbox.dispatch(Ship(order_id=3), session=session)
        await undone.rollback()
        async with session.begin_nested():
            await outbox.dispatch(Ship(order_id=4), session=session)
    assert [each.job.order_id for each in faked.dispatched(Ship)] == [1, 4]


async def test_a_released_savepoint_goes_with_its_transaction(faked: Fake, session: AsyncSession) -> None:
    async with session.begin() as transaction:
        async with session.begin_nested():
            await outbox.dispatch(Ship(order_id=1), session=session)
        faked.assert_dispatched(Ship)
        await transaction.rollback()
    faked.assert_nothing_dispatched()


def test_a_session_that_joined_a_transaction_is_undone_with_it(faked: Fake, engine: Engine) -> None:
    with engine.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            sync.dispatch(Ship(order_id=1), session=session)
            session.commit()
            sync.dispatch(Ship(order_id=2), session=session)
            session.rollback()
        assert [each.job.order_id for each in faked.dispatched(Ship)] == [1]
        outer.rollback()
    faked.assert_nothing_dispatched()


async def test_tasks_and_threads_of_the_block_are_recorded_and_others_are_not(migrated_url: str) -> None:
    async with Outbox(database_url=migrated_url) as client:
        go = asyncio.Event()

        async def dispatch_outside() -> None:
            await go.wait()
            await outbox.dispatch(Ship(order_id=1))

        outside = asyncio.create_task(dispatch_outside())
        with fake() as recorder:
            async with asyncio.TaskGroup() as group:
                group.create_task(outbox.dispatch(Ship(order_id=2)))
            await asyncio.to_thread(sync.dispatch, Ship(order_id=3))
            go.set()
            await outside
        assert [each.job.order_id for each in recorder.dispatched(Ship)] == [2, 3]
        assert sum(each.ready for each in await outbox.counts()) == 1
        assert client.settings.database_url == migrated_url


async def test_listeners_hear_of_what_is_recorded(database_url: str) -> None:
    heard: list[object] = []
    async with Outbox(database_url=database_url) as client:
        client.listen(heard.append, JobDispatched)
        with fake():
            await outbox.dispatch(Ship(order_id=1))
    assert [type(event) for event in heard] == [JobDispatched]


def test_a_fake_in_a_fake_is_refused(faked: Fake) -> None:
    with pytest.raises(RuntimeError, match="a fake is in use here already"), fake():
        pass


async def test_a_fake_is_entered_once() -> None:
    once = fake()
    with once as recorder:
        with pytest.raises(RuntimeError, match="a fake is in use here already"), once:
            pass
        await outbox.dispatch(Ship(order_id=1))
        recorder.assert_dispatched(Ship, order_id=1)
    with pytest.raises(RuntimeError, match=r"make another with fake\(\)"), once:
        pass


def test_a_fake_that_decorates_is_another_for_each_call() -> None:
    @fake()
    def recorders() -> object:
        return current_client().recorder

    first, second = recorders(), recorders()
    assert isinstance(first, Fake)
    assert first is not second
    assert current_client().recorder is None


async def test_a_fake_that_decorates_a_coroutine_function_lasts_until_its_end() -> None:
    @fake()
    async def recorders() -> object:
        await asyncio.sleep(0)
        await outbox.dispatch(Ship(order_id=1))
        return current_client().recorder

    first, second = await recorders(), await recorders()
    assert isinstance(first, Fake)
    first.assert_dispatched(Ship, times=1)
    assert first is not second
    assert current_client().recorder is None


async def test_dispatches_of_every_client_are_recorded_in_the_block() -> None:
    client = Outbox(database_url="sqlite+aiosqlite:////nowhere/nothing.db")
    with fake() as recorder:
        await client.dispatch(Ship(order_id=1))
        with client.use():
            await outbox.dispatch(Ship(order_id=2))
        async with client:
            await asyncio.to_thread(sync.dispatch, Ship(order_id=3))
    with client.use(), fake() as inner:
        await client.dispatch(Ship(order_id=4))
    assert [each.job.order_id for each in recorder.dispatched(Ship)] == [1, 2, 3]
    assert [each.job.order_id for each in inner.dispatched(Ship)] == [4]
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        await client.dispatch(Ship(order_id=5))


async def test_a_chain_is_found_by_its_jobs(faked: Fake) -> None:
    await outbox.dispatch_chain([Ship(order_id=1), Bill(order_id=1)], catch=Bill(order_id=1, note="refund"))
    await outbox.dispatch(Ship(order_id=2))

    chain = faked.assert_chain_dispatched([Ship(order_id=1), Bill], catch=Bill(order_id=1, note="refund"))
    assert chain.then == (Bill(order_id=1),)
    faked.assert_dispatched(Ship, times=2)
    faked.assert_not_dispatched(Bill)
    for wrong in ([Ship], [Ship, Ship], [Ship(order_id=2), Bill], [Ship, Bill, Bill]):
        with pytest.raises(AssertionError, match="^the chain Ship.* was not dispatched. Dispatched were:"):
            faked.assert_chain_dispatched(wrong)
    with pytest.raises(AssertionError) as failed:
        faked.assert_chain_dispatched([Ship, Bill], catch=Ship)
    assert str(failed.value).splitlines() == [
        "the chain Ship, then Bill, catch Ship was not dispatched. Dispatched were:",
        "  Ship(order_id=1), then Bill(order_id=1, note=''), catch Bill(order_id=1, note='refund') to the queue 'post' "
        "of 'database': stored",
        "  Ship(order_id=2) to the queue 'post' of 'database': stored",
    ]


@pytest.mark.parametrize("in_session", [True, False])
async def test_a_batch_is_found_by_its_jobs_and_is_not_stored(
    faked: Fake, session: AsyncSession, in_session: bool
) -> None:
    """The database has no tables: what is written is an error."""
    inner = Batch([Bill(order_id=3)], name="inner")
    batch_id = await outbox.dispatch_batch(
        [Ship(order_id=1), Ship(order_id=2), inner],
        name="outer",
        then=Bill(order_id=9, note="all"),
        session=session if in_session else None,
    )
    await outbox.dispatch(Ship(order_id=4))

    assert faked.assert_batch_dispatched([Ship, Ship(order_id=2)], name="outer", then=Bill) == batch_id
    assert faked.assert_batch_dispatched([Bill]) != batch_id
    mixed = await outbox.dispatch_batch([Bill(order_id=5), [Ship(order_id=5), Bill(order_id=6)]])
    assert faked.assert_batch_dispatched([Bill, [Ship, Bill(order_id=6)]]) == mixed
    with pytest.raises(AssertionError, match=r"^the batch of Bill, \[Bill, then Ship\] was not dispatched"):
        faked.assert_batch_dispatched([Bill, [Bill, Ship]])
    with pytest.raises(AssertionError, match="^the batch of Bill, Ship was not dispatched"):
        faked.assert_batch_dispatched([Bill, Ship])
    faked.assert_dispatched(Ship, times=4)
    for wrong, more in [([Ship], {}), ([Ship, Ship], {"name": "inner"}), ([Ship, Ship], {"catch": Bill})]:
        with pytest.raises(AssertionError, match=r"^the batch .*of Ship.* was not dispatched. Dispatched were:"):
            faked.assert_batch_dispatched(wrong, **more)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a batch has no 'finally'; there are: then, catch, finally_"):
        faked.assert_batch_dispatched([Ship], **{"finally": Bill})
    if in_session:
        await session.rollback()
        faked.assert_not_dispatched(Bill, order_id=3)
