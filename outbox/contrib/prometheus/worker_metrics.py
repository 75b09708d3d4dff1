"""The metrics of one worker process, in a registry of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outbox.contrib.prometheus.job_metrics import JobMetrics
from outbox.contrib.prometheus.store_metrics import StoreMetrics, read
from outbox.events import Events, JobDispatched, JobSettled, JobStarted, LeaseLost
from outbox.listeners import listen
from outbox.runtime.slots import Slots
from outbox.runtime.worker import Worker


class WorkerMetrics:
    """What ``/metrics`` of a worker shows."""

    def __init__(self, worker: Worker) -> None:
        self._of_process = CollectorRegistry()
        self._jobs = JobMetrics(self._of_process)
        self._of_process.register(_SlotMetrics(worker.slots))
        self._of_store = CollectorRegistry()
        self._of_store.register(StoreMetrics(lambda: worker.ask_stores(read), self._jobs.mean_runs.of))

    def listen(self, events: Events) -> None:
        """Follow the worker's own events, and what its jobs dispatch."""
        events.listen(self._jobs.record, JobStarted, JobSettled, LeaseLost)
        listen(self._jobs.record, JobDispatched)

    def of_process(self) -> str:
        """What differs between the processes of a worker."""
        return generate_latest(self._of_process).decode()

    def of_store(self) -> str:
        """What is the same in all processes. It may wait some seconds for the stores."""
        return generate_latest(self._of_store).decode()


class _SlotMetrics(Collector):
    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        slots = self._slots
        running, stuck = slots.running, slots.stuck
        family = GaugeMetricFamily(
            "outbox_slots", "Slots for jobs, by what is in them; stuck: a handler that does not end.", labels=("state",)
        )
        for state, number in (("running", running - stuck), ("stuck", stuck), ("free", max(0, slots.size - running))):
            family.add_metric((state,), number)
        yield family
