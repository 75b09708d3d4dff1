"""One connection that a worker drains: what is claimed from it, held, and settled there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from outbox import clock
from outbox.drivers.base import BlockingClaimRequest, Claim, Driver, NextDue, Settled
from outbox.errors import BackendUnavailable, ConfigurationError
from outbox.events import Events, JobCancelled, LeaseLost
from outbox.middleware.interruption import Interruption
from outbox.runtime.availability import Availability
from outbox.runtime.claimer import Claimer
from outbox.runtime.completer import Completer
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.executor import Executor
from outbox.runtime.execution.failed_hook import FailedHooks
from outbox.runtime.execution.isolation import Isolation, is_suspect
from outbox.runtime.execution.protected_task import ProtectedTask, enter_job, protected_task
from outbox.runtime.leases.expiry import margin
from outbox.runtime.leases.in_flight import InFlight
from outbox.runtime.leases.removal import removed
from outbox.runtime.process.pause_request import PauseRequest
from outbox.runtime.reporting.counters import Counters
from outbox.runtime.slots import Slots
from outbox.runtime.store_thread import StoreThread
from outbox.settings import WorkerOptions
from outbox.settlement import Failure, Outcome, Settlement
from outbox.wakeups.base import Wake, Wakeups

_log = logging.getLogger("outbox.runtime")

_BRIEF_SECONDS, _LASTING_AT_MOST = 0.2, 0.125
"""While there is a backlog, the next jobs are taken for brief ones if no more than an eighth of the slots has been held
by its job for so long. One that takes longer after all costs one renewal more."""

_PUT_BACK = frozenset({Outcome.RETRIED, Outcome.RELEASED, Outcome.SNOOZED, Outcome.DEFERRED})


class Consumer:
    """Connects the services of one connection.

    The driver is used in the thread of ``stores`` only; everything else happens on the event loop of the worker.
    """

    def __init__(
        self,
        driver: Driver,
        options: WorkerOptions,
        stores: StoreThread,
        *,
        consumers: int,
        slots: Slots,
        executor: Executor,
        isolation: Isolation,
        failed_hooks: FailedHooks,
        counters: Counters,
        events: Events,
        wakeups: Wakeups,
        on_the_way: Callable[[], Awaitable[bool]] | None,
        on_empty: Callable[[Consumer], None],
        on_job_end: Callable[[Attempt], None] = lambda _: None,
        pause: PauseRequest | None = None,
    ) -> None:
        self.driver = driver
        self.connection = driver.name
        self.in_flight = InFlight()
        self.checked = False
        """Whether the store was reached and found in order."""
        self.availability = Availability(driver.name, events)
        self._options = options
        self._stores = stores
        self._slots = slots
        self._executor = executor
        self._isolation = isolation
        self._failed_hooks = failed_hooks
        self._counters = counters
        self._events = events
        self.wakeups = wakeups
        self._on_the_way = on_the_way
        self._on_empty = on_empty
        self._on_job_end = on_job_end
        # The event loop holds tasks weakly, and an attempt that was given up is held by nobody else.
        self._running: set[Attempt] = set()
        self.completer = Completer(
            self._settle,
            self.in_flight,
            self.availability,
            events,
            connection=driver.name,
            lease=options.lease,
            on_accepted=self._accepted,
            removed=lambda attempts: stores.call(removed, driver, attempts),
        )
        self.claimer = Claimer(
            options,
            claim=self._claim,
            next_due=self._next_due,
            cancel_blocking_claim=self._cancel_blocking_claim,
            aside=stores.call,
            slots=slots,
            consumers=consumers,
            completer=self.completer,
            availability=self.availability,
            wakeups=wakeups,
            check=self.check,
            begin=self._begin,
            hand_back=self._hand_back,
            on_empty=self._claimed_nothing,
            pause=pause,
        )

    async def check(self) -> None:
        """Reach the store, unless that has been done.

        Raises:
            ConfigurationError: it is not what outbox needs.
            BackendUnavailable: it does not answer.
        """
        if not self.checked:
            await self._stores.call(self.driver.check)
            await self._stores.call(self._fail_unreadable)
            self.checked = True

    async def _fail_unreadable(self) -> None:
        """Once before the first claim, so that a worker that stops when it finds nothing has seen to them."""
        try:
            await self.driver.fail_unreadable()
        except (BackendUnavailable, ConfigurationError):
            raise
        except Exception:  # noqa: BLE001 - a look for what is broken must stop no worker
            _log.exception("it could not be looked for jobs that no worker can read")

    def lose(self, attempt: Attempt) -> None:
        """The store says that this job has another owner."""
        attempt.interrupt(Interruption.LEASE_LOST)

    def cancel(self, attempt: Attempt) -> None:
        """An operator has removed this job."""
        attempt.interrupt(Interruption.CANCELLED)

    def expire(self, attempt: Attempt, frozen: bool) -> None:
        """The lease of this job is about to end, or has ended. A store that hangs is as much out of reach as one that
        refuses; the leases of a process that was ``frozen`` are lost, so that a job that freezes its machine ends."""
        # It may have been renewed since.
        if attempt.deadline <= clock.now() + margin(self._options.lease):
            lost = frozen and not self.availability.down
            attempt.interrupt(Interruption.LEASE_LOST if lost else Interruption.UNREACHABLE)

    async def _claim(self, limit: int, backlog: bool = False) -> list[Attempt]:
        """In the thread of the stores: from then on the leases are renewed, even if a handler keeps the worker's loop
        from hearing of what was claimed."""
        short_jobs = backlog and self._jobs_are_brief()
        claims = await self.driver.claim(self._options.queue, limit, self._options.lease, short_jobs=short_jobs)
        return self._hold(claims, short_jobs=short_jobs)

    def _jobs_are_brief(self) -> bool:
        lasting = self.in_flight.held_since(clock.now() - _BRIEF_SECONDS)
        return lasting <= self._slots.size * _LASTING_AT_MOST

    async def _cancel_blocking_claim(self) -> list[Attempt]:
        return self._hold(await self.driver.cancel_blocking_claim(), short_jobs=False)

    def _hold(self, claims: Sequence[Claim], *, short_jobs: bool) -> list[Attempt]:
        attempts = [Attempt(claim, self.connection, self._ended) for claim in claims]
        self.in_flight.add(attempts, short_jobs=short_jobs)
        return attempts

    async def _settle(self, settlements: Sequence[Settlement]) -> Settled:
        return await self._stores.call(self.driver.settle, settlements)

    async def _next_due(self, waiting: bool) -> NextDue:
        wake = partial(self.wakeups.wake, Wake.TAKEN)
        return await self.driver.next_due(
            self._options.queue, BlockingClaimRequest(self._options.lease, wake) if waiting else None
        )

    def _begin(self, attempts: Sequence[Attempt]) -> None:
        if any(attempt.claim.rescued for attempt in attempts):
            attempts = self._isolate(attempts)
        loop = asyncio.get_running_loop()
        for attempt in attempts:
            attempt.task = ProtectedTask(self._run(attempt), loop=loop, name=attempt.claim.name)
        self._running.update(attempts)

    def _start(self, attempt: Attempt, run: Coroutine[Any, Any, None]) -> None:
        attempt.task = protected_task(run, name=attempt.claim.name)
        self._running.add(attempt)

    def _isolate(self, attempts: Sequence[Attempt]) -> Sequence[Attempt]:
        """Those that run as usual. Of the others, one runs when the rest has been handed back."""
        usual, alone, deferred = self._isolation.admit(attempts)
        for attempt in deferred:
            attempt.end(Settlement.deferred(attempt.fence, self._isolation.delay))
            self._slots.release()
        if alone is not None:
            self._start(alone, self._run_alone(alone, deferred))
        return usual

    async def _run_alone(self, attempt: Attempt, deferred: Sequence[Attempt]) -> None:
        try:
            await self._isolation.wait(attempt, deferred, self.in_flight.__contains__)
        finally:
            await self._run(attempt)

    def _hand_back(self, attempts: Sequence[Attempt]) -> None:
        """What was claimed when the worker had been asked to stop already."""
        for attempt in attempts:
            attempt.interrupt(Interruption.SHUTDOWN)
            put_back = Settlement.deferred if is_suspect(attempt.claim) else Settlement.snoozed
            attempt.end(put_back(attempt.fence))

    async def _run(self, attempt: Attempt) -> None:
        enter_job(attempt.task)
        try:
            attempt.end(await self._executor.run(attempt))
        except BaseException as error:  # noqa: BLE001 - an attempt without an end would be held for ever
            _log.exception("the worker itself failed on %s %s", attempt.claim.name, attempt.fence.job_id)
            attempt.end(Settlement.failed(attempt.fence, Failure.of(error)))
        finally:
            if attempt.overdue:
                self._slots.unmark_stuck()
            self._running.discard(attempt)
            self._isolation.leave(attempt)
            self._on_job_end(attempt)
            self._slots.release(self._options.rest)

    def _ended(self, attempt: Attempt) -> None:
        if attempt.overdue:
            self._slots.mark_stuck()
        if attempt.settlement is not None:
            self.completer.submit(attempt)
        if attempt.interruption is Interruption.CANCELLED:
            self._events.emit(attempt.event(JobCancelled))
        elif attempt.interruption in (Interruption.LEASE_LOST, Interruption.UNREACHABLE):
            self._events.emit(attempt.event(LeaseLost, attempt.interruption.value))
        if attempt.settlement is None:
            self.in_flight.discard([attempt])

    def _accepted(self, attempt: Attempt) -> None:
        self._counters.count(attempt)
        settlement = attempt.settlement
        if settlement is None:
            return
        if settlement.outcome is Outcome.FAILED:
            self._failed_hooks.call(attempt)
        elif settlement.outcome in _PUT_BACK and settlement.delay < self._options.sleep:
            # The claimer may be asleep for longer than that.
            asyncio.get_running_loop().call_later(settlement.delay, self.wakeups.wake)
        elif settlement.effects:
            self.wakeups.wake()
        if self._options.stop_when_empty and not self.in_flight:
            # That may have been the last one.
            self.wakeups.wake()

    async def _claimed_nothing(self) -> None:
        if self._options.once:
            self._on_empty(self)
        elif self._options.stop_when_empty:
            # Asked first: a job that arrives in between is counted in both places, not in none.
            if self._on_the_way is not None and await self._stores.call(self._on_the_way):
                return
            counts = await self._stores.call(self.driver.counts)
            here = [each for each in counts if each.queue in self._options.queue]
            if not any(each.ready or each.delayed or each.retrying or each.reserved for each in here):
                self._on_empty(self)
