"""What a drain runs, in a store and in a transaction of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox import Job, Outbox
from outbox.errors import ConfigurationError, JobExpired
from outbox.testing import drain, fake, sync, travel
from tests.servers import sql

RAN: list[str] = []


class Step(Job):
    name = "drain.Step"
    queue = "steps"
    max_tries = 2
    backoff = 60

    label: str
    then: str = ""
    breaks: bool = False

    async def handle(self) -> None:
        RAN.append(self.label)
        if self.breaks:
            raise ValueError(self.label)
        if self.then:
            await outbox.dispatch(Step(label=self.then), queue="later")

    async def failed(self, error: BaseException) -> None:
        RAN.append(f"failed {error}")


class Endless(Job):
    name = "drain.Endless"

    async def handle(self) -> None:
        self.context.snooze(0)


class Linked(Job):
    """A step of a chain. It returns what the one before it returned, and more."""

    name = "drain.Linked"

    breaks: bool = False

    async def handle(self) -> list[str]:
        if self.breaks:
            self.context.fail("broken")
        RAN.append(f"after {self.context.previous}")
        return [*(self.context.previous or []), "x"]


class Transactional(Job):
    """What it dispatches, and its own end, are one transaction."""

    name = "drain.Transactional"
    max_tries = 1

    breaks: bool = False

    async def handle(self, session: AsyncSession) -> None:
        await outbox.dispatch(Step(label="from a transaction"), session=session)
        await session.flush()
        if self.breaks:
            raise ValueError("broken")


class SyncTransactional(Job):
    name = "drain.SyncTransactional"
    max_tries = 1

    def handle(self, session: Session) -> None:
        outbox.sync.dispatch(Step(label="from a thread"), session=session)


@pytest.fixture(autouse=True)
def forget() -> None:
    RAN.clear()


@pytest.fixture
async def client(migrated_url: str) -> AsyncIterator[Outbox]:
    async with Outbox(database_url=migrated_url) as client:
        yield client


def rows(url: str) -> int:
    with sql.connection(url) as connection:
        return int(connection.scalar(text("SELECT COUNT(*) FROM queue_jobs")) or 0)


async def test_all_that_is_due_runs_and_what_it_dispatches(migrated_url: str) -> None:
    async with Outbox(database_url=migrated_url):
        await outbox.dispatch(Step(label="second"), priority=9)
        await outbox.dispatch(Step(label="first", then="third"), priority=0)
        await outbox.dispatch(Step(label="not yet"), delay=600)
        ended = await drain()
        assert RAN == ["first", "third", "second"]
        assert [each.completed for each in ended] == [True] * 3
        assert await drain() == []
    assert rows(migrated_url) == 1


async def test_a_job_that_fails_is_kept_and_its_hook_is_called(migrated_url: str) -> None:
    async with Outbox(database_url=migrated_url):
        job_id = await outbox.dispatch(Step(label="broken", breaks=True))
        [first] = await drain()
        assert first.retried(60)
        with travel(seconds=61):
            [last] = await drain()
        assert last.failed
        assert RAN == ["broken", "broken", "failed broken"]
        [kept] = await outbox.failed_jobs()
        assert (kept.id, kept.failure.message) == (job_id, "broken")


async def test_a_drain_of_some_queues_leaves_the_others(migrated_url: str) -> None:
    async with Outbox(database_url=migrated_url):
        await outbox.dispatch_many([Step(label="a"), Step(label="b")])
        await outbox.dispatch(Step(label="c"), queue="other")
        assert len(await drain(queue="other")) == 1
        assert len(await drain(queue=["other", "steps"])) == 2
        assert RAN == ["c", "a", "b"]


async def test_a_drain_without_an_end_says_so(client: Outbox) -> None:
    await outbox.dispatch(Endless())
    with pytest.raises(AssertionError, match=r"5 jobs were run, and drain.Endless is due"):
        await drain(at_most=5)


def test_a_test_that_is_not_async_drains_too(migrated_url: str) -> None:
    client = Outbox(database_url=migrated_url)
    with client.use():
        outbox.sync.dispatch(Step(label="sync"))
        assert [each.completed for each in sync.drain()] == [True]
        outbox.sync.disconnect()
    assert RAN == ["sync"]
    assert rows(migrated_url) == 0


def begin_immediately(engine: AsyncEngine) -> AsyncEngine:
    """What an application does on SQLite, by SQLAlchemy's documentation, so that savepoints work."""
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


