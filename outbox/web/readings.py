"""What the pages show, read from the stores. Pages read nothing anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from outbox.console.finding import Finding, Level
from outbox.console.health_checks import check_queues, check_workers, run_checks
from outbox.drivers.base import Driver
from outbox.drivers.filters import FailedFilter, FailedGroup, JobFilter, JobPage, JobPlace
from outbox.drivers.schedules import StoredSchedule
from outbox.drivers.values import (
    SILENT_SECONDS,
    BatchStatus,
    FailedJob,
    JobState,
    LimitStatus,
    QueueCounts,
    RunningJob,
    StoredJob,
    WorkerStatus,
)
from outbox.errors import JobNotFound, OutboxError
from outbox.ids import JobId
from outbox.schedules import declared_schedules
from outbox.web.stores import WebStores

T = TypeVar("T")

_MISSED_AFTER = timedelta(seconds=60)
"""A tick that is later than this has been missed: no worker looks for schedules."""
_HOUR = 3_600.0
_MOST_GROUPS = 1_000
_MOST_ALERTS_OF_A_KIND = 10
_MEMBERS_SHOWN = 100
_SHOWN_TICKS = 5


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of a connection, and the workers that drain it."""

    connection: str
    counts: QueueCounts
    workers: tuple[WorkerStatus, ...] = ()

    @property
    def running(self) -> int:
        return sum(job.queue == self.counts.queue for worker in self.workers for job in worker.jobs)


@dataclass(frozen=True, slots=True)
class Worker:
    connection: str
    status: WorkerStatus

    @property
    def is_silent(self) -> bool:
        return self.status.seen > SILENT_SECONDS


@dataclass(frozen=True, slots=True)
class Alert:
    """``place`` is the page that tells more, as a path below the dashboard."""

    connection: str
    message: str
    advice: str
    place: str
    serious: bool = False


@dataclass(frozen=True, slots=True)
class Overview:
    ready: int
    running: int
    delayed: int
    parked: int
    failed: int
    failed_last_hour: int
    oldest: float | None
    workers: int
    slots: int
    queues: tuple[Queue, ...]
    alerts: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A live job with what is known of it. ``run`` is None while no worker has reported it."""

    connection: str
    job: StoredJob
    now: datetime
    worker: WorkerStatus | None
    run: RunningJob | None
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LivePage:
    page: JobPage
    now: datetime
    reasons: dict[JobId, str]
    """Why parked jobs are parked."""


@dataclass(frozen=True, slots=True)
class FailedPage:
    jobs: tuple[FailedJob, ...]
    next: JobId | None


@dataclass(frozen=True, slots=True)
class Schedule:
    connection: str
    stored: StoredSchedule
    state: str
    """``active``, ``paused``, ``vanished`` (no code here declares it any more) or ``over``."""
    ticks: tuple[datetime, ...] = ()

    @property
    def is_missed(self) -> bool:
        due = self.stored.next_at
        return self.state == "active" and due is not None and self.stored.now - due > _MISSED_AFTER


@dataclass(frozen=True, slots=True)
class Blocked:
    connection: str
    key: str
    job_id: JobId


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What the connections answered, with the errors of those that did not."""

    found: T
    errors: dict[str, OutboxError]


