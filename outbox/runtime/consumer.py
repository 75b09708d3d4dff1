"""One connection that a worker drains: what is claimed from it, held, and settled there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from outbox import clock
from outbox.drivers.base import Driver
from outbox.drivers.values import PolicyNews, Settled
from outbox.errors import OutboxError
from outbox.events import Events, JobCancelled, LeaseLost
from outbox.middleware.interruption import Interruption
from outbox.runtime.availability import Availability
from outbox.runtime.claimer import Claimer
from outbox.runtime.completer import Completer
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.executor import Executor
from outbox.runtime.execution.failed_hook import FailedHooks
from outbox.runtime.execution.isolation import Isolation, hand_back
from outbox.runtime.execution.protected_task import ProtectedTask, enter_job, protected_task
from outbox.runtime.leases.expiry import margin
from outbox.runtime.process.pause_request import PauseRequest
from outbox.runtime.reporting.activities import Activities
from outbox.runtime.reporting.counters import Counters
from outbox.runtime.slots import Slots
from outbox.runtime.store_client import StoreClient
from outbox.runtime.store_thread import StoreThread
from outbox.settings import WorkerOptions
from outbox.settlement import CLAIMED_AGAIN, Failure, Outcome, Settlement
from outbox.wakeups.base import Wakeups

_log = logging.getLogger("outbox.runtime")

_COMPLETED = Outcome.COMPLETED
_SOON = 5.0
"""Seconds within which a worker remembers when a job that it has put back is due again."""


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
        on_policy_news: Callable[[str, PolicyNews], None] = lambda *_: None,
    ) -> None:
        self.connection = driver.name
        report = partial(on_policy_news, driver.name)
        if driver.policies is not None:
            driver.policies.on_news = report
        self.store = StoreClient(driver, options, wakeups, on_end=self._ended, run=stores.call)
        self.in_flight = self.store.in_flight
        self.availability = Availability(driver.name, events)
        self._options = options
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
        self.activities = Activities() if driver.metrics is not None else None
        """What to keep as metrics; None where the store keeps none."""
        # The event loop holds tasks weakly, and nothing else holds an attempt that was given up.
        self._running: set[Attempt] = set()
        self.completer = Completer(
            self.store,
            self.availability,
            events,
            lease=options.lease,
            on_accepted=self._accepted,
            on_cancelled=self._cancelled,
            on_policy_news=report,
        )
        self.claimer = Claimer(
            options,
            self.store,
            slots=slots,
            consumers=consumers,
            completer=self.completer,
            availability=self.availability,
            begin=self._begin,
            hand_back=self._hand_back,
            on_empty=self._claimed_nothing,
            pause=pause,
        )

    def lose(self, attempt: Attempt) -> None:
        """The store says that this job has another owner."""
        attempt.interrupt(Interruption.LEASE_LOST)

    def cancel(self, attempt: Attempt) -> None:
        """An operator has removed this job. A row that the job's own transaction has removed is another matter."""
        if attempt.completion is None or not attempt.completion.written:
            attempt.interrupt(Interruption.CANCELLED)

    def expire(self, attempt: Attempt, frozen: bool) -> None:
        """The lease of this job is about to end, or has ended. A store that hangs is as much out of reach as one that
        refuses; the leases of a process that was ``frozen`` are lost, so that a job that freezes its machine ends."""
        # It may have been renewed since.
        if attempt.deadline <= clock.now() + margin(self._options.lease):
            reason = Interruption.UNREACHABLE
            if frozen and not self.availability.down:
                # A job whose class is not even known has frozen nothing.
                reason = Interruption.NOT_BEGUN if attempt.policy is None else Interruption.LEASE_LOST
            attempt.interrupt(reason)

    def _begin(self, attempts: Sequence[Attempt]) -> None:
        rescued = [attempt for attempt in attempts if attempt.claim.rescued]
        if rescued:
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
        delays = self._isolation.delays(len(deferred))
        for attempt, delay in zip(deferred, delays, strict=True):
            attempt.end(Settlement.deferred(attempt.fence, delay))
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
            attempt.end(hand_back(attempt.claim))

    async def _run(self, attempt: Attempt) -> None:
        enter_job(attempt.task)
        try:
            settlement = await self._executor.run(attempt)
            if attempt.committed is not None and attempt.claim.policies is not None:
                await self._follow(attempt, attempt.committed)
            attempt.end(settlement)
        except BaseException as error:  # noqa: BLE001 - an attempt without an end would be held for ever
            _log.exception("the worker itself failed on %s %s", attempt.claim.name, attempt.fence.job_id)
            attempt.end(Settlement.failed(attempt.fence, Failure.of(error)))
        finally:
            if attempt.overdue:
                self._slots.unmark_stuck()
            self._running.discard(attempt)
            self._isolation.leave(attempt)
            self._on_job_end(attempt)
            if attempt.resources is not None:
                attempt.resources.handler_ended()
            self._slots.release(self._options.rest)

    async def _follow(self, attempt: Attempt, settled: Settled) -> None:
        """What policies do after the commit of a job's own transaction. Upkeep does what is left undone."""
        try:
            news = await self.store.follow_commit(settled)
        except OutboxError as error:
            _log.warning("what follows the end of %s is left to upkeep: %s", attempt.fence.job_id, error)
        else:
            attempt.committed = replace(settled, news=settled.news + news)

    def _ended(self, attempt: Attempt) -> None:
        if attempt.committed is not None:
            self.completer.committed(attempt, attempt.committed)
            return
        if attempt.overdue:
            self._slots.mark_stuck()
        if attempt.settlement is not None:
            self.completer.submit(attempt)
        if attempt.interruption is not None:
            self._ended_early(attempt, attempt.interruption)
        if attempt.settlement is None:
            self.in_flight.discard([attempt])

    def _ended_early(self, attempt: Attempt, interruption: Interruption) -> None:
        if interruption is Interruption.CANCELLED:
            self._events.emit(attempt.event(JobCancelled))
            self._cancelled(attempt)
        elif interruption.loses_lease:
            self._events.emit(attempt.event(LeaseLost, interruption.value))

    def _cancelled(self, attempt: Attempt) -> None:
        self._failed_hooks.call(attempt, "cancelled")

    def _accepted(self, attempts: Sequence[Attempt]) -> None:
        self._counters.count(attempts)
        if self.activities is not None:
            self.activities.count(attempts)
        for attempt in attempts:
            settlement = attempt.settlement
            if settlement is None or settlement.effects or settlement.outcome is not _COMPLETED:
                self._follow_end(attempt, settlement)
        if self._options.stop_when_empty and not self.in_flight:
            # That may have been the last one.
            self.wakeups.wake()

    def _follow_end(self, attempt: Attempt, settlement: Settlement | None) -> None:
        """What an end asks for that did more than to remove the job."""
        if settlement is None:
            if attempt.chain is not None or attempt.batch is not None:
                # The job's own transaction may have inserted the next one.
                self.wakeups.wake()
            return
        if settlement.outcome is Outcome.FAILED:
            self._failed_hooks.call(attempt)
        elif settlement.outcome in CLAIMED_AGAIN and settlement.delay < max(_SOON, self._options.sleep):
            # The claimer may be asleep for longer than that, or its next look at the head of the index be further away.
            asyncio.get_running_loop().call_later(settlement.delay, self.wakeups.wake)
        elif settlement.inserted:
            self.wakeups.wake()

    async def _claimed_nothing(self) -> None:
        if self._options.once:
            self._on_empty(self)
        elif self._options.stop_when_empty:
            if self.in_flight:
                # More jobs may follow their ends. It is asked again then.
                return
            # Asked first: a job that arrives in between is counted in both places, not in none.
            if self._on_the_way is not None and await self.store.run(self._on_the_way):
                return
            if await self.store.is_empty():
                self._on_empty(self)
