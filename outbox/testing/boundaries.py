"""What becomes of jobs that were dispatched in sessions, as the sessions tell it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction

from outbox.drivers.database.jobs.staging import begin_boundary


class Fate(Enum):
    """What has become of a job that was dispatched. The value ends the line about it."""

    STORED = "stored"
    IN_TRANSACTION = "in a transaction that is open"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"


class HasFate(Protocol):
    fate: Fate


_of_boundary: WeakKeyDictionary[SessionTransaction, list[HasFate]] = WeakKeyDictionary()
"""Jobs whose fate is that of a transaction of a session, or of a savepoint in it."""
_of_connection: WeakKeyDictionary[Connection, list[HasFate]] = WeakKeyDictionary()
"""Jobs of sessions that have ended, on a connection whose transaction the test ends."""


def follow(session: Session, jobs: Sequence[HasFate]) -> None:
    """
    Raises:
        SessionUnusable: the session cannot carry a job.
    """
    _of_boundary.setdefault(begin_boundary(session), []).extend(jobs)


def _boundary(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()


@event.listens_for(Session, "after_commit")
def _commit(session: Session) -> None:
    boundary = _boundary(session)
    jobs = _of_boundary.pop(boundary, None) if boundary is not None else None
    if not jobs or boundary is None:
        return
    enclosing = boundary.parent
    while enclosing is not None and not enclosing.nested and enclosing.parent is not None:
        enclosing = enclosing.parent
    if boundary.nested and enclosing is not None:
        _of_boundary.setdefault(enclosing, []).extend(jobs)
    else:
        _keep(session, jobs)


def _keep(session: Session, jobs: Sequence[HasFate]) -> None:
    for job in jobs:
        job.fate = Fate.COMMITTED
    bind = session.get_bind()
    if isinstance(bind, Connection) and bind.in_transaction():
        kept = _of_connection.get(bind)
        if kept is None:
            kept = _of_connection[bind] = []
            event.listen(bind, "rollback", _roll_back_connection)
        kept.extend(jobs)


def _roll_back_connection(connection: Connection) -> None:
    _drop(_of_connection.get(connection, []))


@event.listens_for(Session, "after_rollback")
def _roll_back(session: Session) -> None:
    if (boundary := _boundary(session)) is not None:
        _drop(_of_boundary.pop(boundary, []))


@event.listens_for(Session, "after_transaction_end")
def _end(_: Any, transaction: SessionTransaction) -> None:
    """Closed without a commit."""
    _drop(_of_boundary.pop(transaction, []))


def _drop(jobs: Sequence[HasFate]) -> None:
    for job in jobs:
        job.fate = Fate.ROLLED_BACK
