"""The binary log as a source of wake-ups."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import URL

from outbox.wakeups.base import Report, WakeupListener
from outbox.wakeups.binlog.stream import Stream
from outbox.wakeups.reconnecting_source import ReconnectingSource


class BinaryLog(ReconnectingSource):
    """Read by one process. Processes under a supervisor share it: see `outbox.wakeups.supervisor_fanout`."""

    name = "binlog"

    def __init__(self, url: URL, listener: WakeupListener, report: Report) -> None:
        super().__init__(listener, report)
        self._url = url

    async def listen(self) -> AsyncIterator[frozenset[str] | None]:
        stream = await Stream.open(self._url)
        try:
            yield None
            async for queues in stream.queues():
                yield queues
        finally:
            stream.end()
