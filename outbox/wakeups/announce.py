"""What a dispatch announces after its commit."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import cache

from outbox.connections import connection_settings, current_settings
from outbox.errors import ConfigurationError
from outbox.settings import DATABASE, REDIS
from outbox.wakeups.local_hub import local_hub
from outbox.wakeups.redis_client import pubsub
from outbox.wakeups.redis_publisher import Publisher

_log = logging.getLogger("outbox.wakeups")


def announce(queues: Collection[str], connection: str = DATABASE) -> None:
    """Wake idle workers after jobs of these queues were committed. Never waits, never raises.

    Workers of this process are woken directly, those of other processes over ``REDIS_URL``. The scripts of a Redis
    connection publish the message themselves.
    """
    local_hub.notify(queues)
    try:
        settings = current_settings()
        url = settings.redis_url if connection_settings(settings, connection).driver != REDIS else None
        publisher = _publisher(url) if url is not None else None
    except ConfigurationError as error:
        _log.warning("other processes are not told of new jobs, they find them by polling: %s", error)
        return
    if publisher is not None:
        publisher.publish(queues)


@cache
def _publisher(url: str) -> Publisher:
    return Publisher(pubsub(url))
