"""A connection over which a server sends its binary log, from its current end."""

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
# Above the numbers that people choose. A server ends the stream of an older replica with the same number.
_SERVER_IDS = (2**30, 2**32 - 1)


class Stream(BinLogStream):
    """Registers as a replica with asyncmy's replication client, and reads its packets with `JobRows`."""

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
        self._last_packet = time.monotonic()
        self._watch: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, url: URL) -> Stream:
        """Returns when the server has sent the first event.

        Raises:
            Unavailable: the log cannot be read, and a retry would not help.
            MySQLError, OSError, TimeoutError: the server cannot be reached.
        """
        # No database is selected: the server notices a closed stream only at its next heartbeat, and until then the
        # connection would show up as a user of the schema.
        arguments = {**url.get_dialect()().create_connect_args(url)[1], **_ARGUMENTS}
        connection = asyncmy.Connection(**arguments)
        try:
            async with asyncio.timeout(2 * _CONNECT_SECONDS):
                await connection.connect()
                server = await Server.inspect(connection, url.database or "")
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
        """Yield the queues of inserted jobs, event by event.

        Raises:
            MySQLError, OSError: the connection was lost.
        """
        rows = JobRows(self._server.schema, self._server.queue_column, checksums=self._use_checksum)
        while True:
            found = rows.queues(await self._next())
            if found is not None:
                yield found

    async def _next(self) -> bytes:
        packet = await self._connection.read_packet()
        self._last_packet = time.monotonic()
        if packet.is_eof_packet():
            raise ConnectionResetError("the server has ended the stream")
        event: bytes = packet.get_all_data()
        return event

    def _check(self) -> None:
        """Close the connection when heartbeats stop, because the server went away without closing it."""
        if time.monotonic() - self._last_packet > _SILENT_SECONDS:
            self.end()
            return
        self._watch = asyncio.get_running_loop().call_later(_HEARTBEAT_SECONDS, self._check)

    def end(self) -> None:
        """Close the socket without a QUIT, which a sending server would not read."""
        if self._watch is not None:
            self._watch.cancel()
        self._connection.close()
