"""One connection that a server sends its binary log to, from now on."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncmy
from asyncmy.errors import MySQLError
from asyncmy.replication.binlogstream import BinLogStream
from sqlalchemy import URL

from outbox.wakeups.binlog.rows import JobRows
from outbox.wakeups.binlog.server import Server

_CONNECT_SECONDS = 10
_ARGUMENTS = {"connect_timeout": _CONNECT_SECONDS, "autocommit": True, "charset": "utf8mb4", "db": None}
_HEARTBEAT_SECONDS = 5
_SILENT_SECONDS = 20.0
_FORMAT_DESCRIPTION = 0x0F
_TYPE = 5
# Above what people give their servers. The server ends the stream of another one with the same number.
_SERVER_IDS = (2**30, 2**32 - 1)


class Stream(BinLogStream):
    """asyncmy's replication client, of which everything is used up to the packets: to be a replica among others, from
    the server's current position. What is in the packets is read by `JobRows`.
    """

    def __init__(self, connection: Any, server: Server) -> None:
        super().__init__(
            connection,
            connection,
            random.randrange(*_SERVER_IDS),  # noqa: S311 - unlike others, not secret
            slave_heartbeat=_HEARTBEAT_SECONDS,
            master_log_file=server.file,
            master_log_position=server.position,
            resume_stream=True,
            blocking=True,
        )
        self._server = server
        self._heard = time.monotonic()
        self._watch: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, url: URL) -> Stream:
        """Returns once the server sends.

        Raises:
            Unavailable: it does not, and would not if asked again.
            MySQLError, OSError, TimeoutError: it cannot be reached.
        """
        # Without a database: the server notices only at its next heartbeat when a replica has gone, and until then
        # nobody should believe that somebody uses this one.
        arguments = {**url.get_dialect()().create_connect_args(url)[1], **_ARGUMENTS}
        connection = asyncmy.Connection(**arguments)
        try:
            async with asyncio.timeout(2 * _CONNECT_SECONDS):
                await connection.connect()
                server = await Server.ask(connection, url.database or "")
                stream = cls(connection, server)
                await stream._begin()
                return stream
        except BaseException:
            connection.close()
            raise

    async def _begin(self) -> None:
        try:
            await self._connect()  # type: ignore[no-untyped-call]
            while (await self._next())[_TYPE] != _FORMAT_DESCRIPTION:
                pass
        except MySQLError as error:
            raise self._server.explained(error, "REPLICATION SLAVE") from error
        self._check()

    async def queues(self) -> AsyncIterator[frozenset[str]]:
        """The queues that get jobs, one commit after the other, for as long as the connection lasts.

        Raises:
            MySQLError, OSError: it does not last.
        """
        rows = JobRows(self._server.schema, self._server.queue_column, checksums=self._use_checksum)
        while True:
            found = rows.queues(await self._next())
            if found is not None:
                yield found

    async def _next(self) -> bytes:
        packet = await self._connection.read_packet()
        self._heard = time.monotonic()
        if packet.is_eof_packet():
            raise ConnectionResetError("the server has ended the stream")
        event: bytes = packet.get_all_data()
        return event

    def _check(self) -> None:
        """A server sends heartbeats while it has nothing else to send. One that went without a word sends none."""
        if time.monotonic() - self._heard > _SILENT_SECONDS:
            self.end()
            return
        self._watch = asyncio.get_running_loop().call_later(_HEARTBEAT_SECONDS, self._check)

    def end(self) -> None:
        """Close the connection, without a word: the server is busy sending."""
        if self._watch is not None:
            self._watch.cancel()
        self._connection.close()
