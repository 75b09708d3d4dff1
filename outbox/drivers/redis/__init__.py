"""Jobs in Redis or Valkey."""

from outbox.drivers.base import FailedStore
from outbox.drivers.redis.driver import RedisDriver, open_driver

__all__ = ["FailedStore", "RedisDriver", "open_driver"]
