"""Selects the wake-up source of each connection of a worker: ``--wake``.

============ ==========================================================================================================
``auto``     SQLite: the data version of the file. Redis: its messages. MySQL and MariaDB: Redis if ``REDIS_URL`` is
             set and answers, else the binary log if the server writes one and the user may read it, else polling
``redis``    messages over ``REDIS_URL``, as soon as it answers
``binlog``   the binary log, or polling if it is not available
``poll``     polling only
============ ==========================================================================================================

A dispatch in the worker's own process wakes it in every mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import URL, make_url

from outbox.connections import connection_settings, spec_of
from outbox.errors import ConfigurationError
from outbox.events import Events, WakeupsHeard, WakeupsUnheard
from outbox.settings import Settings
from outbox.wakeups.base import Report, Unavailable, WakeupListener, Wakeups, WakeupSource
from outbox.wakeups.local_hub import local_hub
from outbox.wakeups.polling import Polling
from outbox.wakeups.redis_client import pubsub
from outbox.wakeups.redis_subscription import Subscription
from outbox.wakeups.supervisor_fanout import FanoutClient

if TYPE_CHECKING:
    from outbox.wakeups.sqlite_data_version import DataVersion


class WakeupSelector:
    """Selects and starts the sources of one worker. ``fanout`` is the connection to a supervisor, if there is one."""

    def __init__(self, settings: Settings, wake: str, events: Events, fanout: FanoutClient | None = None) -> None:
        self._settings = settings
        self._wake = wake
        self._events = events
        self._fanout = fanout
        self._sources: list[WakeupSource] = []
        self._subscriptions: dict[str, Subscription] = {}

    def wakeups(self, connection: str) -> Wakeups:
        """What a consumer of this connection waits on."""
        version = data_version(self._settings, connection) if self._wake == "auto" else None
        return version or Polling()

    async def start(self, connection: str) -> str:
        """Start the source of this connection. Returns its name, or "polling" and the reason.

        Raises:
            ConfigurationError: the selected source is not configured.
        """
        match self._wake:
            case "poll":
                return "polling: --wake poll"
            case _ if spec_of(self._settings, connection).publishes:
                url = connection_settings(self._settings, connection).url
                return await self._subscription(url, connection).start()
            case "redis":
                return await self._subscription(self._redis_url(), connection).start()
            case "auto" if data_version(self._settings, connection) is not None:
                return "data version"
            case "auto" if self._settings.redis_url is not None:
                url = self._settings.redis_url
                return await self._redis_if_it_answers(url, connection) or await self._binary_log(connection)
        return await self._binary_log(connection)

    async def stop(self) -> None:
        """Stop every source. Idempotent."""
        sources, self._sources = self._sources, []
        for source in sources:
            await source.stop()
        if self._fanout is not None:
            self._fanout.close()

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
        if subscription.connected:
            return name
        await subscription.stop()
        self._sources.remove(self._subscriptions.pop(url))
        return None

    async def _binary_log(self, connection: str) -> str:
        report = self._report(connection, "binlog")
        try:
            if self._fanout is None:
                source = binary_log(self._settings, connection, local_hub, report)
            else:
                source = self._fanout.source(connection, local_hub, report)
            self._sources.append(source)
            return await source.start()
        except Unavailable as error:
            return f"polling: {error}"

    def _report(self, connection: str, name: str) -> Report:
        def report(error: str | None) -> None:
            event = WakeupsHeard(connection, name) if error is None else WakeupsUnheard(connection, name, error)
            self._events.emit(event)

        return report


def data_version(settings: Settings, connection: str) -> DataVersion | None:
    """Detects commits to the SQLite file of a connection. None for other databases."""
    url = _database_url(settings, connection)
    if url is None or url.get_backend_name() != "sqlite":
        return None
    # Only here: Python's SQLite takes 1.5 MiB, which workers on servers save.
    from outbox.wakeups.sqlite_data_version import DataVersion

    return DataVersion.of(url)


def binary_log(settings: Settings, connection: str, listener: WakeupListener, report: Report) -> WakeupSource:
    """The binary log of a connection's server, read by a worker or by a supervisor for its processes.

    Raises:
        ConfigurationError: there is no such connection.
        Unavailable: its server has no binary log.
    """
    url = _database_url(settings, connection)
    if url is None or url.get_backend_name() == "sqlite":
        raise Unavailable(f"{connection if url is None else url.get_backend_name()} has no binary log")
    # Only here: its package is an extra.
    from outbox.wakeups.binlog.source import BinaryLog

    return BinaryLog(url, listener, report)


def _database_url(settings: Settings, connection: str) -> URL | None:
    """None for a store whose URLs are not those of SQLAlchemy. Those of Redis may name several hosts."""
    if not spec_of(settings, connection).is_sql:
        return None
    return make_url(connection_settings(settings, connection).url)
