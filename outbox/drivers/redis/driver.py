"""Redis as a driver: the parts that it is made of."""

from __future__ import annotations

from datetime import datetime

from outbox.drivers.base import Driver, FailedStore
from outbox.drivers.redis.connection.store import Store, open_store
from outbox.drivers.redis.jobs.blocking_claim import BlockingClaim
from outbox.drivers.redis.jobs.job_store import PendingClaims, RedisJobs
from outbox.drivers.redis.jobs.relay_target import RelayedJobs
from outbox.drivers.redis.operations import health, inspection
from outbox.drivers.redis.operations.encrypted_hashes import EncryptedHashes
from outbox.drivers.redis.operations.failed_job_export import ExportedFailedJobs
from outbox.drivers.redis.operations.failed_jobs import FailedJobs
from outbox.drivers.redis.operations.pauses import Pauses
from outbox.drivers.redis.operations.queues import Queues
from outbox.drivers.redis.operations.workers import Workers
from outbox.drivers.redis.pubsub import PubSub
from outbox.drivers.registry import OpenOptions
from outbox.drivers.values import HealthIssue


class RedisDriver(Driver):
    """Jobs in Redis or Valkey. Its connections belong to the event loop on which they are first used.

    Failed jobs stay in Redis, or move to ``failed_store``, which the driver then owns.

    Raises:
        ConfigurationError: the URL is not one of a Redis.
    """

    def __init__(
        self, url: str, *, name: str = "redis", pool_size: int = 5, failed_store: FailedStore | None = None
    ) -> None:
        self.name = name
        self._store = open_store(url, 2 * pool_size)
        self._blocking_claim = BlockingClaim(PubSub(url))
        self.failed: FailedJobs = (
            FailedJobs(self._store) if failed_store is None else ExportedFailedJobs(self._store, failed_store)
        )
        self.relay_target: RelayedJobs = RelayedJobs(self._store)
        self.jobs: RedisJobs = RedisJobs(
            self._store,
            name,
            self._blocking_claim,
            self.failed,
            self.relay_target,
        )
        self.workers: Workers = Workers(self._store, self._finish_what_others_left)
        self.pauses: Pauses = Pauses(self._store, self.workers, name)
        self.queues: Queues = Queues(self._store, self.failed, self.pauses)
        self.encrypted_texts: EncryptedHashes = EncryptedHashes(self._store)
        self.blocking_claims: PendingClaims = PendingClaims(self.jobs)
        self._server = ""

    @property
    def store(self) -> Store:
        """The connections, and what is sent over them."""
        return self._store

    @property
    def description(self) -> str:
        return f"{self._store.address} ({self._server})" if self._server else str(self._store.address)

    async def check(self) -> None:
        self._server = await health.check(self._store)
        await self.failed.check()

    async def now(self) -> datetime:
        return await inspection.now(self._store)

    async def health_issues(self) -> list[HealthIssue]:
        return [*await health.health_issues(self._store), *await self.failed.health_issues()]

    async def close(self) -> None:
        await self.jobs.close()
        await self.failed.close()
        await self._blocking_claim.unsubscribe()
        await self._store.close()

    def drop(self) -> None:
        self._store.drop()

    async def _finish_what_others_left(self) -> None:
        """Jobs between two slots of a cluster, and failed jobs, perhaps of a process that has ended since."""
        await self.jobs.cross_slot_jobs.deliver_left()
        self.failed.arrived()


def open_driver(options: OpenOptions) -> RedisDriver:
    """
    Raises:
        ConfigurationError: as `RedisDriver`.
    """
    return RedisDriver(options.url, name=options.name, pool_size=options.pool_size, failed_store=options.failed_store)
