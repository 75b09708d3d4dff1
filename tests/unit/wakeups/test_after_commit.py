"""What follows a commit: only what was committed, only then, and never an error."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

from outbox.wakeups.after_commit import after_commit


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://")

    @event.listens_for(engine, "connect")
    def leave_transactions_to_sqlalchemy(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def done() -> list[str]:
    return []


def note(session: Session, done: list[str], what: str) -> None:
    session.execute(text("SELECT 1"))
    after_commit(session, partial(done.append, what))


def test_it_follows_the_commit(session: Session, done: list[str]) -> None:
    note(session, done, "a")
    assert done == []
    session.commit()
    assert done == ["a"]
    session.commit()
    session.execute(text("SELECT 1"))
    session.commit()
    assert done == ["a"], "once"


@pytest.mark.parametrize("end", ["rollback", "close", "reset", "invalidate"])
def test_what_was_not_committed_is_forgotten(session: Session, done: list[str], end: str) -> None:
    note(session, done, "a")
    getattr(session, end)()
    note(session, done, "b")
    session.commit()
    assert done == ["b"]


def test_a_released_savepoint_waits_for_the_commit_and_a_rolled_back_one_is_forgotten(
    session: Session, done: list[str]
) -> None:
    note(session, done, "before")
    with session.begin_nested():
        note(session, done, "released")
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            note(session, done, "rolled back")
            raise ZeroDivisionError
        with session.begin_nested():
            note(session, done, "released twice")
    with pytest.raises(ZeroDivisionError), session.begin_nested():
        with session.begin_nested():
            note(session, done, "released, and rolled back with what was around it")
        raise ZeroDivisionError
    assert done == []
    session.commit()
    assert done == ["before", "released", "released twice"]


def test_a_savepoint_that_commit_releases_counts(session: Session, done: list[str]) -> None:
    session.begin_nested()
    note(session, done, "a")
    session.commit()
    assert done == ["a"]


def test_a_failed_commit_is_followed_by_nothing(session: Session, done: list[str]) -> None:
    @event.listens_for(session, "before_commit")
    def refuse(_: Session) -> None:
        raise ZeroDivisionError

    note(session, done, "a")
    with pytest.raises(ZeroDivisionError):
        session.commit()
    session.rollback()
    assert done == []


def test_an_action_that_fails_fails_nobody(session: Session, done: list[str], caplog: pytest.LogCaptureFixture) -> None:
    session.execute(text("SELECT 1"))
    after_commit(session, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    note(session, done, "a")
    session.commit()
    assert done == ["a"]
    assert "the commit itself stands" in caplog.text


def test_a_session_without_a_transaction_has_nothing_to_wait_for(session: Session, done: list[str]) -> None:
    after_commit(session, partial(done.append, "a"))
    session.execute(text("SELECT 1"))
    session.commit()
    assert done == []
