"""Where claims begin, when they cannot afford to begin at the head of the claim index.

A priority of a queue is one range of the claim index, in the order in which its jobs became available. Its cursor is
where this process last took jobs from it. A job can land behind the cursor, for example because its transaction
committed late. A probe of the head finds it and moves the cursor back: see `scan_cost` for when.

While the head is cheap, most claims of a backlog continue where the last one ended: see `BacklogCursor`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from outbox import clock
from outbox.drivers.database.claim_scan.scan_cost import LONG_PROBE, Clock, Cooldown, ScanCost
from outbox.options import PRIORITIES

_RECENT_JOBS = 50
"""A cursor stays this many jobs behind the last job that was taken, and at least one claim. Transactions commit in a
slightly different order from that of their jobs."""

_ACTIVE_SECONDS = 60.0
"""Claims no longer search a priority that had no jobs for so long. Probes still read it."""

_CLAIMS_PER_HEAD = 4
"""How many claims of a backlog continue where the last one ended, for each claim from the head."""

_MARGIN = timedelta(seconds=10)
"""A probe that finds a priority empty moves its cursor to so long ago. Transactions of that time may still commit."""

_WORKER_COUNT_SECONDS, _IDLE_WORKER_COUNT_SECONDS = 5.0, 60.0
"""For how long a count of the workers is used. Longer for an idle worker: its probes, heartbeats and counts together
stay below one statement per second."""

_CHEAP_SEARCH = 3.0
"""A search that takes at most so many times as long as a count of the workers is cheap: no cooldown follows."""

_PROBE_INTERVAL, _PROBE_INTERVAL_PER_WORKER = 1.2, 0.2
"""The shortest time between two probes of an idle worker: seconds, and seconds for each worker of the fleet."""

_PROBE_SECONDS = 50e-6
"""The longest time that a probe takes for each priority without deleted entries. With hundreds of queues it adds up."""


class PriorityCursor:
    """One queue and priority."""

    def __init__(self, queue: str, priority: int, now: Clock = clock.now) -> None:
        self.queue = queue
        self.priority = priority
        self.cooldown = Cooldown(now)
        """After a search that cost much and did not find enough."""
        self._now = now
        self._recent_positions: deque[tuple[datetime, int]] = deque()
        """Where the last claims began, and how many jobs each took."""
        self._jobs = 0
        self._rewind: datetime | None = None
        """Where the next claim begins because a job was found behind the cursor."""
        self._active_until = float("-inf")

    @property
    def start(self) -> datetime | None:
        """Where a claim begins; None for at the head."""
        return self._rewind or (self._recent_positions[0][0] if self._recent_positions else None)

    @property
    def active(self) -> bool:
        """Whether claims search it."""
        return self._now() < self._active_until

    @property
    def rewinds(self) -> bool:
        """Whether the next claim begins behind the cursor."""
        return self._rewind is not None

    def took(self, moments: Sequence[datetime], *, emptied: bool) -> None:
        """A claim took jobs that were available since these ``moments``, in their order. ``emptied``: it would have
        taken more."""
        newest = self._recent_positions[-1][0] if self._recent_positions else None
        ahead = next((moment for moment in moments if newest is None or moment >= newest), None)
        if ahead is not None or emptied:
            self._rewind = None
        elif self._recent_positions and moments[0] < self._recent_positions[0][0]:
            # All of them were behind the cursor, and more may be.
            self._rewind = moments[0]
        if ahead is not None:
            self._advance(ahead, len(moments))
        if moments:
            self._active_until = self._now() + _ACTIVE_SECONDS

    def exhausted(self) -> None:
        """A claim found less in it than it asked for, so it found everything behind the cursor as well."""
        self._rewind = None

    def seen(self, first: datetime | None, now: datetime) -> None:
        """A probe of the head at ``now``, by the database's clock, found when the first job is available: ``first``."""
        if first is not None and first <= now:
            self._active_until = self._now() + _ACTIVE_SECONDS
            self.cooldown.end()
            if not self._recent_positions:
                self._advance(first, 0)
            elif first < self._recent_positions[0][0]:
                self._rewind = first
        elif not self._recent_positions or self._recent_positions[-1][0] < now - _MARGIN:
            self._recent_positions.clear()
            self._jobs = 0
            self._advance(now - _MARGIN, 0)

    def _advance(self, moment: datetime, jobs: int) -> None:
        """Keep as many positions as `_RECENT_JOBS` needs."""
        self._recent_positions.append((moment, jobs))
        self._jobs += jobs
        while self._jobs - self._recent_positions[0][1] >= _RECENT_JOBS:
            self._jobs -= self._recent_positions.popleft()[1]


@dataclass(frozen=True, slots=True)
class WorkerCount:
    """How many workers drain these queues, and how many seconds the statement took. It reads next to nothing, so a
    probe takes at least as long."""

    workers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BacklogCursor:
    """Where claims continue after a full one. The next claim from the head finds what is before that."""

    cursor: PriorityCursor
    end: datetime
    """When the last job of that claim became available."""
    since_head: int
    """How many claims were made since the last one from the head."""

    @property
    def start(self) -> datetime | None:
        """Where the next claim begins; None for the head."""
        return self.end if self.since_head < _CLAIMS_PER_HEAD else None


