"""Which of the jobs that a claim has found may run."""

from __future__ import annotations

from typing import Any, NamedTuple

from outbox.drivers.database.claim_scan.base import Candidates
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.jobs.unreadable import Unreadable, flaw


class Admitted(NamedTuple):
    run: list[tuple[str, Any]]
    """Queues and rows, in the order in which they were found."""
    parked: list[Unreadable]
    """Rows that no worker can read: they become failed jobs."""


async def admit(tx: SqlConnection, dialect: Dialect, found: Candidates) -> Admitted:  # noqa: ARG001
    """Runs in the claim's transaction, with all candidates locked. Jobs without a policy cost no statement."""
    admitted = Admitted([], [])
    for queue, rows, _ in found.queues:
        for row in rows:
            reason = flaw(row)
            if reason is None:
                admitted.run.append((queue, row))
            else:
                admitted.parked.append(Unreadable(dialect.key_of(row), row.id, reason))
    return admitted
