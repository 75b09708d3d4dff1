"""What workers did in the last days, and how many jobs waited, as they wrote it down."""

from __future__ import annotations

from outbox.drivers.metrics import DepthPoint, MetricPoint, MetricStore
from outbox.errors import ConfigurationError
from outbox.operations.arguments import Duration, driver_of, optional_queue, optional_text, seconds_of

METRICS_KEPT = 90 * 86_400.0
"""Seconds."""


def _metrics(connection: str | None) -> MetricStore:
    driver = driver_of(connection)
    if driver.metrics is None:
        raise ConfigurationError(f"the connection {driver.name!r} keeps no metrics: a database does")
    return driver.metrics


def _span(since: Duration) -> float:
    return min(seconds_of(since) or 0.0, METRICS_KEPT)


async def metrics(
    *,
    queue: str | None = None,
    name: str | None = None,
    since: Duration = 3_600,
    connection: str | None = None,
) -> list[MetricPoint]:
    """What became of attempts in the last ``since`` seconds, at most 90 days, the oldest first: of all queues or one,
    and of all classes of jobs or the ``name`` of one, as stored.

    Points are of one minute for a day, of ten minutes for a week, of an hour before that. Several may be of the same
    time, one for each worker: `merged` in ``outbox.drivers.metrics`` makes one of them. Workers write once a minute.

    Raises:
        ConfigurationError: the connection is no database.
        InvalidOption: an argument is of a wrong type or out of its range.
    """
    return await _metrics(connection).points(
        _span(since), queue=optional_queue(queue), name=optional_text("name", name)
    )


async def depths(
    *, queue: str | None = None, since: Duration = 3_600, connection: str | None = None
) -> list[DepthPoint]:
    """How many jobs each queue had in the last ``since`` seconds, at most 90 days, the oldest first. Workers count once
    a minute, or less often where that takes longer than 0.3 s.

    Raises:
        ConfigurationError: the connection is no database.
        InvalidOption: an argument is of a wrong type or out of its range.
    """
    return await _metrics(connection).depths(_span(since), queue=optional_queue(queue))
