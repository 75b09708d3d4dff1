"""What workers do in the tables now and then: for policies, for metrics, and for rows that no worker can read."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from outbox.errors import OutboxError
from outbox.runtime.service import BackgroundLoop

INTERVAL = 60.0
"""Seconds between two rounds of the whole fleet, as far as its size is known."""

_SOONEST = 0.05

_log = logging.getLogger("outbox.runtime")


class Upkeep(BackgroundLoop):
    """Repairs what crashes have left, and does what is to be done by time, in one database."""

    def __init__(
        self,
        what: str,
        work: Callable[[], Awaitable[float | None]],
        *,
        ready: Callable[[], bool],
        idle_workers: Callable[[], int],
    ) -> None:
        """``work`` does one round. Returns the seconds until the next one; None: when it is this worker's turn."""
        super().__init__()
        self._what = what
        self._work = work
        self._ready = ready
        self._idle_workers = idle_workers

    async def run(self) -> None:
        if await self.pause_until(self._ready):
            return
        due: float | None = None
        while not await self.pause_in_turn(
            INTERVAL, self._idle_workers, at_most=None if due is None else max(_SOONEST, due)
        ):
            due = await self._once()

    async def _once(self) -> float | None:
        try:
            return await self._work()
        except OutboxError:
            # Claims say so if it lasts; the next round comes.
            return None
        except Exception:  # noqa: BLE001 - upkeep must stop no worker
            _log.exception("the upkeep of %s failed", self._what)
            return None
