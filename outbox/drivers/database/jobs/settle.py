"""Settling over outbox's own connections: each batch is one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import run
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.jobs.lease import holders
from outbox.drivers.database.jobs.settlement_plan import SettlementPlan, is_leaving
from outbox.drivers.database.jobs.unconfirmed import UnconfirmedWrites
from outbox.drivers.database.policies import registry
from outbox.drivers.database.policies.leaving import leaving
from outbox.drivers.values import PolicyNews, Settled
from outbox.settlement import LeavePolicies, Settlement


async def settle(
    database: Database, unconfirmed: UnconfirmedWrites, connection_name: str, settlements: Sequence[Settlement]
) -> Settled:
    accepted: list[Settlement] = []
    stale: list[Settlement] = []
    news = PolicyNews()
    for batch in _batches(settlements):
        settling = SettleTransaction(database, unconfirmed, SettlementPlan(database.dialect, connection_name, batch))
        settled = await database.write_plain(settling.write, confirm=settling.recover, on_unconfirmed=settling.remember)
        unconfirmed.settled(batch)
        accepted += settled.accepted
        stale += settled.stale
        news += settled.news
        news += await follow_commit(database, settled.accepted)
    return Settled(tuple(accepted), tuple(stale), news)


async def follow_commit(database: Database, accepted: Sequence[Settlement]) -> PolicyNews:
    """What policies do after the commit of settlements."""
    ends = [effect for each in accepted for effect in each.effects if isinstance(effect, LeavePolicies)]
    if not ends:
        return PolicyNews()
    following = registry.following()
    return await registry.committed(database, [leaving(*end) for end in ends if end.policies & following])


def _batches(settlements: Sequence[Settlement]) -> Iterator[Sequence[Settlement]]:
    """Those of jobs with policies by themselves: the others need no more than a DELETE."""
    if not any(settlement.effects for settlement in settlements):
        return chunked(settlements)
    gated: list[Settlement] = []
    plain: list[Settlement] = []
    for settlement in settlements:
        (gated if any(map(is_leaving, settlement.effects)) else plain).append(settlement)
    return chain(chunked(plain), chunked(gated))


class SettleTransaction:
    """One batch, its retries included."""

    def __init__(self, database: Database, unconfirmed: UnconfirmedWrites, plan: SettlementPlan) -> None:
        self._database = database
        self._unconfirmed = unconfirmed
        self._plan = plan
        self._decided = Settled((), ())

    async def write(self, connection: SqlConnection) -> Settled:
        settled = None
        if self._plan.deletable:
            settled = await run(self._plan.delete(), connection)
            if settled is None:
                await connection.rollback()
        if settled is None:
            settled = await run(self._plan.lock_and_settle(self._unconfirmed.ends), connection)
        self._decided = settled
        return settled

    def remember(self) -> None:
        """Keep the fences of a transaction whose COMMIT got no answer."""
        self._unconfirmed.ends = frozenset(settlement.fence for settlement in self._decided.accepted)

    async def recover(self, connection: SqlConnection) -> Settled | None:
        """The result if the COMMIT that got no answer was done. It did all or nothing: one row that is still held tells
        that it did nothing."""
        held = {settlement.fence.job_id.bytes: settlement.fence.token for settlement in self._decided.accepted}
        tokens = await holders(self._database, connection, list(held))
        return None if any(tokens.get(job_id) == token for job_id, token in held.items()) else self._decided
