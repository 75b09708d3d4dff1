"""Unwritten jobs of a session, and their INSERT."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import SessionTransaction

from outbox.drivers.database.connection.plans import run_in_session
from outbox.drivers.database.dialects import dialect_for
from outbox.drivers.database.jobs.insert import insert_statements
from outbox.envelope import Envelope
from outbox.errors import SessionUnusable
from outbox.wakeups.base import Announce

AUTOCOMMIT = (
    "this session's engine is in AUTOCOMMIT, so that a job could not wait for its transaction: dispatch without the "
    "session, or give it an engine with transactions"
)

_ROLLBACK = re.compile(r"\s*(?:ROLLBACK|XA)\b", re.IGNORECASE)
_IN_TRANSACTION = re.compile(
    r"(?:[\s(]|/\*(?s:.*?)\*/)*+(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|VALUES|PRAGMA|SHOW|EXPLAIN)\b",
    re.IGNORECASE,
)
"""Statements that neither end a transaction nor set a savepoint in it."""


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

    def write(self, connection: Connection) -> None:
        """`write_jobs` for all of them. They stay here if that fails."""
        if not (envelopes := self.take()):
            return
        try:
            write_jobs(connection, envelopes)
        except BaseException:
            self.envelopes = envelopes
            raise
        self.announce({envelope.queue for envelope in envelopes})


def has_begun_on(connection: Connection, boundary: SessionTransaction) -> bool:
    """Whether the boundary has begun on the connection, so that what ends there ends the boundary."""
    return connection in boundary._connections  # noqa: SLF001 - has no public name in 2.0


def root_of(boundary: SessionTransaction) -> SessionTransaction:
    """The session's transaction that the boundary is, or is in."""
    while boundary.parent is not None:
        boundary = boundary.parent
    return boundary


def may_end_transaction(statement: str) -> bool:
    """Whether an application's own SQL may commit or roll back what was written before it: COMMIT, a savepoint, a
    procedure, and on MySQL and MariaDB most DDL. SQLAlchemy tells no event of such an end."""
    return _IN_TRANSACTION.match(statement) is None


def is_rollback(statement: str) -> bool:
    """Whether it may be the statement of a rollback that SQLAlchemy has told of."""
    return _ROLLBACK.match(statement) is not None


def write_jobs(connection: Connection, envelopes: Sequence[Envelope]) -> None:
    """Write ``envelopes`` in the transaction that ``connection`` is in.

    Raises:
        SessionUnusable: the connection commits every statement by itself.
        OutboxError, DBAPIError: as `run_in_session`.
    """
    if autocommits(connection):
        raise SessionUnusable(AUTOCOMMIT)
    run_in_session(connection, insert_statements(dialect_for(connection.dialect), envelopes))


def autocommits(bind: Engine | Connection) -> bool:
    """Whether every statement is committed by itself, as far as SQLAlchemy was told."""
    if isinstance(bind, Connection):
        # Asking publicly, `get_isolation_level`, would cost a round trip per flush.
        return bool(bind._is_autocommit_isolation())  # noqa: SLF001
    level = bind.get_execution_options().get("isolation_level", bind.dialect._on_connect_isolation_level)  # noqa: SLF001
    return bool(level == "AUTOCOMMIT")
