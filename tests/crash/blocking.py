"""A job that blocks the event loop when the statements of a settlement are under way and its COMMIT is not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Engine, event

from outbox import Job
from outbox.drivers.base import Settled
from outbox.drivers.database import DatabaseDriver
from outbox.settlement import Settlement
from tests.crash.jobs import note

_settling: ContextVar[bool] = ContextVar("settling", default=False)
_settle = DatabaseDriver.settle
_writing = threading.Event()


class BlocksDuringASettlement(Job):
    number: int = 0
    seconds: float

    async def handle(self) -> None:
        note("begin", self)
        while not _writing.is_set():
            await asyncio.sleep(0)
        time.sleep(self.seconds)
        note("end", self)


async def settle(self: DatabaseDriver, settlements: Sequence[Settlement]) -> Settled:
    token = _settling.set(True)
    try:
        return await _settle(self, settlements)
    finally:
        _settling.reset(token)


def install() -> None:
    DatabaseDriver.settle = settle  # type: ignore[method-assign]

    @event.listens_for(Engine, "before_cursor_execute")
    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if _settling.get() and statement.lstrip().startswith(("DELETE", "UPDATE")):
            _writing.set()


install()
