"""Leases: their renewal, and jobs that an unconfirmed claim may hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any

from outbox import clock
from outbox.drivers.database.chunks import PAIRS_PER_STATEMENT, chunked
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, run
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.dialects.syntax import MICROSECONDS
from outbox.drivers.database.jobs.unconfirmed import UnconfirmedWrites
from outbox.drivers.values import Claim, Lease
from outbox.errors import OutboxError
from outbox.ids import JobId
from outbox.settlement import Fence

_LEASE_TO_GIVE_BACK = 1.0
"""Seconds of a lease that ends in the transaction that renews it."""


async def extend(database: Database, fences: Sequence[Fence], lease: float) -> Lease:
    return await database.write_plain(lambda connection: _renew(database, connection, fences, lease))


async def find_again(
    database: Database, unconfirmed: UnconfirmedWrites, limit: int, lease: float, queues: Sequence[str] | None = None
) -> list[Claim]:
    """Jobs that unconfirmed claims hold, of some queues or of all: up to ``limit``, with a new lease. More are given
    back, without an attempt counted. It does not matter how old the claim is, as long as no other worker has the job.

    Raises:
        BackendUnavailable: the next call has to find out.
    """
    doubtful = unconfirmed.take(queues)

    async def find(connection: SqlConnection) -> tuple[list[Claim], list[Claim]]:
        asked = clock.now()
        # Without a lock: the server may not have noticed yet that a transaction which holds them has lost its client.
        held = await holders(database, connection, [claim.fence.job_id.bytes for claim in doubtful])
        mine = [claim for claim in doubtful if held.get(claim.fence.job_id.bytes) == claim.fence.token]
        renewed = await _renew(database, connection, [claim.fence for claim in mine], lease)
        kept = [claim._replace(deadline=renewed.deadline) for claim in mine if claim.fence in renewed.kept]
        await _put_back(database, connection, kept[limit:])
        # A job is there, and its row has no holder: this node of a cluster may hear later that it was taken.
        free = {job_id for job_id, token in held.items() if token is None}
        unknown = [claim for claim in doubtful if claim.fence.job_id.bytes in free and claim.deadline > asked]
        return kept[:limit], unknown

    unknown = doubtful
    try:
        claims, unknown = await database.write_plain(find)
    finally:
        unconfirmed.add(unknown)
    return claims


async def give_back(database: Database, unconfirmed: UnconfirmedWrites) -> None:
    """Give back the jobs of unconfirmed claims, if the database answers. This worker will not run them."""
    if unconfirmed.claims:
        with suppress(OutboxError):
            await find_again(database, unconfirmed, 0, _LEASE_TO_GIVE_BACK)


async def _renew(database: Database, connection: SqlConnection, fences: Sequence[Fence], lease: float) -> Lease:
    """One UPDATE for all tokens, however many there are. The rows are read only if some of them were lost."""
    deadline = clock.now() + lease
    lost: set[Fence] = set()
    for statement, parameters, group in _renewals(database, fences, int(lease * MICROSECONDS)):
        result = await connection.exec_driver_sql(statement, parameters)
        if result.rowcount != len(group):
            held = await holders(database, connection, [fence.job_id.bytes for fence in group])
            lost.update(fence for fence in group if held.get(fence.job_id.bytes) != fence.token)
    return Lease(deadline, frozenset(fences) - lost, frozenset(lost))


def _renewals(
    database: Database, fences: Sequence[Fence], microseconds: int
) -> Iterator[tuple[str, tuple[Any, ...], Sequence[Fence]]]:
    """Statements, their parameters, and what each of them renews, in the order of the keys."""
    ordered = sorted(frozenset(fences), key=attrgetter("job_id"))
    times = (microseconds, microseconds)
    if len({fence.token for fence in ordered}) == 1:
        # The usual case, and the fastest form of the fence.
        for group in chunked(ordered):
            ids = (fence.job_id.bytes for fence in group)
            yield database.dialect.renew(len(group)), (*times, *ids, ordered[0].token), group
    else:
        for group in chunked(ordered, PAIRS_PER_STATEMENT):
            pairs = [(fence.job_id.bytes, fence.token) for fence in group]
            statement, parameters = database.dialect.renew_each(pairs)
            yield statement, (*times, *parameters), group


async def _put_back(database: Database, connection: SqlConnection, claims: Sequence[Claim]) -> None:
    """Jobs that this transaction has just renewed."""
    for keys in chunked(sorted(claim.fence.job_id.bytes for claim in claims)):
        delays = [value for key in keys for value in (key, 0)]
        attempts = [value for key in keys for value in (key, 1)]
        await connection.exec_driver_sql(database.dialect.put_back(len(keys)), (*delays, *attempts, *keys))


async def missing(database: Database, job_ids: Sequence[JobId]) -> frozenset[JobId]:
    """Those of these jobs that have no row."""

    async def read(connection: SqlConnection) -> frozenset[JobId]:
        there = await holders(database, connection, [job_id.bytes for job_id in job_ids])
        return frozenset(job_id for job_id in job_ids if job_id.bytes not in there)

    return await database.read_plain(read)


async def holders(database: Database, connection: SqlConnection, ids: Sequence[bytes]) -> dict[bytes, bytes | None]:
    """`current_tokens`, read without a lock."""
    return await run(current_tokens(database.dialect, ids, lock=False), connection)


def current_tokens(dialect: Dialect, ids: Sequence[bytes], *, lock: bool) -> Plan[dict[bytes, bytes | None]]:
    """The token under which each of these jobs is held, None for one that is not held. Jobs that are gone are left
    out."""
    tokens: dict[bytes, bytes | None] = {}
    for keys in chunked(sorted(ids)):
        rows = yield dialect.held(len(keys), lock=lock), tuple(keys)
        tokens.update((bytes(job_id), None if token is None else bytes(token)) for job_id, token in rows)
    return tokens
