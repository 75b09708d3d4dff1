"""What a dispatch announces after its commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from outbox.client_state import ClientPart, ClientState
from outbox.connections import spec_of
from outbox.errors import ConfigurationError
from outbox.settings import DATABASE, Settings
from outbox.wakeups.base import CANCELLED, OPERATIONS
from outbox.wakeups.local_hub import local_hub
from outbox.wakeups.redis_client import pubsub
from outbox.wakeups.redis_publisher import Publisher

_log = logging.getLogger("outbox.wakeups")


def announce(
    client: ClientState, queues: Collection[str], connection: str = DATABASE, settings: Settings | None = None
) -> None:
    """Wake idle workers after jobs of these queues were committed. Never waits, never raises.

    Workers of this process are woken directly, those of other processes over ``REDIS_URL``. A store that publishes the
    message itself needs no other. ``settings`` are the client's, as `tell_workers` has them.
    """
    local_hub.notify(queues)
    try:
        settings = settings or client.settings()
        if settings.redis_url is None or spec_of(settings, connection).publishes:
            return
        publisher = client.part(Publishers).to(settings.redis_url)
    except ConfigurationError as error:
        _log.warning("other processes are not told of new jobs, they find them by polling: %s", error)
        return
    publisher.publish(queues)


def announce_cancelled(client: ClientState, connection: str = DATABASE) -> None:
    """Have workers look whether they run jobs that were cancelled. Never waits, never raises."""
    announce(client, (CANCELLED,), connection)


def announce_operation(client: ClientState, connection: str = DATABASE) -> None:
    """Have workers begin with a bulk operation that was committed. Never waits, never raises."""
    announce(client, (OPERATIONS,), connection)


class Publishers(ClientPart):
    """The publishers of a client, one for each Redis."""

    def __init__(self, client: ClientState | None = None) -> None:
        super().__init__(client)
        self._publishers: dict[str, Publisher] = {}

    def to(self, url: str) -> Publisher:
        """
        Raises:
            ConfigurationError: as `pubsub`.
        """
        publisher = self._publishers.get(url)
        # A thread that loses a race to this line uses the publisher of the other thread. Its own has started nothing.
        return publisher or self._publishers.setdefault(url, Publisher(pubsub(url)))

    def after_fork(self) -> None:
        for publisher in self._publishers.values():
            publisher.after_fork()

    def flush_at_exit(self) -> None:
        for publisher in list(self._publishers.values()):
            publisher.flush_at_exit()

    async def close(self) -> None:
        publishers, self._publishers = self._publishers, {}
        for publisher in publishers.values():
            await asyncio.to_thread(publisher.stop)
