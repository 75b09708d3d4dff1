"""G1 where a session loses its pending objects, or ends otherwise than by its own commit."""

from __future__ import annotations

import asyncio
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, make_transient, scoped_session, sessionmaker

import outbox
from outbox import dispatch
from outbox.drivers.database.jobs.staged_jobs import StagedJobs
from outbox.errors import OutboxError, SessionUnusable
from outbox.sync import dispatch as dispatch_sync
from tests.support.orders import Base, Order, Receipt, async_engine, sync_engine

JOBS = outbox.metadata.tables["queue_jobs"]
MODES = ("conditional_savepoint", "rollback_only", "control_fully", "create_savepoint")


@pytest.fixture
def engine(migrated_url: str) -> Iterator[Engine]:
    engine = sync_engine(migrated_url)
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    engine.dispose()


def counts(engine: Engine) -> tuple[int, int]:
    """Orders and jobs."""
    with engine.connect() as connection:
        orders = connection.scalar(select(func.count()).select_from(Order.__table__))
        jobs = connection.scalar(select(func.count()).select_from(JOBS))
        return int(orders or 0), int(jobs or 0)


def order(session: Session, customer: str = "Ada") -> None:
    session.execute(text("INSERT INTO orders (customer) VALUES (:customer)"), {"customer": customer})


# What takes pending objects out of a session


def expunge_all(session: Session) -> None:
    session.expunge_all()


def expunge_each(session: Session) -> None:
    for pending in list(session.new):
        session.expunge(pending)


def expunge_while_there_are_any(session: Session) -> None:
    while session.new:
        session.expunge(next(iter(session.new)))


def clear_new(session: Session) -> None:
    session.new.clear()


def make_all_transient(session: Session) -> None:
    for pending in list(session.new):
        make_transient(pending)


def delete_info(session: Session) -> None:
    session.info.clear()


def move_to_another_session(session: Session) -> None:
    with Session(session.get_bind()) as other:
        for pending in list(session.new):
            session.expunge(pending)
            other.add(pending)
        if session.get_bind().dialect.name != "sqlite":  # which has one writer
            other.commit()


def merge_into_itself(session: Session) -> None:
    with session.no_autoflush:
        for pending in list(session.new):
            with pytest.warns(match="already pending"):
                session.merge(pending)


def pickle_and_add_again(session: Session) -> None:
    for pending in list(session.new):
        copy = pickle.loads(pickle.dumps(pending))
        session.expunge(pending)
        session.add(copy)


def expire_all(session: Session) -> None:
    session.expire_all()


LOSSES = (
    expunge_all, expunge_each, expunge_while_there_are_any, clear_new, make_all_transient, delete_info,
    move_to_another_session, pickle_and_add_again, expire_all,
    # SQLAlchemy warns of whatever is merged into its own session twice.
    pytest.param(merge_into_itself, marks=pytest.mark.filterwarnings("ignore:Identity map already had")),
)  # fmt: skip


@pytest.mark.parametrize("autoflush", [True, False])
@pytest.mark.parametrize("lose", LOSSES)
def test_a_job_is_committed_whatever_becomes_of_pending_objects(
    engine: Engine, lose: Callable[[Session], None], autoflush: bool
) -> None:
    with Session(engine, autoflush=autoflush) as session:
        dispatch_sync(Receipt(order_id=1), session=session)
        lose(session)
        dispatch_sync(Receipt(order_id=2), session=session)
        lose(session)
        session.commit()
        assert counts(engine) == (0, 2)
        dispatch_sync(Receipt(order_id=3), session=session)
        lose(session)
        session.rollback()
        session.commit()
    assert counts(engine) == (0, 2)


@pytest.mark.parametrize("lose", LOSSES)
def test_jobs_keep_to_their_savepoint_whatever_becomes_of_pending_objects(
    engine: Engine, lose: Callable[[Session], None]
) -> None:
    with Session(engine) as session, session.begin():
        dispatch_sync(Receipt(order_id=1), session=session)
        lose(session)
        with session.begin_nested() as undone:
            order(session)
            dispatch_sync(Receipt(order_id=2), session=session)
            lose(session)
            session.flush()
            dispatch_sync(Receipt(order_id=3), session=session)
            lose(session)
            undone.rollback()
        with session.begin_nested():
            order(session, "Grace")
            dispatch_sync(Receipt(order_id=4), session=session)
            lose(session)
    with engine.connect() as connection:
        numbers = sorted(connection.scalars(select(JOBS.c.payload["order_id"].as_integer())))
    assert (numbers, counts(engine)) == ([1, 4], (1, 2))


