"""One address for several servers, as a proxy or a virtual IP gives it: it leads to one of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from sqlalchemy.engine import make_url


class Forwarder:
    """New connections go to ``port``; those that are open stay where they are."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.own_port = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._to_lose = 0
        self._lost = asyncio.Event()

    def url(self, url: str) -> str:
        """``url`` by way of this address."""
        return make_url(url).set(port=self.own_port).render_as_string(hide_password=False)

    async def lose_answers(self, count: int) -> int:
        """Let the next ``count`` answers get lost, and with each its connection: what was asked is carried out. Returns
        when they are lost."""
        self._to_lose = count
        self._lost.clear()
        async with asyncio.timeout(60):
            await self._lost.wait()
        return count

    def _loses(self) -> bool:
        if not self._to_lose:
            return False
        self._to_lose -= 1
        if not self._to_lose:
            self._lost.set()
        return True

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        writers = [writer]
        with suppress(OSError, asyncio.CancelledError):
            try:
                there, to_there = await asyncio.open_connection("127.0.0.1", self.port)
                writers.append(to_there)
                await asyncio.gather(_pass_on(reader, to_there), _pass_on(there, writer, self._loses))
            finally:
                for each in writers:
                    each.close()
        for each in writers:
            with suppress(OSError):
                await each.wait_closed()

    async def close(self) -> None:
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


async def _pass_on(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, loses: Callable[[], bool] = lambda: False
) -> None:
    while data := await source.read(1 << 16):
        if loses():
            raise ConnectionResetError
        target.write(data)
        await target.drain()
    target.close()


@asynccontextmanager
async def forwarding(port: int) -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(port)
    async with await asyncio.start_server(forwarder.accept, "127.0.0.1", 0) as listening:
        forwarder.own_port = listening.sockets[0].getsockname()[1]
        yield forwarder
        await forwarder.close()
