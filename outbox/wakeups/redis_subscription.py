"""Redis as a source of wake-ups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from outbox.wakeups.base import Report, WakeupListener
from outbox.wakeups.reconnecting_source import ReconnectingSource
from outbox.wakeups.redis_channel import CHANNEL, unpack

_SILENT_SECONDS = 15.0


class Subscribed(Protocol):
    """A connection that has subscribed to a channel."""

    async def keep_listening(self, silent_seconds: float) -> None:
        """Read messages until the connection fails, or the server is silent for this long. Then it raises."""

    async def close(self) -> None:
        """Idempotent."""


class PubSub(Protocol):
    """Connects to the server."""

    async def subscribe(self, channel: str, on_message: Callable[[bytes], None], /) -> Subscribed:
        """Returns when subscribed. ``on_message`` is called with every message."""


class Subscription(ReconnectingSource):
    """One subscription per process."""

    name = "redis"

    def __init__(self, pubsub: PubSub, listener: WakeupListener, report: Report) -> None:
        super().__init__(listener, report)
        self._pubsub = pubsub

    async def listen(self) -> AsyncIterator[frozenset[str] | None]:
        subscribed = await self._pubsub.subscribe(CHANNEL, self._on_message)
        try:
            yield None
            await subscribed.keep_listening(_SILENT_SECONDS)
        finally:
            await subscribed.close()

    def _on_message(self, message: bytes) -> None:
        # Called where the message was read, not through the task: each turn of the loop would add latency.
        queues = unpack(message)
        if queues:
            self._listener.notify(queues)
        else:
            self._listener.notify_all()
