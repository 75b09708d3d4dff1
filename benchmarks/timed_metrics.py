"""The jobs of `benchmarks.jobs`, in a worker that measures its processor time: imported by it before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence

import outbox.runtime.consumer
from benchmarks.jobs import NoOp
from benchmarks.processor_times import ProcessorTimes
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.reporting.activities import Activities

__all__ = ["NoOp"]


class _TimedActivities(Activities):
    """Counts from the end of the first batch on, when the start of the process is over."""

    def __init__(self) -> None:
        super().__init__()
        self._times = ProcessorTimes()
        self._ended: float | None = None

    def count(self, attempts: Sequence[Attempt]) -> None:
        begun = time.thread_time()
        super().count(attempts)
        metrics, now = time.thread_time() - begun, time.process_time()
        if self._ended is not None:
            self._times.add(len(attempts), metrics, now - self._ended)
        self._ended = now


outbox.runtime.consumer.Activities = _TimedActivities  # type: ignore[misc]
