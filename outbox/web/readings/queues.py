"""Queues, and the workers that drain them."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.values import QueueCounts, WorkerStatus
from outbox.web.readings.source import Source, Subject, once
from outbox.web.readings.workers import WorkerReadings
from outbox.web.values import Answers, Queue, Worker


class QueueReadings(Subject):
    def __init__(self, source: Source, workers: WorkerReadings) -> None:
        super().__init__(source)
        self._workers = workers

    @once
    async def all(self) -> Answers[list[Queue]]:
        counts, errors = await self.stores.each(self._counts)
        workers = (await self._workers.all()).found
        return Answers(
            [Queue(name, each, _drains(each.queue, name, workers)) for name, found in counts.items() for each in found],
            errors,
        )

    async def _counts(self, connection: str) -> list[QueueCounts]:
        return await self.stores.recent(connection, "counts", lambda driver: driver.queues.counts(), _is_estimated)

    @once
    async def get(self, connection: str, name: str) -> Queue:
        """A queue without jobs is one with no counts."""
        counts = await self._counts(connection)
        workers = (await self._workers.all()).found
        empty = QueueCounts(name, 0, 0, 0, 0, None, paused=False)
        found = next((each for each in counts if each.queue == name), empty)
        return Queue(connection, found, _drains(name, connection, workers))


def _is_estimated(counts: Sequence[QueueCounts]) -> bool:
    """Whether there are too many jobs to count them all."""
    return any(each.at_least or each.age is not None for each in counts)


def _drains(queue: str, connection: str, workers: Sequence[Worker]) -> tuple[WorkerStatus, ...]:
    return tuple(
        worker.status
        for worker in workers
        if worker.connection == connection and not worker.is_silent and queue in worker.status.queues.split(",")
    )
