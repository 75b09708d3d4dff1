"""The jobs that are measured. They do nothing but count."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from benchmarks.filling import JOB_NAME
from benchmarks.tally import VARIABLE, Tally
from outbox import Job


@cache
def tally() -> Tally:
    """That of this process, made when its first job runs."""
    return Tally(Path(os.environ[VARIABLE]))


class NoOp(Job):
    """One integer, nothing to do."""

    name = JOB_NAME

    number: int

    async def handle(self) -> None:
        tally().count()


class Stamped(Job):
    """Tells how long it has waited since it was made."""

    name = "benchmarks.Stamped"

    made: float

    async def handle(self) -> None:
        tally().count()
        tally().delay(time.monotonic() - self.made)
