"""A job that is kept, and a worker that dies or freezes around its settlement: ``KEPT_FATE`` says where."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence

from outbox import Job
from outbox.drivers.database import finished_jobs
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.jobs.job_store import DatabaseJobs
from outbox.drivers.values import Settled
from outbox.settlement import KeepFinished, Settlement
from tests.support.recorded_jobs import note

_settle, _keep = DatabaseJobs.settle, finished_jobs.keep
_FATE = os.environ.get("KEPT_FATE", "")


class Kept(Job):
    name = "crash.kept.Kept"
    keep_for = 3600
    max_tries = 50

    async def handle(self) -> int:
        note("kept", self)
        return self.context.attempt


async def settle(self: DatabaseJobs, settlements: Sequence[Settlement]) -> Settled:
    if _FATE == "frozen before":
        # To this thread: sent to the process, another thread may take it, and this one goes on for long enough to send.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    elif _FATE == "killed before":
        os.kill(os.getpid(), signal.SIGKILL)
    settled = await _settle(self, settlements)
    if _FATE == "killed after":
        os.kill(os.getpid(), signal.SIGKILL)
    return settled


def keep(dialect: Dialect, effects: Sequence[KeepFinished]) -> Plan[None]:
    yield from _keep(dialect, effects)
    # The result is written, the job removed, and nothing committed.
    os.kill(os.getpid(), signal.SIGKILL)


if _FATE:
    DatabaseJobs.settle = settle  # type: ignore[method-assign]
if _FATE == "killed within":
    finished_jobs.keep = keep
