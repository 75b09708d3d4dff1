"""A store in memory that follows `outbox.drivers.base`, for tests that must hold or fail single calls. What a store
owes to a worker is tested on real ones, in tests/conformance and tests/integration."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from outbox import clock
from outbox.drivers.values import Claim, Lease, NextDue, QueueCounts, Settled, WorkerStatus
from outbox.envelope import serialize
from outbox.errors import BackendUnavailable, RequestRefused
from outbox.events import Event, Events
from outbox.ids import JobId, new_token
from outbox.job import Job
from outbox.options import JobOptions
from outbox.settlement import Fence, Outcome, Settlement


@dataclass
class Row:
    id: JobId
    queue: str
    name: str
    payload: str
    headers: str = "{}"
    attempts: int = 0
    available_at: float = 0.0
    token: bytes | None = None
    reserved_until: float = 0.0


@dataclass
class Store:
    """What several drivers see, from several threads."""

    rows: dict[JobId, Row] = field(default_factory=dict)
    failed: dict[JobId, Settlement] = field(default_factory=dict)
    workers: dict[bytes, WorkerStatus] = field(default_factory=dict)
    settled: list[Settlement] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    claim_limits: list[int] = field(default_factory=list)
    claims_were_brief: list[bool] = field(default_factory=list)
    unreachable: bool = False
    idle: int = 1
    looks_find: bool = True
    """Whether `next_due` knows of delayed jobs."""
    refuses_looks: bool = False
    poison: Callable[[Settlement], bool] = lambda settlement: False
    refuses_now: Callable[[Settlement], bool] = lambda settlement: False
    """Ends that are refused with an error that may pass."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, *jobs: Job, options: JobOptions | None = None) -> list[JobId]:
        with self.lock:
            for envelope in [serialize(job, options or JobOptions()) for job in jobs]:
                self.rows[envelope.id] = Row(
                    envelope.id,
                    envelope.queue,
                    envelope.name,
                    envelope.payload,
                    envelope.headers,
                    available_at=clock.now() + envelope.delay,
                )
            return list(self.rows)[-len(jobs) :]

    def steal(self, job_id: JobId) -> None:
        """Somebody else claims the job."""
        with self.lock:
            self.rows[job_id].token = new_token()
            self.rows[job_id].attempts += 1


