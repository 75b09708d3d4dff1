"""Messages between processes: publishing them, which keeps none, and subscriptions. Neither knows anything of databases
and slots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio import Redis

from outbox.drivers.redis.connection.guarded import abandon, close_client, connection_failures
from outbox.drivers.redis.connection.raw_connection import Exchange, RawConnection, pack
from outbox.drivers.redis.connection.url import RedisUrl

ANSWER_SECONDS = 10.0

C = TypeVar("C", bound=RawConnection)


class PubSub:
    """Publishes, and subscribes. In a cluster a message reaches every node, so that any one will do.

    Raises:
        ConfigurationError: it is not the URL of a Redis.
    """

    def __init__(self, url: str) -> None:
        self._address = RedisUrl.parse(url)

    def __call__(self) -> PublishClient:
        return PublishClient(self._address)

    async def subscribe(self, channel: str, hear: Callable[[bytes], None]) -> Subscribed:
        """Returns when the server has confirmed it; ``hear`` is called with every message, where it is read.

        Raises:
            redis.exceptions.RedisError: it could not be had.
        """
        subscribed = await _connect(self._address, lambda connection: Subscribed(connection, hear))
        try:
            await subscribed.begin(channel)
        except BaseException:
            await subscribed.close()
            raise
        return subscribed


async def _connect(address: RedisUrl, take_over: Callable[[Any], C]) -> C:
    client: Redis = address.node() if address.is_cluster else address.client()
    connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        with connection_failures():
            await connection.connect()
        return take_over(connection)
    except BaseException:
        await abandon(connection)
        raise
    finally:
        await close_client(client)


class PublishClient:
    """One connection, which the first message opens. After an error it is of no more use."""

    def __init__(self, address: RedisUrl) -> None:
        self._address = address
        self._exchange: Exchange | None = None

    async def publish(self, channel: str, message: str) -> None:
        """
        Raises:
            redis.exceptions.RedisError: the connection is lost, the server does not answer, or it refuses.
        """
        exchange = self._exchange = self._exchange or await _connect(self._address, Exchange)
        if exchange.closed:
            raise exceptions.ConnectionError("the server closed the connection")
        [answer] = await exchange.ask([("PUBLISH", channel, message)])
        if isinstance(answer, Exception):
            raise answer

    async def aclose(self) -> None:
        """Close it. Harmless when repeated."""
        if self._exchange is not None:
            await self._exchange.close()


class Subscribed(RawConnection):
    """A connection over which a server tells what is published."""

    def __init__(self, connection: Any, hear: Callable[[bytes], None]) -> None:
        super().__init__(connection)
        self._hear = hear
        self._heard = 0
        self._begun = asyncio.get_running_loop().create_future()
        self._lost = asyncio.get_running_loop().create_future()

    async def begin(self, channel: str) -> None:
        self.say(pack(("SUBSCRIBE", channel)))
        done, _ = await asyncio.wait(
            {self._begun, self._lost}, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            raise exceptions.TimeoutError(f"no answer for {ANSWER_SECONDS:.0f} s")
        await next(iter(done))

    async def keep_listening(self, silent_seconds: float) -> None:
        """Never returns.

        Raises:
            redis.exceptions.ConnectionError: the connection is gone.
            TimeoutError: the server has gone without a word: it was asked after ``silent_seconds`` without one, and
                waited for as long again.
        """
        asked, heard = False, self._heard
        while True:
            if (await asyncio.wait({self._lost}, timeout=silent_seconds))[0]:
                await self._lost
            silent, heard = heard == self._heard, self._heard
            if silent and asked:
                raise TimeoutError(f"no answer for {silent_seconds:.0f} s")
            asked = silent
            if asked:
                self.say(pack(("PING",)))

    def received(self, answers: list[Any]) -> None:
        self._heard += 1
        for answer in answers:
            if isinstance(answer, Exception):
                self.lost(answer)
                continue
            match answer:
                case [b"message", _, bytes(message)]:
                    self._hear(message)
                case [b"subscribe", *_] if not self._begun.done():
                    self._begun.set_result(None)
                case [b"subscribe" | b"pong", *_]:
                    pass
                case _:
                    raise exceptions.InvalidResponse(f"{answer!r:.100} is no message of a subscription")

    def lost(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_exception(error)
            # A listener that has stopped does not ask.
            self._lost.exception()
