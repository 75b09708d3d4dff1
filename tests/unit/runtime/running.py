"""A whole worker in this process, and jobs for it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar

from outbox.backoff import Backoff
from outbox.job import Job
from outbox.runtime.process.exit_codes import Reason
from outbox.runtime.worker import Ended, Worker
from outbox.settings import WorkerOptions
from tests.unit.runtime.memory import MemoryDriver, Recorder, Store


class Quick(Job):
    async def handle(self) -> None: ...


class Gated(Job):
    """Ends when the test opens the gate."""

    timeout = 0
    gate: ClassVar[asyncio.Event]
    running: ClassVar[int] = 0

    async def handle(self) -> None:
        Gated.running += 1
        try:
            await self.gate.wait()
        finally:
            Gated.running -= 1


class Flaky(Job):
    max_tries = 3
    backoff = Backoff(0.05)
    hooked: ClassVar[list[BaseException]] = []

    async def handle(self) -> None:
        raise ValueError(f"attempt {self.context.attempt}")

    async def failed(self, error: BaseException) -> None:
        self.hooked.append(error)


class Stuck(Job):
    timeout = 0.02
    max_tries = 1
    release: ClassVar[threading.Event]

    def handle(self) -> None:
        self.release.wait(20)  # a call into C, which nothing interrupts


class Running:
    """A worker that is not started yet. The gates of its jobs are closed."""

    def __init__(self, *stores: Store, **options: Any) -> None:
        Gated.gate, Gated.running = asyncio.Event(), 0
        Stuck.release = threading.Event()
        Flaky.hooked.clear()
        self.stores = stores or (Store(),)
        self.recorder = Recorder()
        options = {"sleep": 0.05, "grace": 60, "concurrency": 10, **options}
        self.drivers = [MemoryDriver(store, f"memory{index}") for index, store in enumerate(self.stores)]
        self.worker = Worker(
            WorkerOptions(**options),
            self.drivers,  # type: ignore[arg-type]
            self.recorder.events,
            name="test",
        )
        self.task: asyncio.Task[Ended] | None = None

    @property
    def store(self) -> Store:
        return self.stores[0]

    def start(self) -> None:
        self.task = asyncio.create_task(self.worker.run())

    async def ended(self) -> Ended:
        if self.task is None:
            self.start()
        assert self.task is not None
        return await asyncio.wait_for(self.task, 30)

    async def stopped(self) -> Ended:
        self.worker.stop.request(Reason.SIGNAL)
        return await self.ended()
