"""G1 where a session loses its pending objects, or is left without a commit."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, make_transient, scoped_session, sessionmaker

from outbox.errors import SessionUnusable
from outbox.sync import dispatch as dispatch_sync
from tests.support.leaving_sessions import (
    JOBS,
    counts,
    expire_all,
    expunge_all,
    order,
)
from tests.support.orders import Order, Receipt


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
