"""What there is at one moment, and how fast it is being worked off."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from outbox import clock
from outbox.drivers.base import Driver, QueueCounts, WorkerStatus

_WINDOW = 30.0
"""Seconds over which throughput is an average: several heartbeats, because only those bring new counts."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``taken_at`` is the store's clock, ``read_at`` this process's."""

    queues: tuple[QueueCounts, ...]
    workers: tuple[WorkerStatus, ...]
    taken_at: datetime
    read_at: float

    @classmethod
    async def take(cls, driver: Driver, names: Sequence[str] = ()) -> Snapshot:
        """Of all queues, or of those named, empty ones included."""
        counts = {counts.queue: counts for counts in await driver.counts()}
        wanted = names or sorted(counts)
        queues = tuple(counts.get(name, QueueCounts(name, 0, 0, 0, 0, None, paused=False)) for name in wanted)
        return cls(queues, tuple(await driver.workers()), await driver.now(), clock.now())

    def longer_than(self, limit: int | None) -> tuple[str, ...]:
        """Queues in which more jobs than ``limit`` are ready: a backlog, where delayed jobs are none."""
        return tuple(queue.queue for queue in self.queues if limit is not None and queue.ready > limit)


class Throughput:
    """Attempts per second, from how the workers' counts grow between snapshots."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[bytes, int]]] = deque()

    def add(self, snapshot: Snapshot) -> None:
        self._seen.append((snapshot.read_at, {worker.id: worker.processed for worker in snapshot.workers}))
        while len(self._seen) > 2 and snapshot.read_at - self._seen[1][0] >= _WINDOW:
            self._seen.popleft()

    @property
    def per_second(self) -> float | None:
        """None as long as there is nothing to compare. A worker that came meanwhile counts from its start; what one did
        after its last heartbeat and before it went is not known."""
        if len(self._seen) < 2:
            return None
        (since, before), (until, after) = self._seen[0], self._seen[-1]
        done = sum(max(0, count - before.get(worker_id, 0)) for worker_id, count in after.items())
        return done / max(until - since, 1e-9)
