"""What stores say of themselves, and the settings that the dashboard goes by."""

from __future__ import annotations

from outbox.drivers.base import Driver
from outbox.drivers.values import StoreFacts
from outbox.errors import BackendUnavailable, ConfigurationError, RequestRefused
from outbox.settings import WorkerOptions
from outbox.url_secrets import without_secrets
from outbox.web.readings.source import Subject, once
from outbox.web.values import Answers


class FactReadings(Subject):
    @once
    async def all(self) -> Answers[dict[str, StoreFacts]]:
        """By connection; of up to 20 seconds ago."""
        answers: Answers[dict[str, StoreFacts]] = Answers({}, {})
        for name in self.stores.names:
            try:
                answers.found[name] = await self.stores.kept(name, read_facts)
            except (BackendUnavailable, ConfigurationError, RequestRefused) as error:
                answers.errors[name] = error
        return answers

    def settings(self) -> list[tuple[str, str]]:
        """The settings of this process, in words, without passwords."""
        settings = self.stores.settings
        urls = [("database_url", settings.database_url), ("replica_url", settings.replica_url)]
        urls += [("redis_url", settings.redis_url)]
        urls += [(f"connections.{name}", each.url) for name, each in sorted(settings.connections.items())]
        return [
            ("connection", settings.connection),
            *((name, without_secrets(url)) for name, url in urls if url is not None),
            ("jobs", ", ".join(settings.jobs) or "none"),
            ("payload_limit", f"{settings.payload_limit:,} bytes"),
            ("encryption_keys", f"{len(settings.encryption_keys)}"),
            *_of_workers(),
        ]


def _of_workers() -> list[tuple[str, str]]:
    """Those of workers with the settings of this process."""
    try:
        worker = WorkerOptions.load()
    except ConfigurationError:  # a finding says so
        return []
    return [("wake, of workers", worker.wake), ("lease, of workers", f"{worker.lease:g} s")]


async def read_facts(driver: Driver) -> StoreFacts:
    return await driver.facts()
