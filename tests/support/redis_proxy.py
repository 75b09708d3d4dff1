"""A network between driver and server that loses an answer when it is told to."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxy:
    """Forwards bytes both ways."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._host, self._port = parts.hostname, parts.port
        self._losing = False
        self._goes_away = False
        self._away = False
        self._refused = asyncio.Semaphore(0)
        self._stalled: set[asyncio.StreamWriter] = set()
        self._connections: list[asyncio.StreamWriter] = []
        self._serving: list[asyncio.Task[None]] = []
        self.lost = 0
        self.url = ""

    def lose_the_next_answer(self) -> None:
        """The server does what it is asked next, and its answer is lost with the connection."""
        self._losing = True

    def go_away_with_the_next_answer(self) -> None:
        """The same, and until `come_back` there is no way to the server."""
        self._losing = self._goes_away = True

    def go_away(self) -> None:
        """Like a load balancer whose backends are gone: connections are taken, and reset at once."""
        self._away = True
        self.hang_up()

    async def refused(self, count: int) -> None:
        """Wait until so many connections were reset since `go_away`."""
        for _ in range(count):
            await self._refused.acquire()

    def come_back(self) -> None:
        self._away = False

    def stall(self) -> None:
        """Nothing more comes over the connections that there are, and nobody is told; new ones work."""
        self._stalled.update(self._connections)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._serving.append(task)
        if self._away:
            reset(writer)
            self._refused.release()
            return
        there, to_there = await asyncio.open_connection(self._host, self._port)
        self._connections += [writer, to_there]
        try:
            await asyncio.gather(self._ask(reader, to_there), self._answer(there, writer))
        except ConnectionError:
            pass
        finally:
            writer.close()
            to_there.close()

    async def _ask(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await client.read(65_536):
            if server in self._stalled:
                continue
            server.write(data)
            await server.drain()
        server.close()

    async def _answer(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(65_536):
            if self._losing:
                self._losing = False
                self.lost += 1
                if self._goes_away:
                    self._goes_away = False
                    self.go_away()
                break
            client.write(data)
            await client.drain()
        client.close()

    def hang_up(self) -> None:
        for writer in self._connections:
            writer.close()

    async def end(self) -> None:
        self.hang_up()
        await asyncio.gather(*self._serving)


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[Proxy]:
    between = Proxy(target)
    server = await asyncio.start_server(between.serve, "127.0.0.1", 0)
    between.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}{urlsplit(target).path}"
    try:
        yield between
    finally:
        server.close()
        await between.end()
