"""The numbers of all connections together, and what needs attention."""

from __future__ import annotations

from outbox.drivers.filters import FailedFilter
from outbox.errors import OutboxError
from outbox.web.alerts import alerts_of
from outbox.web.readings.facts import FactReadings
from outbox.web.readings.keys import KeyReadings
from outbox.web.readings.pauses import PauseReadings
from outbox.web.readings.queues import QueueReadings
from outbox.web.readings.schedules import ScheduleReadings
from outbox.web.readings.source import Source, Subject, once
from outbox.web.readings.trends import TrendReadings
from outbox.web.readings.workers import WorkerReadings
from outbox.web.values import Alert, Overview, Queue, Worker

_HOUR = 3_600.0
_COUNTED = 100
"""Failed jobs of the last hour: fewer are counted exactly."""


class OverviewReadings(Subject):
    def __init__(
        self,
        source: Source,
        queues: QueueReadings,
        workers: WorkerReadings,
        pauses: PauseReadings,
        schedules: ScheduleReadings,
        keys: KeyReadings,
        trends: TrendReadings,
        facts: FactReadings,
    ) -> None:
        super().__init__(source)
        self._queues = queues
        self._workers = workers
        self._pauses = pauses
        self._schedules = schedules
        self._keys = keys
        self._trends = trends
        self._facts = facts

    @once
    async def read(self) -> Overview:
        queues = await self._queues.all()
        workers = (await self._workers.all()).found
        alive = [worker.status for worker in workers if not worker.is_silent]
        counts = [queue.counts for queue in queues.found]
        waits = [each.oldest for each in counts if each.oldest is not None]
        return Overview(
            ready=sum(each.ready for each in counts),
            running=sum(each.reserved for each in counts),
            delayed=sum(each.delayed + each.retrying for each in counts),
            parked=sum(each.parked for each in counts),
            failed=sum(each.failed for each in counts),
            failed_last_hour=await self._failed_last_hour(),
            oldest=max(waits, default=None),
            at_least=any(each.at_least for each in counts),
            workers=len(alive),
            slots=sum(each.concurrency for each in alive),
            queues=tuple(queues.found),
            alerts=tuple(await self._alerts(queues.found, workers, queues.errors)),
        )

    async def _failed_last_hour(self) -> int:
        """Few are counted now, many are those that workers have written down."""
        matching = FailedFilter(since=_HOUR)
        latest, _ = await self.stores.ask_all(lambda driver: driver.failed.page(limit=_COUNTED, matching=matching))
        trends = (await self._trends.all()).found
        told = {name: trend.last_hour.settled["failed"] for name, trend in trends.items()}
        return sum(
            len(jobs) if len(jobs) < _COUNTED else max(_COUNTED, told.get(name, 0)) for name, jobs in latest.items()
        )

    async def _alerts(self, queues: list[Queue], workers: list[Worker], errors: dict[str, OutboxError]) -> list[Alert]:
        return alerts_of(
            self.stores.names,
            queues,
            workers,
            errors,
            (await self._keys.blocked()).found,
            (await self._schedules.all()).found,
            await self._pauses.by_connection(),
            (await self._facts.all()).found,
        )