class Readings:
    """Reads from all connections of the dashboard, or from the one that a page names."""

    def __init__(self, stores: WebStores) -> None:
        self.stores = stores

    @property
    def connections(self) -> list[str]:
        return self.stores.names

    async def overview(self) -> Overview:
        queues, errors = await self._queues()
        workers = (await self.workers()).found
        groups, _ = await self.stores.ask_all(
            lambda driver: driver.failed.groups(limit=_MOST_GROUPS, matching=FailedFilter(since=_HOUR))
        )
        alive = [worker.status for worker in workers if not worker.is_silent]
        counts = [queue.counts for queue in queues]
        waits = [each.oldest for each in counts if each.oldest is not None]
        return Overview(
            ready=sum(each.ready for each in counts),
            running=sum(each.reserved for each in counts),
            delayed=sum(each.delayed + each.retrying for each in counts),
            parked=sum(each.parked for each in counts),
            failed=sum(each.failed for each in counts),
            failed_last_hour=sum(group.count for found in groups.values() for group in found),
            oldest=max(waits, default=None),
            workers=len(alive),
            slots=sum(each.concurrency for each in alive),
            queues=tuple(queues),
            alerts=tuple(await self._alerts(queues, workers, errors)),
        )

    async def _alerts(
        self, queues: Sequence[Queue], workers: Sequence[Worker], errors: dict[str, OutboxError]
    ) -> list[Alert]:
        alerts = [_unreachable(name, error) for name, error in errors.items()]
        for name in self.connections:
            counts = [queue.counts for queue in queues if queue.connection == name]
            statuses = [worker.status for worker in workers if worker.connection == name]
            alerts += [_alert(name, each, "/queues") for each in check_queues(name, counts, statuses)]
            alerts += [_alert(name, each, "/workers") for each in check_workers(name, statuses)]
        blocked = (await self.blocked_keys()).found
        alerts += [
            Alert(each.connection, f"the key {each.key} is blocked by a failed job", "retry it, or skip it", "/keys")
            for each in blocked[:_MOST_ALERTS_OF_A_KIND]
        ]
        schedules = (await self.schedules()).found
        alerts += [
            Alert(
                each.connection,
                f"the schedule {each.stored.name} has missed its tick",
                "start a worker that drains a queue of this connection",
                "/schedules",
            )
            for each in schedules
            if each.is_missed
        ]
        return [alert for alert in alerts if alert.advice or alert.serious]

    async def queues(self) -> Answers[list[Queue]]:
        return Answers(*await self._queues())

    async def _queues(self) -> tuple[list[Queue], dict[str, OutboxError]]:
        counts, errors = await self.stores.ask_all(lambda driver: driver.queues.counts())
        workers = (await self.workers()).found
        return [
            Queue(name, each, _drains(each.queue, name, workers)) for name, found in counts.items() for each in found
        ], errors

    async def queue(self, connection: str, name: str) -> Queue:
        """A queue without jobs is one with no counts."""
        counts = await self.stores.ask(connection, lambda driver: driver.queues.counts())
        workers = (await self.workers()).found
        empty = QueueCounts(name, 0, 0, 0, 0, None, paused=False)
        found = next((each for each in counts if each.queue == name), empty)
        return Queue(connection, found, _drains(name, connection, workers))

    async def workers(self) -> Answers[list[Worker]]:
        found, errors = await self.stores.ask_all(lambda driver: driver.workers.all())
        return Answers([Worker(name, each) for name, statuses in found.items() for each in statuses], errors)

    async def now(self, connection: str) -> datetime:
        return await self.stores.ask(connection, lambda driver: driver.now())

    async def jobs(self, connection: str, matching: JobFilter, limit: int, after: JobPlace | None) -> LivePage:
        async def read(driver: Driver) -> LivePage:
            page = await driver.jobs.page(matching, limit, after)
            reasons: dict[JobId, str] = {}
            for job in page.jobs:
                if job.state is JobState.PARKED and driver.policies is not None:
                    told = [each for each in await driver.policies.explain(job) if each.startswith("parked")]
                    reasons.update({job.id: told[0]} if told else {})
            return LivePage(page, await driver.now(), reasons)

        return await self.stores.ask(connection, read)

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

    async def failed_groups(self, matching: FailedFilter, queue: str | None, limit: int) -> Answers[list[FailedGroup]]:
        """The largest groups of all connections first."""
        found, errors = await self.stores.ask_all(lambda driver: driver.failed.groups(queue, limit, matching=matching))
        groups = [group for each in found.values() for group in each]
        return Answers(sorted(groups, key=lambda group: -group.count)[:limit], errors)

    async def failed_jobs(
        self, connection: str, matching: FailedFilter, queue: str | None, limit: int, before: JobId | None
    ) -> FailedPage:
        jobs = await self.stores.ask(
            connection, lambda driver: driver.failed.page(queue, limit + 1, before, matching=matching)
        )
        shown = tuple(jobs[:limit])
        return FailedPage(shown, shown[-1].id if len(jobs) > limit else None)

    async def schedules(self) -> Answers[list[Schedule]]:
        known = self._declared()

        async def read(driver: Driver) -> list[Schedule]:
            if driver.schedules is None:
                return []
            stored = await driver.schedules.list()
            return [Schedule(driver.name, each, _state(each, known)) for each in stored]

        found, errors = await self.stores.ask_all(read)
        return Answers([schedule for each in found.values() for schedule in each], errors)

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
        return Schedule(connection, stored, _state(stored, known), next_ticks(stored))

    def _declared(self) -> frozenset[str] | None:
        """Names of the schedules that this process declares; None where its declarations cannot be read."""
        try:
            with self.stores.as_client():
                return frozenset(each.name for each in declared_schedules(self.stores.settings))
        except OutboxError:
            return None

    async def blocked_keys(self) -> Answers[list[Blocked]]:
        async def read(driver: Driver) -> dict[JobId, str]:
            return {} if driver.policies is None else await driver.policies.blocked_keys()

        found, errors = await self.stores.ask_all(read)
        return Answers(
            [Blocked(name, key, job_id) for name, each in found.items() for job_id, key in each.items()], errors
        )

    async def limits(self) -> Answers[list[tuple[str, LimitStatus]]]:
        async def read(driver: Driver) -> Sequence[LimitStatus]:
            return [] if driver.limits is None else await driver.limits.list()

        found, errors = await self.stores.ask_all(read)
        return Answers([(name, limit) for name, each in found.items() for limit in each], errors)

    async def batches(self, limit: int) -> Answers[list[tuple[str, BatchStatus]]]:
        """The newest first."""

        async def read(driver: Driver) -> list[BatchStatus]:
            return [] if driver.policies is None else await driver.policies.batches(limit)

        found, errors = await self.stores.ask_all(read)
        pairs = [(name, batch) for name, each in found.items() for batch in each]
        return Answers(sorted(pairs, key=lambda pair: pair[1].created_at, reverse=True)[:limit], errors)

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

    async def health(self) -> list[Finding]:
        """What `outbox check` finds. It opens connections of its own."""
        return [finding async for finding in run_checks(None, self.stores.settings)]


