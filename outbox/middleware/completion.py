"""Completes a job in a transaction of the application: the writes of the job and its end are one commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session

from outbox.dispatch import sync_session
from outbox.drivers.database.connection.engine import shown_url
from outbox.drivers.database.connection.plans import run_in_session
from outbox.drivers.database.dialects import dialect_for
from outbox.drivers.database.jobs.settlement_plan import SettlementPlan
from outbox.drivers.database.jobs.staging import check_transaction, writes_elsewhere
from outbox.drivers.values import Claim, Settled
from outbox.errors import LeaseLost, SessionUnusable
from outbox.settlement import Settlement
from outbox.wakeups.after_commit import after_commit, waits_for_commit

if TYPE_CHECKING:
    from outbox.dispatch import AnySession
    from outbox.middleware.job_sessions import JobSessions


class Completion:
    """The end of one claim, to be written by `complete` in the job's own transaction."""

    __slots__ = ("_claim", "_connection", "_on_commit", "_sessions", "follow_up", "settled", "written")

    def __init__(self, claim: Claim, connection: str, sessions: JobSessions) -> None:
        self._claim = claim
        self._connection = connection
        self._sessions = sessions
        self._on_commit: Callable[[], None] | None = None
        """What the transaction that holds the end calls when it commits."""
        self.follow_up: Callable[[Settlement], Settlement] | None = None
        """Adds the next job of a chain, and what is kept of this one."""
        self.written = False
        """The job's row was deleted in a transaction. Whether that was committed, only `settled` says."""
        self.settled: Settled | None = None
        """What was committed."""

    def complete(self, session: AnySession) -> Awaitable[None]:
        """Flush ``session``, and delete the job's row in its transaction. A sync session has done so on return.

        Raises:
            LeaseLost: another worker may have the job. Roll back, as an exception does.
            ConfigurationError: the job's connection is not a database.
            SessionUnusable: the session cannot carry it, or writes to another database.
        """
        if isinstance(session, async_scoped_session):
            session = session()
        if isinstance(session, AsyncSession):
            return session.run_sync(self.write)
        self.write(sync_session(session))
        return _Done()

    def write(self, session: Session) -> None:
        """The statements of `complete`."""
        url = self._sessions.url(self._connection)
        if writes_elsewhere(session, url):
            raise SessionUnusable(
                f"{self._claim.name}: its row is in {shown_url(url)}, and this session writes to another database: "
                "complete the job in a session of its own database, or let it complete when `handle` returns"
            )
        connect = check_transaction(session)
        session.flush()
        if self._on_commit is not None and waits_for_commit(session, self._on_commit):
            # The handler has completed the job in this transaction: there is no row to delete any more.
            return
        connection = connect()
        plan = SettlementPlan(dialect_for(connection.dialect), self._connection, [self.settlement()])
        settled = run_in_session(connection, plan.delete() if plan.deletable else plan.lock_and_settle())
        if settled is None or settled.stale:
            raise LeaseLost(
                f"{self._claim.name}: the lease ended before the job did, and another worker may have the job: "
                "its transaction is rolled back"
            )
        self.written = True
        self._on_commit = partial(self.committed, settled)
        after_commit(session, self._on_commit)

    def settlement(self) -> Settlement:
        completed = Settlement.completed(self._claim.fence)
        if self.follow_up is not None:
            completed = self.follow_up(completed)
        policies = self._claim.policies
        if policies is None:
            return completed
        return completed.leaving(policies, self._claim.headers, in_session=True)

    def committed(self, settled: Settled | None = None) -> None:
        """The transaction has been committed. ``settled`` is None where a later look has found that out."""
        self.settled = settled or Settled((self.settlement(),), ())


class _Done:
    """An awaitable with nothing to wait for."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()
