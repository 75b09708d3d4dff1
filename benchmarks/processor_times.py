"""Processor time of a worker, and what of it metrics take, told in a file beside the counters of its jobs."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks import job_counters

_FILE = "processor_times"
_JOBS, _METRICS, _WORKER = range(3)
_SIZE = 3 * 8


class ProcessorTimes:
    """Written by a worker that is alone: what it wrote last outlives the process."""

    def __init__(self) -> None:
        path = Path(os.environ[job_counters.VARIABLE]).parent / _FILE
        with path.open("w+b") as file:
            file.truncate(_SIZE)
            self._numbers = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("d")

    def add(self, jobs: int, metrics: float, worker: float) -> None:
        """So many more jobs, with what they took: seconds of processor time."""
        for place, value in ((_JOBS, jobs), (_METRICS, metrics), (_WORKER, worker)):
            self._numbers[place] += value


@dataclass(frozen=True, slots=True)
class TimesOfJob:
    """Seconds of processor time, of the system and of the program, for each job."""

    job: float
    metrics: float


def read(directory: Path) -> TimesOfJob:
    """What was written by a worker of `Programs` with this ``directory``."""
    numbers = memoryview((directory / _FILE).read_bytes()).cast("d")
    return TimesOfJob(numbers[_WORKER] / numbers[_JOBS], numbers[_METRICS] / numbers[_JOBS])
