"""The protocols between idle workers and the sources that tell them of new jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import IntEnum
from typing import Protocol

CANCELLED = "!cancelled"
"""Announced in place of a queue, whose name it cannot be: running jobs were cancelled."""

OPERATIONS = "!operations"
"""Announced in the same way: there is a new bulk operation."""

RESUMED = "!resumed"
"""Announced in the same way: a pause has ended, and jobs of any queue may be claimable."""


class Wake(IntEnum):
    """What ended a wait. False if the time was up."""

    NOTHING = 0
    MAYBE = 1
    """Something changed, or a message may have been missed. Probe before claiming."""
    JOBS = 2
    """Jobs were committed. Claim."""
    TAKEN = 3
    """A blocking claim has received a job."""


class Wakeups(Protocol):
    """What one connection of a worker waits on while it is idle."""

    async def wait(self, seconds: float) -> Wake:
        """Sleep for up to ``seconds``. Return early after a call of ``wake``, or of one made since the last
        ``clear``."""

    def wake(self, wake: Wake = Wake.JOBS) -> None:
        """End the current wait, or the next one. Thread-safe, and cheap while nothing waits."""

    def clear(self) -> Wake:
        """Discard and return the pending wake, because the claim or probe that follows sees what it was about."""

    def close(self) -> None:
        """Release resources. Idempotent."""


class WakeupSource(Protocol):
    """Tells a `WakeupListener` of jobs that other processes commit.

    Both methods are safe in any state: ``stop`` before ``start``, and twice.
    """

    async def start(self) -> str:
        """Start listening, and reconnect after every outage. Returns the source's name for the log.

        Raises:
            Unavailable: this source cannot work here, so the worker polls.
        """

    async def stop(self) -> None:
        """Stop listening, and return when every resource is released."""


class Unavailable(Exception):
    """A source cannot work here. The message says why, and what would change that."""


class WakeupListener(Protocol):
    """What a source notifies: the `outbox.wakeups.local_hub`, or the processes of a supervisor."""

    def notify(self, queues: Collection[str]) -> None:
        """Jobs of these queues were committed."""

    def notify_all(self) -> None:
        """Jobs of any queue may have been committed."""


Announce = Callable[[Collection[str]], None]
"""Announces committed jobs of these queues. Never waits, never raises."""

Report = Callable[[str | None], None]
"""Called with an error when a source loses its connection, and with None when it is connected again."""
