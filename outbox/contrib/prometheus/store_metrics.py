"""Gauges of the stores. A store is read at a scrape, and so seldom that its load stays small."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outbox import clock
from outbox.drivers.base import Driver
from outbox.drivers.values import SILENT_SECONDS, QueueCounts, WorkerStatus
from outbox.relay.route import relayed_connection

_EVERY, _FACTOR = 5.0, 200
"""Seconds between two readings; and at least so many times as long as the last one took."""

COUNT_SECONDS = 4.0
"""For which a request waits for a reading of the stores."""

_STATES = ("ready", "delayed", "retrying", "reserved", "parked", "failed")

_log = logging.getLogger("outbox.runtime")


@dataclass
class Reading:
    """What one store has. ``late`` is seconds since the earliest tick that has not become a job."""

    counts: Sequence[QueueCounts] = ()
    workers: Sequence[WorkerStatus] = ()
    blocked_keys: int = 0
    late: float | None = None


async def read(driver: Driver) -> Reading:
    reading = Reading(await driver.queues.counts(), await driver.workers.all())
    if driver.policies is not None:
        reading.blocked_keys = len(set((await driver.policies.blocked_keys()).values()))
    if driver.schedules is not None:
        late = [(each.now - each.next_at).total_seconds() for each in await driver.schedules.list() if each.next_at]
        reading.late = max(0.0, *late) if late else 0.0
    return reading


@dataclass
class _Latest:
    readings: list[Reading] = field(default_factory=list)
    next_at: float = float("-inf")
    pending: Future[list[Reading]] | None = None
    begun: float = 0.0


class StoreMetrics(Collector):
    """Gauges of all stores of a worker. Queues of the same name in two of them are one."""

    def __init__(self, start: Callable[[], Future[list[Reading]]], mean_run: Callable[[str], float | None]) -> None:
        """``start`` begins to read all stores; ``mean_run`` says how long attempts of a queue run."""
        self._start = start
        self._mean_run = mean_run
        self._lock = threading.Lock()
        self._latest = _Latest()

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        """Nothing where the stores do not answer: what they had a while ago would look like news."""
        with self._lock:
            readings = self._read()
        if readings:
            yield from _families(readings, self._mean_run)

    def _read(self) -> list[Reading]:
        latest = self._latest
        if latest.pending is None:
            if clock.now() < latest.next_at:
                return latest.readings
            latest.begun = clock.now()
            try:
                latest.pending = self._start()
            except RuntimeError:
                return []  # The worker has stopped, or not started.
        # A call that hangs is not repeated: the next scrape waits for the same one.
        try:
            latest.readings = latest.pending.result(COUNT_SECONDS)
        except FutureTimeoutError:
            return []
        except Exception as error:  # noqa: BLE001 - whatever it is, a page without it is better than none
            _log.warning("the metrics of the stores could not be read: %s", error)
            latest.readings = []
        took = clock.now() - latest.begun
        latest.pending, latest.next_at = None, latest.begun + max(_EVERY, _FACTOR * took)
        return latest.readings


def _families(readings: Sequence[Reading], mean_run: Callable[[str], float | None]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("outbox_queue_jobs", "Jobs in a queue, by state.", labels=("queue", "state"))
    oldest = GaugeMetricFamily(
        "outbox_queue_oldest_seconds", "For how long the first ready job has been waiting.", labels=("queue",)
    )
    clear = GaugeMetricFamily(
        "outbox_queue_clear_seconds",
        "Ready jobs times their mean run, over the slots.",
        labels=("queue",),
    )
    workers = [each for reading in readings for each in reading.workers if each.seen <= SILENT_SECONDS]
    queues, pending = _by_queue(readings)
    for queue, counts in queues.items():
        for state in _STATES:
            jobs.add_metric((queue, state), sum(getattr(each, state) for each in counts))
        oldest.add_metric((queue,), max(each.oldest or 0.0 for each in counts))
        ready = sum(each.ready for each in counts)
        slots = sum(each.concurrency for each in workers if queue in each.queues.split(","))
        if (seconds := clear_seconds(ready, mean_run(queue), slots)) is not None:
            clear.add_metric((queue,), seconds)
    yield from (jobs, oldest, clear)
    alive = len({each.id for each in workers})
    yield GaugeMetricFamily("outbox_workers", "Worker processes that were heard of within a minute.", value=alive)
    yield GaugeMetricFamily("outbox_relay_pending", "Jobs that a relay has yet to move to Redis.", value=pending)
    blocked = sum(each.blocked_keys for each in readings)
    yield GaugeMetricFamily("outbox_keys_blocked", "Ordering keys that a failed job blocks.", value=blocked)
    late = [each.late for each in readings if each.late is not None]
    if late:
        yield GaugeMetricFamily(
            "outbox_schedule_late_seconds", "For how long the most belated tick of a schedule is due.", value=max(late)
        )


def _by_queue(readings: Sequence[Reading]) -> tuple[dict[str, list[QueueCounts]], int]:
    """The counts of each queue, and how many jobs wait for a relay."""
    queues: dict[str, list[QueueCounts]] = {}
    pending = 0
    for counts in (each for reading in readings for each in reading.counts):
        if relayed_connection(counts.queue) is None:
            queues.setdefault(counts.queue, []).append(counts)
        else:
            pending += counts.ready + counts.reserved
    return queues, pending


def clear_seconds(ready: int, mean_run: float | None, slots: int) -> float | None:
    """How long it takes to run what is ready; infinite without a worker, None where no run is known."""
    if ready == 0:
        return 0.0
    if slots == 0:
        return float("inf")
    return None if mean_run is None else ready * mean_run / slots
