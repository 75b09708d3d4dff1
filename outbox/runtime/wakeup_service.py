"""The wake-ups of a worker as one of its services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from outbox.runtime.store_thread import StoreThread
from outbox.wakeups.base import RESUMED, Wakeups
from outbox.wakeups.local_hub import local_hub
from outbox.wakeups.selector import WakeupSelector


class WakeupService:
    """Runs the sources in the store thread, so that a wake-up arrives in the thread that claims."""

    def __init__(
        self,
        wakeup_selector: WakeupSelector | None,
        stores: StoreThread,
        queues: Sequence[str],
        wakeups: Mapping[str, Wakeups],
    ) -> None:
        self._wakeup_selector = wakeup_selector
        self._stores = stores
        self._queues = queues
        self._wakeups = wakeups

    async def listen(self) -> list[str]:
        """Start the source of each connection. Returns their names for the log, in the order of connections.

        Raises:
            ConfigurationError: the selected source is not configured.
        """
        for wakeups in self._wakeups.values():
            local_hub.listen((*self._queues, RESUMED), wakeups)
        if self._wakeup_selector is None:
            return []
        return [await self._stores.call(self._wakeup_selector.start, connection) for connection in self._wakeups]

    async def start(self) -> None:
        """Nothing is left to do: `listen` was called before the worker logged its start."""

    async def stop(self) -> None:
        for wakeups in self._wakeups.values():
            local_hub.forget(wakeups)
            wakeups.close()
        # The thread may end between the check and the call.
        with suppress(RuntimeError):
            if self._wakeup_selector is not None and self._stores.running:
                await self._stores.call(self._wakeup_selector.stop)
