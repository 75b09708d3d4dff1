"""Queues and workers at one moment, and the throughput between snapshots."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from outbox import clock
from outbox.console.connections import Stores
from outbox.drivers.pauses import Pause
from outbox.drivers.values import QueueCounts, WorkerStatus

_WINDOW = 30.0
"""Seconds that throughput is averaged over. They span several heartbeats, which bring the counts."""


async def all_pauses(stores: Stores) -> list[tuple[str, Pause]]:
    """Pairs of a connection's name and a pause."""
    answers = await stores.ask(lambda driver: driver.pauses.all())
    return [(name, pause) for name, found in answers.items() for pause in found]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``taken_at`` is by the store's clock, ``read_at`` by this process's."""

    queues: tuple[tuple[str, QueueCounts], ...]
    """Pairs of a connection's name and a queue."""
    workers: tuple[tuple[str, WorkerStatus], ...]
    taken_at: datetime
    read_at: float
    pauses: tuple[tuple[str, Pause], ...] = ()
    """Pairs of a connection's name and a pause."""
    errors: tuple[str, ...] = ()
    """Errors of connections that could not be read."""

    @classmethod
    async def take(cls, stores: Stores, names: Sequence[str] = ()) -> Snapshot:
        """Read all queues, or those of ``names``. A queue without jobs is included as empty.

        Raises:
            BackendUnavailable: no connection answers.
        """
        stores.forget_errors()
        counts = await stores.ask(lambda driver: driver.queues.counts())
        everything = [(name, queue) for name, found in counts.items() for queue in found]
        queues = [each for each in everything if each[1].queue in names or not names]
        there = {queue.queue for _, queue in queues}
        empty = [QueueCounts(name, 0, 0, 0, 0, None, paused=False) for name in names if name not in there]
        queues += [(next(iter(counts)), queue) for queue in empty]
        order = {name: position for position, name in enumerate(names)}
        queues.sort(key=lambda each: order.get(each[1].queue, 0))
        workers = [
            (name, worker)
            for name, found in (await stores.ask(lambda driver: driver.workers.all())).items()
            for worker in found
        ]
        pauses = tuple(await all_pauses(stores))
        now = next(iter((await stores.ask(lambda driver: driver.now())).values()))
        errors = tuple(f"{name}: {error}" for name, error in stores.errors.items())
        return cls(tuple(queues), tuple(workers), now, clock.now(), pauses, errors)

    def longer_than(self, limit: int | None) -> tuple[tuple[str, str], ...]:
        """Connections and queues with more than ``limit`` ready jobs."""
        return tuple((name, queue.queue) for name, queue in self.queues if limit is not None and queue.ready > limit)


class Throughput:
    """Attempts per second, by the growth of the workers' counts between snapshots."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[bytes, int]]] = deque()

    def add(self, snapshot: Snapshot) -> None:
        self._seen.append((snapshot.read_at, {worker.id: worker.processed for _, worker in snapshot.workers}))
        while len(self._seen) > 2 and snapshot.read_at - self._seen[1][0] >= _WINDOW:
            self._seen.popleft()

    @property
    def per_second(self) -> float | None:
        """None before the second snapshot.

        A new worker counts from its start. Attempts between the last heartbeat of a worker and its end are unknown.
        """
        if len(self._seen) < 2:
            return None
        (since, before), (until, after) = self._seen[0], self._seen[-1]
        done = sum(max(0, count - before.get(worker_id, 0)) for worker_id, count in after.items())
        return done / max(until - since, 1e-9)
