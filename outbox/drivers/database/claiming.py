"""Taking jobs, and keeping them: claim, extend, next due."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any
from uuid import UUID

from outbox import clock
from outbox.drivers.base import Claim, Lease, Outlook
from outbox.drivers.database.database import Database
from outbox.drivers.database.keys import chunked
from outbox.drivers.database.wire import Plain
from outbox.ids import new_token
from outbox.settlement import Fence

_MICROSECONDS = 1_000_000

_SEEN_SECONDS = 60.0
"""A worker that was not heard of for so long does not share the looking any more."""


async def claim(database: Database, queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
    # One call is one token, its retries included: should a commit have worked whose answer was lost, the token finds
    # the rows that it took.
    taking = _Taking(database, queues, limit, lease)
    return await database.write_plain(taking.take, confirm=taking.recover)


class _Taking:
    """One call of claim."""

    def __init__(self, database: Database, queues: Sequence[str], limit: int, lease: float) -> None:
        self._database = database
        self._dialect = database.dialect
        self._queues = queues
        self._limit = limit
        self._lease = lease
        self._token = new_token()
        self._claims: list[Claim] = []

    async def take(self, connection: Plain) -> list[Claim]:
        deadline = clock.now() + self._lease
        self._claims = []
        for queue in await self._queues_to_try(connection):
            missing = self._limit - len(self._claims)
            rows = await connection.exec_driver_sql(self._dialect.select_claimable(), (queue, queue, missing))
            self._claims.extend(self._claim(queue, row, deadline) for row in rows)
            if len(self._claims) >= self._limit:
                break
        if self._claims:
            ids = sorted(claim.fence.job_id.bytes for claim in self._claims)
            microseconds = int(self._lease * _MICROSECONDS)
            for keys in chunked(ids):
                listed, parameters = self._dialect.among(keys)
                await connection.exec_driver_sql(
                    self._dialect.reserve(listed), (self._token, microseconds, microseconds, *parameters)
                )
        return self._claims

    async def _queues_to_try(self, connection: Plain) -> Sequence[str]:
        """With many queues, one look at the claim index tells which of them have something: an idle worker's look costs
        one statement, not one for every queue."""
        if len(self._queues) == 1:
            return self._queues
        rows = await connection.exec_driver_sql(self._dialect.queues_with_due(len(self._queues)), tuple(self._queues))
        due = {row[0] for row in rows}
        return [queue for queue in self._queues if queue in due]

    def _claim(self, queue: str, row: Any, deadline: float) -> Claim:
        job_id, name, priority, payload, headers, attempts, rescued = row
        return Claim(
            Fence(UUID(bytes=bytes(job_id)), self._token),
            queue,
            name,
            priority,
            payload,
            headers,
            attempts + 1,
            bool(rescued),
            deadline,
        )

    async def recover(self, connection: Plain) -> list[Claim] | None:
        held = await holders(
            self._database, connection, [claim.fence.job_id.bytes for claim in self._claims], lock=False
        )
        mine = [claim for claim in self._claims if held.get(claim.fence.job_id.bytes) == self._token]
        return mine or None


async def extend(database: Database, fences: Sequence[Fence], lease: float) -> Lease:
    """Renew in one statement per token, and ask for the rows only where a token lost some of them."""
    by_token: dict[bytes, list[Fence]] = {}
    for fence in sorted(fences, key=attrgetter("job_id")):
        by_token.setdefault(fence.token, []).append(fence)
    microseconds = int(lease * _MICROSECONDS)

    async def renew(connection: Plain) -> Lease:
        deadline = clock.now() + lease
        lost: set[Fence] = set()
        for token, group in ((token, group) for token, all_of in by_token.items() for group in chunked(all_of)):
            ids = [fence.job_id.bytes for fence in group]
            result = await connection.exec_driver_sql(
                database.dialect.renew(len(ids)), (microseconds, microseconds, *ids, token)
            )
            if result.rowcount != len(ids):
                held = await holders(database, connection, ids, lock=False)
                lost.update(fence for fence in group if held.get(fence.job_id.bytes) != token)
        return Lease(deadline, frozenset(fences) - lost, frozenset(lost))

    return await database.write_plain(renew)


async def holders(
    database: Database, connection: Plain, ids: Sequence[bytes], *, lock: bool
) -> dict[bytes, bytes | None]:
    """The current token of each of these jobs that is still there."""
    held: dict[bytes, bytes | None] = {}
    for keys in chunked(sorted(ids)):
        rows: Iterable[Any] = await connection.exec_driver_sql(database.dialect.held(len(keys), lock=lock), tuple(keys))
        held.update((bytes(row[0]), None if row[1] is None else bytes(row[1])) for row in rows)
    return held


async def look(database: Database, queues: Sequence[str]) -> Outlook:
    statement = database.dialect.look(len(queues), int(_SEEN_SECONDS * _MICROSECONDS))
    parameters = database.dialect.look_parameters(queues)

    async def read(connection: Plain) -> list[Any]:
        return list(await connection.exec_driver_sql(statement, parameters))

    rows = await database.read_plain(read)
    paused = {queue for queue, _, workers in rows if workers is None}
    due = [float(seconds) for queue, seconds, _ in rows if seconds is not None and queue not in paused]
    idle = sum(workers for _, _, workers in rows if workers is not None)
    return Outlook(max(0.0, min(due)) if due else None, max(1, int(idle)))
