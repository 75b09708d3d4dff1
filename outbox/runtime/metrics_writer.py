"""Writes what a worker has done, once a minute and when it stops."""

from __future__ import annotations

import logging
from collections.abc import Callable

from outbox.drivers.metrics import MINUTE, MetricStore
from outbox.errors import OutboxError
from outbox.runtime.reporting.activities import Activities
from outbox.runtime.service import BackgroundLoop

_log = logging.getLogger("outbox.runtime")


class MetricsWriter(BackgroundLoop):
    """One INSERT a minute, however many jobs there were. What could not be written is written a minute later."""

    def __init__(self, store: MetricStore, activities: Activities, *, ready: Callable[[], bool]) -> None:
        super().__init__()
        self._store = store
        self._activities = activities
        self._ready = ready

    async def run(self) -> None:
        await self.pause_until(self._ready)
        while not await self.pause(MINUTE):
            await self._write()
        await self._write()

    async def _write(self) -> None:
        taken = self._activities.take()
        if not taken:
            return
        try:
            await self._store.write(taken)
        except OutboxError:
            # Claims say so if it lasts.
            self._activities.put_back(taken)
        except Exception:  # noqa: BLE001 - operators see less; jobs go on
            _log.exception("the metrics of this worker could not be written")
