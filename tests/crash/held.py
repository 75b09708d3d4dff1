"""Notes until when a worker under test holds its jobs, at the least: as it knows by its own clock. Named in OUTBOX_JOBS
beside the jobs, whose beginnings say it as well."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from typing import Any

from outbox import Job, clock
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.executor import Executor
from outbox.runtime.leases.in_flight import InFlight
from outbox.settlement import Fence
from tests.support import recorded_jobs

_attempt: ContextVar[Attempt | None] = ContextVar("attempt", default=None)
_run, _renewed, _note = Executor.run, InFlight.renewed, recorded_jobs.note


def _now() -> float:
    """On the clock of the oracle."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


async def run(self: Executor, attempt: Attempt) -> Any:
    token = _attempt.set(attempt)
    try:
        return await _run(self, attempt)
    finally:
        _attempt.reset(token)


def note(what: str, job: Job, **more: object) -> None:
    attempt = _attempt.get()
    if what == "begin" and attempt is not None:
        more["held_until"] = attempt.deadline - clock.now() + _now()
    _note(what, job, **more)


def renewed(self: InFlight, fences: AbstractSet[Fence], deadline: float) -> None:
    _renewed(self, fences, deadline)
    at = _now()
    line = {"what": "renewed", "number": 0, "attempt": 0, "pid": os.getpid(), "at": at}
    line["held_until"] = deadline - clock.now() + at
    text = "".join(json.dumps(line | {"id": str(fence.job_id)}) + "\n" for fence in fences)
    descriptor = os.open(os.environ["RUN_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


if "RUN_LOG" in os.environ:  # in a worker, and not where tests are collected
    Executor.run = run  # type: ignore[method-assign]
    InFlight.renewed = renewed  # type: ignore[method-assign]
    recorded_jobs.note = note
