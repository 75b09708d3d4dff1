"""An event loop that ends cancels all its tasks at once: connections return to their pools all the same."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import DatabaseDriver


@pytest.mark.parametrize("call", ["read", "write", "inspect"])
async def test_a_connection_that_is_being_closed_when_the_loop_ends(driver: DatabaseDriver, call: str) -> None:
    here = asyncio.current_task()

    def end() -> None:
        for task in asyncio.all_tasks() - {here}:
            task.cancel()

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT 1"))
        # After the connection's context is left, and before the task that closes it takes its first step.
        asyncio.get_running_loop().call_soon(end)

    task = asyncio.ensure_future(getattr(driver.database, call)(work))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [engine.pool.status() for engine in driver.database.engines if engine.pool.checkedout()] == []  # type: ignore[attr-defined]
