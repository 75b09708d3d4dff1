"""Jobs in Redis or Valkey."""

from outbox.drivers.redis.driver import RedisDriver, open_driver
from outbox.drivers.redis.operations.failed_job_export import FailedStore

__all__ = ["FailedStore", "RedisDriver", "open_driver"]
