"""A network between a program and its database server, on loopback, that takes as long as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from sqlalchemy.engine import make_url

_CHUNK = 1 << 20


class Proxy:
    """Passes bytes on, each ``delay`` seconds after it came: whoever asks has the answer twice that later.

    ``round_trips`` counts how often a connection asked after it had been answered, whatever the size of either.
    """

    def __init__(self, url: str) -> None:
        """``url`` is the server's; `url` is what programs are to use in its place."""
        self.delay = 0.0
        self.round_trips = 0
        self._server = make_url(url)
        self._port = 0
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return self._server.set(host="127.0.0.1", port=self._port).render_as_string(hide_password=False)

    async def start(self) -> asyncio.Server:
        listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._port = listening.sockets[0].getsockname()[1]
        return listening

    async def close(self) -> None:
        """Cut all connections."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        there, to_there = await asyncio.open_connection(self._server.host, self._server.port)
        conversation = _Conversation(self)
        try:
            await asyncio.gather(
                self._pass_on(reader, to_there, conversation.asks), self._pass_on(there, writer, conversation.answers)
            )
        finally:
            writer.close()
            to_there.close()

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, note: Callable[[], None]
    ) -> None:
        """Until the source ends. Reading does not wait for what is on its way, so a delay costs time but no rate."""
        now = asyncio.get_running_loop().time
        on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(_arrive(on_its_way, target))
        try:
            with suppress(ConnectionError):
                while data := await source.read(_CHUNK):
                    note()
                    on_its_way.put_nowait((now() + self.delay, data))
            on_its_way.put_nowait((now() + self.delay, b""))
            await arriving
        finally:
            arriving.cancel()


class _Conversation:
    """Of one connection. A server speaks first."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._answered = True

    def asks(self) -> None:
        if self._answered:
            self._proxy.round_trips += 1
        self._answered = False

    def answers(self) -> None:
        self._answered = True


async def _arrive(on_its_way: asyncio.Queue[tuple[float, bytes]], target: asyncio.StreamWriter) -> None:
    now = asyncio.get_running_loop().time
    with suppress(ConnectionError):
        while True:
            due, data = await on_its_way.get()
            await asyncio.sleep(due - now())
            if not data:
                target.close()
                return
            target.write(data)
            await target.drain()


@asynccontextmanager
async def between(url: str) -> AsyncIterator[Proxy]:
    """A proxy in front of the server of ``url``."""
    proxy = Proxy(url)
    listening = await proxy.start()
    try:
        yield proxy
    finally:
        listening.close()
        await proxy.close()
