"""Jobs for worker processes under test. What they did is written to a log outside outbox's tables: the oracle."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

from outbox import Job


def note(what: str, job: Job, **more: object) -> None:
    """Append one line. O_APPEND makes each write whole, whoever else writes and whoever dies."""
    line = {
        "what": what,
        "id": str(job.context.job_id),
        "number": getattr(job, "number", 0),
        "attempt": job.context.attempt,
        "pid": os.getpid(),
        # The machine's, so that the times of several processes can be compared.
        "at": time.clock_gettime(time.CLOCK_MONOTONIC),
        **more,
    }
    descriptor = os.open(os.environ["RUN_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


class Counted(Job):
    """Says when it begins and when it ends."""

    number: int = 0
    seconds: float = 0.0

    async def handle(self) -> None:
        note("begin", self)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            note("cancelled", self)
            raise
        note("end", self)


class High(Counted):
    queue = "high"


class InThread(Job):
    number: int = 0
    seconds: float = 0.0

    def handle(self) -> None:
        note("begin", self)
        time.sleep(self.seconds)
        note("end", self)


class Raises(Job):
    """Leaves tries, timeout and backoff to the worker."""

    number: int = 0

    async def handle(self) -> None:
        note("begin", self)
        raise ValueError("as it always does")

    async def failed(self, error: BaseException) -> None:
        note("hook", self, error=str(error))


class Endless(Job):
    number: int = 0

    async def handle(self) -> None:
        note("begin", self)
        await asyncio.Event().wait()


class Gated(Job):
    """Attempt n ends when the file ``go-n`` is there. The first attempt is the one whose worker is frozen."""

    number: int = 0
    first: str = "return"
    timeout = 0

    async def handle(self) -> None:
        note("begin", self)
        try:
            while not gate(self.context.attempt).exists():
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            note("cancelled", self)
            raise
        note("end", self)
        self.finish()

    def finish(self) -> None:
        if self.context.attempt > 1:
            return
        if self.first == "raise":
            raise ValueError("a zombie's opinion")
        if self.first == "release":
            self.context.release()
        if self.first == "fail":
            self.context.fail("a zombie's opinion")


class GatedInThread(Gated):
    def handle(self) -> None:  # type: ignore[override]
        note("begin", self)
        while not gate(self.context.attempt).exists():
            # One call into C for as long as the worker is frozen: nothing interrupts this attempt, it ends by itself.
            time.sleep(0.02)
        note("end", self)
        self.finish()


def gate(attempt: int) -> Path:
    return Path(os.environ["RUN_LOG"]).with_name(f"go-{attempt}")


class KillsItself(Job):
    """What a segmentation fault or the system's out-of-memory killer would do."""

    number: int = 0
    max_tries = 3

    async def handle(self) -> None:
        note("begin", self)
        os.kill(os.getpid(), signal.SIGKILL)


class Blocks(Job):
    number: int = 0
    seconds: float = 600.0

    async def handle(self) -> None:
        note("begin", self)
        time.sleep(self.seconds)
        note("end", self)


class Stuck(Job):
    """Waits in C, where nothing reaches it."""

    number: int = 0
    timeout = 0.1
    max_tries = 1

    def handle(self) -> None:
        note("begin", self)
        time.sleep(600)


class EndsAProcess(Job):
    """Ends processes of its own as soon as they have begun."""

    number: int = 0

    def handle(self) -> None:
        codes = []
        for _ in range(10):
            process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
            process.start()
            process.terminate()
            process.join(60)
            codes.append(process.exitcode)
            process.kill()
        note("end", self, error=str(codes))


class SignalsAProcess(Job):
    """Listens for a signal on the loop of the worker, which a process of its own gets."""

    number: int = 0

    async def handle(self) -> None:
        heard: list[str] = []
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, heard.append, "USR1")
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        await asyncio.sleep(0.1)
        loop.remove_signal_handler(signal.SIGUSR1)
        note("end", self, error=str(heard))


class Grows(Job):
    number: int = 0
    held: ClassVar[list[bytes]] = []

    async def handle(self) -> None:
        note("begin", self)
        self.held.append(os.urandom(1024) * 1024 * 64)


class LeavesAThreadBehind(Job):
    """Python waits for such threads before it ends."""

    number: int = 0
    timeout = 0.2
    max_tries = 1

    async def handle(self) -> None:
        note("begin", self)
        await asyncio.to_thread(time.sleep, 600)


class LeavesATaskBehind(Job):
    """A task that raises what ends processes."""

    number: int = 0

    async def handle(self) -> None:
        async def exits() -> None:
            raise SystemExit(7)

        note("begin", self)
        LeavesATaskBehind.kept = asyncio.create_task(exits())  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)
        note("end", self)
