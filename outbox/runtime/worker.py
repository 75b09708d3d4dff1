"""One worker process: which services there are, and in which order they start and stop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeVar

from outbox import clock
from outbox.client_state import current_settings
from outbox.drivers.base import Driver
from outbox.errors import BackendUnavailable, ConfigurationError
from outbox.events import Events
from outbox.ids import JobId
from outbox.job import Job
from outbox.middleware.interruption import Interruption
from outbox.middleware.job_sessions import JobSessions
from outbox.middleware.thread_call import Threads
from outbox.registry import registered
from outbox.resources import Resources
from outbox.runtime.availability import CLAIM, LOOK
from outbox.runtime.consumer import Consumer
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.executor import Executor
from outbox.runtime.execution.failed_hook import FailedHooks
from outbox.runtime.execution.isolation import Isolation
from outbox.runtime.execution.resource_cleanup import ResourceCleanup
from outbox.runtime.health.worker_health import WorkerHealth
from outbox.runtime.lifespan import LifespanService
from outbox.runtime.policy_reporter import PolicyReporter
from outbox.runtime.process.exit_codes import Reason, end_now
from outbox.runtime.process.graceful_shutdown import GracefulShutdown
from outbox.runtime.process.limits import MemoryLimit, StopWhenEmpty, TimeLimit
from outbox.runtime.process.process_state import ProcessState
from outbox.runtime.process.watchdog import HARD_GRACE, Watchdog
from outbox.runtime.relay_loop import RelayLoop
from outbox.runtime.reporting.counters import Counters
from outbox.runtime.reporting.worker_reports import WorkerReports
from outbox.runtime.service import BackgroundLoop, Cancelled, Service, Together
from outbox.runtime.slots import Slots
from outbox.runtime.store_services import StoreServices
from outbox.runtime.store_thread import StoreThread
from outbox.runtime.wakeup_service import WakeupService
from outbox.runtime.worker_control import WorkerControl
from outbox.settings import DATABASE, WorkerOptions
from outbox.wakeups.polling import Polling
from outbox.wakeups.redis_subscription import Subscription
from outbox.wakeups.selector import WakeupSelector

_STOP_WITHIN = 1.0
"""Seconds for each part of a worker whose tasks were cancelled."""

_log = logging.getLogger("outbox.runtime")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended. ``stuck`` handlers are still running: only the end of the process ends them."""

    reason: Reason
    error: BaseException | None
    stuck: int