def test_a_closed_savepoint_takes_its_jobs_along(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        nested = session.begin_nested()
        order(session)
        dispatch_sync(Receipt(order_id=1), session=session)
        nested.close()
    assert counts(engine) == (0, 0)


def test_objects_that_are_expunged_while_the_session_commits_take_no_job_along(engine: Engine) -> None:
    with Session(engine) as session:
        event.listen(session, "before_commit", expunge_all)
        dispatch_sync(Receipt(order_id=1), session=session)
        session.commit()
    assert counts(engine) == (0, 1)


def test_a_job_that_is_dispatched_and_expunged_during_the_commit_is_in_it_or_an_error(engine: Engine) -> None:
    with Session(engine) as session:

        @event.listens_for(session, "before_commit")
        def lose(session: Session) -> None:
            dispatch_sync(Receipt(order_id=1), session=session)
            session.expunge_all()

        order(session)
        session.commit()
        assert counts(engine) == (1, 1)
        session.begin()
        with pytest.raises(SessionUnusable, match="committed without 1 of its jobs"):
            session.commit()


def test_a_job_that_is_dispatched_and_expunged_while_a_savepoint_is_released_is_committed(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        dispatch_sync(Receipt(order_id=1), session=session)
        nested = session.begin_nested()

        @event.listens_for(session, "before_commit", once=True)
        def lose(session: Session) -> None:
            dispatch_sync(Receipt(order_id=2), session=session)
            session.expunge_all()

        dispatch_sync(Receipt(order_id=3), session=session)
        nested.commit()
        dispatch_sync(Receipt(order_id=4), session=session)
    assert counts(engine) == (0, 4)


def test_a_session_that_routes_writes_to_another_engine_sends_jobs_there(engine: Engine) -> None:
    class RoutingSession(Session):
        def get_bind(self, mapper: Any = None, **options: Any) -> Any:
            asked.append(self._flushing)
            return super().get_bind(mapper, **options)

    for ends in ("commit", "flush"):
        asked: list[bool] = []
        with RoutingSession(engine) as session:
            dispatch_sync(Receipt(order_id=1), session=session)
            asked.clear()
            getattr(session, ends)()
            session.commit()
        assert asked == [True], "the bind of the INSERT is that of a flush"
    assert counts(engine) == (0, 2)


@pytest.mark.parametrize("leave", ["close", "reset", "invalidate"])
def test_a_session_that_is_left_without_a_commit_takes_its_jobs_along(engine: Engine, leave: str) -> None:
    with Session(engine) as session:
        order(session)
        dispatch_sync(Receipt(order_id=1), session=session)
        getattr(session, leave)()
        order(session)
        session.commit()
    assert counts(engine) == (1, 0)


def test_a_scoped_session_that_is_removed_takes_its_jobs_along(engine: Engine) -> None:
    scoped = scoped_session(sessionmaker(engine))
    order(scoped())
    dispatch_sync(Receipt(order_id=1), session=scoped)
    scoped.remove()
    scoped.commit()
    scoped.remove()
    assert counts(engine) == (0, 0)


def test_a_failed_flush_takes_its_jobs_along(engine: Engine) -> None:
    with Session(engine) as session:
        dispatch_sync(Receipt(order_id=1), session=session)
        session.add_all([Order(customer="Ada"), Order(customer="Ada")])
        session.expunge(next(pending for pending in session.new if not isinstance(pending, Order)))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.commit()
    assert counts(engine) == (0, 0)


def test_a_forgotten_session_is_not_kept_by_its_jobs(engine: Engine) -> None:
    session = Session(engine)
    dispatch_sync(Receipt(order_id=1), session=session)
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    with engine.connect() as connection:
        session = Session(connection)
        dispatch_sync(Receipt(order_id=1), session=session)
        forgotten = weakref.ref(connection)
    del session, connection
    gc.collect()
    assert forgotten() is None


# Sessions on a connection whose transaction others commit


def close(session: Session) -> None:
    session.close()


def reset(session: Session) -> None:
    session.reset()


def expunge_and_close(session: Session) -> None:
    session.expunge_all()
    session.close()


def leave_open(_: Session) -> None:
    """Its owner forgets it."""


LEAVING = (close, reset, expunge_and_close, leave_open)


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


# What the application ends on the connection of a session's own transaction


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
