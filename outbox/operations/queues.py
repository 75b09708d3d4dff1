"""Queues, and the workers that drain them."""

from __future__ import annotations

from outbox.drivers.audit import acting
from outbox.drivers.values import QueueCounts, WorkerStatus
from outbox.operations.arguments import driver_of
from outbox.options import check_queue


async def counts(*, connection: str | None = None) -> list[QueueCounts]:
    """One row per queue that has live or failed jobs, or is paused; by name.

    At most 12,000 jobs are looked at, so that it costs the same however many there are. Numbers below 10,000 are exact.
    Greater ones, or some of many queues with thousands of jobs, are of the last count that a worker has made. ``age``
    says how many seconds ago that was. Before there is one, ``at_least`` is true. For a connection on Redis all numbers
    are exact.
    """
    return await driver_of(connection).queues.counts()


async def workers(*, connection: str | None = None) -> list[WorkerStatus]:
    """The worker processes, the longest running first, each with up to 200 of the jobs that it runs."""
    return await driver_of(connection).workers.all()


async def clear(queue: str, *, by: str | None = None, connection: str | None = None) -> int:
    """Remove every job of a queue that no worker holds; return how many.

    Raises:
        InvalidOption: no queue can have this name.
    """
    with acting(by, "clear", {"queue": queue}):
        return await driver_of(connection).queues.clear(check_queue(queue))
