"""The drivers that a client has open, one set for each event loop.

A pooled connection can be used only on the loop that opened it. A loop closes its drivers when it ends in order. What a
loop that was only closed has left, the next new loop drops.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from itertools import count
from weakref import WeakSet

from outbox.client_state import ClientPart, ClientState, current_client
from outbox.connections import NOT_SET, connection_settings, is_default, open_driver
from outbox.drivers.base import Driver
from outbox.loop_cleanup import before_loop_ends
from outbox.settings import Settings
from outbox.telling_workers import pass_on_policy_news
from outbox.url_secrets import without_secrets

_RECENT_LOOPS = 16

_log = logging.getLogger("outbox")
_numbers = count()
_said: set[str] = set()


def _say_default(settings: Settings, name: str) -> None:
    """Warn once in a process: where no variable names a database, jobs may go where no worker looks for them."""
    if is_default(settings, name) and settings.database_url not in _said:
        _said.add(settings.database_url)
        _log.warning("%s; using %s", NOT_SET, without_secrets(settings.database_url))


class DriversOfLoop:
    """The open drivers of one event loop."""

    def __init__(self, client: ClientState) -> None:
        self._client = client
        self._drivers: dict[tuple[str, str], Driver] = {}
        self._closes_at_end: AsyncGenerator[None, None] | None = None

    def get(self, settings: Settings, name: str) -> Driver:
        key = (name, connection_settings(settings, name).url)
        driver = self._drivers.get(key)
        if driver is None:
            _say_default(settings, name)
            driver = self._drivers[key] = open_driver(settings, name, dispatches=True)
            pass_on_policy_news(self._client, driver)
            if self._closes_at_end is None:
                self._closes_at_end = before_loop_ends(self.close)
        return driver

    async def close(self) -> None:
        drivers, self._drivers = self._drivers, {}
        for driver in drivers.values():
            await driver.close()

    def drop(self) -> None:
        """Close the drivers of a loop that is closed."""
        drivers, self._drivers = self._drivers, {}
        for driver in drivers.values():
            driver.drop()


class OpenDrivers(ClientPart):
    """The open drivers of each event loop, kept with the loop, so that they are collected with it."""

    def __init__(self, client: ClientState | None = None) -> None:
        super().__init__(client)
        # Clients share loops, and a new client can have the address of one that was collected.
        self._attribute = f"_outbox_drivers_{next(_numbers)}"
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        # A loop that was only closed must not be collected before what it has left is closed: that would warn. Those
        # that are never closed must be.
        self._recent: deque[asyncio.AbstractEventLoop] = deque(maxlen=_RECENT_LOOPS)

    def get(self, name: str, settings: Settings | None = None) -> Driver:
        """The driver of the connection ``name`` for the running loop. ``settings`` are the client's where they are
        known."""
        return (self._find() or self._add()).get(settings or self.client.settings(), name)

    def _find(self) -> DriversOfLoop | None:
        return getattr(asyncio.get_running_loop(), self._attribute, None)

    def _add(self) -> DriversOfLoop:
        self.drop_closed()
        loop, opened = asyncio.get_running_loop(), DriversOfLoop(self.client)
        setattr(loop, self._attribute, opened)
        with self._lock:
            self._loops.add(loop)
            self._recent.append(loop)
        return opened

    def drop_closed(self) -> None:
        """Close what closed loops have left. Harmless when repeated."""
        with self._lock:
            closed = [loop for loop in self._loops if loop.is_closed()]
            for loop in closed:
                self._loops.discard(loop)
                with suppress(ValueError):
                    self._recent.remove(loop)
        for loop in closed:
            opened: DriversOfLoop = getattr(loop, self._attribute)
            opened.drop()

    async def close(self) -> None:
        """Close the drivers of the running loop. Those of another loop are closed when that ends."""
        opened = self._find()
        if opened is not None:
            await opened.close()

    def close_at_exit(self) -> None:
        self.drop_closed()

    def after_fork(self) -> None:
        # A loop that is collected tells the kernel to forget what the parent still waits for: the parent's loops stay.
        self._inherited = list(self._loops)
        self._start()


def driver_here(name: str) -> Driver:
    """The current client's driver of the connection ``name`` for the running event loop, opened when first asked for.

    Raises:
        ConfigurationError: as `open_driver`.
    """
    return current_client().part(OpenDrivers).get(name)


async def disconnect() -> None:
    """Close what dispatches without a session have opened on this event loop. They open it again when needed.

    A loop that ends as ``asyncio.run`` ends it does so by itself.
    """
    await current_client().part(OpenDrivers).close()
