"""G1 where an application ends the transaction of a session on its connection, by a method or by SQL of its own."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, event, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from outbox import dispatch
from outbox.drivers.database.jobs.staged_jobs import StagedJobs
from outbox.errors import OutboxError
from outbox.sync import dispatch as dispatch_sync
from tests.support.leaving_sessions import (
    JOBS,
    LEAVING,
    counts,
    expire_all,
    expunge_all,
    order,
)
from tests.support.orders import Receipt, async_engine


@pytest.mark.parametrize("loses", [expire_all, expunge_all])
@pytest.mark.parametrize("leave", LEAVING)
def test_jobs_go_with_a_commit_below_their_session(
    engine: Engine, leave: Callable[[Session], None], loses: Callable[[Session], None]
) -> None:
    session = Session(engine)
    order(session)
    dispatch_sync(Receipt(order_id=1), session=session)
    loses(session)
    session.connection().commit()
    leave(session)
    del session
    gc.collect()
    assert counts(engine) == (1, 1)


@pytest.mark.parametrize("nested", [True, False])
def test_jobs_go_with_a_rollback_below_their_session(engine: Engine, nested: bool) -> None:
    with Session(engine) as session:
        order(session)
        connection = session.connection()
        savepoint = connection.begin_nested() if nested else None
        dispatch_sync(Receipt(order_id=1), session=session)
        (connection if savepoint is None else savepoint).rollback()
        order(session, "Grace")
        connection.commit()
    assert counts(engine) == (2 if nested else 1, 0)


def test_a_job_from_before_a_savepoint_below_its_session_outlives_it(engine: Engine) -> None:
    with Session(engine) as session:
        order(session)
        dispatch_sync(Receipt(order_id=1), session=session)
        session.expunge_all()
        savepoint = session.connection().begin_nested()
        dispatch_sync(Receipt(order_id=2), session=session)
        savepoint.rollback()
        session.commit()
    with engine.connect() as connection:
        assert list(connection.scalars(select(JOBS.c.payload["order_id"].as_integer()))) == [1]


def test_a_job_that_a_commit_below_its_session_cannot_write_fails_it(engine: Engine) -> None:
    with engine.connect() as away:
        away.execute(text("ALTER TABLE queue_jobs RENAME TO queue_jobs_away"))
        away.commit()
    with Session(engine) as session:
        order(session)
        dispatch_sync(Receipt(order_id=1), session=session)
        with pytest.raises(OutboxError, match="alembic upgrade head"):
            session.connection().commit()
    with engine.connect() as back:
        back.execute(text("ALTER TABLE queue_jobs_away RENAME TO queue_jobs"))
        back.commit()
    assert counts(engine) == (0, 0)


def staged_jobs() -> set[int]:
    """The boundaries that have jobs which commits look at. Others than those of a test may end meanwhile."""
    gc.collect()
    return {id(each) for each in gc.get_objects() if type(each) is StagedJobs}


def test_jobs_that_are_written_are_forgotten_while_their_transaction_goes_on(engine: Engine) -> None:
    before = staged_jobs()
    with Session(engine) as session:
        dispatch_sync(Receipt(order_id=1), session=session)
        [mine] = staged_jobs() - before
        session.flush()
        assert mine not in staged_jobs()
        session.commit()
    assert counts(engine) == (0, 1)


async def test_async_sessions_whose_connection_is_committed(migrated_url: str, engine: Engine) -> None:
    own = async_engine(migrated_url)
    async with AsyncSession(own) as session:
        await session.execute(text("INSERT INTO orders (customer) VALUES ('Ada')"))
        await dispatch(Receipt(order_id=1), session=session)
        await (await session.connection()).commit()
    assert await asyncio.to_thread(counts, engine) == (1, 1)
    await own.dispose()


# SQL of the application's own that ends a transaction, of which SQLAlchemy tells nothing


ENDS = ("COMMIT", "/* nightly */ commit", "CREATE TABLE side (number INT)")


@pytest.fixture
def side(engine: Engine) -> Iterator[None]:
    yield
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS side"))


@pytest.mark.usefixtures("side")
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("ends", ENDS)
def test_jobs_go_with_a_commit_that_is_sql_of_the_application_s_own(engine: Engine, ends: str, joined: bool) -> None:
    with engine.connect() as connection, Session(connection if joined else engine) as session:
        order(session)
        dispatch_sync(Receipt(order_id=1), session=session)
        session.expunge_all()
        session.connection().exec_driver_sql(ends)
        session.rollback()
    orders, jobs = counts(engine)
    assert orders == jobs
    assert jobs == (0 if engine.dialect.name == "sqlite" and "CREATE" in ends else 1)


@pytest.mark.parametrize("joined", [False, True])
def test_jobs_go_with_a_rollback_that_is_sql_of_the_application_s_own(engine: Engine, joined: bool) -> None:
    with engine.connect() as connection, Session(connection if joined else engine) as session:
        order(session)
        dispatch_sync(Receipt(order_id=1), session=session)
        session.connection().exec_driver_sql("ROLLBACK")
        session.commit()
    assert counts(engine) == (0, 0)


def test_jobs_keep_to_a_savepoint_that_is_sql_of_the_application_s_own(engine: Engine) -> None:
    with Session(engine) as session:
        connection = session.connection()
        order(session)
        dispatch_sync(Receipt(order_id=1), session=session)
        connection.exec_driver_sql("SAVEPOINT theirs")
        order(session, "Grace")
        dispatch_sync(Receipt(order_id=2), session=session)
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT theirs")
        session.commit()
    assert counts(engine) == (1, 1)


def test_a_session_that_goes_on_after_a_savepoint_of_others_keeps_its_jobs(engine: Engine) -> None:
    with engine.begin() as connection:
        savepoint = connection.begin_nested()
        session = Session(connection)
        dispatch_sync(Receipt(order_id=1), session=session)
        savepoint.rollback()
        order(session)
        session.commit()
    assert counts(engine) == (1, 1)


def test_statements_in_between_do_not_split_the_insert(engine: Engine) -> None:
    inserts: list[str] = []
    with Session(engine, autoflush=False) as session:

        @event.listens_for(engine, "before_cursor_execute")
        def note(_: object, __: object, statement: str, *___: object) -> None:
            if "INSERT" in statement and "queue_jobs" in statement:
                inserts.append(statement)

        order(session)
        for number in range(3):
            dispatch_sync(Receipt(order_id=number), session=session)
            session.connection().exec_driver_sql("SELECT * FROM orders")
            session.connection().exec_driver_sql("UPDATE orders SET customer = 'Grace'")
        session.commit()
    assert len(inserts) == 1
    assert counts(engine) == (1, 3)
