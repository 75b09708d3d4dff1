"""The binary log as a source of wake-ups."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import URL

from outbox.notify.base import Bells, Report
from outbox.notify.binlog.stream import Stream
from outbox.notify.listening import Listening


class BinaryLog(Listening):
    """One stream for a process, or, under a supervisor, for all of its processes: see `outbox.notify.group`."""

    name = "binlog"

    def __init__(self, url: URL, bells: Bells, report: Report) -> None:
        super().__init__(bells, report)
        self._url = url

    async def listen(self) -> AsyncIterator[frozenset[str] | None]:
        stream = await Stream.open(self._url)
        try:
            yield None
            async for queues in stream.queues():
                yield queues
        finally:
            stream.end()
