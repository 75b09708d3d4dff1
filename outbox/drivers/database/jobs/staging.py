"""Jobs in an application's own transaction.

Dispatched jobs are kept with the boundary that they belong to: the session's transaction, or its innermost savepoint.
They are written in one INSERT when the session flushes or commits that boundary, and dropped when it ends otherwise.
SQLAlchemy flushes only sessions that have something to flush, and flushes before it opens a savepoint. So each boundary
with jobs also has a `FlushTrigger` pending in the session. Jobs do not depend on it: it may be expunged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast
from uuid import uuid4
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Engine, LargeBinary, event, literal_column, select
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError, UnboundExecutionError
from sqlalchemy.orm import Session, SessionTransaction, registry
from sqlalchemy.util.concurrency import in_greenlet

from outbox.drivers.database.connection.engine import certainly_differ, read_url, shown_url
from outbox.drivers.database.connection.plans import Plan, run_in_session
from outbox.drivers.database.dialects import Dialect, dialect_for
from outbox.drivers.database.jobs import owned_connections
from outbox.drivers.database.jobs.joined_connections import joined_connection
from outbox.drivers.database.jobs.staged_jobs import AUTOCOMMIT, StagedJobs, autocommits, write_jobs
from outbox.drivers.database.policies.unique_dispatch import reserve
from outbox.drivers.database.tables import jobs
from outbox.envelope import Envelope
from outbox.errors import ConfigurationError, SessionUnusable
from outbox.ids import JobId
from outbox.wakeups.after_commit import after_commit, enclosing
from outbox.wakeups.base import Announce
from outbox.wakeups.local_hub import local_hub

T = TypeVar("T")


class FlushTrigger:
    """A pending object that makes a session flush. Nothing is ever written for it."""


# To a query without tables, so that a flush has nothing to write to: a trigger that is merged, or moved to another
# session, is harmless.
_no_table = select(literal_column("NULL", LargeBinary()).label("id")).subquery("outbox_flush_trigger")
_registry = registry()
_mapper = _registry.map_imperatively(FlushTrigger, _no_table, primary_key=[_no_table.c.id])
_registry.configure()
_BIND: dict[str, Any] = {"mapper": _mapper, "clause": jobs}


@event.listens_for(_mapper, "before_insert")
def _identify(_: object, __: object, trigger: Any) -> None:
    """Give a trigger an identity if a flush meets it. It usually leaves the session before."""
    trigger.id = uuid4().bytes


_staged: WeakKeyDictionary[SessionTransaction, StagedJobs] = WeakKeyDictionary()


def stage(session: Session, envelopes: Sequence[Envelope], announce: Announce = local_hub.notify) -> None:
    """Stage ``envelopes`` in ``session``, which writes them before any later statement of its transaction. After the
    commit, ``announce`` is called with their queues.

    Raises:
        SessionUnusable: the session has failed, is past its commit, or was closed for good. Or it does not begin by
            itself, has no bind for ``queue_jobs``, or commits every statement by itself.
    """
    if getattr(session, "_flushing", False):
        # From a flush event: what is added to the session now might miss this flush and be taken for a row by it.
        _insert(session, envelopes, announce)
        return
    boundary = _boundary(session)
    staged = None if boundary is None else _staged.get(boundary)
    if staged is None or not staged.envelopes or staged.trigger not in session:
        staged = _begin_staging(session, announce, staged)
    staged.envelopes.extend(envelopes)


def reserve_keys(session: Session, envelopes: Sequence[Envelope]) -> Mapping[JobId, JobId]:
    """Take the keys of unique jobs in the transaction of ``session``, before they are staged. Returns those that are
    not to be staged, each with the id of the job that it met.

    Raises:
        DuplicateJob: one of them must not meet another. Nothing was written.
        SessionUnusable: as `stage`; or an async session has no ``await`` here.
        OutboxError, DBAPIError: as `run_in_session`.
    """
    instead = "a unique job asks the database when it is dispatched: use `await outbox.dispatch(…)`"
    return ask(session, lambda dialect: reserve(dialect, envelopes), instead)


def ask(session: Session, plan: Callable[[Dialect], Plan[T]], instead: str) -> T:
    """Send a plan in the transaction of ``session``, at once. ``instead`` says why, and what an application does where
    it cannot await an async session.

    Raises:
        SessionUnusable: as `stage`; or an async session has no ``await`` here.
        OutboxError, DBAPIError: as `run_in_session`.
    """
    connection_of = check_transaction(session)
    if _bind(session).dialect.is_async and not in_greenlet():
        raise SessionUnusable(f"this code cannot await an async session, and {instead}")
    connection = connection_of()
    return run_in_session(connection, plan(dialect_for(connection.dialect)))


def give_up(session: Session) -> None:
    """Roll back to the last savepoint, or the whole transaction, as a failed flush does. Until the application calls
    ``rollback()``, the session neither begins another nor commits what is left of this one."""
    subtransaction = session._autobegin_t()._begin()  # noqa: SLF001 - what a flush begins has no public name
    subtransaction.rollback(_capture_exception=True)


def check_transaction(session: Session) -> Callable[[], Connection]:
    """Check ``session``, and return a function that gives the connection of its transaction.

    Raises:
        SessionUnusable: as `stage`.
    """
    _check(session)

    def connection() -> Connection:
        found = session.connection(bind_arguments=_BIND)
        if autocommits(found):
            raise SessionUnusable("this session's engine is in AUTOCOMMIT: it has no transaction to be part of")
        return found

    return connection


def begin_boundary(session: Session) -> SessionTransaction:
    """The boundary whose fate a job shares that is dispatched now. It begins if the session is in none.

    Raises:
        SessionUnusable: as `stage`.
    """
    boundary = _boundary(session)
    if boundary is None or not getattr(session, "_flushing", False):
        _check(session)
    if boundary is None:
        session.expunge(_add_trigger(session))
        boundary = cast("SessionTransaction", _boundary(session))
    return boundary


def _begin_staging(session: Session, announce: Announce, staged: StagedJobs | None) -> StagedJobs:
    bind = _check(session)
    if _commits_by_itself(session, bind):
        raise SessionUnusable(AUTOCOMMIT)
    trigger = _add_trigger(session)
    boundary = cast("SessionTransaction", _boundary(session))  # begun at the latest when the trigger was added
    if staged is None or not staged.envelopes:
        staged = _staged[boundary] = StagedJobs(announce)
        if isinstance(bind, Connection):
            joined_connection(bind).keep(bind, staged, boundary)
        else:
            owned_connections.keep(bind, staged, boundary)
    staged.trigger = trigger
    return staged


def check_database(session: Session, url: str) -> None:
    """Check that jobs that are to be relayed are written where they are relayed from.

    Raises:
        SessionUnusable: what ``session`` writes is not in the database of ``url``, as far as URLs can tell.
    """
    wanted = read_url(url)
    if writes_elsewhere(session, wanted):
        raise SessionUnusable(
            f"this session writes to {shown_url(_bind(session).engine.url)}, and jobs for another connection are moved "
            f"on from {shown_url(wanted)} only: dispatch with a session of that database, set DATABASE_URL to the "
            "session's, or dispatch without the session"
        )


def writes_elsewhere(session: Session, url: URL) -> bool:
    """Whether ``session`` certainly writes to another database than that of ``url``."""
    return certainly_differ(_bind(session).engine.url, url)


def _add_trigger(session: Session) -> FlushTrigger:
    # As the ORM makes what it loads: the ``__init__`` of a mapped class takes longer.
    trigger: FlushTrigger = _mapper.class_manager.new_instance()
    try:
        session.add(trigger)
    except InvalidRequestError as error:
        raise SessionUnusable(f"the session cannot take a job: {error}") from error
    return trigger


def _boundary(session: Session) -> SessionTransaction | None:
    """The innermost savepoint of ``session``, or its transaction. What is staged shares its fate."""
    return session.get_nested_transaction() or session.get_transaction()


def _check(session: Session) -> Engine | Connection:
    bind = _bind(session)
    if not session.is_active:
        raise SessionUnusable(_why_inactive(session))
    try:
        dialect_for(bind.dialect)
    except ConfigurationError as error:
        raise SessionUnusable(
            f"{error}: a session over several databases needs binds={{outbox.metadata.tables['queue_jobs']: engine}}"
        ) from error
    return bind


def _commits_by_itself(session: Session, bind: Engine | Connection) -> bool:
    """Whether the session's connection does, or the one that it would take now."""
    boundary = session.get_transaction()
    if boundary is not None and bind in boundary._connections:  # noqa: SLF001
        return autocommits(boundary._connections[bind][0])  # noqa: SLF001
    options = getattr(session, "execution_options", {})  # since SQLAlchemy 2.1
    if level := options.get("isolation_level"):
        return bool(level == "AUTOCOMMIT")
    return autocommits(bind)


