"""One store, as the services of a worker use it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from outbox import clock
from outbox.drivers.base import Driver
from outbox.drivers.values import BlockingClaimRequest, Claim, NextDue, PolicyNews, Settled
from outbox.errors import BackendUnavailable, ConfigurationError
from outbox.ids import JobId
from outbox.middleware.deadlines import times_in
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.leases.in_flight import InFlight
from outbox.runtime.leases.removal import removed
from outbox.runtime.progress_writer import ProgressWriter
from outbox.settings import WorkerOptions
from outbox.settlement import Settlement
from outbox.wakeups.base import Wake, Wakeups

SHORT_SECONDS, _LASTING_AT_MOST = 0.2, 0.125
"""In a backlog, the next jobs are taken for short ones if at most an eighth of the slots has been held for so long.
A job that takes longer after all costs one more renewal."""

_AGED = 10
"""One claim of so many asks for jobs of a low priority that have waited for long."""

_log = logging.getLogger("outbox.runtime")


async def _here(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    return await function(*arguments)


class StoreClient:
    """A driver, and what has been claimed with it.

    `claim`, `next_due` and `cancel_blocking_claim` run in the thread of the stores: an idle worker polls there, and a
    busy one calls them through `run`. What is claimed is in flight from then on: its leases are renewed even if a
    handler keeps the event loop of the worker from hearing of it. All other calls come from that event loop.
    """

    def __init__(
        self,
        driver: Driver,
        options: WorkerOptions,
        wakeups: Wakeups,
        *,
        on_end: Callable[[Attempt], None],
        run: Callable[..., Awaitable[Any]] = _here,
    ) -> None:
        """``run`` awaits a function with its arguments in the thread of the stores. ``on_end`` is called when an
        attempt ends."""
        self.driver = driver
        self.connection = driver.name
        self.in_flight = InFlight()
        self.wakeups = wakeups
        self.run = run
        self.checked = False
        """Whether the store was reached and found in order."""
        finished = driver.finished
        self.progress = None if finished is None else ProgressWriter(finished, self.in_flight)
        """Writes how far jobs are. None where the store keeps nothing of the kind."""
        self._claims = 0
        self._options = options
        self._on_end = on_end

    async def check(self) -> None:
        """Reach the store, unless that has been done. Rows that no worker can read become failed jobs, so that a worker
        that stops when it finds nothing has seen to them.

        Raises:
            ConfigurationError: it is not what outbox needs.
            BackendUnavailable: it does not answer.
        """
        if not self.checked:
            await self.run(self.driver.check)
            await self.run(self._fail_unreadable)
            self.checked = True

    async def _fail_unreadable(self) -> None:
        try:
            await self.driver.jobs.fail_unreadable()
        except (BackendUnavailable, ConfigurationError):
            raise
        except Exception:  # noqa: BLE001 - a look for what is broken must stop no worker
            _log.exception("the search for rows that no worker can read failed")

    async def claim(self, limit: int, backlog: bool = False) -> list[Attempt]:
        if self._options.aging and (aged := await self._claim_aged(limit)):
            return self._hold(aged, short_jobs=False)
        short_jobs = backlog and self._jobs_are_short()
        claims = self.driver.short_jobs if short_jobs else None
        taken = await (claims or self.driver.jobs).claim(self._options.queue, limit, self._options.lease)
        return self._hold(taken, short_jobs=short_jobs)

    async def _claim_aged(self, limit: int) -> list[Claim]:
        """One claim in ten takes jobs of the lowest priority that has waited for longer than ``aging``."""
        self._claims += 1
        aging = self.driver.aging
        if aging is None or self._claims % _AGED != 0:
            return []
        return await aging.claim(self._options.queue, limit, self._options.lease, self._options.aging)

    async def cancel_blocking_claim(self) -> list[Attempt]:
        """Returns the jobs that it has claimed already."""
        blocking = self.driver.blocking_claims
        return [] if blocking is None else self._hold(await blocking.cancel(), short_jobs=False)

    async def next_due(self, waiting: bool) -> NextDue:
        """``waiting``: the store may claim a job for this worker as soon as one arrives."""
        if waiting and (blocking := self.driver.blocking_claims) is not None:
            request = BlockingClaimRequest(self._options.lease, partial(self.wakeups.wake, Wake.TAKEN))
            return await blocking.next_due(self._options.queue, request)
        return await self.driver.jobs.next_due(self._options.queue)

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        settled: Settled = await self.run(self.driver.jobs.settle, settlements)
        return settled

    async def follow_commit(self, settled: Settled) -> PolicyNews:
        """What policies do after a commit that the driver has not made itself."""
        if self.driver.policies is None:
            return PolicyNews()
        news: PolicyNews = await self.run(self.driver.policies.follow_commit, settled.accepted)
        return news

    async def removed(self, attempts: Sequence[Attempt]) -> frozenset[Attempt]:
        """Those of the attempts whose jobs an operator has removed."""
        gone: frozenset[Attempt] = await self.run(removed, self.driver.jobs, attempts)
        return gone

    async def times(self, job_id: JobId) -> tuple[datetime, datetime] | None:
        """When a live job was dispatched, and now, by the clock of the store."""
        found: tuple[datetime, datetime] | None = await self.run(self._times, job_id)
        return found

    async def _times(self, job_id: JobId) -> tuple[datetime, datetime] | None:
        return await times_in(self.driver.jobs.get, self.driver.now, job_id)

    async def is_empty(self) -> bool:
        """Whether the queues of this worker hold no job."""
        counts = await self.run(self.driver.queues.counts)
        here = [each for each in counts if each.queue in self._options.queue]
        return not any(each.ready or each.delayed or each.retrying or each.reserved or each.parked for each in here)

    def _jobs_are_short(self) -> bool:
        lasting = self.in_flight.held_since(clock.now() - SHORT_SECONDS)
        return lasting <= self._options.concurrency * _LASTING_AT_MOST

    def _hold(self, claims: Sequence[Claim], *, short_jobs: bool) -> list[Attempt]:
        attempts = [Attempt(claim, self.connection, self._on_end, self.progress) for claim in claims]
        self.in_flight.add(attempts, short_jobs=short_jobs)
        return attempts
