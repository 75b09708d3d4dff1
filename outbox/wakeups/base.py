"""The seam between idle workers and whatever tells them that a job may have become claimable."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import IntEnum
from typing import Protocol


class Wake(IntEnum):
    """What ended a wait; false when nothing did but the clock."""

    NOTHING = 0
    MAYBE = 1
    """Something changed, or may have been missed: worth a look, not worth a claim."""
    JOBS = 2
    """Jobs were committed."""
    TAKEN = 3
    """A job was taken for whoever waits."""


class Wakeups(Protocol):
    """What one connection of a worker waits on while it is idle."""

    async def wait(self, seconds: float) -> Wake:
        """Sleep for up to ``seconds``, cut short by ``wake``, also by one called since the last ``clear``."""

    def wake(self, wake: Wake = Wake.JOBS) -> None:
        """End the current wait, or the next one at once. May be called from any thread; costs next to nothing while
        nobody waits."""

    def clear(self) -> Wake:
        """Forget what came until now, and say what it was: the claim or the look that is about to begin will see it."""

    def close(self) -> None:
        """Give back what it holds; harmless when repeated."""


class Source(Protocol):
    """Something outside this process that tells of committed jobs. It rings the `outbox.wakeups.local_hub`.

    Both calls are safe in any state: stopped before it was started, stopped twice.
    """

    async def start(self) -> str:
        """Listen, from now on and through every outage. Returns what it listens to, for the banner, once it hears.

        Raises:
            Unavailable: it cannot; whoever needs it polls instead.
        """

    async def stop(self) -> None:
        """Return once nothing of it is left."""


class Unavailable(Exception):
    """Wake-ups of this kind cannot be had here; the message says why and what would help."""


class WakeupListener(Protocol):
    """Whom a source tells: the `outbox.wakeups.local_hub` of this process, or those of others."""

    def notify(self, queues: Collection[str]) -> None:
        """Jobs of these queues were committed."""

    def notify_all(self) -> None:
        """Something may have been committed that nobody heard of."""


Announce = Callable[[Collection[str]], None]
"""Tells whoever listens that jobs of these queues were committed. Never waits, never raises."""

Report = Callable[[str | None], None]
"""Told what is wrong when a source stops hearing, and None when it hears again."""
