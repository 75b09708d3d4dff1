from __future__ import annotations

import asyncio

import pytest

from outbox.drivers.database.connection.write_turn import WriteTurn


async def test_turns_follow_each_other_in_the_order_in_which_they_were_asked_for() -> None:
    turn, had = WriteTurn(10), list[int]()

    async def take(number: int) -> None:
        async with turn:
            had.append(number)
            await asyncio.sleep(0)
            assert had[-1] == number

    await asyncio.gather(*(take(number) for number in range(5)))
    assert had == [0, 1, 2, 3, 4]


async def test_a_turn_that_does_not_come_in_time_is_given_up() -> None:
    turn = WriteTurn(0.01)
    async with turn:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await turn.__aenter__()
    async with turn:
        pass


async def test_who_is_cancelled_leaves_the_turn_to_those_behind() -> None:
    turn = WriteTurn(10)
    async with turn:
        waiting = [asyncio.create_task(turn.__aenter__()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
    await waiting[1]
    assert waiting[0].cancelled()


async def test_a_turn_that_nobody_else_wants_takes_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = WriteTurn(10)
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.delattr(asyncio.BaseEventLoop, "call_at")
            async with turn:
                pass
        async with turn:
            waiting = asyncio.create_task(turn.__aenter__())
            await asyncio.sleep(0)
        await waiting
        await turn.__aexit__(None, None, None)
