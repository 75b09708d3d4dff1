"""Moves jobs that no worker can claim or read to the failed jobs, now and then."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from outbox.drivers.base import JobClaims
from outbox.errors import OutboxError
from outbox.runtime.service import BackgroundLoop

_INTERVAL = 60.0
"""Seconds between two looks of the whole fleet, as far as its size is known."""

_UNTIL_READY = 0.2

_log = logging.getLogger("outbox.runtime")


class UnreadableRows(BackgroundLoop):
    """Claims move what they meet. This is for what they never meet. The first look is that of `Consumer.check`."""

    def __init__(self, jobs: JobClaims, *, ready: Callable[[], bool], idle_workers: Callable[[], int]) -> None:
        super().__init__()
        self._jobs = jobs
        self._ready = ready
        self._idle_workers = idle_workers

    async def run(self) -> None:
        while not self._ready():
            if await self.pause(_UNTIL_READY):
                return
        # Not all workers of a fleet at the same moment.
        while not await self.pause(_INTERVAL * max(1, self._idle_workers()) * random.uniform(0.7, 1.0)):  # noqa: S311 - spreads load, guards nothing
            try:
                await self._jobs.fail_unreadable()
            except OutboxError:
                # Claims say so if it lasts; the next look comes.
                continue
            except Exception:  # noqa: BLE001 - a look for what is broken must stop no worker
                _log.exception("it could not be looked for jobs that no worker can read")
