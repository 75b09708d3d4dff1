"""When the next job is due, and how many workers are idle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outbox.drivers.database.claim_scan.cursors import ClaimCursors
from outbox.drivers.database.claim_scan.probes import count_workers, move_to_heads, probe
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.tables import EVERY_QUEUE
from outbox.drivers.values import NextDue

_NEVER = 100 * 365 * 86_400.0
"""Seconds. What is due later than any delay reaches is parked."""


def _pause_of(seconds: Any) -> float:
    """How long a pause still lasts."""
    return _NEVER if seconds is None else float(seconds)


def _after_pause(queue: str, seconds: Any, paused: Mapping[str, float]) -> float:
    """When a job may be claimed that is due in ``seconds``."""
    return max(float(seconds), paused.get(queue, 0.0), paused.get(EVERY_QUEUE, 0.0)) if paused else float(seconds)


async def next_due(database: Database, cursors: ClaimCursors | None, queues: Sequence[str]) -> NextDue:
    """Probe every cursor. If probes are expensive, probe only those whose cooldown has expired, and say when the others
    follow."""
    dialect = database.dialect

    async def read(connection: SqlConnection) -> list[Any]:
        if cursors is None:
            return (await probe(dialect, connection, queues, ()))[0]
        priority_cursors = cursors.affordable(queues) if cursors.scan_cost.expensive else cursors.cursors_of(*queues)
        rows, seconds = await probe(dialect, connection, queues, priority_cursors)
        if cursors.needs_worker_count_after(len(priority_cursors), seconds):
            await count_workers(dialect, connection, cursors, queues)
        move_to_heads(priority_cursors, rows)
        cursors.probed(priority_cursors, seconds)
        return rows

    rows = await database.read_plain(read)
    paused = {queue: _pause_of(seconds) for queue, *_, seconds, workers in rows if workers is None}
    due = [
        moment
        for queue, *_, seconds, workers in rows
        if workers is not None and seconds is not None and (moment := _after_pause(queue, seconds, paused)) < _NEVER
    ]
    if cursors is not None and (pause := cursors.next_probe(queues)) is not None:
        due.append(pause)
    idle = sum(workers for *_, workers in rows if workers is not None)
    return NextDue(max(0.0, min(due)) if due else None, max(1, int(idle)))
