"""Cancelling a job in an application's own transaction."""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from outbox.drivers.database.connection.errors import translate_in_session
from outbox.drivers.database.jobs.staging import check_transaction
from outbox.drivers.database.tables import jobs
from outbox.ids import JobId


def cancel_in_session(session: Session, job_id: JobId) -> bool:
    """Remove a live job when ``session`` commits; whether there is one. A row that is on its way to another connection
    stays: the job may be there already.

    Raises:
        SessionUnusable: as `staging.stage`.
    """
    connection_of = check_transaction(session)
    # What the session has dispatched is a row from then on.
    session.flush()
    here = jobs.c.queue.not_like(">%")
    try:
        result = connection_of().execute(delete(jobs).where(jobs.c.id == job_id.bytes, here))
    except DBAPIError as error:
        translated = translate_in_session(error)
        if translated is None:
            raise
        raise translated from error
    return bool(result.rowcount)