def _drains(queue: str, connection: str, workers: Sequence[Worker]) -> tuple[WorkerStatus, ...]:
    return tuple(
        worker.status
        for worker in workers
        if worker.connection == connection and not worker.is_silent and queue in worker.status.queues.split(",")
    )


def _unreachable(name: str, error: OutboxError) -> Alert:
    return Alert(name, str(error), "see the health page", "/health", serious=True)


def _alert(connection: str, finding: Finding, place: str) -> Alert:
    if finding.level not in (Level.WARNING, Level.PROBLEM):
        return Alert(connection, finding.message, "", place)
    return Alert(connection, finding.message, finding.advice, place, finding.level is Level.PROBLEM)


async def _live_job(driver: Driver, job_id: JobId) -> LiveJob | None:
    job = await driver.jobs.get(job_id)
    if job is None:
        return None
    told = await driver.policies.explain(job) if driver.policies is not None else []
    runs = [(worker, run) for worker in await driver.workers.all() for run in worker.jobs if run.id == job_id]
    worker, run = runs[0] if runs else (None, None)
    return LiveJob(driver.name, job, await driver.now(), worker, run, tuple(told))


def _state(schedule: StoredSchedule, known: frozenset[str] | None) -> str:
    if schedule.paused_at is not None:
        return "paused"
    if schedule.declaration is not None and known is not None and schedule.name not in known:
        return "vanished"
    return "active" if schedule.next_at is not None else "over"


def next_ticks(schedule: StoredSchedule) -> tuple[datetime, ...]:
    """Up to five ticks from the next one on."""
    ticks: list[datetime] = []
    tick = schedule.next_at
    while tick is not None and len(ticks) < _SHOWN_TICKS:
        ticks.append(tick)
        tick = schedule.definition.timetable.after(tick)
    return tuple(ticks)
