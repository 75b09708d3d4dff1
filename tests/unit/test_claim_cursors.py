"""Where a lane begins, by what was taken from it and seen in it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from outbox.drivers.database.claim_scan.cursors import ClaimCursors, PriorityCursor, WorkerCount
from outbox.options import PRIORITIES

NOON = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - as the drivers return moments


def moments(first: int, count: int) -> list[datetime]:
    return [NOON + timedelta(microseconds=number) for number in range(first, first + count)]


def moment(number: int) -> datetime:
    return NOON + timedelta(microseconds=number)


@pytest.fixture
def cursor() -> PriorityCursor:
    return PriorityCursor("default", 5)


def drained(cursor: PriorityCursor, jobs: int, batch: int = 50) -> None:
    for first in range(0, jobs, batch):
        cursor.took(moments(first, batch), emptied=False)


def test_nothing_is_known_of_a_lane_at_first(cursor: PriorityCursor) -> None:
    assert cursor.start is None
    assert not cursor.active


@pytest.mark.parametrize(("batch", "start"), [(1, 950), (10, 950), (50, 950), (100, 900), (500, 500)])
def test_a_mark_stays_behind_by_fifty_jobs_and_by_one_claim_at_least(
    cursor: PriorityCursor, batch: int, start: int
) -> None:
    drained(cursor, 1_000, batch)
    assert cursor.start == moment(start)


def test_a_job_found_behind_the_mark_moves_it_back_and_no_longer_than_needed(cursor: PriorityCursor) -> None:
    drained(cursor, 1_000)
    mark = cursor.start
    cursor.seen(moment(3), now=moment(2_000))
    assert cursor.start == moment(3)
    cursor.took([moment(3), *moments(1_000, 49)], emptied=False)
    assert cursor.start is not None
    assert mark is not None
    assert cursor.start >= mark


def test_a_backlog_that_lands_behind_the_mark_is_taken_to_its_end(cursor: PriorityCursor) -> None:
    drained(cursor, 1_000)
    mark = cursor.start
    cursor.took(moments(-5_000, 50), emptied=False)
    cursor.took(moments(-4_950, 50), emptied=False)
    assert cursor.start == moment(-4_950)
    cursor.took(moments(-4_900, 3), emptied=True)
    assert cursor.start == mark


def test_a_lane_seen_empty_begins_a_while_ago(cursor: PriorityCursor) -> None:
    cursor.seen(None, now=NOON)
    assert cursor.start == NOON - timedelta(seconds=10)
    assert not cursor.active, "nothing was ever found in it"


def test_a_look_does_not_move_a_mark_past_jobs_that_are_due(cursor: PriorityCursor) -> None:
    drained(cursor, 200)
    cursor.seen(moment(200), now=NOON + timedelta(hours=1))
    assert cursor.start is not None
    assert cursor.start <= moment(200)


def test_what_a_claim_spends_on_going_back_is_paid_for_with_fewer_looks() -> None:
    """What it goes back for may be held in place by a worker that died, and then each look leads to such a claim."""
    seconds = [100.0]
    cursors = ClaimCursors(lambda: seconds[0])
    priorities = cursors.cursors_of("default")
    cursors.counted(WorkerCount(1, 0.001))
    cursors.scan_cost.expensive = True
    priorities[5].took(moments(0, 500), emptied=False)
    priorities[5].took(moments(500, 500), emptied=False)
    priorities[5].seen(moment(-10), now=moment(2_000))
    assert priorities[5].rewinds
    for _ in range(2):
        cursors.rewound(0.2)
    assert priorities[5] not in cursors.affordable(["default"])
    assert priorities[4] in cursors.affordable(["default"]), "in other priorities there may be urgent jobs"
    seconds[0] += 4.1
    assert priorities[5] in cursors.affordable(["default"])
    cursors.rewound(0.002)
    assert priorities[5] in cursors.affordable(["default"]), "that was cheap"


def test_a_claim_from_the_head_tells_that_all_priorities_before_the_last_are_empty() -> None:
    cursors = ClaimCursors()
    taken = [(2, moment(9)), (5, moment(1)), (5, moment(2))]
    full = cursors.sorted("default", taken, emptied=False)
    assert [(cursor.priority, len(each), emptied) for cursor, each, emptied in full] == [(2, 1, True), (5, 2, False)]
    short = cursors.sorted("default", taken, emptied=True)
    assert [emptied for _, _, emptied in short] == [True, True]


def test_priorities_of_other_queues_are_others() -> None:
    cursors = ClaimCursors()
    cursors.cursors_of("a")[5].took(moments(0, 1), emptied=False)
    assert cursors.cursors_of("b")[5].start is None
    assert cursors.cursors_of("a")[5].start == moment(0)


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_an_idle_worker_counts_the_fleet_once_a_minute_however_long_its_looks_are() -> None:
    clock = Clock()
    cursors, counts = ClaimCursors(clock), 0
    for _ in range(600):
        clock.seconds += 1.0
        if cursors.needs_worker_count_after(len(PRIORITIES), 0.5):
            cursors.counted(WorkerCount(1, 0.0003))
            counts += 1
    assert counts == 10


@pytest.mark.parametrize(("workers", "least"), [(1, 1.2), (50, 10.0)])
def test_an_idle_worker_in_debt_looks_no_more_often_than_any_other(workers: int, least: float) -> None:
    cursors = ClaimCursors()
    cursors.counted(WorkerCount(workers, 0.0003))
    cursors.scan_cost.expensive = True
    for _ in range(2):
        cursors.probed(cursors.cursors_of("default"), 0.0301)
    pause = cursors.next_probe(["default"])
    assert pause is not None
    assert pause >= least
