"""Room for jobs."""

from __future__ import annotations

import asyncio

from outbox.runtime.slots import Slots
from tests.unit.runtime.memory import until


async def reserving(
    slots: Slots, *, batch: int = 1, window: float = 60, linger: float = 0, share: int = 1
) -> asyncio.Task[int]:
    task = asyncio.create_task(slots.reserve(batch=batch, window=window, linger=linger, share=share))
    await asyncio.sleep(0)
    return task


async def running(size: int, used: int) -> Slots:
    slots = Slots(size)
    reserved = await slots.reserve()
    slots.use(reserved, used)
    return slots


async def test_everything_that_is_free_is_reserved_at_once() -> None:
    slots = Slots(20)
    assert await slots.reserve() == 20
    assert slots.free == 0


async def test_what_a_claim_did_not_use_is_free_again() -> None:
    slots = await running(20, 5)
    assert (slots.running, slots.started, slots.free) == (5, 5, 15)


async def test_a_batch_waits_until_it_is_complete() -> None:
    slots = await running(20, 20)
    task = await reserving(slots, batch=5)
    for _ in range(4):
        slots.release()
    await asyncio.sleep(0)
    assert not task.done()
    slots.release()
    assert await task == 5


async def test_a_batch_does_not_wait_longer_than_its_window() -> None:
    slots = await running(20, 20)
    task = await reserving(slots, batch=5, window=0.01)
    await asyncio.sleep(0.03)
    assert not task.done(), "the window begins when a slot is free"
    slots.release()
    assert await task == 1


async def test_a_complete_batch_lingers_for_the_other_slots() -> None:
    slots = await running(20, 20)
    task = await reserving(slots, batch=5, linger=60)
    for _ in range(19):
        slots.release()
    await asyncio.sleep(0)
    assert not task.done()
    slots.release()
    assert await task == 20


async def test_a_complete_batch_lingers_no_longer_than_it_was_told() -> None:
    slots = await running(20, 20)
    task = await reserving(slots, batch=5, window=60, linger=0.01)
    slots.release()
    await asyncio.sleep(0.03)
    assert not task.done(), "the batch is not complete"
    for _ in range(5):
        slots.release()
    assert await task == 6


async def test_a_batch_does_not_wait_when_nothing_runs_that_could_free_more() -> None:
    slots = await running(3, 1)
    slots.mark_stuck()
    assert await slots.reserve(batch=3, window=60) == 2


async def test_lanes_share_in_the_order_in_which_they_asked() -> None:
    slots = await running(4, 4)
    first = await reserving(slots, share=2)
    second = await reserving(slots, share=2)
    slots.release()
    assert await first == 1
    await asyncio.sleep(0)
    assert not second.done()
    slots.release()
    assert await second == 1


async def test_one_lane_leaves_room_for_the_others() -> None:
    slots = Slots(20)
    assert await slots.reserve(share=2) == 10
    assert await slots.reserve(share=2) == 5


async def test_a_budget_is_never_exceeded_and_its_end_is_told_once_it_is_used() -> None:
    spent = []
    slots = Slots(20, budget=3)
    slots.on_budget_spent = lambda: spent.append(True)
    assert await slots.reserve() == 3
    waiting = await reserving(slots)
    assert not waiting.done()
    slots.use(3, 1)
    assert spent == []
    assert await waiting == 2
    slots.use(2, 2)
    assert spent == [True]
    assert slots.started == 3


async def test_a_kick_wakes_everybody_with_nothing() -> None:
    slots = await running(1, 1)
    waiting = [await reserving(slots), await reserving(slots)]
    slots.kick()
    assert [await task for task in waiting] == [0, 0]


async def test_idle_does_not_wait_for_what_is_stuck() -> None:
    slots = await running(2, 2)
    idle = asyncio.create_task(slots.idle())
    await asyncio.sleep(0)
    slots.mark_stuck()
    await asyncio.sleep(0)
    assert not idle.done()
    slots.release()
    await idle


async def test_all_slots_stuck_is_told() -> None:
    told = []
    slots = await running(2, 2)
    slots.on_all_stuck = lambda: told.append(True)
    slots.mark_stuck()
    assert told == []
    slots.mark_stuck()
    assert told == [True]


async def test_a_slot_that_rests_is_not_free_but_idle() -> None:
    slots = await running(1, 1)
    slots.release(rest=0.3)
    assert slots.free == 0
    await slots.idle()
    waiting = await reserving(slots)
    assert not waiting.done()
    await until(waiting.done)
    assert await waiting == 1


async def test_what_follows_from_a_job_takes_a_slot_over_the_limit() -> None:
    slots = await running(1, 1)
    slots.occupy()
    slots.release()
    waiting = await reserving(slots)
    assert not waiting.done()
    slots.release()
    assert await waiting == 1


def test_what_is_grabbed_is_what_is_free_and_no_more_than_may_still_start() -> None:
    slots = Slots(5)
    slots.occupy()
    assert slots.grab() == 4
    assert (slots.grab(), slots.free) == (0, 0)
    slots.use(4, 0)
    assert slots.free == 4
    limited = Slots(5, budget=2)
    assert limited.grab() == 2
    assert limited.grab() == 0
    limited.use(2, 1)
    assert limited.grab() == 1
    over = Slots(1)
    over.occupy()
    over.occupy()
    assert over.grab() == 0
