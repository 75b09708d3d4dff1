"""`MetricStore`, in the table `queue_metrics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from outbox import clock
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, run, running
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.metrics import rollups, rows
from outbox.drivers.database.metrics.merging import merge_step
from outbox.drivers.database.metrics.rows import NewRow, Stored, new_row
from outbox.drivers.database.metrics.table import Period
from outbox.drivers.database.operations import missing_fingerprints
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.operations.inspection import exact_counts
from outbox.drivers.metrics import Activity, DepthPoint, MetricPoint
from outbox.drivers.values import QueueCounts

_COUNT_FACTOR = 200
"""All jobs are counted at an interval of so many times what the last count took."""
_COUNT_EVERY = 55.0
"""Seconds between two counts at least."""

_MERGES = 200
"""Transactions of one round of upkeep."""
_ROLLUPS = 150
"""Rollups of one round of upkeep: those of a day."""


class DatabaseMetrics:
    """`MetricStore`."""

    def __init__(self, database: Database, scope: FailedJobScope) -> None:
        self._database = database
        self._scope = scope

    async def write(self, activities: Mapping[tuple[str, str], Activity]) -> None:
        dialect = self._database.dialect
        # In the minute in which most of it happened.
        begins_at = dialect.minute_of(dialect.seconds_from_now(-30))
        new = [
            new_row(Period.WRITTEN, begins_at, queue, name, rows.dump_activity(each))
            for (queue, name), each in activities.items()
        ]
        await self._insert(new)

    async def _insert(self, new: Sequence[NewRow]) -> None:
        """Statements that may be sent twice: on servers, without a COMMIT."""

        async def write(connection: SqlConnection) -> None:
            await run(rows.insert(self._database.dialect, new), connection)

        sqlite = self._database.engine.dialect.name == "sqlite"
        await (self._database.write_plain(write) if sqlite else self._database.read_plain(write))

    async def points(self, since: float, *, queue: str | None = None, name: str | None = None) -> list[MetricPoint]:
        dialect = self._database.dialect
        where, parameters = f"begins_at >= {dialect.seconds_from_now(-since)}", []
        if queue is None:
            where = f"period IN ({', '.join(str(int(each)) for each in Period)}) AND {where} AND queue <> ''"
        else:
            where, parameters = f"queue = {dialect.placeholder} AND {where}", [queue]
        if name is not None:
            where, parameters = f"{where} AND name = {dialect.placeholder}", [*parameters, name]
        found = await self._select(where, parameters)
        return sorted((each.point() for each in found), key=lambda point: (point.at, point.queue, point.name))

    async def rolled_up(self, since: float) -> list[MetricPoint]:
        found = await self._database.inspect(running(rollups.points, self._database.dialect, since))
        return sorted(found, key=lambda point: (point.at, point.queue, point.name))

    async def depths(self, since: float, *, queue: str | None = None) -> list[DepthPoint]:
        dialect = self._database.dialect
        where = f"queue = '' AND begins_at >= {dialect.seconds_from_now(-since)}"
        found = await self._select(where, (), "ORDER BY begins_at")
        depths = [depth for each in found for depth in rows.load_depths(each.begins_at, each.data)]
        wanted = [depth for depth in depths if queue is None or depth.queue == queue]
        # Merged rows of one time may be several.
        return [each for _, same in groupby(wanted, key=attrgetter("at")) for each in rows.greatest(list(same))]

    async def _select(self, where: str, parameters: Sequence[Any], order: str = "") -> list[Stored]:
        return await self._database.inspect(running(rows.select, self._database.dialect, where, parameters, order))

    async def upkeep(self) -> float | None:
        await self._count()
        for _ in range(_MERGES):
            if not await merge_step(self._database):
                break
        for _ in range(_ROLLUPS):
            if not await rollups.roll_up(self._database):
                break
        await missing_fingerprints.add_missing(self._database)
        return None

    async def _count(self) -> None:
        """Count all jobs, unless that was done a short while ago."""
        dialect = self._database.dialect
        if not await self._database.read_plain(running(_is_count_due, dialect)):
            return
        begun = clock.now()
        counts = await exact_counts(self._database, self._scope)
        data = rows.dump_depths(_depths(counts), clock.now() - begun)
        await self._insert([new_row(Period.WRITTEN, dialect.now, "", "", data)])


def _is_count_due(dialect: Dialect) -> Plan[bool]:
    last = yield from rows.last_counts(dialect, 1)
    return not last or last[0].age >= max(_COUNT_EVERY, _COUNT_FACTOR * last[0].seconds)


def _depths(counts: Sequence[QueueCounts]) -> list[DepthPoint]:
    return [
        DepthPoint(
            rows.EPOCH,
            each.queue,
            ready=each.ready,
            delayed=each.delayed,
            retrying=each.retrying,
            reserved=each.reserved,
            parked=each.parked,
            failed=each.failed,
            oldest=each.oldest,
        )
        for each in counts
    ]
