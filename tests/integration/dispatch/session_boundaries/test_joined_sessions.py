"""G1 where a session is on a connection whose transaction others commit."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session

from outbox import dispatch
from outbox.errors import OutboxError
from outbox.sync import dispatch as dispatch_sync
from tests.support.leaving_sessions import (
    JOBS,
    LEAVING,
    MODES,
    close,
    counts,
    order,
)
from tests.support.orders import Receipt, async_engine


def _joined(connection: Connection, mode: Any, leave: Callable[[Session], None], *, sends: bool) -> None:
    session = Session(connection, join_transaction_mode=mode)
    if sends:
        order(session)
    else:
        connection.execute(text("INSERT INTO orders (customer) VALUES ('Ada')"))
    dispatch_sync(Receipt(order_id=1), session=session)
    leave(session)


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("mode", MODES)
def test_a_joined_session_that_is_left_shares_the_fate_of_its_statements(
    engine: Engine, mode: str, leave: Callable[[Session], None]
) -> None:
    with engine.begin() as connection:
        _joined(connection, mode, leave, sends=True)
        gc.collect()
    orders, jobs = counts(engine)
    assert orders == jobs
    if mode in {"conditional_savepoint", "rollback_only"}:
        assert jobs == 1
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM orders"))
        connection.commit()
        connection.begin()
        _joined(connection, mode, leave, sends=True)
        connection.rollback()
        connection.execute(text("INSERT INTO orders (customer) VALUES ('Grace')"))
        connection.commit()
    assert counts(engine) == (1, jobs), "a rolled back transaction leaves nothing for the next"


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only"])
def test_a_joined_session_that_has_sent_nothing_belongs_to_the_outer_transaction(
    engine: Engine, mode: str, leave: Callable[[Session], None]
) -> None:
    with engine.begin() as connection:
        _joined(connection, mode, leave, sends=False)
        gc.collect()
    assert counts(engine) == (1, 1)


@pytest.mark.parametrize("sends", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_joined_session_in_a_savepoint_of_its_connection(engine: Engine, mode: str, sends: bool, ends: str) -> None:
    with engine.begin() as connection:
        savepoint = connection.begin_nested()
        _joined(connection, mode, close, sends=sends)
        if savepoint.is_active:
            getattr(savepoint, ends)()
    orders, jobs = counts(engine)
    if sends:
        assert orders == jobs
    if ends == "rollback":
        assert jobs == 0
    elif mode == "rollback_only":
        assert jobs == 1
    elif mode == "create_savepoint":
        assert jobs == 0


def test_savepoints_of_the_connection_are_honoured_after_a_session_was_left(engine: Engine) -> None:
    with engine.begin() as connection:
        _joined(connection, "rollback_only", close, sends=True)
        savepoint = connection.begin_nested()
        with Session(connection, join_transaction_mode="rollback_only") as session:
            dispatch_sync(Receipt(order_id=2), session=session)
        savepoint.rollback()
    assert counts(engine) == (1, 1)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_joined_session_rolls_back_is_gone(engine: Engine, mode: Any) -> None:
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode=mode) as session:
            dispatch_sync(Receipt(order_id=1), session=session)
            session.rollback()
        if outer.is_active:
            outer.commit()
    assert counts(engine) == (0, 0)


@pytest.mark.parametrize("mode", MODES)
def test_nested_savepoints_of_a_joined_session(engine: Engine, mode: Any) -> None:
    with engine.begin() as connection, Session(connection, join_transaction_mode=mode) as session:
        dispatch_sync(Receipt(order_id=1), session=session)
        with session.begin_nested() as undone:
            dispatch_sync(Receipt(order_id=2), session=session)
            session.expunge_all()
            undone.rollback()
        with session.begin_nested():
            dispatch_sync(Receipt(order_id=3), session=session)
        session.commit()
    with engine.connect() as connection:
        assert sorted(connection.scalars(select(JOBS.c.payload["order_id"].as_integer()))) == [1, 3]


def test_jobs_of_a_session_go_with_the_commit_of_its_own_connection(engine: Engine) -> None:
    """`connection.commit()` where the session began the transaction."""
    with engine.connect() as connection:
        session = Session(connection)
        order(session)
        dispatch_sync(Receipt(order_id=1), session=session)
        connection.commit()
        session.close()
    assert counts(engine) == (1, 1)


def test_a_job_that_the_outer_commit_cannot_write_fails_the_outer_commit(engine: Engine) -> None:
    with engine.connect() as away:
        away.execute(text("ALTER TABLE queue_jobs RENAME TO queue_jobs_away"))
        away.commit()
    with engine.connect() as connection:
        connection.begin()
        _joined(connection, "rollback_only", close, sends=True)
        with pytest.raises(OutboxError, match="alembic upgrade head"):
            connection.commit()
        connection.rollback()
        connection.execute(text("ALTER TABLE queue_jobs_away RENAME TO queue_jobs"))
        connection.commit()
    assert counts(engine) == (0, 0)


@pytest.mark.parametrize("prepare", [True, False])
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_two_phase_sessions(engine: Engine, prepare: bool, ends: str) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no two-phase transactions")
    with Session(engine, twophase=True) as session:
        order(session)
        dispatch_sync(Receipt(order_id=1), session=session)
        session.expunge_all()
        if prepare:
            session.prepare()
        getattr(session, ends)()
    assert counts(engine) == ((1, 1) if ends == "commit" else (0, 0))


@pytest.mark.parametrize("prepare", [True, False])
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_session_that_joins_a_two_phase_transaction(engine: Engine, prepare: bool, ends: str) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no two-phase transactions")
    with engine.connect() as connection:
        transaction = connection.begin_twophase()
        _joined(connection, "rollback_only", close, sends=True)
        if prepare:
            transaction.prepare()
        getattr(transaction, ends)()
    assert counts(engine) == ((1, 1) if ends == "commit" else (0, 0))


@pytest.mark.parametrize("mode", MODES)
async def test_async_sessions_on_an_open_connection(migrated_url: str, engine: Engine, mode: Any) -> None:
    own = async_engine(migrated_url)
    async with own.begin() as connection, AsyncSession(connection, join_transaction_mode=mode) as session:
        await session.execute(text("INSERT INTO orders (customer) VALUES ('Ada')"))
        await dispatch(Receipt(order_id=1), session=session)
        session.expunge_all()
        await dispatch(Receipt(order_id=2), session=session)
        session.expunge_all()
    orders, jobs = await asyncio.to_thread(counts, engine)
    assert jobs == 2 * orders
    assert orders == (mode in {"conditional_savepoint", "rollback_only"})
    await own.dispose()


async def test_async_scoped_sessions(migrated_url: str, engine: Engine) -> None:
    own = async_engine(migrated_url)
    scoped = async_scoped_session(async_sessionmaker(own), scopefunc=asyncio.current_task)
    for ends in ("commit", "rollback", "remove", "close", "reset"):
        await scoped.execute(text("INSERT INTO orders (customer) VALUES (:customer)"), {"customer": ends})
        await dispatch(Receipt(order_id=1), session=scoped)
        scoped.expunge_all()
        await getattr(scoped, ends)()
    await scoped.remove()
    assert await asyncio.to_thread(counts, engine) == (1, 1)
    await own.dispose()
