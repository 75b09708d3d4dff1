"""The thread in which a worker talks to its stores, whatever its handlers do to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from outbox.drivers.base import Driver
from outbox.runtime.process.event_loop import new_loop
from outbox.runtime.service import BackgroundLoop

_P = ParamSpec("_P")
_T = TypeVar("_T")

_STOP_WITHIN = 10.0
"""Seconds that `StoreThread.stop` waits for the thread."""


class StoreThread:
    """A service that is a thread with an event loop of its own, on which all drivers are used.

    A handler that blocks its loop for minutes therefore keeps its lease: renewal runs here. Nor does it hold up a
    transaction. A claim or a settlement caught half way would keep its row locks while the handler blocks, and on
    SQLite the whole database. Other workers would wait for them, and so would the renewal of this worker's own leases.

    Only code that holds the interpreter's lock without a break, in an extension written in C, stops this thread, too.
    """

    def __init__(
        self,
        drivers: Sequence[Driver],
        build: Callable[[], Sequence[BackgroundLoop]],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        """``drivers`` belong to the thread from then on: it closes them. ``build`` is called in it."""
        self._drivers = drivers
        self._build = build
        self._on_crash = on_crash
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: asyncio.Event | None = None
        self._started: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._stopped = False
        # The event loop holds tasks weakly.
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    async def start(self) -> None:
        if self._thread is not None or self._stopped:
            return
        caller = asyncio.get_running_loop()
        self._started, self._ended = caller.create_future(), caller.create_future()
        self._thread = threading.Thread(
            target=self._run, args=(caller, self._started, self._ended), name="outbox-stores", daemon=True
        )
        self._thread.start()
        await self._started

    async def stop(self) -> None:
        self._stopped = True
        if self._ended is None:
            return
        if self._loop is not None and self._asked is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._asked.set)
        # A store that swallowed a call without a trace must not keep the process for ever; the thread is a daemon.
        await asyncio.wait([self._ended], timeout=_STOP_WITHIN)

    async def call(self, function: Callable[_P, Awaitable[_T]], *arguments: _P.args, **options: _P.kwargs) -> _T:
        """Await ``function`` in the thread. Not to be cancelled: the call would be, with its connection."""
        assert self._loop is not None  # noqa: S101 - for the type checker: started
        loop = self._loop
        caller = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = caller.create_future()

        async def run() -> None:
            try:
                value = await function(*arguments, **options)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
                _tell(caller, _reject, answer, error)
            else:
                _tell(caller, _answer, answer, value)

        # What `asyncio.run_coroutine_threadsafe` does, without a second future: every claim and every settlement
        # comes this way.
        loop.call_soon_threadsafe(self._begin, loop, run)
        return await answer

    def submit(self, function: Callable[[], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """Run ``function`` in the thread, for a caller in another one.

        Raises:
            RuntimeError: the thread has not started, or has stopped.
        """
        if self._loop is None or self._stopped:
            raise RuntimeError("the thread of the stores does not run")
        return asyncio.run_coroutine_threadsafe(function(), self._loop)

    def _begin(self, loop: asyncio.AbstractEventLoop, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = loop.create_task(run())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _run(
        self, caller: asyncio.AbstractEventLoop, started: asyncio.Future[None], ended: asyncio.Future[None]
    ) -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(self._main(caller, started))
        except BaseException as error:  # noqa: BLE001 - a thread has no caller that would hear of this
            _tell(caller, _reject, started, error)
            _tell(caller, self._on_crash, error)
        finally:
            _tell(caller, _answer, started, None)
            _tell(caller, _answer, ended, None)

    async def _main(self, caller: asyncio.AbstractEventLoop, started: asyncio.Future[None]) -> None:
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        services = self._build()
        try:
            for service in services:
                service.on_crash = lambda error: _tell(caller, self._on_crash, error)
                await service.start()
            _tell(caller, _answer, started, None)
            await self._asked.wait()
            # All at once: a store that hangs keeps neither the leases nor the connections of another.
            await asyncio.gather(*(service.stop() for service in services))
        finally:
            await asyncio.gather(*(driver.close() for driver in self._drivers))


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    # The worker's loop is closed: it did not wait for this thread.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)


def _answer(future: asyncio.Future[_T], value: _T) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
