"""Claims from cursors: where the head of the claim index is expensive, and in a backlog of short jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from outbox import clock
from outbox.drivers.database.claim_scan.base import Candidates, Timings
from outbox.drivers.database.claim_scan.cursors import ClaimCursors, PriorityCursor
from outbox.drivers.database.claim_scan.head import HeadScan
from outbox.drivers.database.claim_scan.probes import count_workers, moment_or_never, probe_heads
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.raw_connection import SqlConnection

_IN_PLACE_WORKERS = 4
"""A fleet of more workers holds no jobs in place: each of them would pass over what all the others hold."""

_EVER = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC without saying so, as the database's moments are


class Path(Enum):
    """Where a claim has searched."""

    HEAD = auto()
    BACKLOG = auto()
    CURSORS = auto()


@dataclass(slots=True)
class CursorCandidates(Candidates):
    path: Path = Path.HEAD
    short_jobs: bool = False
    seconds: float = 0.0
    """How long its SELECTs took."""
    in_place: bool = False


class CursorScan:
    """On MySQL and MariaDB. A claim begins at the head of the claim index. While that is expensive, because an open
    transaction keeps deleted entries, it begins at `cursors`. In a backlog of short jobs, four claims of five continue
    where the last one ended."""

    def __init__(self, database: Database) -> None:
        self.cursors = ClaimCursors()
        self._database = database
        self._dialect = database.dialect
        self._head = HeadScan(database.dialect)

    async def select(
        self, tx: SqlConnection, queues: Sequence[str], limit: int, *, short_jobs: bool = False
    ) -> CursorCandidates:
        found = CursorCandidates(limit, short_jobs=short_jobs)
        if not self.cursors.scan_cost.at_head:
            await self._select_from_cursors(tx, queues, found)
        elif not (short_jobs and await self._continue_backlog(tx, queues, found)):
            begun = clock.now()
            await self._head.fill(tx, queues, found)
            found.seconds = clock.now() - begun
        # A claim that empties the queue moves what it takes: idle workers probe for the next due job, and jobs held in
        # place look due to them.
        if short_jobs and found.full and self._can_hold_in_place:
            if self.cursors.worker_count_is_old:
                await count_workers(self._dialect, tx, self.cursors, queues)
            found.in_place = self.cursors.workers <= _IN_PLACE_WORKERS
        return found

    def holds_in_place(self, found: Candidates) -> bool:
        return isinstance(found, CursorCandidates) and found.in_place

    def committed(self, found: Candidates, timings: Timings) -> None:
        if isinstance(found, CursorCandidates):
            self._learn(found, timings)

    def _learn(self, found: CursorCandidates, timings: Timings) -> None:
        taken, cost = found.limit - found.missing, self.cursors.scan_cost
        in_backlog = found.path is Path.BACKLOG
        if not in_backlog:
            for queue, rows, emptied in found.queues:
                moments = [(row.priority, moment_or_never(row.available_at)) for row in rows]
                for cursor, each, is_last in self.cursors.sorted(queue, moments, emptied=emptied):
                    cursor.took(each, emptied=is_last)
        if found.short_jobs and found.full:
            queue, rows, _ = found.queues[-1]
            end = moment_or_never(rows[-1].available_at)
            self.cursors.continue_from(queue, rows[-1].priority, end, at_head=not in_backlog)
        else:
            self.cursors.backlog = None
        if in_backlog:
            cost.from_backlog(taken)
        elif found.path is Path.HEAD:
            cost.from_head(taken, found.seconds, timings.update, timings.whole)
        else:
            cost.from_cursors(taken, found.seconds)

    @property
    def _can_hold_in_place(self) -> bool:
        """On MySQL. On MariaDB, SKIP LOCKED waits for entries that another transaction is deleting."""
        dialect: Any = self._database.engine.dialect
        return not dialect.is_mariadb

    async def _continue_backlog(self, tx: SqlConnection, queues: Sequence[str], found: CursorCandidates) -> bool:
        """Search the priority that filled the last claim, mostly from where that ended. Returns whether the claim is
        complete: it is full, and no more urgent job is due. Otherwise nothing is found, and the transaction's next
        statement finds again what this has locked."""
        backlog = self.cursors.backlog
        # Queues that are preferred to its queue may have got jobs.
        if backlog is None or backlog.cursor.queue not in queues[:1]:
            return False
        queue, priority, start = backlog.cursor.queue, backlog.cursor.priority, backlog.start
        due = self._dialect.due_from([(priority, start or _EVER)])
        urgent = self._dialect.more_urgent_due(queue, priority)
        begun = clock.now()
        statement = self._dialect.select_claimable(queue, due, found.limit, urgent)
        rows = self._dialect.claimable_in.rows(await tx.exec_driver_sql(*statement))
        found.seconds = clock.now() - begun
        if len(rows) < found.limit or rows[0].urgent:
            return False
        found.add(queue, rows)
        found.path = Path.HEAD if start is None else Path.BACKLOG
        return True

    async def _select_from_cursors(self, tx: SqlConnection, queues: Sequence[str], found: CursorCandidates) -> None:
        found.path = Path.CURSORS
        expensive = self.cursors.scan_cost.expensive
        # A claim that only compares the two ways has to find the same as one from the head: it probes everything.
        probed = set(self.cursors.affordable(queues) if expensive else self.cursors.cursors_of(*queues))
        due = await probe_heads(self._dialect, tx, self.cursors, queues, probed) if probed else set()
        for queue in queues:
            active = [
                cursor
                for cursor in self.cursors.cursors_of(queue)
                if cursor.active and cursor.cooldown.over and (cursor in due or cursor not in probed)
            ]
            # One by one, so that each search has a cost of its own.
            for group in ([cursor] for cursor in active) if expensive else filter(None, [active]):
                if found.full:
                    return
                await self._search(tx, queue, group, found)

    async def _search(
        self, tx: SqlConnection, queue: str, searched: Sequence[PriorityCursor], found: CursorCandidates
    ) -> None:
        due = self._dialect.due_from([(cursor.priority, cursor.start) for cursor in searched])
        rewinds = any(cursor.rewinds for cursor in searched)
        begun = clock.now()
        rows = await self._head.lock(tx, queue, due, found.missing)
        seconds = clock.now() - begun
        found.seconds += seconds
        if rewinds:
            self.cursors.rewound(seconds)
        found.add(queue, rows)
        if found.queues[-1].emptied:
            self.cursors.searched(searched, seconds)


def scan_for(database: Database) -> HeadScan | CursorScan:
    """The scan for the claims of one driver."""
    return CursorScan(database) if database.dialect.keeps_deleted else HeadScan(database.dialect)
