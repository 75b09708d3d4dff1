"""The connection to the Redis that carries wake-ups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.errors import ConfigurationError

if TYPE_CHECKING:
    from outbox.drivers.redis.pubsub import PubSub


def pubsub(url: str) -> PubSub:
    """Connects publishers and subscribers to the Redis at ``url``.

    Raises:
        ConfigurationError: ``url`` is not the URL of a Redis, or the package redis is missing.
    """
    try:
        # Only here: its package is an extra, and takes as long to import as all of outbox.
        from outbox.drivers.redis.pubsub import PubSub
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"REDIS_URL needs a package: pip install 'outbox-queue[redis]' ({error})") from error
    return PubSub(url)
