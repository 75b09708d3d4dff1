"""Begins with bulk operations when the worker starts, and as soon as a message tells of one. What no message tells of
is found by upkeep."""

from __future__ import annotations

import logging
from collections.abc import Callable

from outbox.drivers.bulk import OperationStore
from outbox.errors import BackendUnavailable, OutboxError
from outbox.runtime.service import BackgroundLoop
from outbox.wakeups.base import OPERATIONS, Wake
from outbox.wakeups.local_hub import local_hub
from outbox.wakeups.polling import Polling

_LONGEST_WAIT = 3600.0
"""Seconds. Nothing is done when they are up."""

_log = logging.getLogger("outbox.runtime")


class OperationWatch(BackgroundLoop):
    """Works off the bulk operations of one database. It asks once at the start, and then nothing while none is
    announced."""

    def __init__(self, store: OperationStore, *, ready: Callable[[], bool]) -> None:
        super().__init__()
        self._store = store
        self._ready = ready
        self._wakeups = Polling()
        # From the beginning: what is announced before the loop runs stays to be heard.
        local_hub.listen([OPERATIONS], self._wakeups)

    async def run(self) -> None:
        try:
            await self.pause_until(self._ready)
            if not self.stopping:
                await self._told(Wake.MAYBE)
            while not self.stopping:
                told = await self._wakeups.wait(_LONGEST_WAIT)
                if not self.stopping and told is not Wake.NOTHING:
                    await self._told(told)
        finally:
            local_hub.forget(self._wakeups)

    def interrupt(self) -> None:
        self._wakeups.wake()

    async def _told(self, told: Wake) -> None:
        try:
            # At the start, and after a gap in which messages may have been missed, there may be none.
            if told is not Wake.MAYBE or await self._store.is_open():
                await self._work_off()
        except BackendUnavailable:
            pass  # claims say so; upkeep tries again
        except OutboxError as error:
            _log.warning("bulk operations are left to upkeep: %s", error)
        except Exception:  # noqa: BLE001 - an operation must stop no worker
            _log.exception("bulk operations could not be worked off; upkeep tries again")

    async def _work_off(self) -> None:
        while not self.stopping and (due := await self._store.work_off()) is not None:
            await self.pause(due)
