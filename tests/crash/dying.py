"""A worker that kills itself in the middle of writing how jobs ended. Named in OUTBOX_JOBS beside the jobs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database.connection.raw_connection import RawConnection
from outbox.drivers.database.jobs.job_store import DatabaseJobs
from outbox.drivers.values import Settled
from outbox.settlement import Settlement
from tests.support.death_marker import die

BEFORE_COMMIT = "before the commit"
AFTER_COMMIT = "after the commit"

_settling: ContextVar[bool] = ContextVar("settling", default=False)
_settle = DatabaseJobs.settle


async def settle(self: DatabaseJobs, settlements: Sequence[Settlement]) -> Settled:
    token = _settling.set(True)
    try:
        settled = await _settle(self, settlements)
        die(AFTER_COMMIT)
        return settled
    finally:
        _settling.reset(token)


def deadly(kind: type[Any]) -> None:
    """Die where a connection of this kind is about to commit a settlement: all of its statements have been executed."""
    commit = kind.commit

    async def commit_unless_dead(self: Any) -> None:
        if _settling.get():
            die(BEFORE_COMMIT)
        await commit(self)

    kind.commit = commit_unless_dead


if "RUN_LOG" in os.environ:  # in a worker; the tests' own process imports this for its names
    DatabaseJobs.settle = settle  # type: ignore[method-assign]
    # No listener of the engine, with which a worker would not use `RawConnection`.
    deadly(AsyncConnection)
    deadly(RawConnection)
