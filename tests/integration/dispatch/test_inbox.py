"""Messages that are delivered more than once, received in sessions."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import outbox.sync
from outbox import JobId, inbox, receive
from outbox.drivers.database import DatabaseDriver
from outbox.errors import InvalidJob, InvalidOption, SessionUnusable, TablesMissing
from tests.integration.policies.unique_job_classes import Sync
from tests.support.commands import run
from tests.support.orders import Receipt, async_engine, sync_engine


@pytest.fixture
async def engine(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncEngine]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    engine = async_engine(migrated_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def blocking(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    engine = sync_engine(migrated_url)
    yield engine
    engine.dispose()


async def received(engine: AsyncEngine) -> list[tuple[str, bytes]]:
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT source, id_hash FROM queue_inbox"))
        return sorted((str(source), bytes(id_hash)) for source, id_hash in rows)


async def test_a_message_is_fresh_until_a_transaction_that_received_it_commits(engine: AsyncEngine) -> None:
    for commits, expected in ((False, True), (True, True), (True, False)):
        async with AsyncSession(engine) as session:
            async with inbox(session, "m-1", source="mqtt") as fresh:
                assert fresh is expected
            await (session.commit() if commits else session.rollback())
    assert await received(engine) == [("mqtt", hashlib.sha256(b"m-1").digest())]


async def test_sources_and_ids_tell_messages_apart(engine: AsyncEngine) -> None:
    ids: list[Any] = ["m-1", "m-2", "M-1", "m-1 ", "é" * 5_000, b"\x00\xff", 17, UUID(int=1)]
    async with AsyncSession(engine) as session, session.begin():
        for message_id in ids:
            for source in ("mqtt", "MQTT", "o'h%s\\"):
                async with inbox(session, message_id, source=source) as fresh:
                    assert fresh
        async with inbox(session, "17", source="mqtt") as fresh:
            assert not fresh, "of the same text"
        async with inbox(session, "m-1") as fresh:
            assert fresh, "of the default source"
    assert len(await received(engine)) == 3 * len(ids) + 1


async def test_a_transaction_that_receives_a_message_twice_takes_it_once(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        async with inbox(session, "m-1") as first:
            async with inbox(session, "m-1") as second:
                assert (first, second) == (True, False)


async def test_an_exception_that_leaves_the_block_undoes_the_message_and_what_was_written(
    engine: AsyncEngine, database: DatabaseDriver
) -> None:
    async with AsyncSession(engine) as session:
        with pytest.raises(ZeroDivisionError):
            async with inbox(session, "m-1"):
                await outbox.dispatch(Receipt(order_id=1), session=session)
                await session.flush()
                raise ZeroDivisionError
        with pytest.raises(Exception, match="rolled back"):
            await session.commit()  # what an application does that takes the exception for harmless
        await session.rollback()
        async with inbox(session, "m-1") as fresh:
            assert fresh
        await session.commit()
    assert await database.jobs.list_jobs() == []


async def test_an_exception_undoes_no_more_than_the_savepoint_of_the_message(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        async with inbox(session, "m-1"):
            pass
        with pytest.raises(ZeroDivisionError):
            async with session.begin_nested(), inbox(session, "m-2"):
                raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            async with inbox(session, "m-1") as fresh:
                assert not fresh
                raise ZeroDivisionError  # nothing to undo: the message is another block's
        await session.commit()
    assert await received(engine) == [("default", hashlib.sha256(b"m-1").digest())]


async def test_a_consumer_that_is_cancelled_has_not_received_the_message(engine: AsyncEngine) -> None:
    entered = asyncio.Event()

    async def consume() -> None:
        async with AsyncSession(engine) as session, session.begin(), inbox(session, "m-1") as fresh:
            assert fresh
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(consume())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await received(engine) == []


async def test_a_block_may_end_its_transaction_itself(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        async with inbox(session, "m-1"):
            await session.commit()
        with pytest.raises(ZeroDivisionError):
            async with inbox(session, "m-2"):
                await session.commit()
                raise ZeroDivisionError
        await session.execute(text("SELECT 1"))
    assert len(await received(engine)) == 2


async def test_receive_dispatches_once(engine: AsyncEngine, database: DatabaseDriver) -> None:
    receipts = []
    for _ in range(2):
        async with AsyncSession(engine) as session, session.begin():
            receipts.append(await receive(session, "m-1", Receipt(order_id=7), source="mqtt", queue="letters"))
    [job] = await database.jobs.list_jobs()
    assert receipts == [job.id, None]
    assert isinstance(receipts[0], JobId)
    assert (job.queue, job.name) == ("letters", Receipt.name)


async def test_receive_dispatches_unique_jobs(engine: AsyncEngine, database: DatabaseDriver) -> None:
    receipts = []
    for number in range(2):
        async with AsyncSession(engine) as session, session.begin():
            receipts.append(await receive(session, number, Sync(customer_id=7, version=number)))
    made, met = receipts
    assert made is not None
    assert met is not None
    assert (made == met, made.created, met.created) == (True, True, False)
    assert len(await database.jobs.list_jobs()) == 1


async def test_a_job_that_cannot_be_dispatched_leaves_the_message_alone(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        with pytest.raises(InvalidJob):
            await receive(session, "m-1", Receipt(order_id=1, extra=object()))
        with pytest.raises(TypeError, match="'que'"):
            await receive(session, "m-1", Receipt(order_id=1), que="mail")  # type: ignore[call-arg]
        await session.commit()
    assert await received(engine) == []


async def test_sync_sessions(blocking: Engine, database: DatabaseDriver) -> None:
    def consume() -> list[Any]:
        seen: list[Any] = []
        for _ in range(2):
            with Session(blocking) as session, session.begin(), inbox(session, "m-1", source="files") as fresh:
                seen.append(fresh)
            with Session(blocking) as session, session.begin():
                seen.append(outbox.sync.receive(session, "m-2", Receipt(order_id=1), source="files") is not None)
        registry = scoped_session(sessionmaker(blocking))
        with registry() as session, session.begin(), outbox.sync.inbox(registry, "m-1", source="files") as fresh:
            seen.append(fresh)
        with Session(blocking) as session:
            try:
                with inbox(session, "m-3"):
                    raise ZeroDivisionError
            except ZeroDivisionError:
                session.rollback()
            with inbox(session, "m-3") as fresh:
                seen.append(fresh)
        return seen

    assert await asyncio.to_thread(consume) == [True, True, False, False, False, True]
    assert len(await database.jobs.list_jobs()) == 1
    with Session(blocking) as session:
        async with inbox(session, "m-4") as fresh:  # a sync session in async code
            assert fresh


async def test_scoped_async_sessions(engine: AsyncEngine) -> None:
    registry = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
    async with registry() as session, session.begin(), inbox(registry, "m-1") as fresh:
        assert fresh
    assert len(await received(engine)) == 1


async def test_what_is_wrong_is_said(engine: AsyncEngine, blocking: Engine) -> None:
    with pytest.raises(SessionUnusable, match="needs a session"):
        inbox(None, "m-1")  # type: ignore[arg-type]
    with pytest.raises(SessionUnusable, match="not a str"):
        inbox("m-1", "mqtt")  # type: ignore[arg-type]
    with pytest.raises(SessionUnusable, match="needs a session"):
        await receive(None, "m-1", Receipt(order_id=1))  # type: ignore[arg-type]
    async with AsyncSession(engine) as session:
        for message_id, says in ((None, "NoneType"), (True, "bool"), (1.5, "float"), ("", "empty"), (b"", "empty")):
            with pytest.raises(InvalidOption, match=says):
                inbox(session, message_id)  # type: ignore[arg-type]
        for source in ("", "two words", "x" * 65, "é", None):
            with pytest.raises(InvalidOption, match="1 to 64 visible ASCII"):
                inbox(session, "m-1", source=source)  # type: ignore[arg-type]
        with pytest.raises(SessionUnusable, match="async with inbox"), inbox(session, "m-1"):
            pass
        await session.rollback()
    with Session(blocking.execution_options(isolation_level="AUTOCOMMIT")) as session:
        with pytest.raises(SessionUnusable, match="AUTOCOMMIT"), inbox(session, "m-1"):
            pass


async def test_tables_without_the_slots_are_named(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM queue_inbox_slots"))
    async with AsyncSession(engine) as session:
        with pytest.raises(TablesMissing, match="start a worker"):
            async with inbox(session, "m-1"):
                pass
    await_driver = DatabaseDriver(str(engine.url.render_as_string(hide_password=False)))
    await await_driver.check()  # as a worker does when it starts
    await await_driver.close()
    async with AsyncSession(engine) as session, inbox(session, "m-1") as fresh:
        assert fresh


async def test_messages_are_kept_for_seven_days_or_as_the_setting_says(
    engine: AsyncEngine, database: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        async with inbox(session, "week"):
            pass
        monkeypatch.setenv("OUTBOX_INBOX_KEEP", "3600")
        async with inbox(session, "hour"):
            pass
    async with engine.begin() as connection:
        rows = list(await connection.execute(text("SELECT received_at, kept_until FROM queue_inbox")))
    kept = sorted(
        (
            database.database.dialect.parse_timestamp(until) - database.database.dialect.parse_timestamp(at)
        ).total_seconds()
        for at, until in rows
    )
    assert kept == pytest.approx([3_600, 7 * 86_400], abs=2)

    assert await database.inbox.prune() == 0
    await age(engine, "hour")
    assert await database.inbox.prune() == 1
    assert await received(engine) == [("default", hashlib.sha256(b"week").digest())]
    await age(engine, "week")
    ran = await run(migrated_url, "prune")
    assert ran.out == "Removed 0 failed jobs and 0 silent workers.\nForgot 1 received message.\n"
    async with AsyncSession(engine) as session, inbox(session, "week") as fresh:
        assert fresh


async def age(engine: AsyncEngine, message_id: str) -> None:
    id_hash = hashlib.sha256(message_id.encode()).digest()
    async with engine.begin() as connection:
        statement = text("UPDATE queue_inbox SET kept_until = '2020-01-01 00:00:00.000000' WHERE id_hash = :id")
        await connection.execute(statement, {"id": id_hash})


async def test_upkeep_forgets_many_messages(engine: AsyncEngine, database: DatabaseDriver) -> None:
    values = [
        {"source": "mqtt" if number % 2 else "http", "id": number.to_bytes(32), "token": b"t" * 16}
        for number in range(1_203)
    ]
    moment = "'2020-01-01 00:00:00.000000'"
    async with engine.begin() as connection:
        await connection.execute(
            text(f"INSERT INTO queue_inbox VALUES (:source, :id, :token, {moment}, {moment})"), values
        )
    async with AsyncSession(engine) as session, session.begin(), inbox(session, "fresh"):
        pass
    await database.policies.upkeep()
    assert len(await received(engine)) == 1


async def test_a_message_costs_three_statements(engine: AsyncEngine) -> None:
    said: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        said.append(statement.split()[0])

    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        event.listen(engine.sync_engine, "before_cursor_execute", note)
        async with inbox(session, "m-1"):
            pass
        event.remove(engine.sync_engine, "before_cursor_execute", note)
    assert said[1:] == ["INSERT", "SELECT"]
