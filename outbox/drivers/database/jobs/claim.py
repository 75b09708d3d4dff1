"""Claims: select, admit, reserve, commit."""

from __future__ import annotations

from collections.abc import Sequence
from sys import intern
from typing import Any, NamedTuple

from outbox import clock
from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.claim_scan.base import Candidates, ClaimScan, Timings
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import run
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects.failed_job_statements import RESCUED
from outbox.drivers.database.dialects.syntax import MICROSECONDS
from outbox.drivers.database.jobs.admission import Admitted, admit, write_verdicts
from outbox.drivers.database.jobs.lease import find_again, holders
from outbox.drivers.database.jobs.unconfirmed import UnconfirmedWrites
from outbox.drivers.database.jobs.unreadable import reject
from outbox.drivers.database.policies import registry
from outbox.drivers.values import Claim, PolicyNews
from outbox.ids import new_token, stored_job_id
from outbox.settlement import Fence

_ROUNDS = 20
"""How often one call looks on where policies admitted nothing of what was found."""


class ClaimRequest(NamedTuple):
    """Up to ``limit`` jobs of these queues, for ``lease`` seconds."""

    queues: Sequence[str]
    limit: int
    lease: float
    short_jobs: bool = False


async def claim(
    database: Database, unconfirmed: UnconfirmedWrites, scan: ClaimScan, name: str, request: ClaimRequest
) -> list[Claim]:
    """Claim jobs. Rows that no worker can read become failed jobs of the connection ``name``, in the same transaction.

    Raises:
        BackendUnavailable: the next call finds out whether this one was committed.
    """
    if unconfirmed.claims:
        found = await find_again(database, unconfirmed, request.limit, request.lease, request.queues)
        if found:
            return found
    rounds = 0
    while True:
        transaction = ClaimTransaction(database, unconfirmed, scan, name, request)
        claims = await _commit(database, unconfirmed, scan, transaction)
        if transaction.news:
            gone = transaction.admitted.leaving + transaction.admitted.cancelled
            more = await registry.committed(database, gone) if gone else PolicyNews()
            database.on_policy_news(transaction.news + more)
        rounds += 1
        # Good jobs may be behind rows that do not run.
        if claims or not (transaction.rejected or (transaction.admitted.held_back and rounds < _ROUNDS)):
            return claims


async def _commit(
    database: Database, unconfirmed: UnconfirmedWrites, scan: ClaimScan, transaction: ClaimTransaction
) -> list[Claim]:
    begun = clock.now()
    claims = await database.write_plain(
        transaction.run, confirm=transaction.recover, on_unconfirmed=transaction.remember
    )
    unconfirmed.forget(claims)
    scan.committed(transaction.found, Timings(transaction.update_seconds, clock.now() - begun))
    return claims


class ClaimTransaction:
    """One claim. Its token is the same for all retries: if a COMMIT worked whose answer was lost, the token finds the
    rows that it reserved."""

    def __init__(
        self, database: Database, unconfirmed: UnconfirmedWrites, scan: ClaimScan, name: str, request: ClaimRequest
    ) -> None:
        self._database = database
        self._unconfirmed = unconfirmed
        self._scan = scan
        self._name = name
        self._request = request
        self._token = new_token()
        self._claims: list[Claim] = []
        """Jobs of the last try that reserved some."""
        self.found = Candidates(request.limit)
        self.admitted = Admitted()
        self.rejected = 0
        """How many rows became failed jobs."""
        self.news = PolicyNews()
        self.update_seconds = 0.0

    async def run(self, tx: SqlConnection) -> list[Claim]:
        """The statements of the transaction, without its COMMIT."""
        queues, limit, _, short_jobs = self._request
        sent = clock.now()
        found = await self._scan.select(tx, queues, limit, short_jobs=short_jobs)
        admitted = await admit(tx, self._database.dialect, found)
        # Not before it is known: jobs of an earlier try may still have to be recovered.
        self.found, self.admitted = found, admitted
        self._claims = [self._claim(queue, row, sent) for queue, row in admitted.run]
        if admitted.replacing:
            self._claims = [
                claim._replace(replaces=admitted.replacing.get(claim.fence.job_id.bytes, ())) for claim in self._claims
            ]
        begun = clock.now()
        if self._claims:
            await self._reserve(tx, admitted.run, in_place=self._scan.holds_in_place(found))
        self.update_seconds = clock.now() - begun
        self.rejected, self.news = 0, PolicyNews()
        if admitted.rejected:
            self.rejected = await reject(self._database, tx, self._name, admitted.rejected)
        if admitted.verdicts:
            self.news = await run(write_verdicts(self._database.dialect, admitted, self._name), tx)
        return self._claims

    async def _reserve(self, tx: SqlConnection, rows: Sequence[tuple[str, Any]], *, in_place: bool) -> None:
        dialect = self._database.dialect
        microseconds = int(self._request.lease * MICROSECONDS)
        ends = (microseconds,) if in_place else (microseconds, microseconds)
        for keys in chunked(sorted(row.id for _, row in rows)):
            listed, parameters = dialect.id_list(keys)
            statement = dialect.reserve(listed, in_place=in_place)
            await tx.exec_driver_sql(statement, (self._token, *ends, *parameters))

    def _claim(self, queue: str, row: Any, sent: float) -> Claim:
        waited = row.waited
        return Claim(
            Fence(stored_job_id(row.id), self._token),
            queue,
            intern(row.name),
            row.priority,
            row.payload,
            row.headers,
            row.attempts + 1,
            row.flags & RESCUED == RESCUED,
            sent + self._request.lease,
            row.policies,
            sent - waited / MICROSECONDS if waited and waited > 0 else sent,
        )

    def remember(self) -> None:
        """The answer to the COMMIT of the last try was lost."""
        self._unconfirmed.add(self._claims)

    async def recover(self, tx: SqlConnection) -> list[Claim] | None:
        """The jobs of the last try if it was committed, else None."""
        held = await holders(self._database, tx, [claim.fence.job_id.bytes for claim in self._claims])
        mine = [claim for claim in self._claims if held.get(claim.fence.job_id.bytes) == self._token]
        return mine or None
