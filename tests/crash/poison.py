"""A job that kills its process among others that do nothing wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from outbox import Job
from tests.support.recorded_jobs import note

INNOCENT = 50
SHARED_DEATHS = 2
"""Attempts in which all of them run in one process, and die with it."""


class Innocent(Job):
    number: int = 0
    max_tries = 3

    async def handle(self) -> None:
        note("begin", self)
        if self.context.attempt <= SHARED_DEATHS:
            await asyncio.Event().wait()
        await asyncio.sleep(0.05)
        note("end", self)


class Poison(Job):
    max_tries = 3

    async def handle(self) -> None:
        note("poisoned", self)
        if self.context.attempt <= SHARED_DEATHS:
            while _begun() < INNOCENT * self.context.attempt:
                await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)


def _begun() -> int:
    return Path(os.environ["RUN_LOG"]).read_text(encoding="utf-8").count('"begin"')
