"""A worker that is killed while it works off a bulk operation: ``python -m tests.support.dying_operation URL WHEN``.

``between``: after the commit of the first transaction. ``within``: in the second, when it has changed its jobs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from sqlalchemy import event

from outbox.drivers.database import DatabaseDriver


async def main(url: str, moment: str) -> None:
    database = DatabaseDriver(url)
    seen = 0

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        nonlocal seen
        begins, writes = (
            statement.startswith("SELECT queue_operations"),
            statement.startswith("UPDATE queue_operations"),
        )
        seen += begins if moment == "between" else writes
        if seen == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(database.database.engine.sync_engine, "before_cursor_execute", note)
    await database.operations.work_off()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
