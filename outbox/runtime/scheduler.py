"""Lets schedules tick. Every worker does; there is no leader."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

from outbox import clock
from outbox.drivers.schedules import Declared, DueSchedule, ScheduleStore
from outbox.errors import BackendUnavailable, OutboxError
from outbox.runtime.service import BackgroundLoop

LOOK_EVERY = 20.0
"""Seconds between two looks of the whole fleet for schedules that were added meanwhile."""

SYNC_EVERY = 60.0
"""Seconds between two looks at the rows of declared schedules."""

_SOONEST, _BUSY = 0.005, 0.1
"""Seconds until the next look, at least, and while another worker is at it."""
_SPREAD_PER_WORKER, _SPREAD_AT_MOST = 0.02, 0.5
"""Seconds: of the workers that know when a schedule is due, one is to be first."""
_AFTER_ERROR, _AFTER_OUTAGE = 30.0, 3.0
"""Seconds until a schedule is tried again, and until the next look."""

_log = logging.getLogger("outbox.runtime")


class Scheduler(BackgroundLoop):
    """The schedules of one database. One look is one statement; the next is when a schedule is due."""

    def __init__(
        self,
        store: ScheduleStore,
        declared: Sequence[Declared],
        *,
        ready: Callable[[], bool],
        idle_workers: Callable[[], int],
    ) -> None:
        super().__init__()
        self._store = store
        self._declared = declared
        self._known = [each.hash for each in declared]
        self._templates = {each.name: each.template for each in declared}
        self._ready = ready
        self._idle_workers = idle_workers
        self._synced: float | None = None
        self._broken: dict[str, float] = {}
        """Schedules whose tick has failed here, and when to try again: other workers may be able to."""

    async def run(self) -> None:
        if await self.pause_until(self._ready):
            return
        while not await self.pause_in_turn(LOOK_EVERY, self._idle_workers, at_most=await self._look()):
            pass

    async def _look(self) -> float | None:
        """Do what is due. Seconds until the next look; None for when it is this worker's turn."""
        try:
            await self._sync()
            return await self._tick_what_is_due()
        except BackendUnavailable as error:
            # Claims say so if it lasts. What has become due meanwhile does not wait for this worker's turn.
            _log.debug("schedules were not looked at: %s", error)
            return _AFTER_OUTAGE
        except OutboxError as error:
            _log.warning("schedules do not tick: %s", error)
        except Exception:  # noqa: BLE001 - what is wrong with schedules must stop no worker
            _log.exception("schedules could not be looked at")
        return None

    async def _sync(self) -> None:
        now = clock.now()
        if not self._declared or (self._synced is not None and now - self._synced < SYNC_EVERY):
            return
        for name in await self._store.sync(self._declared):
            _log.warning(
                "the schedule %s that code declares is not stored: one of this name was added at run time; remove that "
                "(outbox.schedules.remove), or give the declaration another name",
                name,
            )
        self._synced = now

    async def _tick_what_is_due(self) -> float | None:
        busy = False
        now = clock.now()
        found = [each for each in await self._store.next_due(self._known) if self._broken.get(each.name, now) <= now]
        for name, seconds in found:
            if seconds > 0 or self.stopping:
                break
            busy = not await self._tick(name) or busy
        if busy:
            return _BUSY
        if found and found[0].seconds <= 0:
            return _SOONEST  # What has ticked may be due again soon.
        return self._until(found)

    async def _tick(self, name: str) -> bool:
        """False if another worker is at it."""
        try:
            return await self._store.tick(name, self._templates)
        except Exception as error:  # noqa: BLE001 - what is wrong with one schedule must not stop others
            if isinstance(error, OutboxError):
                _log.warning("the schedule %s did not tick: %s", name, error)
            else:
                _log.exception("the schedule %s did not tick", name)
            self._broken[name] = clock.now() + _AFTER_ERROR
            return True

    def _until(self, found: Sequence[DueSchedule]) -> float | None:
        if not found:
            return None
        spread = max(0.0, min(_SPREAD_AT_MOST, _SPREAD_PER_WORKER * (self._idle_workers() - 1)))
        return max(_SOONEST, found[0].seconds) + random.uniform(0.0, spread)  # noqa: S311 - spreads load, guards nothing
