"""A worker whose stores are wrong, away or hang."""

from __future__ import annotations

import pytest

from outbox.errors import TablesMissing
from outbox.events import (
    ConnectionDown,
    ConnectionUp,
    JobSettled,
    JobStarted,
    WorkerStarted,
    WorkerStopping,
)
from outbox.runtime.process.exit_codes import Reason
from tests.unit.runtime.memory import Store, until
from tests.unit.runtime.running import Gated, Quick, Running


async def test_a_wrong_store_stops_the_worker_before_it_starts() -> None:
    running = Running()
    running.drivers[0].check_error = TablesMissing("run `alembic upgrade head`")
    with pytest.raises(TablesMissing, match="alembic"):
        await running.ended()
    assert running.recorder.seen == []
    assert running.drivers[0].closed


async def test_a_store_that_is_away_at_the_start_is_waited_for() -> None:
    running = Running()
    running.store.unreachable = True
    running.store.put(Quick())
    running.start()
    await running.recorder.wait(WorkerStarted)
    await until(lambda: running.store.calls.count("check") >= 3)
    assert "beat" not in running.store.calls
    running.store.unreachable = False
    await running.recorder.wait(JobSettled)
    await running.stopped()
    assert len(running.recorder.of(ConnectionDown)) == len(running.recorder.of(ConnectionUp)) == 1


async def test_a_store_that_turns_out_wrong_later_is_a_matter_of_configuration() -> None:
    running = Running()
    running.store.unreachable = True
    running.drivers[0].check_error = TablesMissing("run `alembic upgrade head`")
    running.start()
    await running.recorder.wait(ConnectionDown)
    running.store.unreachable = False
    ended = await running.ended()
    assert ended.reason is Reason.CONFIGURATION
    assert isinstance(ended.error, TablesMissing)


async def test_one_store_that_is_away_does_not_keep_the_worker_from_the_others() -> None:
    away, here = Store(), Store()
    away.unreachable = True
    running = Running(away, here, concurrency=2)
    here.put(*(Quick() for _ in range(10)))
    running.start()
    await running.recorder.wait(JobSettled, 10)
    await running.stopped()
    assert here.rows == {}


async def test_one_store_that_hangs_does_not_keep_slots_from_the_others() -> None:
    hangs, here = Store(), Store()
    running = Running(hangs, here, concurrency=1)
    running.start()
    await until(lambda: "look" in hangs.calls)
    hangs.unreachable = True
    await running.recorder.wait(ConnectionDown)
    running.drivers[0].claiming = False
    looks = hangs.calls.count("look")
    try:
        await until(lambda: hangs.calls.count("look") >= looks + 2)
        here.put(*(Quick() for _ in range(10)))
        await running.recorder.wait(JobSettled, 10)
        hangs.unreachable, running.drivers[0].claiming = False, True
        hangs.put(Quick())
        await running.recorder.wait(JobSettled, 11)
    finally:
        running.drivers[0].claiming = True
        await running.stopped()


async def test_several_stores_get_their_turn() -> None:
    first, second = Store(), Store()
    running = Running(first, second, concurrency=2, stop_when_empty=True)
    first.put(*(Quick() for _ in range(50)))
    second.put(*(Quick() for _ in range(50)))
    await running.ended()
    connections = [event.connection for event in running.recorder.of(JobSettled) if isinstance(event, JobSettled)]
    assert set(connections[:20]) == {"memory0", "memory1"}
    assert len(connections) == 100


async def test_a_look_that_fails_for_no_known_reason_stops_the_worker_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = Running()
    running.store.put(Gated())
    running.start()
    await running.recorder.wait(JobStarted)

    async def next_due(*_: object) -> object:
        raise ZeroDivisionError("a defect")

    running.drivers[0].next_due = next_due  # type: ignore[method-assign, assignment]
    await running.recorder.wait(WorkerStopping)
    Gated.gate.set()
    ended = await running.ended()
    assert ended.reason is Reason.CRASHED
    assert running.store.rows == {}, "what ran was finished and written"
    assert "a service of the worker failed" in caplog.text