class MemoryDriver:
    def __init__(self, store: Store, name: str = "memory") -> None:
        self.store = store
        self.name = name
        # Flags, not events of asyncio: a worker uses its drivers in a thread of its own.
        self.settling = True
        self.claiming = True
        self.check_error: Exception | None = None
        self.closed = False
        self.jobs = self.queues = self.workers = self.failed = self
        self.short_jobs = ShortJobs(self)
        self.blocking_claims = self.relay_source = self.relay_target = self.policies = self.session_url = None
        self.schedules = self.metrics = self.finished = self.operations = self.audit = None

    @property
    def description(self) -> str:
        return "memory://"

    async def check(self) -> None:
        self._reach("check")
        if self.check_error is not None:
            raise self.check_error

    async def close(self) -> None:
        self.closed = True

    async def claim(self, queues: Sequence[str], limit: int, lease: float, *, short_jobs: bool = False) -> list[Claim]:
        while not self.claiming:
            await asyncio.sleep(0.002)
        await asyncio.sleep(0)
        with self.store.lock:
            self._reach("claim")
            self.store.claim_limits.append(limit)
            self.store.claims_were_brief.append(short_jobs)
            now, token = clock.now(), new_token()
            rows = [
                row
                for queue in queues
                for row in self.store.rows.values()
                if row.queue == queue and row.available_at <= now and row.reserved_until <= now
            ][:limit]
            claims = []
            for row in rows:
                rescued = row.token is not None
                row.token, row.reserved_until = token, now + lease
                row.attempts += 1
                fence = Fence(row.id, token)
                claims.append(
                    Claim(fence, row.queue, row.name, 5, row.payload, row.headers, row.attempts, rescued, now + lease)
                )
            return claims

    async def extend(self, fences: Sequence[Fence], lease: float) -> Lease:
        with self.store.lock:
            self._reach("extend")
            now = clock.now()
            kept = frozenset(fence for fence in fences if self._holds(fence))
            for fence in kept:
                self.store.rows[fence.job_id].reserved_until = now + lease
            return Lease(now + lease, kept, frozenset(fences) - kept)

    async def missing(self, job_ids: Sequence[JobId]) -> frozenset[JobId]:
        with self.store.lock:
            self._reach("missing")
            return frozenset(job_ids) - self.store.rows.keys()

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        self.store.calls.append("settle begins")
        while not self.settling:
            await asyncio.sleep(0.002)
        with self.store.lock:
            self._reach("settle")
            for settlement in settlements:
                if self.store.poison(settlement):
                    raise ValueError("this row is not for me")
                if self.store.refuses_now(settlement):
                    raise RequestRefused("memory has an error that no list knows")
            self.store.batches.append(len(settlements))
            accepted = tuple(each for each in settlements if self._holds(each.fence))
            for settlement in accepted:
                self._end(settlement)
            return Settled(accepted, tuple(each for each in settlements if each not in accepted))

    async def fail_unreadable(self) -> int:
        return 0

    async def next_due(self, queues: Sequence[str]) -> NextDue:
        with self.store.lock:
            self._reach("look")
            if self.store.refuses_looks:
                raise RequestRefused("memory refuses a request: no replica answers")
            rows = [row for row in self.store.rows.values() if row.queue in queues and self.store.looks_find]
            moments = [max(row.available_at, row.reserved_until) for row in rows]
            return NextDue(max(0.0, min(moments) - clock.now()) if moments else None, self.store.idle)

    async def get(self, job_id: JobId) -> Row | None:
        """Whether there is such a job: nothing else is asked of it."""
        with self.store.lock:
            self._reach("get")
            return self.store.rows.get(job_id)

    async def counts(self) -> list[QueueCounts]:
        with self.store.lock:
            self._reach("counts")
            now = clock.now()
            rows = list(self.store.rows.values())
            return [
                QueueCounts(
                    queue,
                    ready=sum(r.queue == queue and r.available_at <= now and r.reserved_until <= now for r in rows),
                    delayed=sum(r.queue == queue and r.available_at > now for r in rows),
                    reserved=sum(r.queue == queue and r.reserved_until > now for r in rows),
                    failed=0,
                    oldest=None,
                    paused=False,
                )
                for queue in {row.queue for row in rows}
            ]

    async def heartbeat(self, worker: WorkerStatus) -> None:
        with self.store.lock:
            self._reach("beat")
            self.store.workers[worker.id] = worker

    async def deregister(self, worker_id: bytes) -> None:
        with self.store.lock:
            self._reach("retire")
            self.store.workers.pop(worker_id, None)

    async def forget(self, unseen_for: float) -> int:
        self._reach("forget_workers")
        return 0

    def _reach(self, call: str) -> None:
        self.store.calls.append(call)
        if self.store.unreachable:
            raise BackendUnavailable("memory is gone")

    def _holds(self, fence: Fence) -> bool:
        row = self.store.rows.get(fence.job_id)
        return row is not None and row.token == fence.token

    def _end(self, settlement: Settlement) -> None:
        self.store.settled.append(settlement)
        row = self.store.rows[settlement.fence.job_id]
        if settlement.outcome in (Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED):
            del self.store.rows[row.id]
            if settlement.outcome is Outcome.FAILED:
                self.store.failed[row.id] = settlement
            return
        row.token, row.reserved_until = row.token if settlement.outcome is Outcome.DEFERRED else None, 0.0
        row.available_at = clock.now() + settlement.delay
        if settlement.outcome in (Outcome.SNOOZED, Outcome.DEFERRED):
            row.attempts -= 1


class ShortJobs:
    def __init__(self, driver: MemoryDriver) -> None:
        self._driver = driver

    async def claim(self, queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
        return await self._driver.claim(queues, limit, lease, short_jobs=True)


class Recorder:
    """Listens, and lets a test wait for an event."""

    def __init__(self, events: Events | None = None) -> None:
        self.events = events or Events()
        self.seen: list[Event] = []
        self._changed: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self.events.listen(self._hear)

    def _hear(self, event: Event) -> None:
        self.seen.append(event)
        for loop, changed in self._changed:
            loop.call_soon_threadsafe(changed.set)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.seen if isinstance(event, kind)]

    async def wait(self, kind: type[Event], count: int = 1) -> list[Event]:
        changed = asyncio.Event()
        self._changed.append((asyncio.get_running_loop(), changed))
        async with asyncio.timeout(20):
            while len(self.of(kind)) < count:
                await changed.wait()
                changed.clear()
        return self.of(kind)


async def until(condition: Callable[[], bool]) -> None:
    """Until ``condition``; fails after 20 s."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def claim_of(job: Job, *, attempt: int = 1, headers: str = "{}", lease: float = 30, rescued: bool = False) -> Claim:
    envelope = serialize(job)
    return Claim(
        Fence(envelope.id, new_token()),
        envelope.queue,
        envelope.name,
        envelope.priority,
        envelope.payload,
        headers,
        attempt,
        rescued,
        clock.now() + lease,
    )
