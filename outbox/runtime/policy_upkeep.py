"""The upkeep of policies and of metrics in a worker, and what policies report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from outbox.client_state import current_client
from outbox.drivers.values import PolicyNews
from outbox.errors import OutboxError
from outbox.events import Events
from outbox.relay.route import relayed_connection
from outbox.runtime.service import BackgroundLoop
from outbox.wakeups.announce import announce

_INTERVAL = 60.0
"""Seconds between two rounds of the whole fleet, as far as its size is known."""

_SOONEST, _UNTIL_READY = 0.05, 0.2

_log = logging.getLogger("outbox.runtime")


class PolicyReporter:
    """Passes on what policies report, from any thread: jobs that became claimable wake idle workers."""

    def __init__(self, events: Events, relays: Mapping[str, Callable[[], None]]) -> None:
        """``relays`` wake the relay to a connection."""
        self._client = current_client()
        self._events = events
        self._relays = relays

    def __call__(self, connection: str, news: PolicyNews) -> None:
        if news.events:
            self._events.emit_each(news.events)
        ordinary = []
        for queue in news.queues:
            target = relayed_connection(queue)
            if target is None:
                ordinary.append(queue)
            elif target in self._relays:
                self._relays[target]()
        if ordinary:
            announce(self._client, ordinary, connection)


class NeedsUpkeep(Protocol):
    """`PolicyStore` and `MetricStore`."""

    async def upkeep(self) -> float | None: ...


class Upkeep(BackgroundLoop):
    """Has the policies of one database repair what crashes have left, and do what they do by time; or has its metrics
    counted and merged."""

    def __init__(self, store: NeedsUpkeep, *, ready: Callable[[], bool], idle_workers: Callable[[], int]) -> None:
        super().__init__()
        self._store = store
        self._ready = ready
        self._idle_workers = idle_workers

    async def run(self) -> None:
        while not self._ready():
            if await self.pause(_UNTIL_READY):
                return
        due: float | None = None
        while not await self.pause_in_turn(
            _INTERVAL, self._idle_workers, at_most=None if due is None else max(_SOONEST, due)
        ):
            due = await self._once()

    async def _once(self) -> float | None:
        try:
            return await self._store.upkeep()
        except OutboxError:
            # Claims say so if it lasts; the next round comes.
            return None
        except Exception:  # noqa: BLE001 - upkeep must stop no worker
            _log.exception("the upkeep of %s failed", type(self._store).__name__)
            return None
