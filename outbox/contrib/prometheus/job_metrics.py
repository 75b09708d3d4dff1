"""What happens to jobs in one process, counted from events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import time as wall_clock  # under its own name: jobs replace `time.time` to test themselves

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from outbox.contrib.prometheus.mean_runs import MeanRuns
from outbox.events import Event, JobDispatched, JobSettled, JobStarted, LeaseLost
from outbox.ids import made_at
from outbox.registry import is_registered

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
"""Upper bounds of the buckets of both histograms."""

_UNKNOWN = "(unknown)"
_OF_JOBS = ("queue", "job")

Listen = Callable[..., None]
"""`outbox.Outbox.listen`, or `outbox.events.Events.listen`."""


class JobMetrics:
    """Labels are queues, names of job classes and outcomes: never keys, ids, or what is in a payload."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """
        Raises:
            ValueError: ``registry`` has these metrics already.
        """
        # Each metric has a series with the time of its creation as well, of which this makes nothing.
        own = CollectorRegistry()
        self._dispatched = Counter("outbox_jobs_dispatched_total", "Jobs dispatched.", _OF_JOBS, registry=own)
        self._settled = Counter(
            "outbox_jobs_settled_total", "Attempts that ended, by outcome.", (*_OF_JOBS, "outcome"), registry=own
        )
        self._run = Histogram(
            "outbox_job_run_seconds", "How long an attempt ran.", _OF_JOBS, registry=own, buckets=SECONDS
        )
        self._wait = Histogram(
            "outbox_job_wait_seconds",
            "From when a worker could claim a job to the start of its first attempt.",
            _OF_JOBS,
            registry=own,
            buckets=SECONDS,
        )
        self._leases_lost = Counter(
            "outbox_leases_lost_total", "Attempts whose lease was lost.", ("queue",), registry=own
        )
        self.mean_runs = MeanRuns()
        registry.register(_WithoutCreated(own))

    def follow(self, listen: Listen) -> None:
        """Count what ``listen`` hands over from now on."""
        listen(self.record, JobDispatched, JobStarted, JobSettled, LeaseLost)

    def record(self, event: Event) -> None:
        match event:
            case JobDispatched():
                self._dispatched.labels(event.queue, _job(event.name)).inc()
            case JobStarted():
                if event.attempt == 1:
                    waited = event.waited
                    if waited is None:
                        waited = max(0.0, wall_clock() - made_at(event.job_id))
                    self._wait.labels(event.queue, _job(event.name)).observe(waited)
            case JobSettled():
                self._settled.labels(event.queue, _job(event.name), event.outcome.value).inc()
                if event.seconds > 0:
                    self._run.labels(event.queue, _job(event.name)).observe(event.seconds)
                    self.mean_runs.add(event.queue, event.seconds)
            case LeaseLost():
                self._leases_lost.labels(event.queue).inc()


def _job(name: str) -> str:
    """Rows may have any name; a label has few values."""
    return name if is_registered(name) else _UNKNOWN


class _WithoutCreated(Collector):
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def describe(self) -> list[Metric]:
        """Names for the check of duplicates."""
        return list(self._registry.collect())

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield family
