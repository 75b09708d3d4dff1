"""When an idle worker looks, and when it claims."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import pytest

from outbox import clock
from outbox.drivers.values import NextDue
from outbox.errors import BackendUnavailable
from outbox.runtime.availability import Availability
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.idle_poller import IdlePoller
from outbox.runtime.store_client import StoreClient
from outbox.runtime.wakeup_backoff import WakeupBackoff
from outbox.settings import WorkerOptions
from outbox.wakeups.base import Wake
from tests.unit.runtime.memory import Recorder


class Script:
    """Wake-ups and looks as the test wrote them down; the nap is stopped when they run out. Time passes only in it."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        wakes: Sequence[Wake],
        looks: Sequence[NextDue | Exception],
        **options: Any,
    ) -> None:
        self.wakes, self.looks = list(wakes), list(looks)
        self.waits: list[float] = []
        self.hesitations: list[float] = []
        self.claims: list[int] = []
        self.claimable: list[Any] = []
        self.taken: list[Any] = []
        self.looked = 0
        self.wakeups = self
        self.waited: list[bool] = []
        self.stopped = False
        self.busy = False
        self.pending = Wake.NOTHING
        self._now = 1_000.0
        monkeypatch.setattr(clock, "now", lambda: self._now)
        self.idle_poller = IdlePoller(
            WorkerOptions(**{"sleep": 1, **options}),
            cast("StoreClient", self),
            Availability("memory", Recorder().events),
            stopping=lambda: self.stopped,
            idle=lambda: not self.busy,
        )
        delay = self.idle_poller.backoff.delay

        def watched(longest: float) -> float:
            drawn = delay(longest)
            self._hesitates_until = self._now + drawn
            return drawn

        self._hesitates_until = self._now
        self.idle_poller.backoff.delay = watched  # type: ignore[method-assign]

    async def next_due(self, waiting: bool) -> NextDue:
        self.looked += 1
        self.waited.append(waiting)
        result = self.looks.pop(0) if self.looks else NextDue(None)
        if isinstance(result, Exception):
            raise result
        return result

    async def claim(self, limit: int) -> list[Attempt]:
        self.claims.append(limit)
        return self.claimable

    async def cancel_blocking_claim(self) -> list[Attempt]:
        return self.taken

    async def wait(self, seconds: float) -> Wake:
        hesitating = self._now < self._hesitates_until
        self._now += seconds
        if hesitating:
            self.hesitations.append(seconds)
            return Wake.TAKEN if self.taken else Wake.NOTHING
        self.waits.append(seconds)
        if not self.wakes:
            self.stopped = True
            return Wake.NOTHING
        return self.wakes.pop(0)

    def clear(self) -> Wake:
        pending, self.pending = self.pending, Wake.NOTHING
        return pending

    async def take(self, *, found: bool, limit: int = 0) -> list[Attempt] | None:
        async with asyncio.timeout(5):
            return await self.idle_poller.take(found, limit)


Play = Callable[..., Script]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    return partial(Script, monkeypatch)


NOTHING, MAYBE, JOBS, TAKEN = Wake.NOTHING, Wake.MAYBE, Wake.JOBS, Wake.TAKEN


async def test_an_idle_worker_looks_once_per_pause_and_never_claims(play: Play) -> None:
    script = play([NOTHING] * 5, [])
    await script.take(found=False)
    assert script.looked == len(script.waits) == 6
    assert all(1.2 <= wait <= 1.4 for wait in script.waits), "below one statement per second, heartbeats included"


@pytest.mark.parametrize(("idle", "low", "high"), [(1, 1.2, 1.4), (5, 1.2, 1.4), (50, 12, 14), (500, 120, 140)])
async def test_a_fleet_looks_five_times_a_second_however_large_it_is(
    play: Play, idle: int, low: float, high: float
) -> None:
    script = play([NOTHING], [NextDue(None, idle)] * 2)
    await script.take(found=False)
    assert all(low <= wait <= high for wait in script.waits)
    assert script.idle_poller.idle_workers == idle


async def test_it_claims_at_once_when_something_is_due(play: Play) -> None:
    script = play([NOTHING], [NextDue(None), NextDue(0.0)])
    await script.take(found=False)
    assert (script.looked, len(script.waits)) == (2, 1)


async def test_it_sleeps_until_the_next_job_is_due_and_not_longer(play: Play) -> None:
    script = play([NOTHING], [NextDue(0.4), NextDue(0.0)])
    await script.take(found=False)
    assert script.waits == [0.4]