@pytest.fixture
async def connection(migrated_url: str) -> AsyncIterator[AsyncConnection]:
    """In a transaction that the test rolls back."""
    engine = begin_immediately(create_async_engine(migrated_url))
    async with engine.connect() as connection:
        outer = await connection.begin()
        yield connection
        await outer.rollback()
    await engine.dispose()


class InTransaction(Job):
    """Its sessions are on the test's connection, as an application's are in a test."""

    name = "drain.InTransaction"
    max_tries = 1

    breaks: bool = False
    follows: bool = False

    async def handle(self) -> None:
        async with session_on(CONNECTIONS[-1]) as session:
            await outbox.dispatch(Step(label="follower"), session=session, delay=0 if self.follows else 600)
            if self.breaks:
                raise ValueError("broken")
            await session.commit()


CONNECTIONS: list[AsyncConnection] = []


def session_on(connection: AsyncConnection) -> AsyncSession:
    return AsyncSession(connection, join_transaction_mode="create_savepoint")


async def count(connection: AsyncConnection, table: str) -> int:
    return int(await connection.scalar(text(f"SELECT COUNT(*) FROM {table}")) or 0)


async def test_jobs_run_inside_the_tests_transaction(connection: AsyncConnection, migrated_url: str) -> None:
    CONNECTIONS.append(connection)
    async with session_on(connection) as session:
        await outbox.dispatch(InTransaction(follows=True), session=session)
        ended = await drain(session=session)
        await session.commit()
    assert [(each.name, each.completed) for each in ended] == [("drain.InTransaction", True), ("drain.Step", True)]
    assert RAN == ["follower"]
    assert await count(connection, "queue_jobs") == 0
    assert rows(migrated_url) == 0


async def test_a_failure_in_the_tests_transaction_undoes_the_jobs_part(connection: AsyncConnection) -> None:
    CONNECTIONS.append(connection)
    async with session_on(connection) as session:
        await outbox.dispatch(InTransaction(breaks=True), session=session)
        await session.commit()
        [ended] = await drain(session=session)
    assert ended.failed
    assert await count(connection, "queue_jobs") == 0
    assert await count(connection, "queue_failed_jobs") == 1


async def test_nothing_is_left_after_the_tests_transaction(migrated_url: str) -> None:
    engine = begin_immediately(create_async_engine(migrated_url))
    async with engine.connect() as connection:
        CONNECTIONS.append(connection)
        outer = await connection.begin()
        async with session_on(connection) as session:
            await outbox.dispatch(InTransaction(breaks=True), session=session)
            await outbox.dispatch(InTransaction(), session=session)
            await session.commit()
            assert len(await drain(session=session)) == 2
        assert await count(connection, "queue_jobs") == 1
        assert await count(connection, "queue_failed_jobs") == 1
        await outer.rollback()
        assert await count(connection, "queue_jobs") == 0
        assert await count(connection, "queue_failed_jobs") == 0
    await engine.dispose()


def test_a_sync_session_is_drained_on_its_own_connection(migrated_url: str) -> None:
    url = make_url(migrated_url)
    driver = "pysqlite" if url.get_backend_name() == "sqlite" else "pymysql"
    engine = create_engine(url.set(drivername=f"{url.get_backend_name()}+{driver}"))
    if driver == "pysqlite":
        event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

    with engine.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            outbox.sync.dispatch_many([Step(label="a"), Step(label="b", breaks=True)], session=session)
            session.commit()
            ended = sync.drain(session=session)
            session.commit()
        assert [(each.completed, bool(each.retried)) for each in ended] == [(True, False), (False, True)]
        assert connection.scalar(text("SELECT COUNT(*) FROM queue_jobs")) == 1
        outer.rollback()
    assert RAN == ["a", "b"]
    assert rows(migrated_url) == 0
    engine.dispose()


async def test_a_session_outside_a_transaction_of_the_test_is_refused(migrated_url: str) -> None:
    engine = create_async_engine(migrated_url)
    async with AsyncSession(engine) as session:
        with pytest.raises(ConfigurationError, match="join_transaction_mode"):
            await drain(session=session)
    await engine.dispose()


async def test_a_drain_without_a_database_says_what_to_do(tmp_path: object) -> None:
    with pytest.raises(ConfigurationError, match=r"set DATABASE_URL to that of the test's database"):
        await drain()


