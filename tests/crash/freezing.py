"""A worker that is frozen when it is about to send a call to Redis, and sends it when it thaws: the store alone can
tell that it comes too late. Named in OUTBOX_JOBS beside the jobs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from outbox.drivers.redis.jobs.job_store import RedisJobs
from outbox.drivers.values import Lease, Settled
from outbox.settlement import Fence, Settlement

_settle, _extend = RedisJobs.settle, RedisJobs.extend


def frozen(verb: str) -> bool:
    """Once, in one process: the marker is taken away by whoever freezes."""
    marker = _file("freeze")
    if not marker.exists() or marker.read_text(encoding="utf-8") != verb:
        return False
    marker.unlink()
    # To this thread: sent to the process, another thread may take it, and this one goes on for long enough to send.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    return True


def _file(name: str) -> Path:
    return Path(os.environ["RUN_LOG"]).with_name(name)


async def settle(self: RedisJobs, settlements: Sequence[Settlement]) -> Settled:
    late = frozen("settle")
    settled = await _settle(self, settlements)
    if late:
        _file("answer").write_text(f"{len(settled.accepted)} accepted, {len(settled.stale)} refused")
    return settled


async def extend(self: RedisJobs, fences: Sequence[Fence], lease: float) -> Lease:
    late = frozen("extend")
    extended = await _extend(self, fences, lease)
    if late:
        _file("answer").write_text(f"{len(extended.kept)} accepted, {len(extended.lost)} refused")
    return extended


if "RUN_LOG" in os.environ:  # in a worker
    RedisJobs.settle = settle  # type: ignore[method-assign]
    RedisJobs.extend = extend  # type: ignore[method-assign]
