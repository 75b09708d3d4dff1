"""What workers have done in the last day, of one connection: kept in memory for a short while, for all pages, with
what was made of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from outbox.drivers.base import Driver
from outbox.drivers.metrics import MINUTE, Activity, MetricPoint, clear_seconds, merged, total

T = TypeVar("T")

HOUR, DAY = 3_600, 86_400
DAY_STEP = 600
"""Seconds of one point of a day."""


@dataclass(frozen=True, slots=True)
class Trend:
    """Points by queue and class: of each minute for an hour, of ten minutes for a day."""

    now: datetime
    hour: tuple[MetricPoint, ...] = ()
    day: tuple[MetricPoint, ...] = ()
    is_kept: bool = True
    """Whether the store keeps metrics."""
    _made: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returns, made once for all views of these points."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def of(self, queue: str | None = None, name: str | None = None) -> Trend:
        """Those of a queue, of a class, or of both."""
        return self.once(("of", queue, name), lambda: self._of(queue, name))

    def _of(self, queue: str | None, name: str | None) -> Trend:

        def chosen(points: Sequence[MetricPoint]) -> tuple[MetricPoint, ...]:
            return tuple(
                each
                for each in points
                if (queue is None or each.queue == queue) and (name is None or each.name == name)
            )

        return Trend(self.now, chosen(self.hour), chosen(self.day), self.is_kept)

    @property
    def names(self) -> list[str]:
        return self.once("names", lambda: sorted({each.name for each in self.day}))

    @property
    def last_hour(self) -> Activity:
        return self.once("last hour", lambda: total(self.hour))


async def read_trend(driver: Driver) -> Trend:
    """A store without metrics has none."""
    now = await driver.now()
    if driver.metrics is None:
        return Trend(now, is_kept=False)
    recent, points = await driver.metrics.points(HOUR + MINUTE), await driver.metrics.rolled_up(DAY)
    return Trend(now, tuple(merged(recent, MINUTE)), tuple(merged(points, DAY_STEP)))


def together(trends: Sequence[Trend]) -> Trend | None:
    """Several connections as one; None without any."""
    if len(trends) < 2:
        return trends[0] if trends else None
    return trends[0].once(("together", *map(_Same, trends[1:])), lambda: _together(trends))


class _Same:
    """The very same trend, and not one that is equal."""

    def __init__(self, trend: Trend) -> None:
        self._trend = trend

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._trend is self._trend

    def __hash__(self) -> int:
        return id(self._trend)


def _together(trends: Sequence[Trend]) -> Trend:
    hour = [each for trend in trends for each in trend.hour]
    day = [each for trend in trends for each in trend.day]
    is_kept = any(trend.is_kept for trend in trends)
    return Trend(max(trend.now for trend in trends), tuple(hour), tuple(day), is_kept)


def time_to_clear(trend: Trend, ready: int, slots: int) -> float | None:
    """Seconds; None where that is not known, or no worker has slots for the queue."""
    return clear_seconds(ready, trend.last_hour.run.mean, slots)


def failure_rate(activity: Activity) -> float | None:
    """The share of attempts that failed, for good or to be repeated; None without any attempt that ended by itself."""
    failed = activity.settled["failed"] + activity.settled["retried"]
    attempts = failed + activity.settled["completed"]
    return failed / attempts if attempts else None
