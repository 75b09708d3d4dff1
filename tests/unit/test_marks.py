"""Where a lane begins, by what was taken from it and seen in it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from outbox.drivers.database.marks import Census, Lane, Marks
from outbox.job import PRIORITIES

NOON = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - as the drivers return moments


def moments(first: int, count: int) -> list[datetime]:
    return [NOON + timedelta(microseconds=number) for number in range(first, first + count)]


def moment(number: int) -> datetime:
    return NOON + timedelta(microseconds=number)


@pytest.fixture
def lane() -> Lane:
    return Lane("default", 5)


def drained(lane: Lane, jobs: int, batch: int = 50) -> None:
    for first in range(0, jobs, batch):
        lane.took(moments(first, batch), emptied=False)


def test_nothing_is_known_of_a_lane_at_first(lane: Lane) -> None:
    assert lane.start is None
    assert not lane.active


@pytest.mark.parametrize(("batch", "start"), [(1, 950), (10, 950), (50, 950), (100, 900), (500, 500)])
def test_a_mark_stays_behind_by_fifty_jobs_and_by_one_claim_at_least(lane: Lane, batch: int, start: int) -> None:
    drained(lane, 1_000, batch)
    assert lane.start == moment(start)


def test_a_job_found_behind_the_mark_moves_it_back_and_no_longer_than_needed(lane: Lane) -> None:
    drained(lane, 1_000)
    mark = lane.start
    lane.seen(moment(3), now=moment(2_000))
    assert lane.start == moment(3)
    lane.took([moment(3), *moments(1_000, 49)], emptied=False)
    assert lane.start is not None
    assert mark is not None
    assert lane.start >= mark


def test_a_backlog_that_lands_behind_the_mark_is_taken_to_its_end(lane: Lane) -> None:
    drained(lane, 1_000)
    mark = lane.start
    lane.took(moments(-5_000, 50), emptied=False)
    lane.took(moments(-4_950, 50), emptied=False)
    assert lane.start == moment(-4_950)
    lane.took(moments(-4_900, 3), emptied=True)
    assert lane.start == mark


def test_a_lane_seen_empty_begins_a_while_ago(lane: Lane) -> None:
    lane.seen(None, now=NOON)
    assert lane.start == NOON - timedelta(seconds=10)
    assert not lane.active, "nothing was ever found in it"


def test_a_look_does_not_move_a_mark_past_jobs_that_are_due(lane: Lane) -> None:
    drained(lane, 200)
    lane.seen(moment(200), now=NOON + timedelta(hours=1))
    assert lane.start is not None
    assert lane.start <= moment(200)


def test_what_a_claim_spends_on_going_back_is_paid_for_with_fewer_looks() -> None:
    """What it goes back for may be held in place by a worker that died, and then each look leads to such a claim."""
    seconds = [100.0]
    marks = Marks(lambda: seconds[0])
    lanes = marks.lanes("default")
    marks.counted(Census(1, 0.001))
    marks.thrift.dear = True
    lanes[5].took(moments(0, 500), emptied=False)
    lanes[5].took(moments(500, 500), emptied=False)
    lanes[5].seen(moment(-10), now=moment(2_000))
    assert lanes[5].detours
    for _ in range(2):
        marks.detoured(0.2)
    assert lanes[5] not in marks.affordable(["default"])
    assert lanes[4] in marks.affordable(["default"]), "in other lanes there may be urgent jobs"
    seconds[0] += 4.1
    assert lanes[5] in marks.affordable(["default"])
    marks.detoured(0.002)
    assert lanes[5] in marks.affordable(["default"]), "that was cheap"


def test_a_claim_from_the_head_tells_of_all_lanes_before_the_last_that_they_are_empty() -> None:
    marks = Marks()
    taken = [(2, moment(9)), (5, moment(1)), (5, moment(2))]
    full = marks.sorted("default", taken, emptied=False)
    assert [(lane.priority, len(each), emptied) for lane, each, emptied in full] == [(2, 1, True), (5, 2, False)]
    short = marks.sorted("default", taken, emptied=True)
    assert [emptied for _, _, emptied in short] == [True, True]


def test_lanes_of_other_queues_are_others() -> None:
    marks = Marks()
    marks.lanes("a")[5].took(moments(0, 1), emptied=False)
    assert marks.lanes("b")[5].start is None
    assert marks.lanes("a")[5].start == moment(0)


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_an_idle_worker_counts_the_fleet_once_a_minute_however_long_its_looks_are() -> None:
    clock = Clock()
    marks, counts = Marks(clock), 0
    for _ in range(600):
        clock.seconds += 1.0
        if marks.needs_census_after(len(PRIORITIES), 0.5):
            marks.counted(Census(1, 0.0003))
            counts += 1
    assert counts == 10


@pytest.mark.parametrize(("workers", "least"), [(1, 1.2), (50, 10.0)])
def test_an_idle_worker_in_debt_looks_no_more_often_than_any_other(workers: int, least: float) -> None:
    marks = Marks()
    marks.counted(Census(workers, 0.0003))
    marks.thrift.dear = True
    for _ in range(2):
        marks.looked(marks.lanes("default"), 0.0301)
    pause = marks.next_look(["default"])
    assert pause is not None
    assert pause >= least
