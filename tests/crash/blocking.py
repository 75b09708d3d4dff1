"""A job that blocks the event loop when the statements of a settlement are under way and its COMMIT is not."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import Job
from outbox.drivers.database.connection.raw_connection import RawConnection
from outbox.drivers.database.connection.sqlite_raw_connection import SQLiteRawConnection
from outbox.drivers.database.jobs.job_store import DatabaseJobs
from outbox.drivers.values import Settled
from outbox.settlement import Settlement
from tests.support.recorded_jobs import note

_settling: ContextVar[bool] = ContextVar("settling", default=False)
_settle = DatabaseJobs.settle
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


async def settle(self: DatabaseJobs, settlements: Sequence[Settlement]) -> Settled:
    token = _settling.set(True)
    try:
        return await _settle(self, settlements)
    finally:
        _settling.reset(token)


def watched(kind: type[Any]) -> None:
    """Note when a connection of this kind sends a statement of a settlement."""
    execute = kind.exec_driver_sql

    async def exec_driver_sql(self: Any, statement: str, *parameters: Any) -> Any:
        if _settling.get() and statement.lstrip().startswith(("DELETE", "UPDATE")):
            _writing.set()
        return await execute(self, statement, *parameters)

    kind.exec_driver_sql = exec_driver_sql


if "RUN_LOG" in os.environ:  # in a worker; the tests' own process imports this for its job
    DatabaseJobs.settle = settle  # type: ignore[method-assign]
    # No listener of the engine, with which a worker would not use `RawConnection`.
    watched(AsyncConnection)
    watched(RawConnection)
    watched(SQLiteRawConnection)
