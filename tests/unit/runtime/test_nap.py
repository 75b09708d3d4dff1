"""When an idle worker looks, and when it claims."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from outbox.drivers.base import Outlook
from outbox.errors import BackendUnavailable
from outbox.notify.base import Wake
from outbox.runtime.availability import Availability
from outbox.runtime.eagerness import Eagerness
from outbox.runtime.nap import Nap
from outbox.runtime.service import BackgroundLoop
from outbox.settings import WorkerOptions
from tests.unit.runtime.memory import Recorder


class Service(BackgroundLoop):
    """A claimer that only ever pauses, and says for how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    async def run(self) -> None: ...

    async def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return False


class Script:
    """Wake-ups and looks as the test wrote them down; the nap is stopped when they run out."""

    def __init__(self, wakes: Sequence[Wake], looks: Sequence[Outlook | Exception], **options: Any) -> None:
        self.wakes, self.looks = list(wakes), list(looks)
        self.waits: list[float] = []
        self.looked = self.cleared = 0
        self.service = Service()
        self.pending = Wake.NOTHING
        self.nap = Nap(
            self.service,
            WorkerOptions(**{"sleep": 1, **options}),
            self.look,
            self,  # type: ignore[arg-type]
            Availability("memory", Recorder().events),
        )

    async def look(self) -> Outlook:
        self.looked += 1
        result = self.looks.pop(0) if self.looks else Outlook(None)
        if isinstance(result, Exception):
            raise result
        return result

    async def wait(self, seconds: float) -> Wake:
        self.waits.append(seconds)
        if not self.wakes:
            self.service._asked.set()
            return Wake.NOTHING
        return self.wakes.pop(0)

    def clear(self) -> Wake:
        pending, self.pending = self.pending, Wake.NOTHING
        return pending

    async def take(self, *, found: bool) -> None:
        async with asyncio.timeout(5):
            await self.nap.take(found=found)


NOTHING, MAYBE, JOBS = Wake.NOTHING, Wake.MAYBE, Wake.JOBS


async def test_an_idle_worker_looks_once_per_pause_and_never_claims() -> None:
    script = Script([NOTHING] * 5, [])
    await script.take(found=False)
    assert script.looked == len(script.waits) == 6
    assert all(1.2 <= wait <= 1.4 for wait in script.waits), "below one statement per second, heartbeats included"


@pytest.mark.parametrize(("idle", "low", "high"), [(1, 1.2, 1.4), (5, 1.2, 1.4), (50, 12, 14), (500, 120, 140)])
async def test_a_fleet_looks_five_times_a_second_however_large_it_is(idle: int, low: float, high: float) -> None:
    script = Script([NOTHING], [Outlook(None, idle)] * 2)
    await script.take(found=False)
    assert all(low <= wait <= high for wait in script.waits)
    assert script.nap.idle == idle


async def test_it_claims_at_once_when_something_is_due() -> None:
    script = Script([NOTHING], [Outlook(None), Outlook(0.0)])
    await script.take(found=False)
    assert (script.looked, len(script.waits)) == (2, 1)


async def test_it_sleeps_until_the_next_job_is_due_and_not_longer() -> None:
    script = Script([NOTHING], [Outlook(0.4), Outlook(0.0)])
    await script.take(found=False)
    assert script.waits == [0.4]


async def test_many_that_wait_for_the_same_moment_do_not_look_at_once() -> None:
    waits = set()
    for _ in range(20):
        script = Script([], [Outlook(0.4, 50)])
        await script.take(found=False)
        waits.update(script.waits)
    assert len(waits) > 10
    assert all(0.4 <= wait <= 0.45 for wait in waits)


async def test_a_wake_up_is_answered_by_a_claim_without_a_look() -> None:
    script = Script([JOBS], [Outlook(None)])
    await script.take(found=False)
    assert script.looked == 1
    assert script.service.pauses == []


async def test_after_a_claim_that_found_something_the_next_wake_up_is_awaited_for_a_moment_before_looking() -> None:
    script = Script([JOBS], [])
    await script.take(found=True)
    assert (script.looked, script.waits) == (0, [0.01])


