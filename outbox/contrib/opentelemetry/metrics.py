"""The metrics of the conventions for messaging, and those of queues that they have no name for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from outbox import clock, sync
from outbox.client_state import ClientState, enter_client, leave_client
from outbox.drivers.values import QueueCounts
from outbox.events import Event, LeaseLost, WorkerStarted
from outbox.listeners import Listeners

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Bounds that the conventions advise for durations."""

_WAITS = (*SECONDS, 30, 60, 300, 900, 3600)
_EVERY, _FACTOR = 5.0, 200
"""Seconds between two readings of a store; and at least so many times as long as the last one took."""

_log = logging.getLogger("outbox.events")


class Metrics:
    """Attributes hold no ids and no keys: queues, connections, operations and types of errors."""

    def __init__(self, provider: MeterProvider | None) -> None:
        meter = metrics.get_meter("outbox", meter_provider=provider)
        self._duration = meter.create_histogram(
            "messaging.client.operation.duration",
            unit="s",
            description="Duration of a dispatch.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", unit="{message}", description="Jobs that were dispatched."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", unit="{message}", description="Attempts that were begun."
        )
        self._process = meter.create_histogram(
            "messaging.process.duration",
            unit="s",
            description="Duration of an attempt.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._wait = meter.create_histogram(
            "outbox.job.wait",
            unit="s",
            description="From when a worker could claim a job to the start of its first attempt.",
            explicit_bucket_boundaries_advisory=_WAITS,
        )
        self._lost = meter.create_counter(
            "outbox.lease.lost", unit="{attempt}", description="Attempts whose lease was lost."
        )
        self._queues = _Queues()
        meter.create_observable_gauge(
            "outbox.queue.depth", [self._queues.depth], unit="{job}", description="Jobs in a queue, by state."
        )
        meter.create_observable_gauge(
            "outbox.queue.oldest",
            [self._queues.oldest],
            unit="s",
            description="For how long the first ready job has been waiting.",
        )

    def follow(self, client: ClientState) -> None:
        """Listen to the workers of ``client``. Its queues are read once one of them has started: in a process that
        only dispatches, they are not read."""
        self._queues.client = client
        client.part(Listeners).add(self._hear, (LeaseLost, WorkerStarted))

    def dispatched(self, count: int, seconds: float, labels: dict[str, str]) -> None:
        self._duration.record(seconds, labels)
        self._sent.add(count, labels)

    def waited(self, seconds: float, labels: dict[str, str]) -> None:
        self._wait.record(seconds, labels)

    def processed(self, seconds: float, labels: dict[str, str]) -> None:
        self._process.record(seconds, labels)
        self._consumed.add(1, labels)

    def _hear(self, event: Event) -> None:
        match event:
            case LeaseLost():
                place = {"messaging.destination.name": event.queue, "outbox.connection": event.connection}
                self._lost.add(1, {"messaging.system": "outbox", **place})
            case WorkerStarted():
                # Relays are described by sentences.
                names = [each.partition(": ")[0] for each in event.connections]
                self._queues.connections = [name for name in names if " " not in name]


class _Queues:
    """Reads the queues when a reader of metrics asks, and seldom enough that it does not matter to the stores."""

    def __init__(self) -> None:
        self.client: ClientState | None = None
        self.connections: Sequence[str] = ()
        self._lock = threading.Lock()
        self._latest: list[tuple[str, QueueCounts]] = []
        self._next_at = float("-inf")

    def depth(self, _: CallbackOptions) -> Iterable[Observation]:
        for connection, counts in self._read():
            for state in ("ready", "delayed", "retrying", "reserved", "parked", "failed"):
                labels = {**_place(connection, counts), "outbox.job.state": state}
                yield Observation(getattr(counts, state), labels)

    def oldest(self, _: CallbackOptions) -> Iterable[Observation]:
        for connection, counts in self._read():
            yield Observation(counts.oldest or 0.0, _place(connection, counts))

    def _read(self) -> list[tuple[str, QueueCounts]]:
        with self._lock:
            begun = clock.now()
            if self.client is not None and self.connections and begun >= self._next_at:
                self._latest = self._ask(self.client)
                self._next_at = begun + max(_EVERY, _FACTOR * (clock.now() - begun))
            return self._latest

    def _ask(self, client: ClientState) -> list[tuple[str, QueueCounts]]:
        token = enter_client(client)
        try:
            return [(name, counts) for name in self.connections for counts in sync.counts(connection=name)]
        except Exception as error:  # noqa: BLE001 - other metrics are exported without these
            _log.warning("the queues could not be read for metrics: %s", error)
            return []
        finally:
            leave_client(token)


def _place(connection: str, counts: QueueCounts) -> dict[str, str]:
    return {
        "messaging.system": "outbox",
        "messaging.destination.name": counts.queue,
        "outbox.connection": connection,
    }
