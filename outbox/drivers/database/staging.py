"""Jobs in an application's own transaction.

A session collects dispatched jobs in one pending object of its own and writes them when it flushes, in one INSERT. That
makes SQLAlchemy's unit of work responsible for what is hard to get right: a rolled back savepoint takes along what was
dispatched in it (opening a savepoint flushes what came before), a commit flushes until nothing is pending, and a
session that is rolled back or closed forgets. The object is mapped to ``queue_jobs`` only so that the session finds the
right bind; it is never written itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, event, inspect
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError, UnboundExecutionError
from sqlalchemy.orm import Session, registry

from outbox.drivers.database.dialects import dialect_for
from outbox.drivers.database.engine import certainly_differ, read_url, shown_url
from outbox.drivers.database.faults import Fault, classify, translate
from outbox.drivers.database.inserting import insert_statements
from outbox.drivers.database.tables import jobs
from outbox.envelope import Envelope
from outbox.errors import ConfigurationError, SessionUnusable
from outbox.notify.base import Announce
from outbox.notify.committed import after_commit
from outbox.notify.switchboard import switchboard

_KEY = "outbox.staged"


class StagedJobs:
    """The jobs that a session will write when it flushes."""

    def __init__(self, announce: Announce) -> None:
        self.envelopes: list[Envelope] = []
        self.announce = announce


_mapper = registry().map_imperatively(StagedJobs, jobs)


def stage(session: Session, envelopes: Sequence[Envelope], announce: Announce = switchboard.ring) -> None:
    """Let ``session`` write ``envelopes`` in its transaction, before anything after them can see the database, and
    ``announce`` their queues when that has committed.

    Raises:
        SessionUnusable: the session has failed, is past its commit, was closed for good, does not begin by itself, has
            no bind for ``queue_jobs``, or commits every statement by itself.
    """
    if getattr(session, "_flushing", False):
        # From a flush event: what is added to the session now might miss this flush and be taken for a row by it.
        _insert(session, envelopes, announce)
        return
    staged = session.info.get(_KEY)
    if staged is None or not inspect(staged).pending or inspect(staged).session is not session:
        _check(session)
        staged = StagedJobs(announce)
        _add(session, staged)
        session.info[_KEY] = staged
    staged.envelopes.extend(envelopes)


def check_transaction(session: Session) -> Callable[[], Connection]:
    """What gives the connection of the session's transaction, for statements on ``queue_jobs``.

    Raises:
        SessionUnusable: as `stage`.
    """
    _check(session)

    def connection() -> Connection:
        found = session.connection(bind_arguments={"mapper": _mapper})
        if _autocommits(found):
            raise SessionUnusable("this session's engine is in AUTOCOMMIT: it has no transaction to be part of")
        return found

    return connection


def check_database(session: Session, url: str) -> None:
    """
    Raises:
        SessionUnusable: what ``session`` writes is not in the database of ``url``, as far as URLs can tell.
    """
    written, wanted = _bind(session).engine.url, read_url(url)
    if certainly_differ(written, wanted):
        raise SessionUnusable(
            f"this session writes to {shown_url(written)}, and jobs for another connection are moved on from "
            f"{shown_url(wanted)} only: dispatch with a session of that database, set DATABASE_URL to the "
            "session's, or dispatch without the session"
        )


def _add(session: Session, staged: StagedJobs) -> None:
    try:
        session.add(staged)
    except InvalidRequestError as error:
        raise SessionUnusable(f"the session cannot take a job: {error}") from error


def _check(session: Session) -> None:
    bind = _bind(session)
    if not session.is_active:
        raise SessionUnusable(_why_inactive(session))
    try:
        dialect_for(bind.dialect)
    except ConfigurationError as error:
        raise SessionUnusable(
            f"{error}: a session over several databases needs binds={{outbox.metadata.tables['queue_jobs']: engine}}"
        ) from error


def _why_inactive(session: Session) -> str:
    # What it refuses this with says it. Nothing is sent, and there is no other public way to tell.
    try:
        session.connection(bind_arguments={"mapper": _mapper})
    except InvalidRequestError as error:
        if not isinstance(error, PendingRollbackError):
            return (
                "this session's transaction is already being committed or rolled back: dispatch before that (in the "
                "event before_commit), to be part of it, or without the session"
            )
    return "this session's transaction has failed: call rollback() before dispatching in it again"


def _bind(session: Session) -> Engine | Connection:
    try:
        return session.get_bind(mapper=_mapper)
    except UnboundExecutionError:
        raise SessionUnusable(
            "this session has no engine for outbox's tables: give the sessionmaker a bind, or add "
            "outbox.metadata.tables['queue_jobs'] with its engine to its binds"
        ) from None


@event.listens_for(Session, "before_flush")
def _write_staged(session: Session, *_: Any) -> None:
    staged = session.info.get(_KEY)
    if staged is None or not inspect(staged).pending:
        return
    _insert(session, staged.envelopes, staged.announce)
    session.expunge(staged)
    del session.info[_KEY]


def _insert(session: Session, envelopes: Sequence[Envelope], announce: Announce) -> None:
    # As a flush writes rows: when the INSERT fails, the server may have undone the whole transaction, a deadlock does,
    # and until somebody calls rollback() the session must neither begin another nor commit what is left of this one.
    transaction = session._autobegin_t()._begin()  # noqa: SLF001 - what a flush begins has no public name
    try:
        _execute(session, envelopes)
        transaction.commit()
    except BaseException:
        transaction.rollback(_capture_exception=True)
        raise
    after_commit(session, partial(announce, {envelope.queue for envelope in envelopes}))


def _execute(session: Session, envelopes: Sequence[Envelope]) -> None:
    connection = session.connection(bind_arguments={"mapper": _mapper})
    if _autocommits(connection):
        raise SessionUnusable(
            "this session's engine is in AUTOCOMMIT, so that a job could not wait for its transaction: "
            "dispatch without the session, or give it an engine with transactions"
        )
    for statement, parameters in insert_statements(dialect_for(connection.dialect), envelopes):
        try:
            connection.exec_driver_sql(statement, parameters)
        except DBAPIError as error:
            # What the application's own transaction suffers, a deadlock or a lost connection, stays SQLAlchemy's error.
            ours = classify(error) in {Fault.MISCONFIGURED, Fault.FINAL}
            translated = translate(error, "the session's database") if ours else None
            if translated is None:
                raise
            raise translated from error


def _autocommits(connection: Connection) -> bool:
    # Asking publicly, `get_isolation_level`, would cost a round trip per flush.
    return bool(connection._is_autocommit_isolation())  # noqa: SLF001