async def test_a_commit_that_cannot_be_seen_yet_is_looked_for_once_more() -> None:
    """A binary log tells of it a moment before others can see it."""
    script = Script([NOTHING], [Outlook(None), Outlook(0.0)])
    script.pending = JOBS
    script.nap.end()
    await script.take(found=False)
    assert script.waits == [0.02], "not a second"


async def test_a_wake_up_that_came_during_the_claim_counts_as_much_as_the_one_before_it() -> None:
    script = Script([NOTHING], [Outlook(None), Outlook(0.0)])
    script.nap.end()
    script.pending = JOBS
    await script.take(found=False)
    assert script.looked == 2


async def test_a_maybe_is_answered_by_a_look() -> None:
    script = Script([MAYBE, MAYBE], [Outlook(None), Outlook(None), Outlook(0.0)])
    await script.take(found=False)
    assert script.looked == 3


async def test_what_is_due_and_held_by_somebody_who_claims_it_is_not_asked_for_in_a_loop() -> None:
    script = Script([NOTHING] * 10, [Outlook(0.0)] * 20)
    for _ in range(6):
        await script.take(found=False)
    assert script.looked == 6
    assert [round(wait, 3) for wait in script.waits] == [0.005, 0.02, 0.08, 0.32, 1.0, 1.0]


async def test_a_store_that_is_away_is_left_to_the_next_claim() -> None:
    script = Script([NOTHING], [BackendUnavailable("gone")])
    await script.take(found=False)
    assert (script.looked, script.waits) == (1, [1.0])


@pytest.mark.parametrize("option", ["once", "stop_when_empty"])
async def test_a_worker_that_ends_when_there_is_nothing_claims_after_every_pause(option: str) -> None:
    script = Script([NOTHING], [Outlook(None)], **{option: True})
    await script.take(found=False)
    assert (script.looked, len(script.waits)) == (1, 1)


async def test_one_worker_alone_never_hesitates() -> None:
    script = Script([JOBS], [Outlook(None, 1)] * 40)
    for _ in range(10):
        script.wakes = [JOBS]
        await script.take(found=False)
    assert script.service.pauses == []


def disappointed(script: Script) -> None:
    """It was woken at once, when it was eager, and found nothing."""
    script.nap._eagerness.rewarded()
    script.pending = JOBS
    script.nap.end()


async def test_of_many_who_are_woken_those_who_came_too_late_hesitate_longer_and_longer() -> None:
    script = Script([JOBS] * 200, [Outlook(None, 50)] * 400)
    disappointed(script)
    task = asyncio.create_task(script.nap.take(found=False))
    while script.wakes:
        await asyncio.sleep(0)
    script.service._asked.set()
    await task
    hesitations = script.service.pauses
    assert all(pause <= 0.04 * 49 for pause in hesitations)
    assert max(hesitations[:2]) <= 0.02
    assert max(hesitations[20:]) > 0.4
    assert script.looked > 100, "each of them is one look and no claim"


async def test_who_finds_a_job_is_eager() -> None:
    script = Script([NOTHING, JOBS], [Outlook(None, 50)] * 2)
    await script.take(found=True)
    assert script.service.pauses == []
    assert len(script.waits) == 2


async def test_who_never_found_one_hesitates_where_there_are_others() -> None:
    script = Script([JOBS], [Outlook(None, 50), Outlook(0.0, 50)])
    await script.take(found=False)
    assert script.looked == 2
    assert len(script.service.pauses) == 1


async def test_a_wake_up_for_a_job_that_is_due_later_disappoints_nobody() -> None:
    script = Script([NOTHING], [Outlook(0.5, 50)])
    disappointed(script)
    await script.take(found=False)
    assert script.nap._eagerness.hesitation(1.0) == 0.0


def test_hesitation_grows_up_to_its_limit_and_ends_with_a_reward() -> None:
    eagerness = Eagerness()
    eagerness.rewarded()
    assert eagerness.hesitation(1.0) == 0.0
    for _ in range(30):
        eagerness.disappointed()
    drawn = [eagerness.hesitation(1.0) for _ in range(200)]
    assert max(drawn) <= 1.0
    assert max(drawn) > 0.8
    assert min(drawn) < 0.2
    assert eagerness.hesitation(0.0) == 0.0
    eagerness.rewarded()
    assert eagerness.hesitation(1.0) == 0.0