def _why_inactive(session: Session) -> str:
    # The session's refusal tells why. Nothing is sent, and there is no other public way to know.
    try:
        session.connection(bind_arguments=_BIND)
    except InvalidRequestError as error:
        if "provisioning" in str(error):
            return (
                "this session is just taking its connection: dispatch after that, not in the event after_begin or in "
                "another task, which needs a session of its own"
            )
        if not isinstance(error, PendingRollbackError):
            return (
                "this session's transaction is already being committed or rolled back: dispatch before that (in the "
                "event before_commit), to be part of it, or without the session"
            )
    return "this session's transaction has failed: call rollback() before dispatching in it again"


def _bind(session: Session) -> Engine | Connection:
    try:
        return session.get_bind(**_BIND)
    except UnboundExecutionError:
        raise SessionUnusable(
            "this session has no engine for outbox's tables: give the sessionmaker a bind, or add "
            "outbox.metadata.tables['queue_jobs'] with its engine to its binds"
        ) from None


@event.listens_for(Session, "before_flush")
def _write_staged(session: Session, *_: Any) -> None:
    if not _staged or (boundary := _boundary(session)) is None:
        return
    staged = _staged.pop(boundary, None)
    if staged is None:
        return
    if staged.trigger in session:
        session.expunge(staged.trigger)
    envelopes = staged.take()
    owned_connections.forget(boundary)
    if envelopes:
        _insert(session, envelopes, staged.announce)


