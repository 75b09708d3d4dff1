"""The readings of all subjects."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from outbox.console.finding import Finding
from outbox.console.health_checks import run_checks
from outbox.web.readings.batches import BatchReadings
from outbox.web.readings.classes import ClassReadings
from outbox.web.readings.facts import FactReadings
from outbox.web.readings.failed_jobs import FailedJobReadings
from outbox.web.readings.jobs import JobReadings
from outbox.web.readings.keys import KeyReadings
from outbox.web.readings.operations import OperationReadings
from outbox.web.readings.overview import OverviewReadings
from outbox.web.readings.pauses import PauseReadings
from outbox.web.readings.queues import QueueReadings
from outbox.web.readings.schedules import ScheduleReadings
from outbox.web.readings.source import Source, Subject, once
from outbox.web.readings.trends import TrendReadings
from outbox.web.readings.workers import WorkerReadings
from outbox.web.stores import WebStores


class Readings(Subject):
    """Reads from the connections of the dashboard, by subject."""

    def __init__(self, stores: WebStores, shared: dict[Any, asyncio.Future[Any]] | None = None) -> None:
        """``shared`` keeps what was read, until `forget`. Without it everything is read anew."""
        source = Source(stores, shared)
        super().__init__(source)
        self.jobs = JobReadings(source)
        self.failed = FailedJobReadings(source)
        self.workers = WorkerReadings(source)
        self.queues = QueueReadings(source, self.workers)
        self.pauses = PauseReadings(source)
        self.schedules = ScheduleReadings(source)
        self.keys = KeyReadings(source)
        self.batches = BatchReadings(source)
        self.operations = OperationReadings(source)
        self.trends = TrendReadings(source)
        self.classes = ClassReadings(source, self.trends)
        self.facts = FactReadings(source)
        self.overview = OverviewReadings(
            source, self.queues, self.workers, self.pauses, self.schedules, self.keys, self.trends, self.facts
        )

    def forget(self) -> None:
        if self.source.shared is not None:
            self.source.shared.clear()

    @property
    def connections(self) -> list[str]:
        return self.stores.names

    @once
    async def now(self, connection: str) -> datetime:
        return await self.stores.ask(connection, lambda driver: driver.now())

    async def health(self) -> list[Finding]:
        """What `outbox check` finds, of up to 20 seconds ago. It opens connections of its own."""
        return await self.stores.kept_answer("health", self._health)

    async def _health(self) -> list[Finding]:
        return [finding async for finding in run_checks(None, self.stores.settings, for_page=True)]
