"""How often a worker looks for schedules that are due."""

from __future__ import annotations

from typing import Any

import pytest

from outbox import clock
from outbox.drivers.schedules import DueSchedule
from outbox.errors import BackendUnavailable
from outbox.runtime.scheduler import LOOK_EVERY, Scheduler


class Schedules:
    """Answers as a test says, and counts."""

    def __init__(self, *answers: list[DueSchedule] | Exception) -> None:
        self.answers = list(answers)
        self.looks = 0
        self.ticked: list[str] = []
        self.free = True

    async def next_due(self, known: Any) -> list[DueSchedule]:
        self.looks += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def tick(self, name: str, templates: Any) -> bool:
        self.ticked.append(name)
        if name == "broken":
            raise BackendUnavailable("it cannot be read")
        return self.free

    async def sync(self, declared: Any) -> list[str]:
        raise AssertionError("nothing is declared")


class Watched(Scheduler):
    """Sleeps by a clock of its own, and notes for how long."""

    def __init__(self, store: Schedules, looks: int, workers: int = 1) -> None:
        super().__init__(store, [], ready=lambda: True, idle_workers=lambda: self.workers)  # type: ignore[arg-type]
        self.workers = workers
        self.moment = 0.0
        self.pauses: list[float] = []
        self._looks_left = looks

    async def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.moment += seconds
        self._looks_left -= 1
        return self._looks_left < 0

    async def run(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "now", lambda: self.moment)
            await super().run()


@pytest.mark.parametrize("workers", [1, 50])
async def test_without_schedules_a_look_is_one_statement_in_20_seconds_of_the_fleet(workers: int) -> None:
    store = Schedules([])
    scheduler = Watched(store, 20, workers)
    await scheduler.run()
    assert store.looks == 21
    first, *others = scheduler.pauses
    assert 0.7 * LOOK_EVERY <= first <= LOOK_EVERY * workers
    assert all(0.7 * LOOK_EVERY * workers <= pause <= LOOK_EVERY * workers for pause in others)
    assert store.ticked == []


async def test_the_next_look_is_when_a_schedule_is_due() -> None:
    store = Schedules([DueSchedule("digest", 3.0)], [DueSchedule("digest", -0.1)], [DueSchedule("digest", 60.0)])
    scheduler = Watched(store, 2)
    await scheduler.run()
    assert store.ticked == ["digest"]
    assert scheduler.pauses[0] == pytest.approx(3.0)
    assert scheduler.pauses[1] < 0.1
    assert 10 < scheduler.pauses[2] <= LOOK_EVERY, "others may be added meanwhile"


async def test_workers_of_a_fleet_do_not_look_at_the_same_moment() -> None:
    scheduler = Watched(Schedules([DueSchedule("digest", 3.0)]), 50, 20)
    await scheduler.run()
    assert max(scheduler.pauses) - min(scheduler.pauses) > 0.1
    assert all(3.0 <= pause <= 3.5 for pause in scheduler.pauses)


async def test_what_another_worker_is_at_is_left_alone_for_a_moment() -> None:
    store = Schedules([DueSchedule("digest", 0.0)])
    store.free = False
    scheduler = Watched(store, 3)
    await scheduler.run()
    assert scheduler.pauses == pytest.approx([0.1] * 4)


async def test_a_schedule_that_cannot_tick_here_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    store = Schedules([DueSchedule("broken", -5.0), DueSchedule("digest", 0.0)], [DueSchedule("broken", -6.0)])
    scheduler = Watched(store, 2)
    await scheduler.run()
    assert store.ticked == ["broken", "digest"]
    assert scheduler.pauses[-1] > 10, "and it is left to other workers for a while"
    assert "broken did not tick: it cannot be read" in caplog.text


async def test_a_database_that_is_away_is_looked_at_again_soon() -> None:
    store = Schedules(BackendUnavailable("gone"), [DueSchedule("digest", 0.0)], [])
    scheduler = Watched(store, 2, 50)
    await scheduler.run()
    assert store.ticked == ["digest"]
    assert scheduler.pauses[0] <= 3, "what has become due meanwhile waits for no turn"


async def test_workers_that_appear_meanwhile_share_the_looks() -> None:
    """A fleet that is started together would look together, each as if it were alone."""

    class Joined(Watched):
        async def pause(self, seconds: float) -> bool:
            self.workers = 50
            return await super().pause(seconds)

    turns = []
    for _ in range(100):
        store = Schedules([])
        scheduler = Joined(store, 2)
        await scheduler.run()
        assert store.looks == 2
        assert scheduler.pauses[0] <= LOOK_EVERY
        turns.append(scheduler.pauses[0] + scheduler.pauses[1])
    assert LOOK_EVERY * 25 < max(turns) <= LOOK_EVERY * 50
