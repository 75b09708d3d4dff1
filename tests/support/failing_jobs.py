"""Jobs that go wrong in every way there is, for worker processes under test. `tests/support/fixed_jobs.py` has the same
names with nothing wrong: the deploy that follows."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from pydantic import field_validator

from outbox import Job
from tests.support.recorded_jobs import note


class Doom(BaseException):
    """Not an `Exception`: what frameworks use to get past everybody's handlers."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("nor can this be shown")


class UnprintableForGood(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1) + 1


def chained() -> Exception:
    """Two exceptions, each the cause of the other."""
    first, second = ValueError("the hen"), ValueError("the egg")
    first.__cause__, second.__cause__ = second, first
    return first


HUGE = "\N{PILE OF POO}" * 2_500_000
"""10 MB in UTF-8."""

ERRORS: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "Doom": lambda: Doom("of the process"),
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "TimeoutError": TimeoutError,
    "MemoryError": MemoryError,
    "Unprintable": Unprintable,
    "UnprintableForGood": UnprintableForGood,
    "surrogate": lambda: ValueError("half a character: \ud83d"),
    "NUL": lambda: ValueError("a NUL: \0."),
    "huge": lambda: ValueError(HUGE),
    "chained": chained,
    "group": lambda: BaseExceptionGroup("both", [ValueError("one"), SystemExit(2)]),
}


class Raises(Job):
    name = "failing.Raises"
    error: str

    async def handle(self) -> None:
        raise ERRORS[self.error]()


class RaisesInThread(Job):
    name = "failing.RaisesInThread"
    error: str

    def handle(self) -> None:
        raise ERRORS[self.error]()


class Recurses(Job):
    name = "failing.Recurses"

    async def handle(self) -> None:
        recurse()


class Yields(Job):
    """Nothing of it would ever run."""

    name = "failing.Yields"

    async def handle(self) -> AsyncIterator[int]:
        yield 1


class CancelsItself(Job):
    name = "failing.CancelsItself"

    async def handle(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)


class CancelsEverything(Job):
    """What a clean-up that was written for a program of its own does."""

    name = "failing.CancelsEverything"

    number: int = 0

    async def handle(self) -> None:
        note("begin", self)
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(60)


class BadHook(Job):
    """Fails, and so does its hook."""

    name = "failing.BadHook"
    error: str

    async def handle(self) -> None:
        raise ValueError("the first of two")

    async def failed(self, error: BaseException) -> None:
        note("hook", self, error=str(error))
        raise ERRORS[self.error]()


class BadHookInThread(Job):
    name = "failing.BadHookInThread"
    error: str

    def handle(self) -> None:
        raise ValueError("the first of two")

    def failed(self, error: BaseException) -> None:
        note("hook", self, error=str(error))
        raise ERRORS[self.error]()


class BadBackoff(Job):
    name = "failing.BadBackoff"
    max_tries = 2

    def backoff(self, attempt: int) -> float:
        raise SystemExit(4)

    async def handle(self) -> None:
        raise ValueError(f"attempt {self.context.attempt}")


class Picky(Job):
    """Its validator raises what no validator should."""

    name = "failing.Picky"
    error: str

    @field_validator("error")
    @classmethod
    def _refuse(cls, error: str) -> str:
        raise ERRORS[error]()

    async def handle(self) -> None:
        note("end", self)


class Renumbered(Job):
    """Its field was a string when its rows were written."""

    name = "failing.Renumbered"
    order: int
    strict: bool

    async def handle(self) -> None:
        note("end", self)


class Says(Job):
    """Succeeds, and says what it was given."""

    name = "failing.Says"
    text: str

    async def handle(self) -> None:
        note("said", self, error=digest(self.text))


class Chokes(Job):
    """Fails on whatever it was given."""

    name = "failing.Chokes"
    text: str

    async def handle(self) -> None:
        raise ValueError(self.text)


class BlocksTheLoop(Job):
    name = "failing.BlocksTheLoop"
    number: int = 0
    seconds: float

    async def handle(self) -> None:
        note("begin", self)
        time.sleep(self.seconds)
        note("end", self)


class BlocksWhenLoaded(Job):
    """A validator that does not return: a regular expression with a catastrophe in it, say."""

    name = "failing.BlocksWhenLoaded"
    number: int = 0

    @field_validator("number")
    @classmethod
    def _block(cls, number: int) -> int:
        time.sleep(600)
        return number

    async def handle(self) -> None:
        note("end", self)


class BlocksInItsHook(Job):
    name = "failing.BlocksInItsHook"

    async def handle(self) -> None:
        raise ValueError("the hook will not return")

    async def failed(self, error: BaseException) -> None:
        time.sleep(600)


class LeavesABlockerBehind(Job):
    name = "failing.LeavesABlockerBehind"

    async def handle(self) -> None:
        asyncio.get_running_loop().call_later(0.3, time.sleep, 600)


class NeverEnds(Job):
    """Takes no no for an answer."""

    name = "failing.NeverEnds"
    timeout = 0.2

    async def handle(self) -> None:
        note("begin", self)
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                note("cancelled", self)


class NeverEndsInThread(Job):
    name = "failing.NeverEndsInThread"
    timeout = 0.2

    def handle(self) -> None:
        note("begin", self)
        threading.Event().wait()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def registered() -> dict[str, Any]:
    """Every job here, by the name of its rows."""
    return {kind.name: kind for kind in Job.__subclasses__() if kind.__module__ == __name__}
