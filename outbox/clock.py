"""This process's clock: durations only. What is due is decided by the database's clock, never by this one."""

from __future__ import annotations

import time

# CLOCK_BOOTTIME goes on while a machine is suspended, as leases do; a monotonic clock that stood still would let a
# worker believe, after waking up, that it still owned its jobs.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds since an arbitrary point, never set back, counting time asleep where the system can."""
    return time.clock_gettime(_CLOCK)
