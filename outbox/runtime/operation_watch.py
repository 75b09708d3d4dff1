"""Begins with bulk operations as soon as a message tells of one. What no message tells of is found by upkeep."""

from __future__ import annotations

import logging
from collections.abc import Callable

from outbox import clock
from outbox.drivers.bulk import OperationStore
from outbox.errors import OutboxError
from outbox.runtime.service import BackgroundLoop
from outbox.wakeups.base import OPERATIONS, Wake
from outbox.wakeups.local_hub import local_hub
from outbox.wakeups.polling import Polling

_SELDOM, _UNTIL_READY = 3600.0, 0.2
_BETWEEN_LOOKS = 1.0
"""Seconds between two looks, where all that is known is that another process has changed something."""

_log = logging.getLogger("outbox.runtime")


class OperationWatch(BackgroundLoop):
    """Works off the bulk operations of one database. While none is announced, it asks nothing."""

    def __init__(self, store: OperationStore, *, ready: Callable[[], bool]) -> None:
        super().__init__()
        self._store = store
        self._ready = ready
        self._wakeups = Polling()
        self._looked = clock.now()

    async def run(self) -> None:
        while not self._ready():
            if await self.pause(_UNTIL_READY):
                return
        local_hub.listen([OPERATIONS], self._wakeups)
        try:
            while not self.stopping:
                told = await self._wakeups.wait(_SELDOM)
                if not self.stopping and told is not Wake.NOTHING:
                    await self._told(told)
        finally:
            local_hub.forget(self._wakeups)

    def interrupt(self) -> None:
        self._wakeups.wake()

    async def _told(self, told: Wake) -> None:
        try:
            if told is not Wake.MAYBE or await self._finds_one():
                await self._work_off()
        except OutboxError as error:
            # Claims say so if it lasts; upkeep tries again.
            _log.warning("bulk operations are left to upkeep: %s", error)
        except Exception:  # noqa: BLE001 - an operation must stop no worker
            _log.exception("bulk operations could not be worked off; upkeep tries again")

    async def _finds_one(self) -> bool:
        """SQLite tells that the file has changed, and not what: then one look a second is enough."""
        left = self._looked + _BETWEEN_LOOKS - clock.now()
        if await self.pause(left):
            return False
        self._wakeups.clear()
        self._looked = clock.now()
        return await self._store.is_open()

    async def _work_off(self) -> None:
        while not self.stopping and (due := await self._store.work_off()) is not None:
            await self.pause(due)