class Worker:
    """Drains one or several connections, which share the slots of this process.

    ``drivers`` belong to the worker from then on: it uses them in a thread of its own, and closes them. Without
    ``wakeup_selector``, only this process itself tells it of new jobs. ``relays`` run beside; without drivers, they are
    all that it does.
    """

    def __init__(
        self,
        options: WorkerOptions,
        drivers: Sequence[Driver],
        events: Events,
        *,
        name: str,
        wakeup_selector: WakeupSelector | None = None,
        relays: Sequence[RelayLoop] = (),
        process: ProcessState | None = None,
        health: WorkerHealth | None = None,
    ) -> None:
        self.hard_grace = HARD_GRACE
        """Seconds that a handler may block the event loop past its timeout before the process is ended."""
        self._options = options
        self._drivers = drivers
        self._events = events
        self._name = name
        self._process = process
        self._health = health
        self._relays = relays
        self._wakeups: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.get_ident()
        self._counters = Counters()
        self._slots = Slots(options.concurrency, budget=1 if options.once else options.max_jobs or None)
        self.control = WorkerControl(name, self._slots, events, self._wake_claimers)
        self.stop = self.control.stop
        self._reports = WorkerReports(name, options, self.control, self._slots, self._counters, events)
        self._slots.on_all_stuck = partial(self.stop.request, Reason.STUCK)
        self._slots.on_budget_spent = partial(self.stop.request, Reason.ONCE if options.once else Reason.MAX_JOBS)
        self._threads = Threads()
        self._stores = StoreThread(drivers, self._alive, self._crashed)
        self._failed_hooks = FailedHooks(options, self._slots, self._threads, events)
        report = PolicyReporter(events, {relay.connection: relay.wake for relay in relays})
        urls = {driver.name: driver.session_url for driver in drivers if driver.session_url is not None}
        self._sessions = JobSessions(urls, options.concurrency)
        resources = Resources()
        self._lifespan = LifespanService(options.lifespan, resources, self._own_job_classes)
        self.consumers = self._make_consumers(self._make_executor(resources), wakeup_selector, report)
        self._wakeup_service = WakeupService(
            wakeup_selector,
            self._stores,
            options.queue,
            {consumer.connection: consumer.wakeups for consumer in self.consumers},
        )
        self._store_services = StoreServices(
            options,
            self.consumers,
            relays,
            tell=self._tell,
            status=lambda consumer: self._reports.status(consumer.in_flight.attempts()),
            obey=self.control.obey,
            polls=self._polls,
        )
        self._connect_relays(report)

    def _make_executor(self, resources: Resources) -> Executor:
        cleanup = ResourceCleanup(self._slots, self._events)
        return Executor(
            self._options,
            self._threads,
            self._events,
            sessions=self._sessions,
            times=self._times,
            resources=resources,
            close_resources=cleanup.close,
        )

    def _make_consumers(
        self, executor: Executor, wakeup_selector: WakeupSelector | None, report: PolicyReporter
    ) -> list[Consumer]:
        reason = Reason.ONCE if self._options.once else Reason.EMPTY
        stop_when_empty = StopWhenEmpty(len(self._drivers), reason, self._slots, self.stop)
        isolation = Isolation()
        on_the_way = {relay.connection: relay.on_the_way for relay in self._relays}
        return [
            Consumer(
                driver,
                self._options,
                self._stores,
                consumers=len(self._drivers),
                slots=self._slots,
                executor=executor,
                isolation=isolation,
                failed_hooks=self._failed_hooks,
                counters=self._counters,
                events=self._events,
                wakeups=wakeup_selector.wakeups(driver.name) if wakeup_selector is not None else Polling(),
                on_the_way=on_the_way.get(driver.name),
                on_empty=lambda consumer: stop_when_empty.found(consumer.connection),
                on_job_end=self._process.job_ended if self._process is not None else lambda _: None,
                pause=self.control.pause,
                on_policy_news=report,
            )
            for driver in self._drivers
        ]

    def _connect_relays(self, report: PolicyReporter) -> None:
        for relay in self._relays:
            relay.alone = not self._drivers
            if relay.policies is not None:
                relay.policies.on_news = partial(report, DATABASE)
            for driver in self._drivers:
                if driver.name == relay.connection and driver.relay_target is not None:
                    driver.relay_target.on_relayed_end = relay.wake
                    driver.relay_target.on_refused = relay.refused
            relay.idle_workers = lambda: max((consumer.claimer.idle_workers for consumer in self.consumers), default=1)

    async def run(self) -> Ended:
        """Work until something asks to stop; then stop in order.

        Raises:
            ConfigurationError: before anything was started: a store is not what outbox needs.
        """
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        services = self._services()
        try:
            await self._stores.start()
            await self._check()
            if self._drivers:
                await self._lifespan.start()
            self._wakeups = await self._wakeup_service.listen()
            self._reports.started(self._drivers, self._relays, self._wakeups)
            for service in services:
                if isinstance(service, BackgroundLoop):
                    service.on_crash = self._crashed
                await service.start()
            try:
                await self.stop.wait()
            except asyncio.CancelledError:
                self._crashed(Cancelled())
            self._reports.stopping()
        finally:
            # What a handler has cancelled comes to no end, and what waits for it would wait for ever.
            within = _STOP_WITHIN if isinstance(self.stop.error, Cancelled) else None
            for service in reversed(services):
                with suppress(TimeoutError):
                    async with asyncio.timeout(within):
                        await service.stop()
        self._reports.stopped()
        return Ended(self.stop.reason or Reason.CRASHED, self.stop.error, self._slots.stuck)

    def stopped_hard(self, signal: str) -> None:
        """Say which jobs are left behind when a second ``signal`` ends the process."""
        self._reports.stopped_hard(signal, self._attempts())

    @property
    def slots(self) -> Slots:
        """To be read only."""
        return self._slots

    def ask_stores(self, ask: Callable[[Driver], Awaitable[_T]]) -> Future[list[_T]]:
        """Call ``ask`` for each store that the worker drains or relays from, in their thread. From any other thread.

        Raises:
            RuntimeError: the worker has not started, or has stopped.
        """
        drivers = {driver.name: driver for driver in (*(relay.source for relay in self._relays), *self._drivers)}

        async def ask_all() -> list[_T]:
            return [await ask(driver) for driver in drivers.values()]

        return self._stores.submit(ask_all)

    def _services(self) -> list[Service]:
        """In the order in which they start. They stop the other way round: nothing new is claimed, what runs comes to
        its end, the ends are written, their hooks run, and only then leases are no longer renewed."""
        options = self._options
        for consumer in self.consumers:
            consumer.claimer.on_crash = consumer.completer.on_crash = self._crashed
        drain = partial(GracefulShutdown, self._interrupt, slots=self._slots, stop=self.stop, grace=options.grace)
        limits: list[Service] = []
        if options.max_time:
            limits.append(TimeLimit(options.max_time, self.stop))
        if options.memory:
            limits.append(MemoryLimit(options.memory, self.stop))
        return [
            *([self._lifespan] if self._drivers else []),
            self._threads,
            self._sessions,
            self._stores,
            self._wakeup_service,
            drain(),  # of hooks
            Together([consumer.completer for consumer in self.consumers]),
            drain(),  # of jobs
            Together([consumer.claimer for consumer in self.consumers]),
            *limits,
        ]

    def _own_job_classes(self) -> list[type[Job]]:
        """Those whose jobs are dispatched to a connection and a queue of this worker, unless a dispatch says more."""
        connections, default = {driver.name for driver in self._drivers}, current_settings().connection
        return [
            kind
            for kind in dict.fromkeys(registered().values())
            if kind.queue in self._options.queue and (kind.connection or default) in connections
        ]

    def _alive(self) -> list[BackgroundLoop]:
        """What shows that this process lives. Built in the thread of the stores; reports to the worker's loop."""
        assert self._loop is not None  # noqa: S101 - for the type checker: set by run
        watchdog = Watchdog(
            worker=self._name,
            loop=self._loop,
            thread=self._thread,
            attempts=self._attempts,
            stop=self.stop,
            grace=self._options.grace,
            timeout=self._options.timeout,
            events=self._events,
            kill=end_now,
            hard_grace=self.hard_grace,
            on_answer=self._process.look if self._process is not None else lambda: None,
        )
        return [
            *self._store_services.all(),
            watchdog,
            *([self._health.watch(self._loop, self._unready)] if self._health is not None else []),
        ]

    def _unready(self) -> list[str]:
        """Why nothing is claimed, for a health check. From any thread."""
        if self.stop.reason is not None:
            return [f"the worker stops: {self.stop.reason.text}"]
        asked = [(each.connection, each.availability.last_went_well(CLAIM, LOOK)) for each in self.consumers]
        if not asked:
            asked = [(f"relay to {each.connection}", each.availability.last_went_well("")) for each in self._relays]
        reason = {False: "the last look for jobs failed", None: "no look for jobs has ended yet"}
        return [f"{name}: {reason[went_well]}" for name, went_well in asked if not went_well]

    def _polls(self, connection: str) -> bool:
        """Whether no message tells this worker of jobs of the connection that were cancelled."""
        names = [consumer.connection for consumer in self.consumers]
        return dict(zip(names, self._wakeups, strict=False)).get(connection) != Subscription.name

    async def _times(self, connection: str, job_id: JobId) -> tuple[datetime, datetime] | None:
        stores = (consumer.store for consumer in self.consumers if consumer.connection == connection)
        return await next(stores).times(job_id)

    def _tell(self, hear: Callable[..., None], *arguments: object) -> None:
        """From another thread."""
        assert self._loop is not None  # noqa: S101 - for the type checker: set by run
        # A closed loop has no handler left to stop.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(hear, *arguments)

    async def _check(self) -> None:
        """Look at every store once. Those that do not answer are waited for by their claimers, or their relays."""
        for relay in self._relays:
            if relay.alone:
                await self._stores.call(relay.check)
        checks = await asyncio.gather(*map(self._check_consumer, self.consumers), return_exceptions=True)
        for error in checks:
            if error is not None:
                raise error

    async def _check_consumer(self, consumer: Consumer) -> None:
        begun = clock.now()
        try:
            await consumer.store.check()
        except BackendUnavailable as error:
            consumer.availability.failed(begun, error, LOOK)

    def _attempts(self) -> list[Attempt]:
        return [attempt for consumer in self.consumers for attempt in consumer.in_flight.attempts()]

    def _interrupt(self) -> None:
        for attempt in self._attempts():
            attempt.interrupt(Interruption.SHUTDOWN)
        self._failed_hooks.interrupt()

    def _crashed(self, error: BaseException) -> None:
        configuration = isinstance(error, ConfigurationError)
        if not configuration:
            _log.error("a service of the worker failed", exc_info=error)
        self.stop.request(Reason.CONFIGURATION if configuration else Reason.CRASHED, error)

    def _wake_claimers(self) -> None:
        for consumer in self.consumers:
            if self._loop is not None:
                self._tell(consumer.claimer.interrupt)
