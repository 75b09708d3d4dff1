"""Cancelling a job in an application's own transaction."""

from __future__ import annotations

from sqlalchemy.orm import Session

from outbox.drivers.database.audit import record
from outbox.drivers.database.connection.plans import Plan, run_in_session
from outbox.drivers.database.dialects import Dialect, dialect_for
from outbox.drivers.database.jobs.staging import check_transaction
from outbox.drivers.database.policies import registry
from outbox.drivers.database.policies.leaving import leaving
from outbox.ids import JobId
from outbox.settlement import Outcome


def cancel_in_session(session: Session, job_id: JobId) -> bool:
    """Remove a live job when ``session`` commits; whether there is one. A row that is on its way to another connection
    stays: the job may be there already.

    Raises:
        SessionUnusable: as `staging.stage`.
        OutboxError, DBAPIError: as `run_in_session`.
    """
    connection_of = check_transaction(session)
    # What the session has dispatched is a row from then on.
    session.flush()
    connection = connection_of()
    return run_in_session(connection, _cancel(dialect_for(connection.dialect), job_id))


def _cancel(dialect: Dialect, job_id: JobId) -> Plan[bool]:
    listed, parameters = dialect.id_list([job_id.bytes])
    removed = yield dialect.cancel(listed), parameters
    if removed.rowcount:
        yield from record(dialect, 1)
        return True
    rows = yield dialect.cancellable(), (job_id.bytes,)
    found = [leaving(job_id, policies, headers, Outcome.CANCELLED) for policies, headers in rows]
    if not found:
        return False
    yield dialect.remove_locked(1), (job_id.bytes,)
    yield from registry.cancelled_in_session(dialect, found)
    yield from record(dialect, 1)
    return True
