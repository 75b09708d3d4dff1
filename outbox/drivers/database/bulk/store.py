"""Bulk operations of a database: looked at beforehand, made, worked off, stopped, forgotten."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import and_, case, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import clock
from outbox.drivers.audit import AUDIT_KEPT, current_act
from outbox.drivers.bulk import COUNTED, BulkOperation, BulkPreview, BulkRequest, BulkState
from outbox.drivers.database import audit
from outbox.drivers.database.bulk.portion import Portion
from outbox.drivers.database.bulk.selection import Selection
from outbox.drivers.database.bulk.tables import AS_STORED, dump_filter, operation_of, operations
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import run
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.forgetting import forget
from outbox.drivers.database.operations import inspection
from outbox.drivers.database.operations.failed_jobs import FailedJobs
from outbox.drivers.database.policies import registry
from outbox.drivers.database.policies.base import Upkeep
from outbox.drivers.values import FailedJob, PolicyNews, StoredJob
from outbox.events import BulkOperationEnded
from outbox.ids import JobId, new_job_id

_SAMPLE = 5
_SECONDS = 1.0
"""How long one call of `work_off` begins transactions."""
_WAIT = 1.0
"""Seconds until jobs are looked at again that other transactions hold."""
_FIRST = bytes(16)
_UNNAMED = "an application"


class BulkOperations:
    """`OperationStore`, in the table `queue_operations`."""

    def __init__(self, database: Database, failed: FailedJobs) -> None:
        self._database = database
        self._failed = failed
        self._over = f"finished_at < {database.dialect.seconds_from_now(-AUDIT_KEPT)}"

    async def preview(self, request: BulkRequest, most: int | None = None) -> BulkPreview:
        """
        Raises:
            InvalidOption: a part of the request is of a wrong type or out of its range.
            RequestRefused: the database has taken too long.
        """
        request.checked()
        examined = COUNTED if most is None else most

        async def read(connection: AsyncConnection) -> BulkPreview:
            selection = await self._now(connection, request)
            count, at_least = await self._count(connection, selection, examined)
            return BulkPreview(count, at_least, tuple(await self._sample(connection, selection, examined)))

        return await self._database.inspect(read)

    async def _now(self, connection: AsyncConnection, request: BulkRequest) -> Selection:
        dialect = self._database.dialect
        at: datetime = dialect.parse_timestamp(await connection.scalar(select(inspection.now_of(dialect))))
        return Selection(dialect, self._failed.scope, request, at)

    @staticmethod
    async def _count(connection: AsyncConnection, selection: Selection, most: int) -> tuple[int, bool]:
        part = selection.counted(most + 1)
        matches = func.sum(case((and_(*selection.conditions(part)), 1), else_=0))
        examined, count = (await connection.execute(select(func.count(), matches).select_from(part))).one()
        return int(count or 0), examined > most

    async def _sample(
        self, connection: AsyncConnection, selection: Selection, most: int
    ) -> list[StoredJob] | list[FailedJob]:
        part = selection.counted(most)
        query = select(part.c.id).where(*selection.conditions(part)).order_by(part.c.id).limit(_SAMPLE)
        keys = [bytes(key) for key in await connection.scalars(query)]
        if not keys:
            return []
        if selection.request.verb.of_failed:
            return await self._failed.locked(connection, keys)
        return await inspection.stored(self._database.dialect, connection, keys)

    async def start(self, request: BulkRequest, by: str | None = None) -> BulkOperation:
        """
        Raises:
            InvalidOption: a part of the request is of a wrong type or out of its range.
            RepeatedAction: the form that asks for it was sent before.
        """
        request.checked()
        act = current_act()
        # That of the form, if there is one. The entry of the audit log has the same id, and counts what workers do.
        operation_id = act.id if act is not None and act.is_new else new_job_id()

        async def write(connection: AsyncConnection) -> None:
            selection = await self._now(connection, request)
            total, at_least = await self._count(connection, selection, COUNTED)
            last = await connection.scalar(select(func.max(selection.table.c.id)))
            row = {
                "id": operation_id.bytes,
                "verb": request.verb.value,
                "matching": dump_filter(request.matching),
                "to_queue": request.to,
                "requested_by": by,
                "state": BulkState.WAITING.value,
                "total": None if at_least else total,
                "done": 0,
                "refused": 0,
                "position": _FIRST,
                "last_id": _FIRST if last is None else bytes(last),
                "created_at": selection.at.replace(tzinfo=None),
            }
            target = request.matching.given() | {"operation": str(operation_id)}
            target |= {} if request.to is None else {"to": request.to}
            await self._record(connection, operation_id, by, f"bulk {request.verb}", target, 0, is_new=True)
            await connection.execute(operations.insert().values(**row))

        async def is_there(connection: AsyncConnection) -> bool | None:
            found = await connection.scalar(select(operations.c.id).where(operations.c.id == operation_id.bytes))
            return None if found is None else True

        await self._database.write(write, confirm=is_there)
        operation = await self.get(operation_id)
        assert operation is not None  # noqa: S101 - operations are kept for 90 days
        return operation

    async def get(self, operation_id: JobId) -> BulkOperation | None:
        found = await self._read(select(*AS_STORED).where(operations.c.id == operation_id.bytes))
        return next(iter(found), None)

    async def latest(self, limit: int, before: JobId | None = None) -> list[BulkOperation]:
        query = select(*AS_STORED).order_by(operations.c.id.desc()).limit(limit)
        return await self._read(query if before is None else query.where(operations.c.id < before.bytes))

    async def _record(
        self,
        connection: AsyncConnection,
        entry_id: JobId,
        by: str | None,
        action: str,
        target: Any,
        count: int,
        *,
        is_new: bool = False,
    ) -> None:
        writing = audit.entry(self._database.dialect, entry_id, by or _UNNAMED, action, target, count, is_new=is_new)
        await run(writing, connection)

    async def stop(self, operation_id: JobId, by: str | None = None) -> BulkOperation | None:
        """It waits for the transaction of a worker that is under way."""
        entry_id = new_job_id()
        ends = {"state": BulkState.STOPPED.value, "finished_at": literal_column(self._database.dialect.now)}
        is_open = (operations.c.id == operation_id.bytes, operations.c.finished_at.is_(None))

        async def write(connection: AsyncConnection) -> bool:
            stopped = (await connection.execute(update(operations).where(*is_open).values(**ends))).rowcount
            if stopped:
                target = {"operation": str(operation_id)}
                await self._record(connection, entry_id, by, "bulk stop", target, 1)
            return bool(stopped)

        if not await self._database.write(write):
            return None
        stopped = await self.get(operation_id)
        if stopped is not None:
            ended = (stopped.id, stopped.request.verb.value, stopped.by, stopped.done, stopped.refused)
            self._database.on_policy_news(PolicyNews(events=(BulkOperationEnded(*ended, stopped=True),)))
        return stopped

    async def is_open(self) -> bool:
        async def read(connection: SqlConnection) -> bool:
            rows = await connection.exec_driver_sql(
                "SELECT EXISTS (SELECT 1 FROM queue_operations WHERE finished_at IS NULL)", ()
            )
            return any(found for (found,) in rows)

        return await self._database.read_plain(read)

    async def work_off(self) -> float | None:
        news, due = await self._work_off()
        if news:
            self._database.on_policy_news(news)
        return due

    async def _work_off(self) -> Upkeep:
        news = PolicyNews()
        due: float | None = None
        until = clock.now() + _SECONDS
        passed_over: Any = None
        while True:
            progress = await self._database.write(Portion(self._database, self._failed, passed_over).run)
            if progress is None:
                return Upkeep(news, due)
            news += progress.news + await registry.committed(self._database, progress.removed)
            if progress.waits or progress.unreadable:
                passed_over = progress.key
                due = _WAIT if progress.waits else due
            if clock.now() >= until:
                return Upkeep(news, 0.0)

    def needs_upkeep(self) -> str:
        """A condition: there is an operation to work off, or to forget."""
        return f"EXISTS (SELECT 1 FROM queue_operations WHERE finished_at IS NULL OR {self._over})"

    async def upkeep(self) -> Upkeep:
        """What `needs_upkeep` has found."""
        await self.prune()
        return await self._work_off()

    async def prune(self) -> None:
        """Forget operations that ended more than 90 days ago."""
        await forget(self._database, "queue_operations", f"{self._over} ORDER BY id")

    async def _read(self, query: Any) -> list[BulkOperation]:
        async def read(connection: AsyncConnection) -> list[BulkOperation]:
            rows = (await connection.execute(query)).mappings()
            found = [operation_of(self._database.dialect, row) for row in rows]
            return [each for each in found if each is not None]

        return await self._database.read(read)
