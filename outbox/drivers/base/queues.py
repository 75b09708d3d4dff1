"""What every driver has for queues."""

from __future__ import annotations

from typing import Protocol

from outbox.drivers.values import QueueCounts


class QueueControl(Protocol):
    """What an operator needs of queues."""

    async def counts(self) -> list[QueueCounts]:
        """One row per queue that has live or failed jobs, or is paused; by name."""

    async def clear(self, queue: str) -> int:
        """Remove every job of a queue that no worker holds; return how many."""

    async def pause(self, queue: str) -> bool:
        """Stop claims from a queue; False when it was paused already."""

    async def resume(self, queue: str) -> bool:
        """Allow claims again; False when it was not paused."""
