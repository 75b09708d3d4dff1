"""Jobs in Redis or Valkey."""

from outbox.drivers.redis.driver import RedisDriver
from outbox.drivers.redis.handover import FailedStore

__all__ = ["FailedStore", "RedisDriver"]
