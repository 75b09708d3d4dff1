"""Circuit breakers of job classes: the contract of a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from outbox.ids import JobId


class BreakerTerms(NamedTuple):
    max_exceptions: int
    """How many open it."""
    within: float
    """Seconds, from the first of them."""
    pause: float
    """Seconds until the next probe."""


class BreakerStore(Protocol):
    async def failed(self, name: str, job_id: JobId, terms: BreakerTerms, error: str) -> bool:
        """Count an exception of a job of the class ``name``; ``error`` is its type. True if the class is paused because
        of it."""

    async def is_paused(self, name: str) -> bool:
        """One read of a row by its key."""

    async def succeeded(self, name: str, job_id: JobId, on_released: Callable[[frozenset[str]], None]) -> bool:
        """End the pause if this job is the probe; True if it is. ``on_released`` is that of `PauseStore.resume`."""
