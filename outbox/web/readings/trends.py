"""What workers of each connection have done in the last day."""

from __future__ import annotations

from datetime import UTC, datetime

from outbox.errors import BackendUnavailable, ConfigurationError, OutboxError
from outbox.web.readings.source import Subject, once
from outbox.web.trends import Trend, read_trend
from outbox.web.values import Answers


class TrendReadings(Subject):
    @once
    async def all(self) -> Answers[dict[str, Trend]]:
        """By connection; of up to 20 seconds ago."""
        found: dict[str, Trend] = {}
        errors: dict[str, OutboxError] = {}
        for name in self.stores.names:
            try:
                found[name] = await self.stores.kept(name, read_trend)
            except (BackendUnavailable, ConfigurationError) as error:
                errors[name] = error
        return Answers(found, errors)

    async def of(self, connection: str) -> Trend:
        """One that is empty where it cannot be read: charts are the least of a page."""
        answers = await self.all()
        return answers.found.get(connection) or Trend(datetime.now(UTC), is_kept=False)
