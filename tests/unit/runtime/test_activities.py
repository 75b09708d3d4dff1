"""What a worker has done is counted once, however many attempts end together."""

from __future__ import annotations

import math
from random import Random

import pytest

from outbox.histogram import Histogram
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.reporting.activities import Activities
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE
from tests.support.recorded_jobs import Counted
from tests.unit.runtime.memory import claim_of


def completed(queue: str, waited: float, ran: float) -> Attempt:
    claim = claim_of(Counted(number=1))._replace(queue=queue)
    attempt = Attempt(claim, "memory", lambda _: None)
    attempt.started, attempt.seconds_waited, attempt.seconds = 100.0, waited, ran
    attempt.settlement = Settlement.completed(claim.fence)
    return attempt


@pytest.mark.parametrize("together", [1, 7, 2_000])
def test_attempts_are_counted_once_however_many_end_together(together: int) -> None:
    activities = Activities()
    attempts = [completed(("mail", "web")[number % 3 == 0], waited=number / 100, ran=0.5) for number in range(6_000)]
    for begin in range(0, len(attempts), together):
        activities.count(attempts[begin : begin + together])
    found = {queue: activity for (queue, _), activity in activities.take().items()}
    assert {queue: activity.settled for queue, activity in found.items()} == {
        "mail": {"completed": 4_000},
        "web": {"completed": 2_000},
    }
    assert {queue: activity.run.total for queue, activity in found.items()} == {"mail": 2_000.0, "web": 1_000.0}
    assert found["web"].wait.count == 2_000
    assert found["web"].wait.total == pytest.approx(sum(number / 100 for number in range(0, 6_000, 3)))


@pytest.mark.parametrize("spread", [0.0, 1e-6, 0.3, 8.0], ids=["none", "tiny", "some", "much"])
def test_histograms_are_those_of_each_attempt_however_alike_they_are(spread: float) -> None:
    chance = Random(1)
    waits, runs = Histogram(), Histogram()
    activities = Activities()
    for _ in range(50):
        attempts = []
        for _ in range(100):
            waited, ran = 3.0 * math.exp(spread * chance.gauss()), 0.02 * math.exp(spread * chance.gauss())
            waits.add(waited)
            runs.add(ran)
            attempts.append(completed("mail", waited, ran))
        activities.count(attempts)
        if chance.random() < 0.1:
            activities.put_back(activities.take())
    [activity] = activities.take().values()
    assert activity.settled == {"completed": 5_000}
    for found, expected in ((activity.wait, waits), (activity.run, runs)):
        assert found.buckets == expected.buckets
        assert found.total == pytest.approx(expected.total)


def test_attempts_that_did_not_complete_or_that_nobody_timed_are_counted_too() -> None:
    activities = Activities()
    for _ in range(3):
        attempts = [completed("mail", waited=1.0, ran=0.5) for _ in range(1_200)]
        attempts[7].settlement = Settlement.failed(attempts[7].fence, FAILURE)
        attempts[8].seconds_waited = None
        attempts[9].started = attempts[9].seconds_waited = None
        activities.count(attempts)
    [activity] = activities.take().values()
    assert activity.settled == {"completed": 3_597, "failed": 3}
    assert (activity.run.count, activity.wait.count) == (3_597, 3_594)
    assert (activity.run.total, activity.wait.total) == (pytest.approx(3_597 / 2), pytest.approx(3_594))


def test_what_was_taken_is_not_counted_again() -> None:
    activities = Activities()
    for _ in range(2):
        activities.count([completed("mail", waited=1.0, ran=1.0)])
        [activity] = activities.take().values()
        assert (activity.settled, activity.wait.count, activity.run.count) == ({"completed": 1}, 1, 1)
    assert activities.take() == {}