class ClaimCursors:
    """The cursors of one driver, and when to probe their heads."""

    def __init__(self, now: Clock = clock.now) -> None:
        self.scan_cost = ScanCost(now)
        self.backlog: BacklogCursor | None = None
        """Where the last claim of short jobs ended, if it came back full."""
        self._now = now
        self._priority_cursors: dict[tuple[str, int], PriorityCursor] = {}
        # Priorities with jobs have many deleted entries, others usually few. So others can be probed more often, and
        # an urgent job of a priority that is rarely used starts at once.
        self._cooldown_of_active, self._cooldown_of_others = Cooldown(now), Cooldown(now)
        self._cooldown_of_rewinds = Cooldown(now)
        self._worker_count = WorkerCount(1, 0.0)
        self._counted_at = float("-inf")

    @property
    def workers(self) -> int:
        """How many take jobs from the same queues, this one included, as far as is known."""
        return self._worker_count.workers

    @property
    def worker_count_is_old(self) -> bool:
        """Whether to count the workers before that is relied on."""
        return self._now() > self._counted_at + _WORKER_COUNT_SECONDS

    @property
    def needs_worker_count(self) -> bool:
        """Whether a claim should count the workers before its probes."""
        return self.scan_cost.wants_comparison and self.worker_count_is_old

    def needs_worker_count_after(self, priority_cursors: int, seconds: float) -> bool:
        """Whether an idle worker should count them after a probe of so many priorities took so long."""
        wanted = self.scan_cost.wants_comparison or seconds - priority_cursors * _PROBE_SECONDS > LONG_PROBE
        return wanted and self._now() > self._counted_at + _IDLE_WORKER_COUNT_SECONDS

    def counted(self, worker_count: WorkerCount) -> None:
        self._worker_count, self._counted_at = worker_count, self._now()

    def cursors_of(self, *queues: str) -> list[PriorityCursor]:
        """In the order of the queues, and of their priorities."""
        return [self.cursor(queue, priority) for queue in queues for priority in PRIORITIES]

    def cursor(self, queue: str, priority: int) -> PriorityCursor:
        if (queue, priority) not in self._priority_cursors:
            self._priority_cursors[queue, priority] = PriorityCursor(queue, priority, self._now)
        return self._priority_cursors[queue, priority]

    def continue_from(self, queue: str, priority: int, end: datetime, *, at_head: bool) -> None:
        """A claim came back full, and the last job that it took became available at this moment."""
        since_head = 0 if at_head or self.backlog is None else self.backlog.since_head + 1
        self.backlog = BacklogCursor(self.cursor(queue, priority), end, since_head)

    def searched(self, priority_cursors: Sequence[PriorityCursor], seconds: float) -> None:
        """A claim got less from these priorities than it asked for: it read all deleted entries after the last job."""
        for cursor in priority_cursors:
            cursor.exhausted()
            if self.scan_cost.expensive and seconds > _CHEAP_SEARCH * self._worker_count.seconds:
                cursor.cooldown.begin(seconds, self._worker_count.workers)

    def rewound(self, seconds: float) -> None:
        """A claim went back for what a probe had found behind a cursor. That may be a job that a dead worker holds in
        place. Until its lease ends, every probe leads to such a claim."""
        if self.scan_cost.expensive and seconds > _CHEAP_SEARCH * self._worker_count.seconds:
            self._cooldown_of_rewinds.begin(seconds, self._worker_count.workers)

    def affordable(self, queues: Iterable[str]) -> list[PriorityCursor]:
        """The cursors whose heads may be probed now."""
        active = self._cooldown_of_active.over and self._cooldown_of_rewinds.over
        others = self._cooldown_of_others.over
        return [cursor for cursor in self.cursors_of(*queues) if (active if cursor.active else others)]

    def next_probe(self, queues: Sequence[str]) -> float | None:
        """Seconds until all heads may be probed; None if they may be now."""
        if not self.scan_cost.expensive or len(self.affordable(queues)) == len(PRIORITIES) * len(queues):
            return None
        cooldown = max(self._cooldown_of_active.left, self._cooldown_of_others.left, self._cooldown_of_rewinds.left)
        return max(cooldown, _PROBE_INTERVAL, _PROBE_INTERVAL_PER_WORKER * self._worker_count.workers)

    def probed(self, priority_cursors: Collection[PriorityCursor], seconds: float) -> None:
        """A probe of these heads took so long."""
        active = sum(cursor.active for cursor in priority_cursors)
        if active or not any(cursor.active for cursor in self._priority_cursors.values()):
            in_deleted = max(0.0, seconds - len(priority_cursors) * _PROBE_SECONDS)
            self.scan_cost.probed(in_deleted, self._worker_count.seconds, self._worker_count.workers)
        if not self.scan_cost.expensive:
            return
        if active:
            self._cooldown_of_active.begin(seconds, self._worker_count.workers)
        if active < len(priority_cursors):
            self._cooldown_of_others.begin(seconds, self._worker_count.workers)

    def sorted(
        self, queue: str, taken: Iterable[tuple[int, datetime]], *, emptied: bool
    ) -> list[tuple[PriorityCursor, Sequence[datetime], bool]]:
        """What a claim from the head has taken from a queue: for each cursor the times at which its jobs became
        available, and whether it had no more, as every priority before the last one."""
        moments: dict[int, list[datetime]] = {}
        for priority, moment in taken:
            moments.setdefault(priority, []).append(moment)
        priority_cursors, last = self.cursors_of(queue), max(moments, default=0)
        return [(priority_cursors[priority], each, emptied or priority < last) for priority, each in moments.items()]
