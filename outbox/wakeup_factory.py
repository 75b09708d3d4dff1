"""Wake-ups as the settings have them: whom a dispatch tells, and what a worker can listen to."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import URL, make_url

from outbox.connections import connection_settings, current_settings
from outbox.errors import ConfigurationError
from outbox.settings import DATABASE, REDIS, ConnectionSettings, Settings
from outbox.wakeups.base import Report, Source, Unavailable, WakeupListener
from outbox.wakeups.local_hub import local_hub
from outbox.wakeups.redis_publisher import Publisher

if TYPE_CHECKING:
    from outbox.drivers.redis.pubsub import PubSub
    from outbox.wakeups.sqlite_data_version import DataVersion

_log = logging.getLogger("outbox.wakeups")


def announce(queues: Collection[str], connection: str = DATABASE) -> None:
    """Jobs of these queues were committed: wake idle workers. Of this process directly; of others over Redis, where
    one is there beside the database. A Redis that keeps the jobs tells of them itself. Never waits, never raises."""
    local_hub.notify(queues)
    try:
        settings = current_settings()
        beside = settings.redis_url if connection_settings(settings, connection).driver != REDIS else None
        publisher = _publisher(beside) if beside is not None else None
    except ConfigurationError as error:
        _log.warning("other processes are not told of new jobs, they find them by polling: %s", error)
        return
    if publisher is not None:
        publisher.publish(queues)


@cache
def _publisher(url: str) -> Publisher:
    return Publisher(pubsub(url))


def pubsub(url: str) -> PubSub:
    """What makes clients for messages over the Redis of ``url``.

    Raises:
        ConfigurationError: it is not the URL of a Redis, or the package is missing.
    """
    try:
        # Only here: its package is an extra, and takes as long to import as all of outbox.
        from outbox.drivers.redis.pubsub import PubSub
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"REDIS_URL needs a package: pip install 'outbox-queue[redis]' ({error})") from error
    return PubSub(url)


def data_version(connection: ConnectionSettings) -> DataVersion | None:
    """What sees commits to a connection's SQLite file; None where there is none."""
    url = _database_url(connection)
    if url is None or url.get_backend_name() != "sqlite":
        return None
    # Only here: Python's SQLite takes 1.5 MiB, and servers need none of it.
    from outbox.wakeups.sqlite_data_version import DataVersion

    return DataVersion.of(url)


def _database_url(connection: ConnectionSettings) -> URL | None:
    """None for a Redis: its URLs are not SQLAlchemy's, which refuses several hosts."""
    return make_url(connection.url) if connection.driver == DATABASE else None


def binary_log(settings: Settings, connection: str, bells: WakeupListener, report: Report) -> Source:
    """The binary log of a connection's server. Also what a supervisor opens, with its processes for bells.

    Raises:
        ConfigurationError: there is no such connection.
        Unavailable: its server has none.
    """
    url = _database_url(connection_settings(settings, connection))
    if url is None or url.get_backend_name() == "sqlite":
        raise Unavailable(f"{REDIS if url is None else url.get_backend_name()} has no binary log")
    # Only here: its package is an extra, and nobody else reads binary logs.
    from outbox.wakeups.binlog.source import BinaryLog

    return BinaryLog(url, bells, report)
