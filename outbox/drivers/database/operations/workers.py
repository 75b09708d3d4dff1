"""The rows of `queue_workers`: the worker processes and their heartbeats."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, delete, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import raw_columns
from outbox.drivers.database.audit import record
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import run
from outbox.drivers.database.tables import workers
from outbox.drivers.running_jobs import dump_running, load_running
from outbox.drivers.values import WorkerOrder, WorkerStatus

_NAME_LENGTH, _HOST_LENGTH = 64, 255


class Workers:
    """`WorkerRegistry`, in the table `queue_workers`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def heartbeat(self, worker: WorkerStatus) -> WorkerOrder | None:
        now: ColumnElement[Any] = literal_column(self._database.dialect.now)
        counts = {"running": worker.running, "processed": worker.processed, "failed": worker.failed, "seen_at": now}
        counts["running_jobs"] = dump_running(worker.jobs)
        counts |= {"state": worker.state, "memory": worker.memory, "version": worker.version}
        identity = {
            # What tells workers apart is at the end: a process id, the number under a supervisor.
            "name": worker.name[-_NAME_LENGTH:],
            "host": worker.host[-_HOST_LENGTH:],
            "pid": worker.pid,
            "queues": worker.queues,
            "concurrency": worker.concurrency,
        }

        mine = workers.c.id == worker.id
        heard: list[str] = []

        async def count(connection: AsyncConnection) -> bool:
            known = await connection.execute(workers.update().where(mine, workers.c.ordered.is_(None)).values(**counts))
            return bool(known.rowcount)

        async def hear_or_appear(connection: AsyncConnection) -> None:
            ordered = (await connection.execute(select(workers.c.ordered).where(mine).with_for_update())).first()
            if ordered is None:
                await connection.execute(workers.insert().values(id=worker.id, started_at=now, **identity, **counts))
                return
            # Kept if the answer to the COMMIT is lost: the next try finds none.
            heard.extend(() if ordered[0] is None else (raw_columns.text(ordered[0]),))
            await connection.execute(workers.update().where(mine).values(**counts, ordered=None))

        # Every worker does this every few seconds, so it is one statement, not three.
        if not await self._database.write_alone(count):
            await self._database.write(hear_or_appear)
        return _order(heard[-1]) if heard else None

    async def order(self, worker_id: bytes, order: WorkerOrder) -> bool:
        wanted = workers.update().where(workers.c.id == worker_id).values(ordered=order.value)

        async def write(connection: AsyncConnection) -> bool:
            found = (await connection.execute(wanted)).rowcount
            await run(record(self._database.dialect, found), connection)
            return bool(found)

        return await self._database.write(write)

    async def deregister(self, worker_id: bytes) -> None:
        async def write(connection: AsyncConnection) -> None:
            await connection.execute(delete(workers).where(workers.c.id == worker_id))

        await self._database.write(write)

    async def all(self) -> list[WorkerStatus]:
        seen: ColumnElement[Any] = literal_column(f"-({self._database.dialect.seconds_until('seen_at')})").label("seen")
        query = select(*map(raw_columns.as_stored, workers.c), seen).order_by(workers.c.started_at, workers.c.id)

        async def read(connection: AsyncConnection) -> list[WorkerStatus]:
            return [_status(self._database, row) for row in (await connection.execute(query)).mappings()]

        return await self._database.read(read)

    async def forget(self, unseen_for: float) -> int:
        horizon: ColumnElement[Any] = literal_column(self._database.dialect.seconds_from_now(-unseen_for))

        async def write(connection: AsyncConnection) -> int:
            return (await connection.execute(delete(workers).where(workers.c.seen_at < horizon))).rowcount

        return await self._database.write(write)


def _order(text: str) -> WorkerOrder | None:
    """What this code does not know is no order."""
    return WorkerOrder(text) if text in set(WorkerOrder) else None


def _status(database: Database, row: Any) -> WorkerStatus:
    values = raw_columns.values(workers, row, database.dialect.parse_timestamp)
    if not isinstance(values["id"], bytes):
        values["id"] = raw_columns.text(values["id"]).encode("utf-8", "replace")
    del values["seen_at"]
    jobs = load_running(values.pop("running_jobs"))
    return WorkerStatus(**values, seen=max(0.0, raw_columns.seconds(row["seen"]) or 0.0), jobs=jobs)
