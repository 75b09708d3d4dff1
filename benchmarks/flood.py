"""``python -m benchmarks.flood SECONDS``: dispatches more than is run, by `GROWTH` jobs a second, for so long.

A backlog that grows by a set number does so however fast the workers are, and ten minutes of it fit into the memory of
the servers. It is a program of its own so that making the jobs delays nothing that is measured elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from benchmarks import job_counters
from benchmarks.jobs import NoOp
from outbox import disconnect, dispatch_many

GROWTH = 4_000
_PORTION = 500
_LOOK_EVERY = 0.02
_LOW = 9


async def flood(seconds: float, counter_files: Path) -> None:
    begun, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - begun) < seconds:
        if sent - job_counters.counted(counter_files) < GROWTH * elapsed:
            await dispatch_many([NoOp(number=sent + number) for number in range(_PORTION)], priority=_LOW)
            sent += _PORTION
        else:
            await asyncio.sleep(_LOOK_EVERY)
    await disconnect()


if __name__ == "__main__":
    asyncio.run(flood(float(sys.argv[1]), Path(os.environ[job_counters.VARIABLE])))
