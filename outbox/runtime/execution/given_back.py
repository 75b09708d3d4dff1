"""How long jobs wait for another worker that this one cannot run: their code or their resources are elsewhere."""

from __future__ import annotations

import random
from collections import OrderedDict

from outbox import clock
from outbox.ids import JobId

LONGEST_WAIT = 3600.0
"""Seconds after which such a job fails: no other worker has taken it."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_PART_OF_WAIT = 0.1
"""The pause until a worker may find a job again, as a part of the time that it has waited."""

_MOST = 10_000
"""Jobs that are remembered. The hour of one that was forgotten begins again."""


class GivenBackJobs:
    """Measures with this process's monotonic clock, from when it first met a job. A worker that is started again, which
    is what a deploy does, begins anew."""

    def __init__(self, longest: float = LONGEST_WAIT) -> None:
        self._longest = longest
        self._met: OrderedDict[JobId, float] = OrderedDict()

    def is_new(self, job_id: JobId) -> bool:
        return job_id not in self._met

    def delay(self, job_id: JobId) -> float | None:
        """Seconds until a worker may find the job again; None if it has waited for too long."""
        now = clock.now()
        waited = now - self._met.setdefault(job_id, now)
        if waited >= self._longest:
            del self._met[job_id]
            return None
        if len(self._met) > _MOST:
            self._met.popitem(last=False)
        pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, waited * _PART_OF_WAIT))
        return pause * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
