"""One transaction of a bulk operation: up to 1,000 jobs, and how far the operation is then.

Jobs are walked over by id, which never changes. The place is written in the transaction that changes the jobs: whatever
is killed, no job is left out, and none is met twice. Jobs that another transaction holds are passed over: an
application's transaction is never waited for. Another walk begins at the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import RowMapping, func, literal, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.bulk import BulkOperation, BulkState, Verb
from outbox.drivers.database.audit import audit
from outbox.drivers.database.bulk.selection import Selection
from outbox.drivers.database.bulk.tables import AS_STORED, operation_of, operations
from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.operations.batch_delete import CHUNK, BatchDelete
from outbox.drivers.database.operations.failed_jobs import FailedJobs
from outbox.drivers.database.operations.policies import Removal, Return
from outbox.drivers.database.policies.base import Leaving
from outbox.drivers.database.tables import jobs
from outbox.drivers.values import PolicyNews
from outbox.events import BulkOperationEnded, BulkOperationStarted
from outbox.ids import JobId
from outbox.settlement import Outcome
from outbox.wakeups.base import CANCELLED

EXAMINED = 10_000
"""Jobs that one transaction looks at."""
_NOT_JSON = "its payload or headers are not JSON"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a transaction has done, once it is committed."""

    key: Any
    """The id of the operation as it is stored: SQLite takes one that is none."""
    waits: bool
    """Other transactions hold the jobs that are left."""
    news: PolicyNews
    removed: Sequence[Leaving] = ()
    """Jobs with policies."""
    unreadable: bool = False
    """Nothing was done, because the row of the operation cannot be read."""


@dataclass
class _Change:
    """What became of the jobs of one transaction."""

    done: Sequence[bytes] = ()
    refusals: Mapping[bytes, str] = field(default_factory=dict)
    """Why those stay that were refused."""
    news: PolicyNews = field(default_factory=PolicyNews)
    removed: Sequence[Leaving] = ()


