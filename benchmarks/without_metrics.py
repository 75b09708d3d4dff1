"""The jobs of `benchmarks.jobs`, in a worker that keeps no metrics: imported by it before it starts."""

from __future__ import annotations

import outbox.runtime.consumer
from benchmarks.jobs import NoOp

__all__ = ["NoOp"]

outbox.runtime.consumer.Activities = lambda: None  # type: ignore[assignment, misc]
