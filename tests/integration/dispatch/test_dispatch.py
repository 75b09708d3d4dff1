"""G1: a job exists if and only if the transaction that dispatched it committed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, delete, event, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import outbox
import outbox.sync
from outbox import dispatch, dispatch_many
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.jobs.job_store import DatabaseJobs
from outbox.drivers.values import StoredJob
from outbox.errors import InvalidJob, InvalidOption, PayloadTooLarge, SessionUnusable
from tests.support.orders import COUNT, Base, Order, Receipt, async_engine, sync_engine

JOBS = outbox.metadata.tables["queue_jobs"]


@pytest.fixture
async def engine(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(migrated_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(engine)


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


@pytest.fixture
def sync(migrated_url: str, engine: AsyncEngine) -> Iterator[Engine]:
    engine_ = sync_engine(migrated_url)
    yield engine_
    engine_.dispose()


@pytest.fixture
def statements(engine: AsyncEngine) -> list[str]:
    """Every statement that the application's engine sends, from now on."""
    sent: list[str] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    return sent


async def stored(driver: DatabaseDriver) -> list[StoredJob]:
    return await driver.jobs.list_jobs(limit=10_000)


async def numbers(driver: DatabaseDriver) -> list[int]:
    return sorted(json.loads(job.payload)["order_id"] for job in await stored(driver))