async def test_many_that_wait_for_the_same_moment_do_not_look_at_once(play: Play) -> None:
    waits = set()
    for _ in range(20):
        script = play([], [NextDue(0.4, 50)])
        await script.take(found=False)
        waits.update(script.waits)
    assert len(waits) > 10
    assert all(0.4 <= wait <= 0.45 for wait in waits)


async def test_a_wake_up_is_answered_by_a_claim_without_a_look(play: Play) -> None:
    script = play([JOBS], [NextDue(None)])
    await script.take(found=False)
    assert script.looked == 1
    assert script.hesitations == []


async def test_after_a_claim_that_found_something_the_next_wake_up_is_awaited_for_a_moment_before_looking(
    play: Play,
) -> None:
    script = play([JOBS], [])
    await script.take(found=True)
    assert (script.looked, script.waits) == (0, [0.01])


async def test_a_commit_that_cannot_be_seen_yet_is_looked_for_once_more(play: Play) -> None:
    """A binary log tells of it a moment before others can see it."""
    script = play([NOTHING], [NextDue(None), NextDue(0.0)])
    script.pending = JOBS
    script.idle_poller.end()
    await script.take(found=False)
    assert script.waits == [0.02], "not a second"


async def test_a_wake_up_that_came_during_the_claim_counts_as_much_as_the_one_before_it(play: Play) -> None:
    script = play([NOTHING], [NextDue(None), NextDue(0.0)])
    script.idle_poller.end()
    script.pending = JOBS
    await script.take(found=False)
    assert script.looked == 2


async def test_a_maybe_is_answered_by_a_look(play: Play) -> None:
    script = play([MAYBE, MAYBE], [NextDue(None), NextDue(None), NextDue(0.0)])
    await script.take(found=False)
    assert script.looked == 3


async def test_what_is_due_and_held_by_somebody_who_claims_it_is_not_asked_for_in_a_loop(play: Play) -> None:
    script = play([NOTHING] * 10, [NextDue(0.0)] * 20)
    for _ in range(6):
        await script.take(found=False)
    assert script.looked == 6
    assert [round(wait, 3) for wait in script.waits] == [0.005, 0.02, 0.08, 0.32, 1.0, 1.0]


async def test_what_a_dead_worker_holds_in_place_is_asked_for_by_the_whole_fleet_together(play: Play) -> None:
    script = play([NOTHING] * 2_000, [NextDue(0.0, 50)] * 2_000)
    for _ in range(1_000):
        await script.take(found=False)
    assert script.waits[-1] == 10.0, "five looks a second of fifty workers"


async def test_a_store_that_is_away_is_left_to_the_next_claim(play: Play) -> None:
    script = play([NOTHING], [BackendUnavailable("gone")])
    await script.take(found=False)
    assert (script.looked, script.waits) == (1, [1.0])


@pytest.mark.parametrize("option", ["once", "stop_when_empty"])
async def test_a_worker_that_ends_when_there_is_nothing_claims_after_every_pause(play: Play, option: str) -> None:
    script = play([NOTHING], [NextDue(None)], **{option: True})
    await script.take(found=False)
    assert (script.looked, len(script.waits)) == (1, 1)


async def test_one_worker_alone_never_hesitates(play: Play) -> None:
    script = play([JOBS], [NextDue(None, 1)] * 40)
    for _ in range(10):
        script.wakes = [JOBS]
        await script.take(found=False)
    assert script.hesitations == []


def always_too_late(script: Script) -> None:
    """It was woken at once, when it was eager, and found nothing."""
    script.idle_poller.backoff.succeeded()
    script.pending = JOBS
    script.idle_poller.end()


async def test_of_many_who_are_woken_those_who_came_too_late_hesitate_longer_and_longer(play: Play) -> None:
    script = play([JOBS] * 200, [NextDue(None, 50)] * 400)
    always_too_late(script)
    await script.take(found=False)
    hesitations = script.hesitations
    assert all(pause <= 0.04 * 49 for pause in hesitations)
    assert max(hesitations[:2]) <= 0.02
    assert max(hesitations[20:]) > 0.4
    assert script.looked > 100, "each of them is one look and no claim"


async def test_who_finds_a_job_is_eager(play: Play) -> None:
    script = play([NOTHING, JOBS], [NextDue(None, 50)] * 2)
    await script.take(found=True)
    assert script.hesitations == []
    assert len(script.waits) == 2


async def test_who_never_found_one_hesitates_where_there_are_others(play: Play) -> None:
    script = play([JOBS], [NextDue(None, 50), NextDue(0.0, 50)])
    await script.take(found=False)
    assert script.looked == 2
    assert len(script.hesitations) == 1


