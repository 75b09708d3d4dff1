"""Where claims begin, when they cannot afford to begin at the head of the claim index.

A lane is a queue and a priority: one stretch of the claim index, in the order in which its jobs became available. Each
is remembered by where this process last took jobs from it. Whatever lands behind that cursor, such as a job whose
transaction committed late, is found by a probe from the head, which moves the cursor back: see `scan_cost` for when.

Where claims can afford the head, those of a backlog mostly go on where the last one ended: see `BacklogCursor`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from outbox import clock
from outbox.drivers.database.claim_scan.scan_cost import LONG_LOOK, Clock, Cooldown, ScanCost
from outbox.options import PRIORITIES

_RECENT_JOBS = 50
"""A mark stays behind what was taken last by so many jobs, and by one claim at least: transactions commit in another
order than that of their jobs, by a little."""

_ACTIVE_SECONDS = 60.0
"""A lane that had nothing for so long is not searched by claims any more, only looked at."""

_ON_FROM_THE_LAST = 4
"""Claims that go on where the last one ended, and do not pass again over what was taken a moment ago, for each one from
the head of the lane."""

_MARGIN = timedelta(seconds=10)
"""A look that finds a lane empty moves its mark to so long ago: transactions of that time may commit yet."""

_WORKER_COUNT_SECONDS, _IDLE_WORKER_COUNT_SECONDS = 5.0, 60.0
"""How long it is believed how many workers there are, and how long a statement takes that reads next to nothing. Longer
where a worker only looks, so that looks, heartbeats and this together stay below one statement per second."""

_CHEAP_SEARCH = 3.0
"""A search that takes at most so many times as long as such a statement is followed by no rest."""

_LOOK_SECONDS, _LOOK_SECONDS_OF_FLEET = 1.2, 0.2
"""Seconds between two looks of an idle worker at least, and for every worker of a fleet, while there is something left
to look at."""

_ACTIVE_SECONDS = 50e-6
"""What a look takes at most for each lane, if it has nothing to walk over: with hundreds of queues it adds up."""


class PriorityCursor:
    """One queue and priority."""

    def __init__(self, queue: str, priority: int, now: Clock = clock.now) -> None:
        self.queue = queue
        self.priority = priority
        self.rest = Cooldown(now)
        """After a search that cost much and did not find enough."""
        self._now = now
        self._recent_positions: deque[tuple[datetime, int]] = deque()
        """Where the last claims began, and how many jobs each took."""
        self._jobs = 0
        self._rewind: datetime | None = None
        """Where the next claim has to begin for the sake of what was found behind the mark."""
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
        """Whether that is behind the mark."""
        return self._rewind is not None

    def took(self, moments: Sequence[datetime], *, emptied: bool) -> None:
        """A claim took jobs that were available since these ``moments``, in their order. ``emptied``: it would have
        taken more."""
        newest = self._recent_positions[-1][0] if self._recent_positions else None
        ahead = next((moment for moment in moments if newest is None or moment >= newest), None)
        if ahead is not None or emptied:
            self._rewind = None
        elif self._recent_positions and moments[0] < self._recent_positions[0][0]:
            # All of them were behind the mark, and more may be.
            self._rewind = moments[0]
        if ahead is not None:
            self._advance(ahead, len(moments))
        if moments:
            self._active_until = self._now() + _ACTIVE_SECONDS

    def exhausted(self) -> None:
        """A claim found less in it than it asked for: what may be behind the mark, it has not to go back for."""
        self._rewind = None

    def seen(self, first: datetime | None, now: datetime) -> None:
        """A look from the head at ``now``, by the database's clock, found the lane's first job: it is available since
        ``first``, or from then on."""
        if first is not None and first <= now:
            self._active_until = self._now() + _ACTIVE_SECONDS
            self.rest.end()
            if not self._recent_positions:
                self._advance(first, 0)
            elif first < self._recent_positions[0][0]:
                self._rewind = first
        elif not self._recent_positions or self._recent_positions[-1][0] < now - _MARGIN:
            self._recent_positions.clear()
            self._jobs = 0
            self._advance(now - _MARGIN, 0)

    def _advance(self, moment: datetime, jobs: int) -> None:
        """It holds as many claims as are needed for `_RECENT_JOBS`."""
        self._recent_positions.append((moment, jobs))
        self._jobs += jobs
        while self._jobs - self._recent_positions[0][1] >= _RECENT_JOBS:
            self._jobs -= self._recent_positions.popleft()[1]


@dataclass(frozen=True, slots=True)
class WorkerCount:
    """How many workers take jobs from these queues, and how long it took to find out: next to nothing is read for it,
    so that is what a look takes at least."""

    workers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BacklogCursor:
    """Where it goes on after a full claim. What is before that is found by the next claim from the lane's head."""

    cursor: PriorityCursor
    end: datetime
    """When the last job of that claim became available."""
    since_head: int
    """How many claims were made since the last one from the lane's head."""

    @property
    def start(self) -> datetime | None:
        """Where the next claim begins; None for at the lane's head."""
        return self.end if self.since_head < _ON_FROM_THE_LAST else None


