"""Workers, by their last heartbeats."""

from __future__ import annotations

from outbox.web.readings.source import Subject, once
from outbox.web.values import Answers, Worker


class WorkerReadings(Subject):
    @once
    async def all(self) -> Answers[list[Worker]]:
        found, errors = await self.stores.ask_all(lambda driver: driver.workers.all())
        return Answers([Worker(name, each) for name, statuses in found.items() for each in statuses], errors)
