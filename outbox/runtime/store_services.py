"""The services of a worker that run in the thread of the stores: a handler that blocks the event loop stops none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from outbox.client_state import current_settings
from outbox.drivers.base import JobClaims
from outbox.drivers.values import WorkerOrder, WorkerStatus
from outbox.runtime.consumer import Consumer
from outbox.runtime.heartbeat import Heartbeat
from outbox.runtime.leases.cancellations import CancellationWatch
from outbox.runtime.leases.expiry import Expiry
from outbox.runtime.leases.removal import removed
from outbox.runtime.leases.renewal import Renewal
from outbox.runtime.metrics_writer import MetricsWriter
from outbox.runtime.operation_watch import OperationWatch
from outbox.runtime.relay_loop import RelayLoop
from outbox.runtime.scheduler import Scheduler
from outbox.runtime.service import BackgroundLoop
from outbox.runtime.upkeep import Upkeep
from outbox.schedules import declared_schedules
from outbox.settings import DATABASE, WorkerOptions

_LONGEST_INTERVAL = 10.0
"""Seconds between two heartbeats."""


class StoreServices:
    """``tell`` calls something on the event loop of the worker. ``polls`` says whether no message tells the worker of
    jobs of a connection that were cancelled."""

    def __init__(
        self,
        options: WorkerOptions,
        consumers: Sequence[Consumer],
        relays: Sequence[RelayLoop],
        *,
        tell: Callable[..., None],
        status: Callable[[Consumer], WorkerStatus],
        obey: Callable[[WorkerOrder], None],
        polls: Callable[[str], bool],
    ) -> None:
        self._options = options
        self._consumers = consumers
        self._relays = relays
        self._tell = tell
        self._status = status
        self._obey = obey
        self._polls = polls
        self._schedulers = self._make_schedulers()

    def all(self) -> list[BackgroundLoop]:
        """In the order in which they start."""
        return [
            *(service for consumer in self._consumers for service in self._of_consumer(consumer)),
            *self._metrics(),
            *(writer for consumer in self._consumers if (writer := consumer.store.progress) is not None),
            *self._upkeep(),
            *self._operations(),
            *self._schedulers,
            *self._relays,
        ]

    def _upkeep(self) -> list[BackgroundLoop]:
        """For the policies and the metrics of each database that this worker drains, and the policies of one that it
        relays from."""
        found: list[BackgroundLoop] = [
            Upkeep(what, store.upkeep, ready=partial(_checked, consumer), idle_workers=partial(_idle_workers, consumer))
            for consumer in self._consumers
            for what, store in (
                ("policies", consumer.store.driver.policies),
                ("metrics", consumer.store.driver.metrics),
            )
            if store is not None
        ]
        for relay in self._relays[:1]:
            if not found and (store := relay.policies) is not None:
                found.append(Upkeep("policies", store.upkeep, ready=lambda: True, idle_workers=relay.idle_workers))
        return found

    def _operations(self) -> list[BackgroundLoop]:
        return [
            OperationWatch(store, ready=partial(_checked, consumer))
            for consumer in self._consumers
            if (store := consumer.store.driver.operations) is not None
        ]

    def _metrics(self) -> list[BackgroundLoop]:
        return [
            MetricsWriter(store, consumer.activities, ready=partial(_checked, consumer))
            for consumer in self._consumers
            if (store := consumer.store.driver.metrics) is not None and consumer.activities is not None
        ]

    def _make_schedulers(self) -> list[Scheduler]:
        """For the schedules of each database that this worker drains, or relays from."""
        settings = current_settings()
        found = [
            Scheduler(
                schedules,
                declared_schedules(settings, consumer.connection),
                ready=partial(_checked, consumer),
                idle_workers=partial(_idle_workers, consumer),
            )
            for consumer in self._consumers
            if (schedules := consumer.store.driver.schedules) is not None
        ]
        for relay in self._relays[:1]:
            if not found and relay.schedules is not None:
                declared, idle_workers = declared_schedules(settings, DATABASE), partial(_idle_relays, relay)
                found.append(Scheduler(relay.schedules, declared, ready=lambda: True, idle_workers=idle_workers))
        return found

    def _of_consumer(self, consumer: Consumer) -> list[BackgroundLoop]:
        lease, driver = self._options.lease, consumer.store.driver
        return [
            Heartbeat(
                driver.workers,
                consumer.availability,
                interval=min(lease / 3, _LONGEST_INTERVAL),
                ready=partial(_checked, consumer),
                status=partial(self._status, consumer),
                idle_workers=partial(_idle_workers, consumer),
                obey=partial(self._tell, self._obey),
            ),
            Upkeep(
                "rows that no worker can read",
                partial(_fail_unreadable, driver.jobs),
                ready=partial(_checked, consumer),
                idle_workers=partial(_idle_workers, consumer),
            ),
            CancellationWatch(
                driver.jobs.missing,
                consumer.in_flight,
                polls=partial(self._polls, consumer.connection),
                on_cancelled=partial(self._tell, consumer.cancel),
            ),
            Expiry(consumer.in_flight, lease=lease, on_expiring=partial(self._tell, consumer.expire)),
            Renewal(
                driver.jobs,
                consumer.in_flight,
                consumer.availability,
                lease=lease,
                on_lost=partial(self._tell, consumer.lose),
                on_cancelled=partial(self._tell, consumer.cancel),
                removed=partial(removed, driver.jobs),
            ),
        ]


async def _fail_unreadable(jobs: JobClaims) -> None:
    """Claims move what they meet. This is for what they never meet. The first look is that of `StoreClient.check`."""
    await jobs.fail_unreadable()


def _checked(consumer: Consumer) -> bool:
    return consumer.store.checked


def _idle_workers(consumer: Consumer) -> int:
    return consumer.claimer.idle_workers


def _idle_relays(relay: RelayLoop) -> int:
    return relay.idle_workers()
