"""Who is woken by what, and what a wait makes of it."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any
from weakref import ref

import pytest

from outbox.wakeups.base import Wake
from outbox.wakeups.local_hub import LocalHub
from outbox.wakeups.polling import Polling


async def test_only_those_who_drain_the_queue_are_woken() -> None:
    board, mail, default = LocalHub(), Polling(), Polling()
    board.listen(["mail", "high"], mail)
    board.listen(["default"], default)
    board.notify({"high", "unknown"})
    assert await mail.wait(60) is Wake.JOBS
    assert await default.wait(0) is Wake.NOTHING


async def test_everybody_looks_when_something_may_have_been_missed() -> None:
    board, mail, default = LocalHub(), Polling(), Polling()
    board.listen(["mail"], mail)
    board.listen(["default"], default)
    board.notify_all()
    assert (await mail.wait(60), await default.wait(60)) == (Wake.MAYBE, Wake.MAYBE)


async def test_a_listener_is_not_kept_alive() -> None:
    board, listener = LocalHub(), Polling()
    board.listen(["mail"], listener)
    kept = ref(listener)
    del listener
    gc.collect()
    assert kept() is None
    board.notify({"mail"})
    board.notify_all()


async def test_who_was_forgotten_hears_nothing_and_nobody_is_left_listening() -> None:
    board, listener, other = LocalHub(), Polling(), Polling()
    board.listen(["mail"], listener)
    board.listen(["mail"], other)
    board.forget(listener)
    board.notify({"mail"})
    assert await listener.wait(0) is Wake.NOTHING
    assert await other.wait(60) is Wake.JOBS
    board.forget(other)
    assert not board.busy


async def test_a_wake_up_from_another_thread_ends_a_wait() -> None:
    board, listener = LocalHub(), Polling()
    board.listen(["mail"], listener)
    waiting = asyncio.create_task(listener.wait(60))
    await asyncio.sleep(0)
    threading.Thread(target=board.notify, args=({"mail"},)).start()
    async with asyncio.timeout(10):
        assert await waiting is Wake.JOBS


async def test_jobs_are_more_than_a_maybe_and_nothing_takes_them_back() -> None:
    listener = Polling()
    listener.wake(Wake.JOBS)
    listener.wake(Wake.MAYBE)
    assert await listener.wait(60) is Wake.JOBS
    listener.wake(Wake.MAYBE)
    listener.wake(Wake.JOBS)
    assert await listener.wait(60) is Wake.JOBS
    assert await listener.wait(0) is Wake.NOTHING


async def test_what_came_before_a_claim_is_forgotten_by_it() -> None:
    listener = Polling()
    listener.wake()
    assert listener.clear() is Wake.JOBS
    assert await listener.wait(0) is Wake.NOTHING


async def test_a_storm_on_a_busy_worker_costs_the_loop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits: not one callback is scheduled, whoever wakes and however often."""
    board, listener = LocalHub(), Polling()
    board.listen(["mail"], listener)
    await listener.wait(0)
    loop = asyncio.get_running_loop()
    schedule = loop.call_soon_threadsafe
    scheduled: list[Any] = []

    def count(callback: Any, *arguments: Any, **options: Any) -> asyncio.Handle:
        scheduled.append(callback)
        return schedule(callback, *arguments, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    await asyncio.to_thread(lambda: [board.notify({"mail"}) for _ in range(10_000)])
    assert len(scheduled) == 1, "the end of the thread, and nothing else"
    assert await listener.wait(60) is Wake.JOBS


def test_a_child_does_not_wake_its_parents_workers() -> None:
    board = LocalHub()
    board.listen(["mail"], listener := Polling())
    board.after_fork()
    assert not board.busy
    assert listener is not None
