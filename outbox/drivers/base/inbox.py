"""Optional part: received messages."""

from __future__ import annotations

from typing import Protocol


class MessageStore(Protocol):
    """A store that keeps which messages were received."""

    async def prune(self) -> int:
        """Forget the messages whose time is over; return how many."""
