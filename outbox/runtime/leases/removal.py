"""Tells a job that an operator removed from one whose lease was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from outbox import clock
from outbox.drivers.values import StoredJob
from outbox.ids import JobId
from outbox.runtime.execution.attempt import Attempt

_MOST = 200
"""Jobs that are asked for one by one. What is beyond is reported as lost."""


class FindsJobs(Protocol):
    async def get(self, job_id: JobId) -> StoredJob | None: ...


async def removed(jobs: FindsJobs, attempts: Sequence[Attempt]) -> frozenset[Attempt]:
    """Which of these attempts, whose claims the store no longer knows, are of jobs that an operator removed.

    While a lease is alive no other worker can claim its job, and so none can have ended it. If there is no such job any
    more, `outbox cancel` or a statement by hand has removed it. It asks in the thread of the stores.
    """
    alive = [attempt for attempt in attempts if attempt.deadline > clock.now()]
    try:
        return frozenset([attempt for attempt in alive[:_MOST] if await jobs.get(attempt.fence.job_id) is None])
    except Exception:  # noqa: BLE001 - only what the log says depends on it
        return frozenset()
