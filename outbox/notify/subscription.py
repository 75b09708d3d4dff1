"""Redis as a source of wake-ups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from outbox.notify.base import Bells, Report
from outbox.notify.channel import CHANNEL, unpack
from outbox.notify.listening import Listening

if TYPE_CHECKING:
    from redis.asyncio import Redis  # An extra, and not what a worker without one should need.

_SILENT_SECONDS = 15.0


class Subscription(Listening):
    """One for a process: a message is cheap, and Redis tells all of its subscribers."""

    name = "redis"

    def __init__(self, connect: Callable[[], Redis], bells: Bells, report: Report) -> None:
        super().__init__(bells, report)
        self._connect = connect

    async def listen(self) -> AsyncIterator[frozenset[str] | None]:
        client = self._connect()
        try:
            async with client.pubsub() as pubsub:
                await pubsub.subscribe(CHANNEL)
                async for message in _messages(pubsub):
                    if message["type"] == "subscribe":
                        yield None
                    elif message["type"] == "message":
                        yield unpack(message["data"])
        finally:
            await client.aclose()


async def _messages(pubsub: Any) -> AsyncIterator[dict[str, Any]]:
    """
    Raises:
        TimeoutError: the server has gone without a word.
    """
    asked = False
    while True:
        message = await pubsub.get_message(timeout=_SILENT_SECONDS)
        if message is not None:
            asked = False
            yield message
        elif asked:
            raise TimeoutError(f"no answer for {_SILENT_SECONDS:.0f} s")
        else:
            await pubsub.ping()
            asked = True
