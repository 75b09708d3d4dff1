"""Which kind of wake-up each connection of a worker gets, and why: ``--wake``.

============ ==========================================================================================================
``auto``     SQLite: the version of the file. Redis: its own messages. MySQL and MariaDB: Redis where ``REDIS_URL`` is
             set and answers, else the binary log where the server has one and the user may read it, else polling
``redis``    messages over ``REDIS_URL``, from the time when it answers
``binlog``   the binary log, or polling where that cannot be had
``poll``     nothing but looking
============ ==========================================================================================================

What a process dispatches itself wakes it in any case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from outbox.connections import connection_settings
from outbox.errors import ConfigurationError
from outbox.events import Events, WakeupsHeard, WakeupsUnheard
from outbox.runtime.store_thread import StoreThread
from outbox.settings import REDIS, Settings
from outbox.wakeup_factory import binary_log, data_version, pubsub
from outbox.wakeups.base import Report, Source, Unavailable, Wakeups
from outbox.wakeups.local_hub import local_hub
from outbox.wakeups.polling import Polling
from outbox.wakeups.redis_subscription import Subscription
from outbox.wakeups.supervisor_fanout import FanoutClient


class WakeupService:
    """A service that listens for a worker, in the thread of its stores: where a wake-up arrives, jobs are claimed."""

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
        """Returns for each connection what tells of its jobs, or why it is nothing.

        Raises:
            ConfigurationError: what was asked for is not set up.
        """
        for wakeups in self._wakeups.values():
            local_hub.listen(self._queues, wakeups)
        if self._wakeup_selector is None:
            return []
        return [await self._stores.call(self._wakeup_selector.listen, connection) for connection in self._wakeups]

    async def start(self) -> None:
        """It has been listening since the banner said so."""

    async def stop(self) -> None:
        for wakeups in self._wakeups.values():
            local_hub.forget(wakeups)
            wakeups.close()
        # A thread that never started, or has ended by itself, has nothing left to stop.
        with suppress(RuntimeError):
            if self._wakeup_selector is not None and self._stores.running:
                await self._stores.call(self._wakeup_selector.stop)


class WakeupSelector:
    """Chosen once, when a worker starts. ``line`` leads to the supervisor, if there is one."""

    def __init__(self, settings: Settings, wake: str, events: Events, line: FanoutClient | None = None) -> None:
        self._settings = settings
        self._wake = wake
        self._events = events
        self._line = line
        self._sources: list[Source] = []
        self._subscriptions: dict[str, Subscription] = {}

    def wakeups(self, connection: str) -> Wakeups:
        """What the connection waits on."""
        watched = data_version(connection_settings(self._settings, connection)) if self._wake == "auto" else None
        return watched or Polling()

    async def listen(self, connection: str) -> str:
        """Start what tells of this connection's jobs. Returns what that is, or why it is nothing.

        Raises:
            ConfigurationError: what was asked for is not set up.
        """
        found = connection_settings(self._settings, connection)
        match self._wake:
            case "poll":
                return "polling: --wake poll"
            case _ if found.driver == REDIS:
                return await self._subscription(found.url, connection).start()
            case "redis":
                return await self._subscription(self._redis_url(), connection).start()
            case "auto" if data_version(found) is not None:
                return "data version"
            case "auto" if self._settings.redis_url is not None:
                url = self._settings.redis_url
                return await self._redis_if_it_answers(url, connection) or await self._binlog(connection)
        return await self._binlog(connection)

    async def stop(self) -> None:
        """Stop what was started; harmless when repeated."""
        sources, self._sources = self._sources, []
        for source in sources:
            await source.stop()
        if self._line is not None:
            self._line.close()

    def _redis_url(self) -> str:
        if self._settings.redis_url is None:
            raise ConfigurationError("--wake redis needs a server: set REDIS_URL=redis://host:6379/0")
        return self._settings.redis_url

    def _subscription(self, url: str, connection: str) -> Subscription:
        subscription = self._subscriptions.get(url)
        if subscription is None:
            report = self._report(connection, Subscription.name)
            subscription = self._subscriptions[url] = Subscription(pubsub(url), local_hub, report)
            self._sources.append(subscription)
        return subscription

    async def _redis_if_it_answers(self, url: str, connection: str) -> str | None:
        subscription = self._subscription(url, connection)
        name = await subscription.start()
        if subscription.hears:
            return name
        await subscription.stop()
        self._sources.remove(self._subscriptions.pop(url))
        return None

    async def _binlog(self, connection: str) -> str:
        report = self._report(connection, "binlog")
        try:
            if self._line is None:
                source = binary_log(self._settings, connection, local_hub, report)
            else:
                source = self._line.follow(connection, local_hub, report)
            self._sources.append(source)
            return await source.start()
        except Unavailable as error:
            return f"polling: {error}"

    def _report(self, connection: str, name: str) -> Report:
        def report(error: str | None) -> None:
            event = WakeupsHeard(connection, name) if error is None else WakeupsUnheard(connection, name, error)
            self._events.emit(event)

        return report
