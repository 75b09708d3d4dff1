"""Unwritten jobs of a session, and their INSERT."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection
from sqlalchemy.orm import SessionTransaction

from outbox.drivers.database.connection.plans import run_in_session
from outbox.drivers.database.dialects import dialect_for
from outbox.drivers.database.jobs.insert import insert_statements
from outbox.envelope import Envelope
from outbox.errors import SessionUnusable
from outbox.wakeups.base import Announce


class StagedJobs:
    """The unwritten jobs of one boundary: a session's transaction, or a savepoint of it."""

    __slots__ = ("announce", "envelopes", "trigger")

    def __init__(self, announce: Announce) -> None:
        self.announce = announce
        self.envelopes: list[Envelope] = []
        self.trigger: object = None

    def take(self) -> list[Envelope]:
        """Return the jobs and forget them. The caller writes or drops them."""
        envelopes, self.envelopes = self.envelopes, []
        return envelopes


def has_begun_on(connection: Connection, boundary: SessionTransaction) -> bool:
    """Whether the boundary has begun on the connection, so that what ends there ends the boundary."""
    return connection in boundary._connections  # noqa: SLF001 - has no public name in 2.0


def root_of(boundary: SessionTransaction) -> SessionTransaction:
    """The session's transaction that the boundary is, or is in."""
    while boundary.parent is not None:
        boundary = boundary.parent
    return boundary


def write_jobs(connection: Connection, envelopes: Sequence[Envelope]) -> None:
    """Write ``envelopes`` in the transaction that ``connection`` is in.

    Raises:
        SessionUnusable: the connection commits every statement by itself.
        OutboxError, DBAPIError: as `run_in_session`.
    """
    if autocommits(connection):
        raise SessionUnusable(
            "this session's engine is in AUTOCOMMIT, so that a job could not wait for its transaction: "
            "dispatch without the session, or give it an engine with transactions"
        )
    run_in_session(connection, insert_statements(dialect_for(connection.dialect), envelopes))


def autocommits(connection: Connection) -> bool:
    # Asking publicly, `get_isolation_level`, would cost a round trip per flush.
    return bool(connection._is_autocommit_isolation())  # noqa: SLF001