async def test_a_drain_in_a_fake_is_refused(client: Outbox) -> None:
    with fake(), pytest.raises(ConfigurationError, match="a fake is in use"):
        await drain()


async def test_times_of_jobs_pass_with_the_clock(client: Outbox) -> None:
    await outbox.dispatch(Step(label="late"), expires_after=60)
    await outbox.dispatch(Step(label="dropped"), expires_after=60, on_expired="drop")
    with travel(seconds=61):
        late, dropped = sorted(await drain(), key=lambda each: each.deleted)
    assert late.failed
    assert isinstance(late.error, JobExpired)
    assert dropped.deleted
    await outbox.dispatch(Step(label="retried", breaks=True), retry_until=100)
    assert (await drain())[0].retried(60)
    with travel(seconds=61):
        assert (await drain())[0].failed
    assert ["failed " + str(late.error), "retried", "retried", "failed retried"] == RAN


async def test_times_of_jobs_pass_in_the_tests_transaction(connection: AsyncConnection) -> None:
    async with AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
        await outbox.dispatch(Step(label="late"), session=session, expires_after=60)
        await session.commit()
        with travel(seconds=61):
            [late] = await drain(session=session)
    assert isinstance(late.error, JobExpired)


async def test_a_chain_is_drained_to_its_end(client: Outbox) -> None:
    await outbox.dispatch_chain([Linked(), Linked(), Linked()])
    assert [each.completed for each in await drain()] == [True] * 3
    assert RAN == ["after None", "after ['x']", "after ['x', 'x']"]

    await outbox.dispatch_chain([Linked(breaks=True), Linked()], catch=Step(label="caught"))
    assert [each.failed for each in await drain()] == [True, False]
    assert RAN[-1] == "caught"


async def test_a_chain_is_drained_in_the_tests_transaction(connection: AsyncConnection) -> None:
    async with session_on(connection) as session:
        await outbox.dispatch_chain([Linked(), Linked()], session=session)
        assert [each.completed for each in await drain(session=session)] == [True, True]
    assert RAN == ["after None", "after ['x']"]


async def test_a_job_that_takes_a_session_commits_its_own_end(migrated_url: str) -> None:
    async with Outbox(database_url=migrated_url):
        await outbox.dispatch_many([Transactional(), SyncTransactional()])
        assert [each.completed for each in await drain()] == [True] * 4
        assert sorted(RAN) == ["from a thread", "from a transaction"]
        assert await drain() == []
    assert rows(migrated_url) == 0


async def test_a_job_that_takes_a_session_gets_one_of_the_tests_transaction(
    connection: AsyncConnection, migrated_url: str
) -> None:
    async with session_on(connection) as session:
        await outbox.dispatch(Transactional(breaks=True), session=session)
        [ended] = await drain(session=session)
        assert ended.failed
        assert RAN == []

        await outbox.dispatch(Transactional(), session=session)
        await session.commit()
        assert [each.completed for each in await drain(session=session)] == [True, True]
    assert RAN == ["from a transaction"]
    assert await count(connection, "queue_jobs") == 0
    assert rows(migrated_url) == 0


async def test_a_plain_function_with_a_session_needs_a_sync_one_of_the_test(connection: AsyncConnection) -> None:
    async with session_on(connection) as session:
        await outbox.dispatch(SyncTransactional(), session=session)
        [ended] = await drain(session=session)
    assert isinstance(ended.error, ConfigurationError)
    assert "with a sync Session" in str(ended.error)


async def test_a_batch_is_drained_with_what_follows_it(client: Outbox) -> None:
    await outbox.dispatch_batch([Step(label="a"), Step(label="b")], then=Step(label="then"))
    assert [each.completed for each in await drain()] == [True] * 3
    assert RAN[-1] == "then"
    assert sorted(RAN) == ["a", "b", "then"]


async def test_a_batch_is_drained_in_the_tests_transaction(connection: AsyncConnection, migrated_url: str) -> None:
    async with session_on(connection) as session:
        await outbox.dispatch_batch([Step(label="a"), Step(label="b")], then=Step(label="then"), session=session)
        await session.commit()
        assert [each.completed for each in await drain(session=session)] == [True] * 3
    assert RAN[-1] == "then"
    assert rows(migrated_url) == 0
