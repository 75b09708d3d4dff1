"""Schedules for worker processes under test. Named in OUTBOX_JOBS.

``CLOCK_OFFSET`` is seconds by which the wall clock of the process is wrong. ``SCHEDULER_DIES``: a process in which a
file ``die`` names a moment of a tick ends there by SIGKILL, once.
"""

from __future__ import annotations

import os
import time
from typing import Any

from outbox import Job, schedule
from outbox.drivers.database.policies import registry
from outbox.drivers.database.schedules.store import DatabaseSchedules
from tests.support.death_marker import die
from tests.support.recorded_jobs import note

BEFORE_INSERT, AFTER_INSERT, AFTER_COMMIT = "before the insert", "after the insert", "after the commit"

_offset = float(os.environ.get("CLOCK_OFFSET", "0"))
if _offset:
    _time, _time_ns = time.time, time.time_ns
    time.time = lambda: _time() + _offset
    time.time_ns = lambda: _time_ns() + int(_offset * 1e9)


class EverySecond(Job):
    queue = "ticks"
    max_tries = 9

    async def handle(self) -> None:
        tick, previous = self.context.tick, self.context.previous_tick
        assert tick is not None
        seconds = None if previous is None else (tick - previous).total_seconds()
        note("tick", self, error=f"{tick:%Y-%m-%d %H:%M:%S} {seconds}")


if "RUN_LOG" in os.environ:  # in a worker, and not where tests are collected
    schedule(every="1s", misfire="all")(EverySecond)
    _dispatched, _tick = registry.dispatched, DatabaseSchedules.tick

    def dispatched(dialect: Any, jobs: Any) -> Any:
        die(AFTER_INSERT)
        return _dispatched(dialect, jobs)

    async def tick(self: Any, name: str, templates: Any) -> bool:
        die(BEFORE_INSERT)
        done = await _tick(self, name, templates)
        die(AFTER_COMMIT)
        return done

    registry.dispatched = dispatched
    DatabaseSchedules.tick = tick  # type: ignore[method-assign]
