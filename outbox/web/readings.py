"""What the pages show, read from the stores. Pages read nothing anywhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

from outbox.bulk import operations_of
from outbox.console.finding import Finding
from outbox.console.health_checks import run_checks
from outbox.console.running import running_page
from outbox.drivers.base import Driver
from outbox.drivers.bulk import BulkPreview, BulkRequest
from outbox.drivers.filters import FailedFilter, FailedGroup, JobFilter, JobPlace
from outbox.drivers.pauses import Pause, described, pause_of
from outbox.drivers.schedules import StoredSchedule
from outbox.drivers.values import (
    BatchStatus,
    FailedJob,
    JobState,
    LimitStatus,
    QueueCounts,
    WorkerStatus,
)
from outbox.errors import BackendUnavailable, ConfigurationError, JobNotFound, OutboxError
from outbox.ids import JobId
from outbox.schedules import declared_schedules
from outbox.web.alerts import alerts_of
from outbox.web.class_readings import ClassRow, class_of, row_of, rows_of
from outbox.web.stores import WebStores
from outbox.web.trends import Trend, read_trend
from outbox.web.values import (
    Answers,
    Blocked,
    FailedPage,
    LiveJob,
    LivePage,
    OperationsPage,
    Overview,
    Queue,
    Schedule,
    Worker,
    next_ticks,
    state_of,
)

T = TypeVar("T")
P = ParamSpec("P")

_HOUR = 3_600.0
_COUNTED = 100
"""Failed jobs of the last hour: fewer are counted exactly."""
_MEMBERS_SHOWN = 100


def _once(
    method: Callable[Concatenate[Readings, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Readings, P], Coroutine[Any, Any, T]]:
    """Where readings are shared, read what was not read yet."""

    async def read(self: Readings, /, *arguments: P.args, **named: P.kwargs) -> T:
        if self.shared is None:
            return await method(self, *arguments, **named)
        key = (method.__name__, arguments, tuple(named.items()))
        task = self.shared.get(key)
        if task is None:
            task = self.shared[key] = asyncio.ensure_future(method(self, *arguments, **named))
        return await asyncio.shield(task)

    return read


class Readings:
    """Reads from all connections of the dashboard, or from the one that a page names."""

    def __init__(self, stores: WebStores, shared: dict[Any, asyncio.Future[Any]] | None = None) -> None:
        """``shared`` keeps what was read, until `forget`. Without it everything is read anew."""
        self.stores = stores
        self.shared = shared

    def forget(self) -> None:
        if self.shared is not None:
            self.shared.clear()

    @property
    def connections(self) -> list[str]:
        return self.stores.names

    @_once
    async def overview(self) -> Overview:
        queues, errors = await self._queues()
        workers = (await self.workers()).found
        alive = [worker.status for worker in workers if not worker.is_silent]
        counts = [queue.counts for queue in queues]
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
            queues=tuple(queues),
            alerts=tuple(
                alerts_of(
                    self.connections,
                    queues,
                    workers,
                    errors,
                    (await self.blocked_keys()).found,
                    (await self.schedules()).found,
                    await self._pauses(),
                )
            ),
        )

    async def _failed_last_hour(self) -> int:
        """Few are counted now, many are those that workers have written down."""
        matching = FailedFilter(since=_HOUR)
        latest, _ = await self.stores.ask_all(lambda driver: driver.failed.page(limit=_COUNTED, matching=matching))
        trends = (await self.trends()).found
        told = {name: trend.last_hour.settled["failed"] for name, trend in trends.items()}
        return sum(
            len(jobs) if len(jobs) < _COUNTED else max(_COUNTED, told.get(name, 0)) for name, jobs in latest.items()
        )

    async def _pauses(self) -> dict[str, Sequence[Pause]]:
        return (await self.stores.ask_all(lambda driver: driver.pauses.all()))[0]

    @_once
    async def pauses(self, connection: str) -> Sequence[Pause]:
        return await self.stores.ask(connection, lambda driver: driver.pauses.all())

    @_once
    async def queues(self) -> Answers[list[Queue]]:
        return Answers(*await self._queues())

    async def _queues(self) -> tuple[list[Queue], dict[str, OutboxError]]:
        counts, errors = await self.stores.ask_all(lambda driver: driver.queues.counts())
        workers = (await self.workers()).found
        return [
            Queue(name, each, _drains(each.queue, name, workers)) for name, found in counts.items() for each in found
        ], errors

    @_once
    async def queue(self, connection: str, name: str) -> Queue:
        """A queue without jobs is one with no counts."""
        counts = await self.stores.ask(connection, lambda driver: driver.queues.counts())
        workers = (await self.workers()).found
        empty = QueueCounts(name, 0, 0, 0, 0, None, paused=False)
        found = next((each for each in counts if each.queue == name), empty)
        return Queue(connection, found, _drains(name, connection, workers))

    @_once
    async def workers(self) -> Answers[list[Worker]]:
        found, errors = await self.stores.ask_all(lambda driver: driver.workers.all())
        return Answers([Worker(name, each) for name, statuses in found.items() for each in statuses], errors)

    @_once
    async def now(self, connection: str) -> datetime:
        return await self.stores.ask(connection, lambda driver: driver.now())

    @_once
    async def jobs(self, connection: str, matching: JobFilter, limit: int, after: JobPlace | None) -> LivePage:
        async def read(driver: Driver) -> LivePage:
            page = await driver.jobs.page(matching, limit, after)
            reasons: dict[JobId, str] = {}
            pauses = await driver.pauses.all()
            for job in page.jobs:
                if (pause := pause_of(pauses, job)) is not None:
                    reasons[job.id] = described(pause)
                elif job.state is JobState.PARKED and driver.policies is not None:
                    told = [each for each in await driver.policies.explain(job) if each.startswith("parked")]
                    reasons.update({job.id: told[0]} if told else {})
            return LivePage(page, await driver.now(), reasons)

        return await self.stores.ask(connection, read)

    @_once
    async def running(self, connection: str, matching: JobFilter, limit: int) -> LivePage:
        """The jobs that workers named in their last heartbeats and still hold."""

        async def read(driver: Driver) -> LivePage:
            return LivePage(await running_page(driver, matching, limit), await driver.now(), {})

        return await self.stores.ask(connection, read)

    @_once
    async def job(self, job_id: JobId) -> LiveJob | FailedJob:
        """The live or failed job of this id, in the first connection that has it.

        Raises:
            JobNotFound: no connection that answers has it.
        """

        async def read(driver: Driver) -> LiveJob | FailedJob | None:
            live = await _live_job(driver, job_id)
            return live or await driver.failed.get(job_id)

        answers, _ = await self.stores.ask_all(read)
        found = next((each for each in answers.values() if each is not None), None)
        if found is None:
            raise JobNotFound(f"there is no job {job_id}, live or failed: it has ended, was removed, or never was")
        return found

    @_once
    async def trends(self) -> Answers[dict[str, Trend]]:
        """What workers of each connection have done in the last day, up to 20 seconds ago."""
        found: dict[str, Trend] = {}
        errors: dict[str, OutboxError] = {}
        for name in self.connections:
            try:
                found[name] = await self.stores.kept(name, read_trend)
            except (BackendUnavailable, ConfigurationError) as error:
                errors[name] = error
        return Answers(found, errors)

    async def trend(self, connection: str) -> Trend:
        """One that is empty where it cannot be read: charts are the least of a page."""
        answers = await self.trends()
        return answers.found.get(connection) or Trend(datetime.now(UTC), is_kept=False)

    async def classes(self) -> Answers[list[ClassRow]]:
        """
        Raises:
            OutboxError: no connection answers.
        """
        answers = await self.trends()
        if answers.errors and not answers.found:
            raise next(iter(answers.errors.values()))
        return Answers(rows_of(self.stores, answers.found), answers.errors)

    async def class_row(self, connection: str, name: str) -> ClassRow:
        """
        Raises:
            JobNotFound: no such class is known here, and none has run in the last day.
        """
        kind, trend = class_of(self.stores, name), await self.trend(connection)
        if kind is None and name not in trend.names:
            raise JobNotFound(f"there is no job class {name[:100]!r} here, and none has run in the last day")
        return row_of(connection, name, kind, trend)

    @_once
    async def failed_groups(
        self, matching: FailedFilter, queue: str | None, limit: int
    ) -> Answers[list[tuple[FailedGroup, list[int]]]]:
        """The largest groups of all connections first, each with its failures by the hour."""

        async def read(driver: Driver) -> list[tuple[FailedGroup, list[int]]]:
            groups = await driver.failed.groups(queue, limit, matching=matching)
            return list(zip(groups, await driver.failed.hours(groups), strict=True))

        found, errors = await self.stores.ask_all(read)
        groups = [group for each in found.values() for group in each]
        return Answers(sorted(groups, key=lambda each: -each[0].count)[:limit], errors)

    @_once
    async def failed_group(
        self, connection: str, matching: FailedFilter, queue: str | None
    ) -> tuple[FailedGroup | None, list[int]]:
        """The group of ``matching`` with its failures by the hour; None where no group is meant, or it is gone."""
        if matching.group is None:
            return None, []

        async def read(driver: Driver) -> tuple[FailedGroup | None, list[int]]:
            groups = await driver.failed.groups(queue, 1, matching=matching)
            hours = await driver.failed.hours(groups)
            return (groups[0], hours[0]) if groups else (None, [])

        return await self.stores.ask(connection, read)

    @_once
    async def failed_jobs(
        self, connection: str, matching: FailedFilter, queue: str | None, limit: int, before: JobId | None
    ) -> FailedPage:
        jobs = await self.stores.ask(
            connection, lambda driver: driver.failed.page(queue, limit + 1, before, matching=matching)
        )
        shown = tuple(jobs[:limit])
        return FailedPage(shown, shown[-1].id if len(jobs) > limit else None)

    @_once
    async def latest_failures(self) -> tuple[JobId, ...]:
        """The latest failed job of each connection."""
        found, _ = await self.stores.ask_all(lambda driver: driver.failed.page(limit=1))
        return tuple(job.id for jobs in found.values() for job in jobs)

    @_once
    async def schedules(self) -> Answers[list[Schedule]]:
        known = self._declared()

        async def read(driver: Driver) -> list[Schedule]:
            if driver.schedules is None:
                return []
            stored = await driver.schedules.list()
            return [Schedule(driver.name, each, state_of(each, known)) for each in stored]

        found, errors = await self.stores.ask_all(read)
        return Answers([schedule for each in found.values() for schedule in each], errors)

    @_once
    async def schedule(self, connection: str, name: str) -> Schedule:
        """
        Raises:
            JobNotFound: there is none of this name.
        """
        known = self._declared()

        async def read(driver: Driver) -> StoredSchedule | None:
            return None if driver.schedules is None else await driver.schedules.get(name)

        stored = await self.stores.ask(connection, read)
        if stored is None:
            raise JobNotFound(f"there is no schedule {name!r} on the connection {connection}")
        return Schedule(connection, stored, state_of(stored, known), next_ticks(stored))

    def _declared(self) -> frozenset[str] | None:
        """Names of the schedules that this process declares; None where its declarations cannot be read."""
        try:
            with self.stores.as_client():
                return frozenset(each.name for each in declared_schedules(self.stores.settings))
        except OutboxError:
            return None

    @_once
    async def blocked_keys(self) -> Answers[list[Blocked]]:
        async def read(driver: Driver) -> dict[JobId, str]:
            return {} if driver.policies is None else await driver.policies.blocked_keys()

        found, errors = await self.stores.ask_all(read)
        return Answers(
            [Blocked(name, key, job_id) for name, each in found.items() for job_id, key in each.items()], errors
        )

    @_once
    async def limits(self) -> Answers[list[tuple[str, LimitStatus]]]:
        async def read(driver: Driver) -> Sequence[LimitStatus]:
            return [] if driver.limits is None else await driver.limits.list()

        found, errors = await self.stores.ask_all(read)
        return Answers([(name, limit) for name, each in found.items() for limit in each], errors)

    @_once
    async def batches(self, limit: int) -> Answers[list[tuple[str, BatchStatus]]]:
        """The newest first."""

        async def read(driver: Driver) -> list[BatchStatus]:
            return [] if driver.policies is None else await driver.policies.batches(limit)

        found, errors = await self.stores.ask_all(read)
        pairs = [(name, batch) for name, each in found.items() for batch in each]
        return Answers(sorted(pairs, key=lambda pair: pair[1].created_at, reverse=True)[:limit], errors)

    @_once
    async def batch(self, connection: str, batch_id: JobId) -> tuple[BatchStatus, list[JobId], list[JobId]]:
        """The batch with the first 100 members that have not ended, and the first 100 that have failed.

        Raises:
            JobNotFound: it is not known.
        """

        async def read(driver: Driver) -> tuple[BatchStatus, list[JobId], list[JobId]] | None:
            if driver.policies is None or (status := await driver.policies.batch(batch_id)) is None:
                return None
            waiting = await driver.policies.batch_members(batch_id)
            failed = await driver.policies.batch_members(batch_id, failed=True)
            return status, waiting[:_MEMBERS_SHOWN], failed[:_MEMBERS_SHOWN]

        found = await self.stores.ask(connection, read)
        if found is None:
            raise JobNotFound(f"there is no batch {batch_id}: batches are forgotten a week after their end")
        return found

    @_once
    async def operations(
        self, connection: str, limit: int, before: JobId | None = None, audit_before: JobId | None = None
    ) -> OperationsPage:
        async def read(driver: Driver) -> OperationsPage:
            now = await driver.now()
            if driver.operations is None or driver.audit is None:
                return OperationsPage(now, is_kept=False)
            made = await driver.operations.latest(limit + 1, before)
            entries = await driver.audit.latest(limit + 1, audit_before)
            return OperationsPage(
                now,
                True,
                tuple(made[:limit]),
                made[limit - 1].id if len(made) > limit else None,
                tuple(entries[:limit]),
                entries[limit - 1].id if len(entries) > limit else None,
            )

        return await self.stores.ask(connection, read)

    @_once
    async def preview(self, connection: str, request: BulkRequest) -> BulkPreview:
        return await self.stores.ask(connection, lambda driver: operations_of(driver).preview(request))

    @_once
    async def health(self) -> list[Finding]:
        """What `outbox check` finds. It opens connections of its own."""
        return [finding async for finding in run_checks(None, self.stores.settings)]


def _drains(queue: str, connection: str, workers: Sequence[Worker]) -> tuple[WorkerStatus, ...]:
    return tuple(
        worker.status
        for worker in workers
        if worker.connection == connection and not worker.is_silent and queue in worker.status.queues.split(",")
    )


async def _live_job(driver: Driver, job_id: JobId) -> LiveJob | None:
    job = await driver.jobs.get(job_id)
    if job is None:
        return None
    told = await driver.policies.explain(job) if driver.policies is not None else []
    pause = pause_of(await driver.pauses.all(), job)
    if pause is not None:
        told = [*told, described(pause)]
    runs = [(worker, run) for worker in await driver.workers.all() for run in worker.jobs if run.id == job_id]
    worker, run = runs[0] if runs else (None, None)
    return LiveJob(driver.name, job, await driver.now(), worker, run, tuple(told))
