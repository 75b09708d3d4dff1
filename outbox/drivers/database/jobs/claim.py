"""Taking jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from outbox import clock
from outbox.drivers.base import Claim
from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.claim_scan.cursors import ClaimCursors, PriorityCursor
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Statement
from outbox.drivers.database.jobs.lease import find_again, holders
from outbox.drivers.database.jobs.next_due import count_workers, moment_or_never, probe_heads
from outbox.drivers.database.jobs.unreadable import Unreadable, flaw, reject
from outbox.ids import new_token
from outbox.settlement import Fence

_MICROSECONDS = 1_000_000

_QUEUES_AT_ONCE = 8
"""Of many queues with a few jobs each, a claim reads no more once it has found something: each takes a round trip, for
which the jobs that were found stay locked. The next claim follows at once."""

_IN_PLACE_WORKERS = 4
"""Each of more workers would pass over what all the others hold, and gain nothing."""

_CANDIDATES, _SPARE_CANDIDATES, _MORE_CANDIDATES = 4, 32, 8
"""How many jobs are looked at for each that is asked for, how many besides, and how many times as many if too few of
them can be had."""

_EVER = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC without saying so, as the database's moments are


def _candidates(limit: int) -> int:
    return _CANDIDATES * limit + _SPARE_CANDIDATES


async def claim(
    database: Database, name: str, queues: Sequence[str], limit: int, lease: float, *, short_jobs: bool = False
) -> list[Claim]:
    """``name`` is that of the connection: rows that cannot be read become its failed jobs, in the same transaction."""
    if database.unconfirmed.claims and (found := await find_again(database, limit, lease, queues)):
        return found
    while True:
        taking = _Taking(database, name, queues, limit, lease, short_jobs=short_jobs)
        claims = await _take(database, taking)
        # Good jobs may be behind what was only moved away.
        if claims or not taking.moved:
            return claims


async def _take(database: Database, taking: _Taking) -> list[Claim]:
    # One call is one token, its retries included: should a commit have worked whose answer was lost, the token finds
    # the rows that it took.
    begun = clock.now()
    claims = await database.write_plain(taking.take, confirm=taking.recover, on_unconfirmed=taking.remember)
    database.unconfirmed.forget(claims)
    taking.tell(clock.now() - begun)
    return claims


class _Taking:
    """One call of claim."""

    def __init__(
        self,
        database: Database,
        name: str,
        queues: Sequence[str],
        limit: int,
        lease: float,
        *,
        short_jobs: bool = False,
    ) -> None:
        self._database = database
        self._name = name
        self._dialect = database.dialect
        self._cursors = database.cursors
        self._queues = queues
        self._limit = limit
        self._lease = lease
        self._brief = short_jobs
        self._token = new_token()
        self._deadline = 0.0
        self._claims: list[Claim] = []
        """What the last try that got so far has found."""
        self._found: list[Claim] = []
        """What this try has found up to now."""
        self._unreadable: list[Unreadable] = []
        self.moved = 0
        """Rows that could not be read, and are failed jobs now."""
        self._taken: list[tuple[PriorityCursor, Sequence[datetime], bool]] = []
        self._in_backlog = self._cursors is not None and self._cursors.last_claim_was_full
        self._at_head = True
        self._start: datetime | None = None
        """Where in its lane a backlog was searched; None for from its head."""
        self._end: datetime | None = None
        """When the last job that was found became available."""
        self._selecting = 0.0
        self._updating = 0.0

    async def take(self, connection: SqlConnection) -> list[Claim]:
        self._deadline = clock.now() + self._lease
        self._found, self._taken, self._unreadable = [], [], []
        self._start = self._end = None
        self._selecting = self._updating = 0.0
        self._at_head = self._cursors is None or self._cursors.scan_cost.at_head
        if self._cursors is None or self._at_head:
            if not (self._brief and self._cursors and await self._select_from_backlog(connection, self._cursors)):
                await self._select_from_head(connection)
        else:
            await self._select_from_marks(connection, self._cursors)
        # Not before it is known: what an earlier try took may still have to be recovered.
        self._claims = self._found
        if self._claims:
            begun = clock.now()
            await self._reserve(connection)
            self._updating = clock.now() - begun
        self.moved = 0
        if self._unreadable:
            self.moved = await reject(self._database, connection, self._name, self._unreadable)
        return self._claims

    async def _reserve(self, connection: SqlConnection) -> None:
        microseconds = int(self._lease * _MICROSECONDS)
        in_place = await self._may_stay_in_place(connection)
        moments = (microseconds,) if in_place else (microseconds, microseconds)
        for keys in chunked(sorted(claim.fence.job_id.bytes for claim in self._claims)):
            listed, parameters = self._dialect.id_list(keys)
            statement = self._dialect.reserve(listed, in_place=in_place)
            await connection.exec_driver_sql(statement, (self._token, *moments, *parameters))

    async def _may_stay_in_place(self, connection: SqlConnection) -> bool:
        if not (self._brief and self._cursors is not None and self._database.holds_in_place):
            return False
        # Whoever empties the queue is about to look when the next job is due, and so are others: then what is held had
        # better not be where they look.
        if len(self._claims) < self._limit:
            return False
        if self._cursors.census_is_old:
            await count_workers(self._database, connection, self._cursors, self._queues)
        return self._cursors.workers <= _IN_PLACE_WORKERS

    def tell(self, seconds: float) -> None:
        """Let the next claims know what this one, which is committed, has taken and cost."""
        if self._cursors is None:
            return
        self._cursors.last_claim_was_full = len(self._claims) == self._limit
        for cursor, moments, emptied in self._taken:
            cursor.took(moments, emptied=emptied)
        if self._brief and self._end is not None and len(self._claims) == self._limit:
            last = self._claims[-1]
            self._cursors.continue_from(last.queue, last.priority, self._end, at_head=self._start is None)
        else:
            self._cursors.backlog = None
        if self._start is not None:
            self._cursors.scan_cost.went_on(len(self._claims))
        elif self._at_head:
            self._cursors.scan_cost.from_head(len(self._claims), self._selecting, self._updating, seconds)
        else:
            self._cursors.scan_cost.from_marks(len(self._claims), self._selecting)

    async def _select_from_backlog(self, connection: SqlConnection, cursors: ClaimCursors) -> bool:
        """From the lane that filled the last claim, mostly from where that ended. Returns whether that was all to be
        done; otherwise nothing is found, and what this has locked the transaction's next statement finds again.

        Among all priorities, the range of each empty one ends at the next entry that can be locked: the first of the
        backlog that nobody has just taken. With five empty ones in front of it, a claim passes six times over what was
        taken a moment ago, and each such entry costs more than a job while that is not committed.
        """
        backlog = cursors.backlog
        # Queues that are preferred to its own may have got jobs.
        if backlog is None or backlog.cursor.queue not in self._queues[:1]:
            return False
        self._start = backlog.start
        queue, priority = backlog.cursor.queue, backlog.cursor.priority
        begun = clock.now()
        due = self._dialect.due_from([(priority, self._start or _EVER)])
        urgent = self._dialect.more_urgent_due(queue, priority)
        statement = self._dialect.select_claimable(queue, due, self._limit, _candidates(self._limit), urgent)
        rows = self._dialect.claimable_in.rows(await connection.exec_driver_sql(*statement))
        self._selecting = clock.now() - begun
        if len(rows) < self._limit or rows[0].urgent:
            self._start = None
            return False
        self._find(queue, rows)
        if self._start is None:
            self._remember(cursors, queue, rows, emptied=False)
        return True

    async def _select_from_head(self, connection: SqlConnection) -> None:
        begun = clock.now()
        for tried, queue in enumerate(await self._queues_to_try(connection)):
            if tried >= _QUEUES_AT_ONCE and self._found:
                break
            missing = self._limit - len(self._found)
            rows = await self._select(connection, queue, self._dialect.due(), missing)
            if self._cursors is not None:
                self._remember(self._cursors, queue, rows, emptied=len(rows) < missing)
            if len(self._found) >= self._limit:
                break
        self._selecting = clock.now() - begun

    async def _select_from_marks(self, connection: SqlConnection, cursors: ClaimCursors) -> None:
        expensive = cursors.scan_cost.expensive
        # While it is only tried whether this is quicker, it has to find the same: so everything is looked at.
        looked_at = set(cursors.affordable(self._queues) if expensive else cursors.cursors_of(*self._queues))
        due = await probe_heads(self._database, connection, cursors, self._queues, looked_at) if looked_at else set()
        for queue in self._queues:
            priority_cursors = [
                cursor
                for cursor in cursors.cursors_of(queue)
                if cursor.active and cursor.rest.over and (cursor in due or cursor not in looked_at)
            ]
            # One by one, it shows which of them is worth its search.
            for group in ([cursor] for cursor in priority_cursors) if expensive else filter(None, [priority_cursors]):
                if len(self._found) >= self._limit:
                    return
                await self._search(connection, cursors, queue, group)

    async def _search(
        self, connection: SqlConnection, cursors: ClaimCursors, queue: str, priority_cursors: Sequence[PriorityCursor]
    ) -> None:
        missing = self._limit - len(self._found)
        starts = [(cursor.priority, cursor.start) for cursor in priority_cursors]
        rewinds = any(cursor.rewinds for cursor in priority_cursors)
        begun = clock.now()
        rows = await self._select(connection, queue, self._dialect.due_from(starts), missing)
        seconds = clock.now() - begun
        self._selecting += seconds
        if rewinds:
            cursors.rewound(seconds)
        emptied = len(rows) < missing
        self._remember(cursors, queue, rows, emptied=emptied)
        if emptied:
            cursors.searched(priority_cursors, seconds)

    def _remember(self, cursors: ClaimCursors, queue: str, rows: Sequence[Any], *, emptied: bool) -> None:
        taken = [(row.priority, moment_or_never(row.available_at)) for row in rows]
        self._taken += cursors.sorted(queue, taken, emptied=emptied)

    async def _select(self, connection: SqlConnection, queue: str, due: Statement, limit: int) -> Sequence[Any]:
        """Claims at the same moment look at the same candidates. Where others hold so many of them that none is left,
        or too few in a backlog, it goes on with more of them. What it has locked, it finds again."""
        candidates = _candidates(limit)
        while True:
            statement = self._dialect.select_claimable(queue, due, limit, candidates)
            rows = self._dialect.claimable.rows(await connection.exec_driver_sql(*statement))
            if len(rows) == limit or (rows and not self._in_backlog):
                break
            beyond = self._dialect.has_candidates_after(queue, due, candidates)
            if beyond is None or not list(await connection.exec_driver_sql(*beyond)):
                break
            candidates *= _MORE_CANDIDATES
        self._find(queue, rows)
        return rows

    def _find(self, queue: str, rows: Sequence[Any]) -> None:
        for row in rows:
            reason = flaw(row)
            if reason is None:
                self._found.append(self._claim(queue, row))
            else:
                self._unreadable.append(Unreadable(self._dialect.key_of(row), row.id, reason))
        if rows:
            self._end = moment_or_never(rows[-1].available_at)

    async def _queues_to_try(self, connection: SqlConnection) -> Sequence[str]:
        """With many queues, one look at the claim index tells which of them have something: an idle worker's look costs
        one statement, not one for every queue."""
        if len(self._queues) == 1:
            return self._queues
        rows = await connection.exec_driver_sql(
            self._dialect.queues_with_due(len(self._queues)), self._dialect.due_parameters(self._queues)
        )
        due = {row[0] for row in rows}
        return [queue for queue in self._queues if queue in due]

    def _claim(self, queue: str, row: Any) -> Claim:
        return Claim(
            Fence(UUID(bytes=bytes(row.id)), self._token),
            queue,
            row.name,
            row.priority,
            row.payload,
            row.headers,
            row.attempts + 1,
            bool(row.rescued),
            self._deadline,
        )

    def remember(self) -> None:
        """Nobody knows whether the last try was committed."""
        self._database.unconfirmed.add(self._claims)

    async def recover(self, connection: SqlConnection) -> list[Claim] | None:
        held = await holders(
            self._database, connection, [claim.fence.job_id.bytes for claim in self._claims], lock=False
        )
        mine = [claim for claim in self._claims if held.get(claim.fence.job_id.bytes) == self._token]
        return mine or None
