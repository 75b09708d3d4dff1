"""What a worker says of itself: its start and end, as events, and its state, in heartbeats."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence

from outbox.drivers.base import Driver
from outbox.drivers.values import WorkerStatus
from outbox.events import (
    Events,
    WorkerKilled,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from outbox.ids import new_token
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.heartbeat import running_jobs
from outbox.runtime.process.exit_codes import ExitCode
from outbox.runtime.process.installed_version import installed_version
from outbox.runtime.process.limits import resident_mib
from outbox.runtime.relay_loop import RelayLoop
from outbox.runtime.reporting.counters import Counters
from outbox.runtime.slots import Slots
from outbox.runtime.worker_control import WorkerControl
from outbox.settings import WorkerOptions
from outbox.settlement import Failure


class WorkerReports:
    def __init__(
        self,
        name: str,
        options: WorkerOptions,
        control: WorkerControl,
        slots: Slots,
        counters: Counters,
        events: Events,
    ) -> None:
        self._id = new_token()
        self._name = name
        self._options = options
        self._control = control
        self._slots = slots
        self._counters = counters
        self._events = events

    def status(self, attempts: Iterable[Attempt]) -> WorkerStatus:
        return WorkerStatus(
            id=self._id,
            name=self._name,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=",".join(self._options.queue),
            concurrency=self._options.concurrency,
            running=self._slots.running,
            processed=self._counters.processed,
            failed=self._counters.failed,
            jobs=running_jobs(attempts),
            state=self._control.state,
            memory=int(resident_mib() * 1024**2) or None,
            version=installed_version(),
        )

    def started(self, drivers: Sequence[Driver], relays: Sequence[RelayLoop], wakeups: Sequence[str]) -> None:
        options = self._options
        self._events.emit(
            WorkerStarted(
                self._name,
                os.getpid(),
                (
                    *(f"{driver.name}: {driver.description}" for driver in drivers),
                    *(relay.description for relay in relays),
                ),
                options.queue if drivers else tuple(relay.queue for relay in relays),
                options.concurrency,
                options.lease,
                tuple(wakeups),
            )
        )

    def stopping(self) -> None:
        reason, error = self._control.stop.reason, self._control.stop.error
        self._events.emit(
            WorkerStopping(
                self._name,
                reason.text if reason is not None else "",
                self._slots.running,
                None if error is None else Failure.of(error),
            )
        )

    def stopped(self) -> None:
        counters = self._counters
        self._events.emit(WorkerStopped(self._name, counters.processed, counters.failed, counters.handed_back))

    def stopped_hard(self, signal: str, attempts: Iterable[Attempt]) -> None:
        """Say which jobs are left behind when a second ``signal`` ends the process."""
        held = [f"{each.claim.name} {each.fence.job_id}" for each in attempts]
        reason = f"a second request to stop ({signal})"
        self._events.emit(WorkerKilled(self._name, ExitCode.HARD_STOP, reason, tuple(sorted(held))))
