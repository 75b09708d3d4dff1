"""How many jobs this process may run at once, and how many it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Waiter:
    """A claimer that waits for room."""

    batch: int
    window: float
    linger: float
    share: int
    granted: asyncio.Future[int]
    timer: asyncio.TimerHandle | None = None
    lingers: bool = False
    waited: bool = False


class Slots:
    """Counts; it runs nothing. Not thread-safe, except for reading the numbers.

    A slot is reserved before a claim is sent, so that what comes back can be started at once. It stays taken until the
    handler has really ended, even where its attempt was given up before.
    """

    def __init__(self, size: int, budget: int | None = None) -> None:
        self.size = size
        self.running = 0
        self.stuck = 0
        """Of those running: given up on, but not ended."""
        self.started = 0
        """Jobs ever started."""
        self.on_all_stuck: Callable[[], None] | None = None
        self.on_budget_spent: Callable[[], None] | None = None
        self._budget = budget
        self._reserved = 0
        self._resting = 0
        self._waiters: deque[_Waiter] = deque()
        self._idle_waiters: list[asyncio.Future[None]] = []

    @property
    def free(self) -> int:
        return self.size - self.running - self._reserved - self._resting

    @property
    def busy(self) -> bool:
        """Whether anything runs, other than what is stuck."""
        return self.running > self.stuck

    async def reserve(self, *, batch: int = 1, window: float = 0.0, linger: float = 0.0, share: int = 1) -> int:
        """Wait for room and reserve it; 0 when woken by ``kick``.

        It waits until ``batch`` slots are free, or all that can be, or until one has been free for ``window`` seconds;
        and with a batch complete, up to ``linger`` seconds for the others. It takes one ``share``-th of what is free,
        so that several consumers get their turn. First come, first served.
        """
        waiter = _Waiter(batch, window, linger, share, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._serve()
        return await waiter.granted

    def grab(self) -> int:
        """Reserve what is free, without waiting for anything."""
        amount = max(0, self.free if self._budget is None else min(self.free, self._budget))
        self._take(amount)
        return amount

    def use(self, reserved: int, used: int) -> None:
        """Of ``reserved`` slots, ``used`` now run a job; the others are free again."""
        self._reserved -= reserved
        self.running += used
        self.started += used
        if self._budget is not None:
            self._budget += reserved - used
            if self._budget == 0 and self._reserved == 0 and self.on_budget_spent is not None:
                self.on_budget_spent()
        self._serve()

    def occupy(self) -> None:
        """Take a slot without waiting, over the limit if need be: for what follows from a job that ran."""
        self.running += 1

    def release(self, rest: float = 0.0) -> None:
        """One of those running has ended; its slot is free after ``rest`` seconds."""
        self.running -= 1
        if rest > 0:
            self._resting += 1
            asyncio.get_running_loop().call_later(rest, self._rested)
        if self._waiters:
            self._serve()
        if self._idle_waiters:
            self._tell_idle()

    def mark_stuck(self) -> None:
        """One of those running does not end although it was told to."""
        self.stuck += 1
        self._tell_idle()
        if self.stuck >= self.size and self.on_all_stuck is not None:
            self.on_all_stuck()

    def unmark_stuck(self) -> None:
        """It has ended after all; ``release`` follows."""
        self.stuck -= 1

    async def idle(self) -> None:
        """Return once nothing runs, other than what is stuck."""
        while self.busy:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(waiter)
            await waiter

    def kick(self) -> None:
        """Wake all that wait for room, with none."""
        while self._waiters:
            self._grant(self._waiters.popleft(), 0)

    def _serve(self) -> None:
        while self._waiters:
            # Every job that ends passes here, mostly for a claimer that goes on waiting.
            waiter, free = self._waiters[0], self.free
            amount = -(-free // waiter.share)
            if self._budget is not None:
                amount = min(amount, self._budget)
            if amount <= 0:
                return
            if not (waiter.waited or self.running <= self.stuck) and self._must_wait(waiter, free):
                return
            self._waiters.popleft()
            self._take(amount)
            self._grant(waiter, amount)

    def _take(self, amount: int) -> None:
        self._reserved += amount
        if self._budget is not None:
            self._budget -= amount

    def _must_wait(self, waiter: _Waiter, free: int) -> bool:
        """Whether it waits for more than the ``free`` slots; there is a timer then."""
        lingers = free >= waiter.batch
        seconds = waiter.linger if lingers else waiter.window
        if seconds <= 0:
            return False
        if waiter.timer is not None:
            if waiter.lingers or not lingers:
                return True
            waiter.timer.cancel()
        waiter.lingers = lingers
        waiter.timer = asyncio.get_running_loop().call_later(seconds, self._window_over, waiter)
        return True

    def _window_over(self, waiter: _Waiter) -> None:
        waiter.waited = True
        self._serve()

    def _rested(self) -> None:
        self._resting -= 1
        self._serve()

    def _tell_idle(self) -> None:
        if not self.busy:
            for waiter in self._idle_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._idle_waiters.clear()

    @staticmethod
    def _grant(waiter: _Waiter, amount: int) -> None:
        if waiter.timer is not None:
            waiter.timer.cancel()
        waiter.granted.set_result(amount)
