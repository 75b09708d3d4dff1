"""Metrics as values: merging points, what came in, what a count has moved on to, the time to clear a queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from outbox.drivers.metrics import (
    Activity,
    DepthPoint,
    MetricPoint,
    clear_seconds,
    dispatched,
    merged,
    moved_on,
    total,
)
from outbox.histogram import Histogram
from outbox.settlement import Outcome

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def point(minute: float, *runs: float, queue: str = "mail", name: str = "Receipt", failed: int = 0) -> MetricPoint:
    activity = Activity()
    outcomes = {Outcome.COMPLETED: len(runs), Outcome.FAILED: failed}
    activity.add(outcomes, [2 * seconds for seconds in runs], runs)
    at = NOON + timedelta(minutes=minute)
    return MetricPoint(at, 60, queue, name, dict(activity.settled), activity.wait, activity.run)


def depth(minute: float, ready: int, *, delayed: int = 0, queue: str = "mail") -> DepthPoint:
    at = NOON + timedelta(minutes=minute)
    return DepthPoint(at, queue, ready, delayed, 0, 0, 0, 0, None)


def test_points_of_several_workers_are_one_for_each_time_queue_and_name() -> None:
    points = [point(0, 1.0), point(0, 3.0, failed=2), point(1, 5.0), point(0, 1.0, queue="slow")]
    assert [(each.at, each.queue, each.settled, each.run.total) for each in merged(points)] == [
        (NOON, "mail", {"completed": 2, "failed": 2}, 4.0),
        (NOON, "slow", {"completed": 1}, 1.0),
        (NOON + timedelta(minutes=1), "mail", {"completed": 1}, 5.0),
    ]


def test_merging_in_steps_loses_nothing() -> None:
    points = [point(minute, 0.25 * minute, name=f"Job{minute % 3}") for minute in range(60)]
    in_steps = merged(merged(merged(points, 60), 600), 3_600)
    assert in_steps == merged(points, 3_600)
    assert total(in_steps) == total(points)


def test_queues_or_names_can_be_taken_together() -> None:
    points = [point(0, 1.0), point(0, 1.0, queue="slow"), point(0, 1.0, name="Other")]
    assert [(each.queue, each.name) for each in merged(points, by_queue=False)] == [("", "Other"), ("", "Receipt")]
    [whole] = merged(points, by_queue=False, by_name=False)
    assert whole.settled == {"completed": 3}


def test_a_point_of_a_longer_time_stays_as_long() -> None:
    hour = MetricPoint(NOON, 3_600, "mail", "Receipt", {}, Histogram(), Histogram())
    assert [each.seconds for each in merged([hour, point(70, 1.0)], 60)] == [3_600, 60]


def test_retries_do_not_leave_the_queue() -> None:
    settled = {"completed": 3, "failed": 2, "cancelled": 1, "retried": 9, "snoozed": 9}
    assert MetricPoint(NOON, 60, "mail", "Receipt", settled, Histogram(), Histogram()).ended == 6


def test_what_came_in_is_what_ended_and_by_how_much_more_there_are() -> None:
    points = [point(0, *[1.0] * 30), point(1, *[1.0] * 20)]
    assert dispatched(depth(0, 100), depth(2, 70, delayed=40), points) == 60
    assert dispatched(depth(0, 100), depth(2, 20), points) == 0


def test_a_count_moves_on_by_what_came_before_and_what_has_ended_since() -> None:
    before, after = depth(0, 1_000), depth(10, 2_000)
    # 600 ended and 1,000 more are there: 160 came in a minute.
    points = [point(5, *[1.0] * 600), point(10, *[1.0] * 50), point(11, *[1.0] * 70)]
    assert moved_on(before, after, points, 120.0) == 2_000 + 320 - 120
    assert moved_on(before, before, [], 120.0) == 1_000
    assert moved_on(before, depth(10, 5), [point(10, *[1.0] * 50)], 60.0) == 0


@pytest.mark.parametrize(
    ("ready", "mean", "slots", "expected"),
    [(0, None, 0, 0.0), (100, 0.5, 10, 5.0), (100, None, 10, None), (100, 0.5, 0, None)],
)
def test_the_time_to_clear_a_queue(ready: int, mean: float | None, slots: int, expected: float | None) -> None:
    assert clear_seconds(ready, mean, slots) == expected
