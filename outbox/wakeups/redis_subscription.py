"""Redis as a source of wake-ups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from outbox.wakeups.base import Report, WakeupListener
from outbox.wakeups.reconnecting_source import Listening
from outbox.wakeups.redis_channel import CHANNEL, unpack

_SILENT_SECONDS = 15.0


class Subscribed(Protocol):
    """A connection that listens to a channel."""

    async def keep_listening(self, silent_seconds: float) -> None:
        """Until the connection is gone, or the server without a word, which raises."""

    async def close(self) -> None:
        """Harmless when repeated."""


class PubSub(Protocol):
    """What connects to the server."""

    async def subscribe(self, channel: str, hear: Callable[[bytes], None], /) -> Subscribed:
        """Returns once it listens; ``hear`` is called with every message."""


class Subscription(Listening):
    """One for a process: a message is cheap, and Redis tells all of its subscribers."""

    name = "redis"

    def __init__(self, pubsub: PubSub, bells: WakeupListener, report: Report) -> None:
        super().__init__(bells, report)
        self._pubsub = pubsub

    async def listen(self) -> AsyncIterator[frozenset[str] | None]:
        subscribed = await self._pubsub.subscribe(CHANNEL, self._heard)
        try:
            yield None
            await subscribed.keep_listening(_SILENT_SECONDS)
        finally:
            await subscribed.close()

    def _heard(self, message: bytes) -> None:
        # Where it was read, and not by way of the task: every turn of the loop in between is felt by the job.
        queues = unpack(message)
        if queues:
            self._bells.notify(queues)
        else:
            self._bells.notify_all()