async def test_a_job_is_there_when_its_transaction_has_committed(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session, session.begin():
        order = Order(customer="Ada")
        session.add(order)
        await session.flush()
        order_id = order.id
        job_id = await dispatch(Receipt(order_id=order_id), session=session)
        assert await stored(driver) == [], "seen before the commit"
    [job] = await stored(driver)
    assert (job.id, job.queue, job.priority, job.attempts) == (job_id, "mail", 5, 0)
    assert job.name == "tests.support.orders.Receipt"
    assert json.loads(job.payload) == {"order_id": order_id, "note": "", "extra": None}


async def test_a_rollback_takes_the_job_along(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session:
        await dispatch(Receipt(order_id=1), session=session)
        await session.rollback()
        await dispatch(Receipt(order_id=2), session=session)
        await session.flush()
        await session.rollback()
        await session.commit()
    assert await stored(driver) == []


async def test_an_exception_in_the_transaction_takes_the_job_along(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    with pytest.raises(RuntimeError):
        async with sessions() as session, session.begin():
            await dispatch(Receipt(order_id=1), session=session)
            await session.flush()
            raise RuntimeError
    assert await stored(driver) == []


async def test_dispatch_begins_by_itself_as_sessions_do(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session:
        await dispatch(Receipt(order_id=1), session=session)
        assert session.in_transaction()
        await session.commit()
        await dispatch(Receipt(order_id=2), session=session)
        await session.commit()
    assert await numbers(driver) == [1, 2]


async def test_a_flush_writes_the_job_into_the_open_transaction(sessions: async_sessionmaker[AsyncSession]) -> None:
    async with sessions() as session:
        await dispatch(Receipt(order_id=1), session=session)
        await session.flush()
        assert await session.scalar(COUNT) == 1
        await dispatch(Receipt(order_id=2), session=session)
        await session.execute(select(Order))
        assert await session.scalar(COUNT) == 2, "autoflush comes before a query"


async def test_without_autoflush_the_commit_writes_it(engine: AsyncEngine, driver: DatabaseDriver) -> None:
    async with AsyncSession(engine, autoflush=False) as session:
        await dispatch(Receipt(order_id=1), session=session)
        assert await session.scalar(COUNT) == 0
        await session.commit()
    assert await numbers(driver) == [1]


async def test_a_rolled_back_savepoint_takes_its_jobs_and_no_others(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session, session.begin():
        await dispatch(Receipt(order_id=1), session=session)
        undone = await session.begin_nested()
        await dispatch(Receipt(order_id=2), session=session)
        await session.flush()
        await dispatch(Receipt(order_id=3), session=session)
        await undone.rollback()
        await dispatch(Receipt(order_id=4), session=session)
        async with session.begin_nested():
            await dispatch(Receipt(order_id=5), session=session)
            with pytest.raises(RuntimeError):
                async with session.begin_nested():
                    await dispatch(Receipt(order_id=6), session=session)
                    raise RuntimeError
            await dispatch(Receipt(order_id=7), session=session)
    assert await numbers(driver) == [1, 4, 5, 7]


async def test_a_failed_flush_in_a_savepoint_takes_only_the_jobs_of_the_savepoint(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session, session.begin():
        session.add(Order(customer="Ada"))
        await dispatch(Receipt(order_id=1), session=session)
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await dispatch(Receipt(order_id=2), session=session)
                session.add(Order(customer="Ada"))
                await session.flush()
        await dispatch(Receipt(order_id=3), session=session)
    assert await numbers(driver) == [1, 3]


async def test_a_session_that_has_failed_says_so(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session:
        session.add_all([Order(customer="Ada"), Order(customer="Ada")])
        with pytest.raises(IntegrityError):
            await session.flush()
        if not session.is_active:
            with pytest.raises(SessionUnusable, match="rollback"):
                await dispatch(Receipt(order_id=1), session=session)
        await session.rollback()
        await dispatch(Receipt(order_id=2), session=session)
        await session.commit()
    assert await numbers(driver) == [2]


async def test_after_a_failed_insert_nothing_can_be_committed_before_a_rollback(
    sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine, driver: DatabaseDriver
) -> None:
    """Otherwise a session whose flush error was swallowed could commit the business data without the job."""
    async with sessions() as session:
        session.add(Order(customer="Ada"))
        await dispatch(Receipt(order_id=1), session=session)

        @event.listens_for(engine.sync_engine, "before_cursor_execute", retval=True)
        def break_it(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> object:
            return statement.replace("queue_jobs", "queue_nothing"), parameters

        with pytest.raises(outbox.OutboxError, match="alembic upgrade head"):
            await session.flush()
        event.remove(engine.sync_engine, "before_cursor_execute", break_it)
        with pytest.raises(SessionUnusable, match="rollback"):
            await dispatch(Receipt(order_id=2), session=session)
        with pytest.raises(PendingRollbackError):
            await session.commit()
        await session.rollback()
        assert await session.scalar(select(Order)) is None
        await dispatch(Receipt(order_id=3), session=session)
        await session.commit()
    assert await numbers(driver) == [3]


async def test_a_transaction_that_the_server_undid_cannot_be_committed_without_its_business_data(
    sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine, driver: DatabaseDriver, backend: str
) -> None:
    """A deadlock at the INSERT of the job, of which the session's transaction is the victim."""
    if backend == "sqlite":
        pytest.skip("SQLite knows no deadlocks")
    async with sessions() as session, engine.connect() as heavier:
        await session.execute(insert(Order).values(customer="Ada"))
        await heavier.execution_options(isolation_level="REPEATABLE READ")
        # Of two transactions the server undoes the one that has changed fewer rows.
        await heavier.execute(insert(Order), [{"customer": f"customer {number}"} for number in range(100)])
        await heavier.execute(select(JOBS).with_for_update())
        await dispatch(Receipt(order_id=1), session=session)
        waiting = asyncio.create_task(heavier.execute(delete(Order).where(Order.customer == "Ada")))
        with pytest.raises(OperationalError, match="Deadlock"):
            await session.commit()
        with pytest.raises(PendingRollbackError):
            await session.commit()
        await waiting
        await heavier.rollback()
    assert await stored(driver) == []


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
    engine = async_engine(migrated_url, isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        await dispatch(Receipt(order_id=1), session=session)
        with pytest.raises(SessionUnusable, match="AUTOCOMMIT"):
            await session.commit()
    await engine.dispose()
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


async def test_a_thousand_dispatches_in_a_transaction_are_one_insert(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver, statements: list[str]
) -> None:
    async with sessions() as session, session.begin():
        for number in range(1_000):
            await dispatch(Receipt(order_id=number), session=session, delay=number % 3)
    assert len([statement for statement in statements if "INSERT" in statement]) == 1
    assert await numbers(driver) == list(range(1_000))


async def test_dispatch_many_is_one_insert_per_thousand(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver, statements: list[str]
) -> None:
    async with sessions() as session, session.begin():
        ids = await dispatch_many((Receipt(order_id=number) for number in range(2_500)), session=session)
    assert len([statement for statement in statements if "INSERT" in statement]) == 3
    assert len(set(ids)) == 2_500
    assert [job.id for job in await stored(driver)] == ids == sorted(ids)


async def test_dispatch_in_a_session_sends_nothing_of_its_own(
    sessions: async_sessionmaker[AsyncSession], statements: list[str]
) -> None:
    async with sessions() as session:
        await dispatch(Receipt(order_id=1), session=session)
        assert statements == []
        await session.commit()
    assert len([statement for statement in statements if "BEGIN" not in statement]) == 1


async def test_options_of_a_dispatch_go_before_those_of_the_class(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session, session.begin():
        await dispatch(
            Receipt(order_id=1), session=session, queue="slow", delay=timedelta(minutes=5), priority=1, max_tries=9,
            timeout=2.5, backoff=[1, 2],
        )  # fmt: skip
    [job] = await stored(driver)
    assert (job.queue, job.priority) == ("slow", 1)
    assert json.loads(job.headers) == {
        "max_tries": 9, "timeout": 2.5, "backoff": {"delays": [1.0, 2.0], "jitter": 0.0},
    }  # fmt: skip
    assert timedelta(minutes=4) < job.available_at - job.created_at <= timedelta(minutes=5, seconds=1)


async def test_a_delay_counts_from_the_write_by_the_databases_clock(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    when = datetime.now(UTC) + timedelta(hours=3)
    async with sessions() as session, session.begin():
        await dispatch(Receipt(order_id=1), session=session, delay=90)
        await dispatch(Receipt(order_id=2), session=session, delay=when)
        await dispatch(Receipt(order_id=3), session=session, delay=-5)
    by_number = {json.loads(job.payload)["order_id"]: job for job in await stored(driver)}
    assert (by_number[1].available_at - by_number[1].created_at).total_seconds() == pytest.approx(90, abs=0.01)
    assert by_number[2].available_at == when
    assert by_number[3].available_at <= by_number[3].created_at


@pytest.mark.parametrize("year", [1, 300, 1969, 2020])
async def test_a_moment_that_has_passed_means_now(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver, configured: None, year: int
) -> None:
    passed = datetime(year, 1, 1, tzinfo=UTC)
    async with sessions() as session, session.begin():
        await dispatch(Receipt(order_id=1), session=session, delay=passed)
    await dispatch(Receipt(order_id=2), delay=passed)
    jobs = await stored(driver)
    assert [job.available_at for job in jobs] == [job.created_at for job in jobs]
    assert len(await driver.jobs.claim(["mail"], 10, 30)) == 2


async def test_without_a_session_the_job_is_stored_when_dispatch_returns(
    migrated_url: str, driver: DatabaseDriver, configured: None
) -> None:
    job_id = await dispatch(Receipt(order_id=1))
    ids = await dispatch_many([Receipt(order_id=2), Receipt(order_id=3)])
    assert {job.id for job in await stored(driver)} == {job_id, *ids}


@pytest.fixture
async def configured(migrated_url: str) -> AsyncIterator[None]:
    outbox.configure(database_url=migrated_url)
    yield
    await outbox.disconnect()
    outbox.configure()


def test_sync_code_without_a_session(migrated_url: str, tmp_path: object) -> None:
    outbox.configure(database_url=migrated_url)
    try:
        job_id = outbox.sync.dispatch(Receipt(order_id=1), delay=5)

        async def read() -> list[StoredJob]:
            driver = DatabaseDriver(migrated_url)
            try:
                return await stored(driver)
            finally:
                await driver.close()

        assert [job.id for job in asyncio.run(read())] == [job_id]
    finally:
        outbox.sync.disconnect()
        outbox.configure()


def test_a_generator_of_jobs_runs_in_the_thread_of_its_sync_caller(migrated_url: str) -> None:
    """It may read rows with a connection that belongs to the thread, and dispatch jobs itself."""
    threads: list[threading.Thread] = []
    ids: list[outbox.JobId] = []

    def jobs() -> Iterator[Receipt]:
        threads.append(threading.current_thread())
        # On the loop's thread this would wait for itself.
        if threads == [caller]:
            ids.append(outbox.sync.dispatch(Receipt(order_id=1)))
        yield Receipt(order_id=2)

    def work() -> None:
        ids.extend(outbox.sync.dispatch_many(jobs()))

    outbox.configure(database_url=migrated_url)
    try:
        caller = threading.Thread(target=work)
        caller.start()
        caller.join()
        assert (threads, len(ids)) == ([caller], 2)
    finally:
        outbox.sync.disconnect()
        outbox.configure()


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


async def test_nothing_of_a_batch_is_written_when_one_job_is_refused(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    good, bad = Receipt(order_id=1), Receipt(order_id=2)
    bad.order_id = "not a number"  # type: ignore[assignment]
    async with sessions() as session, session.begin():
        with pytest.raises(InvalidJob, match="order_id"):
            await dispatch_many([good, bad], session=session)
        with pytest.raises(InvalidOption, match="queue"):
            await dispatch(good, session=session, queue="No Such Queue")
        with pytest.raises(InvalidOption, match="connection"):
            await dispatch(good, session=session, connection=["redis"])  # type: ignore[arg-type]
        with pytest.raises(PayloadTooLarge, match="OUTBOX_PAYLOAD_LIMIT"):
            await dispatch(Receipt(order_id=1, note="x" * 1_048_576), session=session)
    assert await stored(driver) == []


async def test_an_option_that_does_not_exist_is_refused_by_name(
    sessions: async_sessionmaker[AsyncSession], sync: Engine, driver: DatabaseDriver, configured: None
) -> None:
    job = Receipt(order_id=1)
    with pytest.raises(TypeError, match="'dealy'"):
        await dispatch(job, dealy=30)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'dealy'"):
        await dispatch_many([job], dealy=30)  # type: ignore[call-arg]
    async with sessions() as session, session.begin():
        with pytest.raises(TypeError, match="'max_retries'"):
            await dispatch_many([job], session=session, max_retries=9)  # type: ignore[call-arg]

    def work() -> None:
        with pytest.raises(TypeError, match="'max_retries'"):
            outbox.sync.dispatch(job, max_retries=9)  # type: ignore[call-arg]
        with Session(sync) as session, session.begin():
            with pytest.raises(TypeError, match="'payload_limit'"):
                outbox.sync.dispatch_many([job], session=session, payload_limit=9)  # type: ignore[call-arg]

    await asyncio.to_thread(work)
    assert await stored(driver) == []


async def test_nothing_is_sent_when_one_of_thousands_is_refused(
    driver: DatabaseDriver, configured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Receipt(order_id=number) for number in range(2_500)]
    jobs[2_400].order_id = "not a number"  # type: ignore[assignment]
    inserted: list[object] = []
    monkeypatch.setattr(DatabaseJobs, "insert", lambda _, envelopes: inserted.append(envelopes))
    with pytest.raises(InvalidJob, match="Receipt: the field 'order_id'"):
        await dispatch_many(jobs)
    assert inserted == []
    assert await stored(driver) == []


async def test_a_payload_at_the_limit_is_stored(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    overhead = len('{"order_id":1,"note":"","extra":null}')
    async with sessions() as session, session.begin():
        job_id = await dispatch(Receipt(order_id=1, note="x" * (1_048_576 - overhead)), session=session)
    job = await driver.jobs.get(job_id)
    assert job is not None
    assert len(json.loads(job.payload)["note"]) == 1_048_576 - overhead


async def test_the_deepest_nesting_that_is_accepted_is_stored(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    nested: object = 1
    for _ in range(30):
        nested = [nested]
    async with sessions() as session, session.begin():
        job_id = await dispatch(Receipt(order_id=1, extra=nested), session=session)
    job = await driver.jobs.get(job_id)
    assert job is not None
    assert json.loads(job.payload)["extra"] == nested


async def test_the_longest_key_that_is_accepted_is_stored(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver, configured: None
) -> None:
    extra = {"x" * 65_535: 1, "é" * 32_767: 2}
    async with sessions() as session, session.begin():
        await dispatch(Receipt(order_id=1, extra=extra), session=session)
    await dispatch_many([Receipt(order_id=2, extra=extra)] * 10)
    assert [json.loads(job.payload)["extra"] for job in await stored(driver)] == [extra] * 11
    with pytest.raises(InvalidJob, match="'extra' has a key"):
        await dispatch(Receipt(order_id=3, extra={"x" * 65_536: 1}))


async def test_what_is_no_session_is_named() -> None:
    with pytest.raises(SessionUnusable, match="str"):
        await dispatch(Receipt(order_id=1), session="session")  # type: ignore[arg-type]


async def test_a_missing_table_says_what_to_run(database_url: str) -> None:
    engine = async_engine(database_url)
    async with AsyncSession(engine) as session:
        await dispatch(Receipt(order_id=1), session=session)
        with pytest.raises(outbox.OutboxError, match="alembic upgrade head"):
            await session.commit()
    await engine.dispose()
    outbox.configure(database_url=database_url)
    with pytest.raises(outbox.OutboxError, match="alembic upgrade head"):
        await dispatch(Receipt(order_id=1))
    await outbox.disconnect()
    outbox.configure()
