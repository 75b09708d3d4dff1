"""What workers have done by the minute, and how many jobs there were: values, and the contract of a store of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from outbox.histogram import Histogram
from outbox.settlement import ENDS, Outcome

MINUTE = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Activity:
    """What became of the attempts at jobs of one class in one queue."""

    settled: Counter[str] = field(default_factory=Counter)
    """Attempts by `Outcome`."""
    wait: Histogram = field(default_factory=Histogram)
    """From the time at which a job could run until its handler was called."""
    run: Histogram = field(default_factory=Histogram)
    """How long handlers took."""

    def add(self, outcomes: Mapping[Outcome, int], waits: Sequence[float], runs: Sequence[float]) -> None:
        """Count attempts. ``waits`` and ``runs`` are seconds; attempts that have none are left out there."""
        for outcome, count in outcomes.items():
            if count:
                self.settled[outcome.value] += count
        self.wait.add_all(waits)
        self.run.add_all(runs)

    def merge(self, other: Activity) -> None:
        self.settled.update(other.settled)
        self.wait.merge(other.wait)
        self.run.merge(other.run)


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """What became of the attempts at jobs of one class in one queue, in the ``seconds`` that begin at ``at``."""

    at: datetime
    """Aware, in UTC, by the store's clock."""
    seconds: int
    queue: str
    name: str
    """The job's name, as stored."""
    settled: Mapping[str, int]
    """Attempts by `Outcome`: completed, retried, failed, released, snoozed, cancelled."""
    wait: Histogram
    run: Histogram

    @property
    def ended(self) -> int:
        """Jobs that have left the queue for good."""
        return sum(self.settled.get(outcome, 0) for outcome in ENDS)


@dataclass(frozen=True, slots=True)
class DepthPoint:
    """How many jobs of a queue there were at a time. Of several minutes that were merged, the greatest numbers."""

    at: datetime
    queue: str
    ready: int
    delayed: int
    retrying: int
    reserved: int
    parked: int
    failed: int
    oldest: float | None
    """Seconds for which the first ready job had waited."""

    @property
    def live(self) -> int:
        return self.ready + self.delayed + self.retrying + self.reserved + self.parked


class MetricStore(Protocol):
    """A store that keeps metrics: by the minute for a day, by ten minutes for a week, by the hour for 90 days."""

    async def write(self, activities: Mapping[tuple[str, str], Activity]) -> None:
        """Store what one worker has done in the last minute, by queue and name."""

    async def points(self, since: float, *, queue: str | None = None, name: str | None = None) -> list[MetricPoint]:
        """What was done in the last ``since`` seconds, the oldest first. Several points may be of the same time: see
        `merged`."""

    async def rolled_up(self, since: float) -> list[MetricPoint]:
        """As `points`, of all queues and names, but of ten minutes each, as far as the store has rolled them up: for
        charts of a day. It costs little more for many queues and names."""

    async def depths(self, since: float, *, queue: str | None = None) -> list[DepthPoint]:
        """How many jobs there were in the last ``since`` seconds, the oldest first."""

    async def upkeep(self) -> float | None:
        """Count all jobs where the last count is old. Merge what is old, and remove what is older than 90 days. Give
        failures of earlier releases a fingerprint. Returns None: it is to be called again at the usual interval."""


def merged(
    points: Iterable[MetricPoint], step: int = MINUTE, *, by_queue: bool = True, by_name: bool = True
) -> list[MetricPoint]:
    """One point for each ``step`` seconds, queue and name, the oldest first. Not ``by_queue`` or not ``by_name``, all
    of them are one, with an empty name. Nothing is lost: histograms merge exactly."""
    found: dict[tuple[datetime, str, str], Activity] = {}
    longest: dict[tuple[datetime, str, str], int] = {}
    for point in points:
        key = (_begin(point.at, step), point.queue if by_queue else "", point.name if by_name else "")
        found.setdefault(key, Activity()).merge(Activity(Counter(point.settled), point.wait, point.run))
        longest[key] = max(longest.get(key, step), point.seconds)
    return [
        MetricPoint(key[0], longest[key], key[1], key[2], dict(each.settled), each.wait, each.run)
        for key, each in sorted(found.items(), key=_by_key)
    ]


def _by_key(item: tuple[tuple[datetime, str, str], Activity]) -> tuple[datetime, str, str]:
    return item[0]


def _begin(at: datetime, step: int) -> datetime:
    return at - (at - _EPOCH) % timedelta(seconds=step)


def total(points: Iterable[MetricPoint]) -> Activity:
    """All points as one."""
    whole = Activity()
    for point in points:
        whole.merge(Activity(Counter(point.settled), point.wait, point.run))
    return whole


def dispatched(before: DepthPoint, after: DepthPoint, points: Sequence[MetricPoint]) -> int:
    """How many jobs came into a queue between two counts: what ended there meanwhile, and by how much more there are.

    ``points`` are those of the queue between the two. Jobs that an operator removed are not known, so that it may be
    too few."""
    return max(0, after.live - before.live + sum(point.ended for point in points))


def moved_on(before: DepthPoint, after: DepthPoint, points: Sequence[MetricPoint], age: float) -> int:
    """How many ready jobs of a queue there should be, ``age`` seconds after the later of two counts: as many came in a
    second as between the two, and ``points``, those since the earlier one, say how many have ended."""
    between = [point for point in points if point.at < after.at]
    seconds = (after.at - before.at).total_seconds()
    came = dispatched(before, after, between) / seconds * age if seconds > 0 else 0.0
    ended = sum(point.ended for point in points if point.at >= after.at)
    return max(0, round(after.ready + came - ended))


def clear_seconds(ready: int, mean_run: float | None, slots: int) -> float | None:
    """Seconds until ``slots`` have run ``ready`` jobs that take ``mean_run`` seconds each; None where that is not
    known, or never."""
    if not ready:
        return 0.0
    return None if mean_run is None or slots < 1 else ready * mean_run / slots
