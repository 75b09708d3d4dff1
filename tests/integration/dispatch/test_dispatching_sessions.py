"""Sessions of every kind that carry jobs, or refuse them."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import outbox
import outbox.sync
from outbox import dispatch
from outbox.drivers.database import DatabaseDriver
from outbox.errors import SessionUnusable
from tests.support.orders import COUNT, Base, Order, Receipt, async_engine
from tests.support.stored_receipts import numbers, stored

JOBS = outbox.metadata.tables["queue_jobs"]


async def test_a_session_without_a_transaction_of_its_own_says_so(engine: AsyncEngine) -> None:
    async with AsyncSession(engine, autobegin=False) as session:
        with pytest.raises(SessionUnusable, match="begin"):
            await dispatch(Receipt(order_id=1), session=session)


async def test_a_session_that_is_closed_for_good_says_so(engine: AsyncEngine) -> None:
    session = AsyncSession(engine, close_resets_only=False)
    await session.close()
    with pytest.raises(SessionUnusable, match="closed"):
        await dispatch(Receipt(order_id=1), session=session)


async def test_a_closed_session_that_is_used_again_begins_again(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    session = sessions()
    await dispatch(Receipt(order_id=1), session=session)
    await session.close()
    await dispatch(Receipt(order_id=2), session=session)
    await session.commit()
    await session.close()
    assert await numbers(driver) == [2], "what was pending when the session was closed is gone, as anything else is"


async def test_an_engine_in_autocommit_is_refused(migrated_url: str, driver: DatabaseDriver) -> None:
    own, usual = async_engine(migrated_url, isolation_level="AUTOCOMMIT"), async_engine(migrated_url)
    for engine in (own, usual.execution_options(isolation_level="AUTOCOMMIT")):
        async with AsyncSession(engine) as session:
            with pytest.raises(SessionUnusable, match="AUTOCOMMIT"):
                await dispatch(Receipt(order_id=1), session=session)
    async with AsyncSession(usual) as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with pytest.raises(SessionUnusable, match="AUTOCOMMIT"):
            await dispatch(Receipt(order_id=1), session=session)
    async with AsyncSession(usual) as session:
        await dispatch(Receipt(order_id=1), session=session)
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with pytest.raises(SessionUnusable, match="AUTOCOMMIT"):
            await session.commit()
    await own.dispose()
    await usual.dispose()
    assert await stored(driver) == []


async def test_a_transaction_on_an_engine_in_autocommit_carries_jobs(migrated_url: str, driver: DatabaseDriver) -> None:
    engine = async_engine(migrated_url, isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        await dispatch(Receipt(order_id=1), session=session)
        await session.commit()
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        await dispatch(Receipt(order_id=2), session=session)
        await session.rollback()
    await engine.dispose()
    assert await numbers(driver) == [1]


async def test_a_session_that_is_taking_its_connection_says_so(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session:

        @event.listens_for(session.sync_session, "after_begin")
        def begun(target: Session, *_: object) -> None:
            outbox.sync.dispatch(Receipt(order_id=1), session=target)

        with pytest.raises(SessionUnusable, match="taking its connection"):
            await session.execute(COUNT)
    assert await stored(driver) == []


async def test_a_session_over_several_engines_uses_the_one_that_has_the_tables(
    engine: AsyncEngine, tmp_path: object, driver: DatabaseDriver
) -> None:
    elsewhere = async_engine(f"sqlite+aiosqlite:///{tmp_path}/elsewhere.db")
    async with elsewhere.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(binds={Order: elsewhere}) as session:
        with pytest.raises(SessionUnusable, match="binds"):
            await dispatch(Receipt(order_id=1), session=session)
    async with AsyncSession(binds={Order: elsewhere, JOBS: engine}) as session:
        session.add(Order(customer="Ada"))
        await dispatch(Receipt(order_id=2), session=session)
        await session.commit()
    await elsewhere.dispose()
    assert await numbers(driver) == [2]


@pytest.mark.parametrize("level", ["READ UNCOMMITTED", "SERIALIZABLE"])
async def test_the_sessions_isolation_level_does_not_matter(
    migrated_url: str, driver: DatabaseDriver, level: str
) -> None:
    engine = async_engine(migrated_url, isolation_level=level)
    async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
        await dispatch(Receipt(order_id=1), session=session)
    await engine.dispose()
    assert await numbers(driver) == [1]


async def test_dispatching_from_a_flush_event_is_part_of_that_transaction(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session:

        @event.listens_for(session.sync_session, "after_flush")
        def announce(target: Session, _context: object) -> None:
            for order in target.new:
                outbox.sync.dispatch(Receipt(order_id=order.id), session=target)

        @event.listens_for(session.sync_session, "before_flush")
        def before(target: Session, *_: object) -> None:
            if target.new:
                outbox.sync.dispatch(Receipt(order_id=1000), session=target)

        session.add(Order(customer="Ada"))
        await session.commit()
        session.add(Order(customer="Grace"))
        await session.flush()
        await session.rollback()
    assert await numbers(driver) == [1, 1000]


async def test_dispatching_from_a_commit_event_is_part_of_that_transaction(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session:

        @event.listens_for(session.sync_session, "before_commit")
        def announce(target: Session) -> None:
            outbox.sync.dispatch(Receipt(order_id=1), session=target)

        await session.commit()
    assert await numbers(driver) == [1]


@pytest.mark.parametrize("moment", ["after_commit", "after_rollback"])
async def test_dispatching_when_the_transaction_has_just_ended_says_that(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver, moment: str
) -> None:
    async with sessions() as session:

        @event.listens_for(session.sync_session, moment, once=True)
        def announce(target: Session) -> None:
            with pytest.raises(SessionUnusable, match="already being committed or rolled back"):
                outbox.sync.dispatch(Receipt(order_id=1), session=target)
            refused.append(moment)

        refused: list[str] = []
        session.add(Order(customer="Ada"))
        await session.flush()
        await (session.commit() if moment == "after_commit" else session.rollback())
        assert refused == [moment]
        assert (await session.scalar(select(Order)) is not None) is (moment == "after_commit")
        await dispatch(Receipt(order_id=2), session=session)
        await session.commit()
    assert await numbers(driver) == [2]


async def test_a_sync_session_commits_and_rolls_back_its_jobs(sync: Engine, driver: DatabaseDriver) -> None:
    def work() -> None:
        with Session(sync) as session, session.begin():
            session.add(Order(customer="Ada"))
            outbox.sync.dispatch(Receipt(order_id=1), session=session)
            with session.begin_nested() as undone:
                outbox.sync.dispatch(Receipt(order_id=2), session=session, delay=3)
                undone.rollback()
            outbox.sync.dispatch_many([Receipt(order_id=3), Receipt(order_id=4)], session=session)
        with Session(sync) as session:
            outbox.sync.dispatch(Receipt(order_id=5), session=session)
            session.rollback()

    await asyncio.to_thread(work)
    assert await numbers(driver) == [1, 3, 4]


async def test_a_session_that_joins_an_outer_transaction_belongs_to_it(sync: Engine, driver: DatabaseDriver) -> None:
    """How test suites keep their database clean: what the session commits is undone with the connection's
    transaction."""

    def work() -> int:
        with sync.connect() as connection:
            outer = connection.begin()
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                outbox.sync.dispatch(Receipt(order_id=1), session=session)
                session.commit()
                seen = session.scalar(COUNT)
            outer.rollback()
            return int(seen or 0)

    assert await asyncio.to_thread(work) == 1
    assert await stored(driver) == []


async def test_scoped_sessions_are_sessions(engine: AsyncEngine, sync: Engine, driver: DatabaseDriver) -> None:
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
    await dispatch(Receipt(order_id=1), session=scoped)
    await scoped.commit()
    await scoped.remove()

    def work() -> None:
        local = scoped_session(sessionmaker(sync))
        outbox.sync.dispatch(Receipt(order_id=2), session=local)
        local.commit()
        local.remove()

    await asyncio.to_thread(work)
    assert await numbers(driver) == [1, 2]
