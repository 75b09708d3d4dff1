"""The jobs that are measured. They do nothing but count."""

from __future__ import annotations

import time

from benchmarks.job_counters import mine
from outbox import Job


class NoOp(Job):
    """One integer, nothing to do."""

    name = "benchmarks.NoOp"

    number: int

    async def handle(self) -> None:
        mine().count()


class Keyed(Job):
    """As `NoOp`; the dispatch says what its key is for."""

    name = "benchmarks.Keyed"

    number: int
    key: int

    async def handle(self) -> None:
        mine().count()


class Stamped(Job):
    """Tells how long it has waited since it was made."""

    name = "benchmarks.Stamped"

    made: float

    async def handle(self) -> None:
        mine().count()
        mine().delay(time.monotonic() - self.made)