async def test_a_wake_up_for_a_job_that_is_due_later_disappoints_nobody(play: Play) -> None:
    script = play([NOTHING], [NextDue(0.5, 50)])
    always_too_late(script)
    await script.take(found=False)
    assert script.idle_poller.backoff.delay(1.0) == 0.0


def test_hesitation_grows_up_to_its_limit_and_ends_with_a_reward() -> None:
    backoff = WakeupBackoff()
    backoff.succeeded()
    assert backoff.delay(1.0) == 0.0
    for _ in range(30):
        backoff.failed()
    drawn = [backoff.delay(1.0) for _ in range(200)]
    assert max(drawn) <= 1.0
    assert max(drawn) > 0.8
    assert min(drawn) < 0.2
    assert backoff.delay(0.0) == 0.0
    backoff.succeeded()
    assert backoff.delay(1.0) == 0.0


async def test_woken_in_a_worker_where_nothing_runs_it_claims_where_it_is(play: Play) -> None:
    script = play([JOBS], [NextDue(None)])
    script.claimable = ["a job"]
    assert await script.take(found=False, limit=20) == ["a job"]
    assert script.claims == [20]


async def test_where_handlers_run_or_no_slot_is_free_the_claim_is_left_to_the_event_loop(play: Play) -> None:
    """A handler that blocks the loop must not gather jobs that cannot start."""
    script = play([JOBS], [NextDue(None)])
    script.busy = True
    assert await script.take(found=False, limit=20) is None
    script = play([JOBS], [NextDue(None)])
    assert await script.take(found=False, limit=0) is None
    assert script.claims == []


async def test_a_worker_that_is_asked_to_stop_claims_nothing_and_waits_for_nothing(play: Play) -> None:
    script = play([], [NextDue(None)])
    assert await script.take(found=False, limit=20) is None
    script = play([], [])

    async def look_while_stopping(_: bool) -> NextDue:
        script.stopped = True
        return NextDue(None)

    script.next_due = look_while_stopping  # type: ignore[method-assign]
    assert await script.take(found=False, limit=20) is None
    assert (script.claims, script.waits) == ([], [])


async def test_woken_for_a_commit_that_cannot_be_seen_yet_it_claims_once_more(play: Play) -> None:
    script = play([JOBS], [NextDue(None)])
    script.pending = JOBS
    await script.take(found=False, limit=20)
    assert script.claims == [20, 20]
    script = play([JOBS], [NextDue(None, 2), NextDue(None, 2)])
    script.idle_poller.backoff.succeeded()
    await script.take(found=False, limit=20)
    assert script.claims == [20], "somebody else was quicker"


async def test_what_can_be_seen_when_it_looks_again_is_claimed_at_once(play: Play) -> None:
    script = play([], [NextDue(0.0)])
    script.pending = JOBS
    script.idle_poller.end()
    await script.take(found=False)
    assert script.waits == []


async def test_it_waits_for_a_job_where_one_could_start_at_once(play: Play) -> None:
    for limit, busy, options, waits in (
        (5, False, {}, True),
        (0, False, {}, False),
        (5, True, {}, False),
        (5, False, {"stop_when_empty": True}, False),
        (5, False, {"once": True}, False),
    ):
        script = play([NOTHING, NOTHING], [], **options)
        script.busy = busy
        await script.take(found=False, limit=limit)
        assert set(script.waited) == {waits}


async def test_what_was_taken_for_it_is_claimed_at_once_whoever_else_waits(play: Play) -> None:
    script = play([TAKEN], [NextDue(None, 50)])
    script.claimable = ["a job"]
    assert await script.take(found=False, limit=5) == ["a job"]
    assert (script.looked, script.hesitations) == (1, [])


async def test_it_ends_a_hesitation(play: Play) -> None:
    script = play([JOBS], [NextDue(None, 50), NextDue(0.0, 50)])
    script.taken = ["a job"]
    await script.take(found=False, limit=5)
    assert len(script.hesitations) == 1
    assert script.claims == [5]


@pytest.mark.parametrize("reason", ["stopping", "busy"])
async def test_where_it_does_not_claim_it_is_left_with_what_was_taken_for_it(play: Play, reason: str) -> None:
    script = play([], [NextDue(None)])
    script.taken = ["a job"]
    script.busy = reason == "busy"
    assert await script.take(found=False, limit=5) == ["a job"]
    assert script.claims == []
