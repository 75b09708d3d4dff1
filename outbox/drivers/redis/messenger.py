"""Clients for messages between processes; they are not kept, and know nothing of databases and slots."""

from __future__ import annotations

from redis.asyncio import Redis

from outbox.drivers.redis.address import Address


class Messenger:
    """Makes clients for PUBLISH and SUBSCRIBE. In a cluster a message reaches every node, so that any one will do.

    Raises:
        ConfigurationError: it is not the URL of a Redis.
    """

    def __init__(self, url: str) -> None:
        self._address = Address.parse(url)

    def __call__(self) -> Redis:
        return self._address.node() if self._address.is_cluster else self._address.client()