class ClaimCursors:
    """The lanes of one driver, and when to look at them from their heads."""

    def __init__(self, now: Clock = clock.now) -> None:
        self.scan_cost = ScanCost(now)
        self.backlog: BacklogCursor | None = None
        """Where the last claim of short jobs ended, if it came back full."""
        self._now = now
        self._priority_cursors: dict[tuple[str, int], PriorityCursor] = {}
        # Lanes where there are jobs have many deleted entries, and others, as a rule, few. So the others can be looked
        # at more often, and an urgent job in a lane that is rarely used starts at once.
        self._rest_of_active, self._rest_of_others = Cooldown(now), Cooldown(now)
        self._rest_of_rewinds = Cooldown(now)
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
        """Whether a claim should count the workers for the sake of its looks."""
        return self.scan_cost.wants_comparison and self.worker_count_is_old

    def needs_worker_count_after(self, priority_cursors: int, seconds: float) -> bool:
        """Whether an idle worker should, after a look at so many lanes took so long."""
        wanted = self.scan_cost.wants_comparison or seconds - priority_cursors * _ACTIVE_SECONDS > LONG_LOOK
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
        """A claim got less from these lanes than it asked for: the search went on through what was deleted after it."""
        for cursor in priority_cursors:
            cursor.exhausted()
            if self.scan_cost.expensive and seconds > _CHEAP_SEARCH * self._worker_count.seconds:
                cursor.rest.begin(seconds, self._worker_count.workers)

    def rewound(self, seconds: float) -> None:
        """A claim went back for what a look had found behind a mark. That may be a job which somebody holds in place,
        as long as its lease lasts if he is dead, and then every look leads to such a claim."""
        if self.scan_cost.expensive and seconds > _CHEAP_SEARCH * self._worker_count.seconds:
            self._rest_of_rewinds.begin(seconds, self._worker_count.workers)

    def affordable(self, queues: Iterable[str]) -> list[PriorityCursor]:
        """The lanes that may be looked at from their heads."""
        active = self._rest_of_active.over and self._rest_of_rewinds.over
        others = self._rest_of_others.over
        return [cursor for cursor in self.cursors_of(*queues) if (active if cursor.active else others)]

    def next_look(self, queues: Sequence[str]) -> float | None:
        """Seconds until lanes can be afforded that cannot be now; None where there are none."""
        if not self.scan_cost.expensive or len(self.affordable(queues)) == len(PRIORITIES) * len(queues):
            return None
        rest = max(self._rest_of_active.left, self._rest_of_others.left, self._rest_of_rewinds.left)
        return max(rest, _LOOK_SECONDS, _LOOK_SECONDS_OF_FLEET * self._worker_count.workers)

    def looked(self, priority_cursors: Collection[PriorityCursor], seconds: float) -> None:
        """A look at these lanes from their heads took so long."""
        active = sum(cursor.active for cursor in priority_cursors)
        if active or not any(cursor.active for cursor in self._priority_cursors.values()):
            walked = max(0.0, seconds - len(priority_cursors) * _ACTIVE_SECONDS)
            self.scan_cost.looked(walked, self._worker_count.seconds, self._worker_count.workers)
        if not self.scan_cost.expensive:
            return
        if active:
            self._rest_of_active.begin(seconds, self._worker_count.workers)
        if active < len(priority_cursors):
            self._rest_of_others.begin(seconds, self._worker_count.workers)

    def sorted(
        self, queue: str, taken: Iterable[tuple[int, datetime]], *, emptied: bool
    ) -> list[tuple[PriorityCursor, Sequence[datetime], bool]]:
        """By lane, the moments of what a claim from the head has taken from a queue, in its order; and whether there
        was nothing more, as in all lanes that come before the last one."""
        moments: dict[int, list[datetime]] = {}
        for priority, moment in taken:
            moments.setdefault(priority, []).append(moment)
        priority_cursors, last = self.cursors_of(queue), max(moments, default=0)
        return [(priority_cursors[priority], each, emptied or priority < last) for priority, each in moments.items()]
