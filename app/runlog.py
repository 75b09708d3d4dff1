"""Evidence of what ran, kept apart from the queue's own tables.

The demonstration asks "was anything lost, run twice, run though it was rolled back?". The queue is the
accused, so the witness is a file: one per process, one line per event, written before and after
the work. A line is a single write to a file opened for appending, so a process killed between two
lines loses neither. Without `APP_RUN_LOG` nothing is written.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from app.settings import settings
from outbox import Job


@dataclass(frozen=True)
class Line:
    """One event of one run: `began`, then `ended`, or `raised` and the exception's name."""

    process: int
    moment: float
    event: str
    job: str
    job_id: str
    attempt: int


@contextmanager
def run(job: Job) -> Iterator[None]:
    """Log that `job` begins and how it ends."""
    directory = settings().run_log
    if directory is None:
        yield
        return
    _write(directory, "began", job)
    try:
        yield
    except BaseException as error:
        _write(directory, f"raised:{type(error).__name__}", job)
        raise
    _write(directory, "ended", job)


def parse(process: int, text: str) -> Line:
    """One line of the file of `process`."""
    moment, event, job, job_id, attempt = text.split()
    return Line(process, float(moment), event, job, job_id, int(attempt))


def _write(directory: Path, event: str, job: Job) -> None:
    context = job.context
    line = f"{time.time():.6f} {event} {type(job).__name__} {context.job_id} {context.attempt}\n"
    os.write(_file(directory, os.getpid()), line.encode("ascii"))


_opening = threading.Lock()


def _file(directory: Path, process: int) -> int:
    with _opening:  # plain jobs run in threads, and two first ones must not open two files
        return _open(directory, process)


@cache
def _open(directory: Path, process: int) -> int:
    return os.open(directory / f"{process}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
