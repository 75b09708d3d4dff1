"""The names of keys, as `scripts/common/base.lua` lays them out."""

from __future__ import annotations

from functools import lru_cache

from outbox.options import PRIORITIES

QUEUES = "outbox:queues"
"""The set of the names of all queues that ever had a job."""

# A tag that no queue can have as its name: both keys are in one slot, and none of theirs.
WORKERS = ("outbox:{:workers}:rows", "outbox:{:workers}:seen", "outbox:{:workers}:orders")

ENDED = "ended"
"""The list of relayed jobs that have ended, for a relay that removes their rows."""

OUTCOMES = "outcomes"
"""The hash of how relayed jobs with policies have ended, until their rows are gone."""

PAUSED, JOBS, FAILED, FAILURES, HELD, PARKED = "paused", "jobs", "failed", "failures", "held", "parked"
_SUFFIXES = (PAUSED, JOBS, HELD, "tries", FAILED, FAILURES, PARKED, "standing", "retrying", *map(str, PRIORITIES))


def key(queue: str, suffix: str) -> str:
    return f"outbox:{{{queue}}}:{suffix}"


@lru_cache(maxsize=1_000)
def queue_keys(queue: str) -> tuple[bytes, ...]:
    """All keys of a queue, in the order in which the scripts expect them."""
    return tuple(key(queue, suffix).encode() for suffix in _SUFFIXES)


def zset_keys(queue: str) -> tuple[str, ...]:
    """The zsets of a queue's live jobs, one for each priority."""
    return tuple(key(queue, str(priority)) for priority in PRIORITIES)