class Portion:
    """The next transaction of the first open operation that no other worker is at."""

    def __init__(self, database: Database, failed: FailedJobs, after: Any) -> None:
        """Only operations ``after`` this one, by id as it is stored; None for all."""
        self._database = database
        self._failed = failed
        query = select(*AS_STORED).where(operations.c.finished_at.is_(None)).order_by(operations.c.id).limit(1)
        query = query if after is None else query.where(operations.c.id > literal(after))
        self._open = query.with_for_update(skip_locked=True)

    async def run(self, connection: AsyncConnection) -> Progress | None:
        """None where there is no such operation."""
        row = (await connection.execute(self._open)).mappings().first()
        if row is None:
            return None
        operation = operation_of(self._database.dialect, row)
        if operation is None:
            return Progress(row["id"], waits=False, news=PolicyNews(), unreadable=True)
        selection = Selection(self._database.dialect, self._failed.scope, operation.request, operation.created_at)
        keys, position, at_end = await self._next(connection, selection, row)
        change = await self._change(connection, selection, keys) if keys else _Change()
        return await self._move_on(connection, operation, row, keys, position, at_end, change)

    async def _next(
        self, connection: AsyncConnection, selection: Selection, row: RowMapping
    ) -> tuple[list[bytes], bytes, bool]:
        """The ids of the next jobs, the id up to which jobs have been then, and whether that is the last."""
        after, last = bytes(row["position"]), bytes(row["last_id"])
        # First where the part ends. Jobs leave it while it is read, and what comes up behind it is not skipped.
        part = selection.walked(after, last, EXAMINED)
        end, examined = (await connection.execute(select(func.max(part.c.id), func.count()).select_from(part))).one()
        at_end = examined < EXAMINED
        position = last if at_end else bytes(end)
        keys = [bytes(key) for key in await connection.scalars(selection.matching(after, position, CHUNK))]
        return (keys, keys[-1], False) if len(keys) == CHUNK else (keys, position, at_end)

    async def _change(self, connection: AsyncConnection, selection: Selection, keys: Sequence[bytes]) -> _Change:
        match selection.request.verb:
            case Verb.RETRY:
                return await self._retry(connection, selection, keys)
            case Verb.MOVE:
                return await self._move(connection, selection, keys)
            case Verb.CANCEL:
                change = await self._remove(connection, selection, keys, Outcome.CANCELLED)
                change.news += PolicyNews(frozenset({CANCELLED} if change.done else ()))
                return change
            case Verb.FORGET:
                return await self._remove(connection, selection, keys, Outcome.FORGOTTEN)

    async def _remove(
        self, connection: AsyncConnection, selection: Selection, keys: Sequence[bytes], outcome: Outcome
    ) -> _Change:
        table = selection.table
        removal = Removal(self._database, table.name, outcome)
        conditions = selection.conditions()
        removed = await BatchDelete(
            self._database, table, keys, *conditions, gated=removal.leave, skip_locked=True
        ).apply(connection)
        return _Change(removed, news=removal.news, removed=removal.jobs)

    async def _retry(self, connection: AsyncConnection, selection: Selection, keys: Sequence[bytes]) -> _Change:
        returning = Return(self._database, strict=False)
        conditions = selection.conditions()
        returned = await self._failed.putting_back(keys, returning, *conditions, skip_locked=True).apply(connection)
        refused = {job_id.bytes: refusal.reason for job_id, refusal in returning.refusals.items()}
        left = sorted(set(keys) - set(returned) - refused.keys())
        if left:
            refused |= dict.fromkeys(await self._failed.unstorable(connection, left), _NOT_JSON)
        queue = selection.request.matching.queue
        wake = PolicyNews(frozenset({queue} if queue is not None and returned else ()))
        return _Change(returned, refused, returning.news + wake)

    async def _move(self, connection: AsyncConnection, selection: Selection, keys: Sequence[bytes]) -> _Change:
        dialect, to = self._database.dialect, selection.request.to
        assert to is not None  # noqa: S101 - a move has one: `BulkRequest.checked`
        locking = select(jobs.c.id).where(*selection.conditions()).with_for_update(skip_locked=True)
        locked = [bytes(key) for key in await connection.scalars(dialect.by_ids(locking, jobs, keys))]
        for some in chunked(locked):
            await connection.exec_driver_sql(dialect.move(len(some)), (to, *some))
        return _Change(locked, news=PolicyNews(frozenset({to} if locked else ())))

    async def _move_on(
        self,
        connection: AsyncConnection,
        operation: BulkOperation,
        row: RowMapping,
        keys: Sequence[bytes],
        position: bytes,
        at_end: bool,
        change: _Change,
    ) -> Progress:
        """Write how far the operation is."""
        again = _first_of(row["again_from"], set(keys) - set(change.done) - change.refusals.keys())
        # Jobs after it are met again, and refused again.
        refused = [key for key in change.refusals if again is None or key <= again]
        waits, ends = at_end and again is not None, at_end and again is None
        now: Any = literal_column(self._database.dialect.now)
        done, total_refused = operation.done + len(change.done), operation.refused + len(refused)
        values: dict[str, Any] = {
            "done": done,
            "refused": total_refused,
            "reason": operation.reason or next((_reason(key, change.refusals[key]) for key in sorted(refused)), None),
            "position": again if waits else position,
            "again_from": None if waits else again,
            "state": BulkState.FINISHED if ends else BulkState.RUNNING,
        }
        if operation.started_at is None:
            values["started_at"] = now
        if ends:
            values["finished_at"] = now
        await connection.execute(update(operations).where(operations.c.id == row["id"]).values(**values))
        if change.done:
            await connection.execute(update(audit).where(audit.c.id == row["id"]).values(affected=done))
        return Progress(
            row["id"], waits, change.news + _news(operation, done, total_refused, ends=ends), change.removed
        )


def _first_of(known: Any, passed_over: Iterable[bytes]) -> bytes | None:
    """The id after which another walk has to begin."""
    places = [bytes(known)] if known is not None else []
    places += map(_before, passed_over)
    return min(places, default=None)


def _before(key: bytes) -> bytes:
    return max(0, int.from_bytes(key) - 1).to_bytes(len(key))


def _reason(key: bytes, reason: str) -> str:
    return f"the failed job {JobId(bytes=key)} stays: {reason}"


def _news(operation: BulkOperation, done: int, refused: int, *, ends: bool) -> PolicyNews:
    verb, by = operation.request.verb.value, operation.by
    events: list[BulkOperationStarted | BulkOperationEnded] = []
    if operation.started_at is None:
        events.append(BulkOperationStarted(operation.id, verb, by, operation.total))
    if ends:
        events.append(BulkOperationEnded(operation.id, verb, by, done, refused, stopped=False))
    return PolicyNews(events=tuple(events))