@event.listens_for(Session, "before_commit")
def _write_before_commit(session: Session) -> None:
    """A flush may not follow, because a later listener may expunge the trigger."""
    if not _staged:
        return
    # To a session that routes by what it does, this INSERT is part of a flush, as it is in `before_flush`.
    session._flushing = True  # noqa: SLF001
    try:
        _write_staged(session)
    finally:
        session._flushing = False  # noqa: SLF001


@event.listens_for(Session, "after_commit")
def _keep_what_is_left(session: Session) -> None:
    """Jobs are left only if a listener dispatched them during the commit and then expunged the trigger."""
    boundary = _boundary(session)
    staged = None if boundary is None else _staged.pop(boundary, None)
    if boundary is None or staged is None or not staged.envelopes:
        return
    if boundary.nested:
        kept = _staged.setdefault(enclosing(boundary), staged)
        if kept is not staged:
            kept.envelopes += staged.take()
        return
    raise SessionUnusable(
        f"the transaction was committed without {len(staged.take())} of its jobs: they were dispatched during the "
        "commit, and then everything pending was expunged from the session"
    )


@event.listens_for(Session, "after_rollback")
def _drop_staged(session: Session) -> None:
    boundary = _boundary(session)
    if boundary is not None and (staged := _staged.pop(boundary, None)) is not None:
        staged.take()


@event.listens_for(Session, "after_transaction_end")
def _end(session: Session, transaction: SessionTransaction) -> None:
    """Drop the jobs of a transaction that was closed without a commit or a rollback."""
    staged = _staged.pop(transaction, None) if _staged else None
    if staged is None or not staged.envelopes:
        return
    bind = session.get_bind(**_BIND)
    if isinstance(bind, Connection):
        joined_connection(bind).end(bind, staged)


def _insert(session: Session, envelopes: Sequence[Envelope], announce: Announce) -> None:
    try:
        write_jobs(session.connection(bind_arguments=_BIND), envelopes)
    except BaseException:
        # The server may have undone the whole transaction, a deadlock does.
        give_up(session)
        raise
    after_commit(session, partial(announce, {envelope.queue for envelope in envelopes}))
