"""Failed jobs in groups of one problem each, with their counts, at a bounded cost: along the index of fingerprints, or
among the latest jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Text, and_, case, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import raw_columns
from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.operations.failed_filters import conditions, error_text, hint
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.tables import failed_jobs
from outbox.drivers.filters import ANY_FAILED, HOURS_OF_A_GROUP, FailedFilter, FailedGroup

_LATEST, _UNMARKED = 4_000, 500
"""Jobs that are looked at where no index has the groups: of a queue or with an error, and without a fingerprint. A
server counts each up to six times: in the index, kept, looked up, and in its group."""
MOST_GROUPS = 300
"""Groups that are found. Of more, those with the first fingerprints."""
_FIRST_ENTRIES, _MOST_ENTRIES = 1_500, 5_000
"""Entries of the index that the first statement may count in all groups together, and that all statements may. A server
counts each entry twice: it keeps those of a range, and reads them again."""
_FEWEST = 10
_HOURLY_ENTRIES, _FEWEST_OF_AN_HOUR = 4_000, 4
"""Entries of the index that are counted for the hours of all groups together, and at least for each hour."""
_HOUR = timedelta(hours=1)
_SELECTS = 200
"""In one statement: SQLite joins at most 500."""


async def groups(
    database: Database, queue: str | None, matching: FailedFilter, scope: FailedJobScope, limit: int
) -> list[FailedGroup]:
    """The largest groups of the jobs that match, at a bounded cost."""
    # Those by which an index finds the latest jobs; all others are looked at in their rows.
    found_by = await conditions(database, queue, FailedFilter(since=matching.since))
    passing = and_(scope.condition, *await conditions(database, None, replace(matching, since=None)))
    latest = select(failed_jobs.c.id).with_hint(failed_jobs, hint(database.dialect, queue, ANY_FAILED))
    latest = latest.where(*found_by).order_by(failed_jobs.c.failed_at.desc()).limit(_LATEST)
    if queue is not None or matching.error is not None:
        found = await _groups_of(database, latest, passing, _LATEST)
    else:
        found = await _groups_of_index(database, scope, matching)
        if matching.group is None:
            found += await _groups_of(database, _unmarked(database), and_(passing, *found_by), _UNMARKED)
    return sorted(found, key=lambda group: (-group.count, group.name, group.error))[:limit]


def _unmarked(database: Database) -> Select[Any]:
    """Jobs without a fingerprint, in the order of the index of fingerprints."""
    query = select(failed_jobs.c.id).with_hint(failed_jobs, database.dialect.group_hint)
    query = query.where(failed_jobs.c.fingerprint.is_(None))
    return query.order_by(failed_jobs.c.name.desc(), failed_jobs.c.failed_at.desc()).limit(_UNMARKED)


async def _groups_of_index(database: Database, scope: FailedJobScope, matching: FailedFilter) -> list[FailedGroup]:
    return await database.inspect(running(GroupReader(database.dialect, scope).groups, matching))


async def hours(database: Database, scope: FailedJobScope, groups: Sequence[FailedGroup]) -> list[list[int]]:
    """As `FailedJobStore.hours`."""
    return await database.inspect(running(GroupReader(database.dialect, scope).hours, groups))


async def _groups_of(
    database: Database, chosen: Select[Any], passing: ColumnElement[bool], most: int
) -> list[FailedGroup]:
    """Groups of the ``most`` jobs that are ``chosen``, as far as they are ``passing``."""
    dialect = database.dialect
    latest = chosen.subquery()
    kind = error_text(dialect, "type").label("kind")
    passes = case((passing, 1), else_=0).label("passes")
    names = (failed_jobs.c.connection, failed_jobs.c.name, failed_jobs.c.fingerprint)
    query = (
        select(
            *map(raw_columns.as_stored, names),
            kind,
            passes,
            func.count().label("number"),
            type_coerce(func.min(failed_jobs.c.failed_at), Text).label("first"),
            type_coerce(func.max(failed_jobs.c.failed_at), Text).label("last"),
        )
        .select_from(latest.join(failed_jobs, failed_jobs.c.id == latest.c.id))
        .group_by(*names, kind, passes)
    )

    async def read(connection: AsyncConnection) -> list[FailedGroup]:
        rows = (await connection.execute(query)).all()
        cut = sum(row.number for row in rows) >= most
        return [_group(dialect, row, cut=cut) for row in rows if row.passes]

    return await database.inspect(read)


def _group(dialect: Dialect, row: Any, *, cut: bool) -> FailedGroup:
    text, moment_of = raw_columns.text, dialect.parse_timestamp
    return FailedGroup(
        text(row.connection),
        text(row.name),
        text(row.kind),
        row.number,
        moment_of(row.first),
        moment_of(row.last),
        text(row.fingerprint),
        at_least=cut,
    )


class _Key(NamedTuple):
    """As they are stored."""

    fingerprint: Any
    name: Any


@dataclass(frozen=True, slots=True)
class GroupReader:
    """Reads the groups of the failed jobs in ``scope``, along one index."""

    dialect: Dialect
    scope: FailedJobScope

    def groups(self, matching: FailedFilter) -> Plan[list[FailedGroup]]:
        """Groups of jobs that match; the error of ``matching`` is not looked at. Of a group with many jobs, ``count``
        is a lower bound."""
        keys = [key for key in (yield from self._keys(matching.group)) if matching.name in {None, key.name}]
        found: list[tuple[_Key, FailedGroup]] = []
        for some in chunked(keys, _SELECTS // 2):
            found += yield from self._ends(some, matching.since)
        counts = yield from self._counts([key for key, _ in found], matching.since)
        return [replace(group, count=counts[key][0], at_least=counts[key][1]) for key, group in found if counts[key][0]]

    def _keys(self, group: str | None) -> Plan[list[_Key]]:
        if group is None and (yield from self._skips()):
            rows = yield self._every_key
            return [_Key(*row) for row in rows]
        return (yield from self._walked_keys(group))

    @property
    def _every_key(self) -> Statement:
        return (
            f"SELECT fingerprint, name FROM {self._table} WHERE fingerprint > {self.dialect.placeholder} "
            f"GROUP BY fingerprint, name ORDER BY fingerprint, name LIMIT {MOST_GROUPS}",
            ("",),
        )

    def _skips(self) -> Plan[bool]:
        """Whether the server would skip from one group to the next in one statement: if it knows little of a table, it
        reads all of an index."""
        if not self.dialect.loose_scans:
            return False
        statement, parameters = self._every_key
        rows = yield f"EXPLAIN {statement}", parameters
        said = " ".join(str(value) for row in rows for value in row)
        return any(each in said for each in self.dialect.loose_scans)

    def _walked_keys(self, group: str | None) -> Plan[list[_Key]]:
        """From one to the next, in a statement each."""
        keys: list[_Key] = []
        rows = yield self._next(_Key("", "")) if group is None else self._first_name(group)
        while (key := _first(rows)) is not None and len(keys) < MOST_GROUPS:
            if group is not None and raw_columns.text(key.fingerprint) != group:
                break
            keys.append(key)
            rows = yield self._next(key)
        return keys

    def _first_name(self, group: str) -> Statement:
        return (
            f"SELECT 0 AS place, fingerprint, name FROM {self._table} WHERE fingerprint = {self.dialect.placeholder} "
            "ORDER BY name LIMIT 1",
            (group,),
        )

    def _next(self, key: _Key) -> Statement:
        """The next name under the same fingerprint, and the next fingerprint."""
        mark = self.dialect.placeholder
        return (
            f"SELECT * FROM (SELECT 0 AS place, fingerprint, name FROM {self._table} "
            f"WHERE fingerprint = {mark} AND name > {mark} ORDER BY name LIMIT 1) AS same "
            f"UNION ALL SELECT * FROM (SELECT 1 AS place, fingerprint, name FROM {self._table} "
            f"WHERE fingerprint > {mark} ORDER BY fingerprint, name LIMIT 1) AS other",
            (key.fingerprint, key.name, key.fingerprint),
        )

    def _ends(self, keys: Sequence[_Key], since: float | None) -> Plan[list[tuple[_Key, FailedGroup]]]:
        """The first and the last failure of each group."""
        selects: list[str] = []
        parameters: list[Any] = []
        for number, key in enumerate(keys):
            part, values = self._part(key, since)
            kind = self.dialect.exception_text("type")
            for place, (error, order) in enumerate(((kind, "DESC"), ("NULL", "ASC"))):
                selects.append(
                    f"SELECT * FROM (SELECT {number} AS number, {place} AS place, failed_at, connection, "
                    f"{error} AS error FROM {part} ORDER BY failed_at {order} LIMIT 1) AS end{number}_{place}"
                )
                parameters += values
        if not keys:
            return []
        rows = yield " UNION ALL ".join(selects), tuple(parameters)
        ends = {(int(number), int(place)): row for number, place, *row in rows}
        return [
            (key, self._group(key, ends[number, 0], ends[number, 1]))
            for number, key in enumerate(keys)
            if (number, 0) in ends and (number, 1) in ends
        ]

    def _group(self, key: _Key, last: Sequence[Any], first: Sequence[Any]) -> FailedGroup:
        text, moment_of = raw_columns.text, self.dialect.parse_timestamp
        return FailedGroup(
            text(last[1]), text(key.name), text(last[2]), 0, moment_of(first[0]), moment_of(last[0]),
            fingerprint=text(key.fingerprint),
        )  # fmt: skip

    def _counts(self, keys: Sequence[_Key], since: float | None) -> Plan[dict[_Key, tuple[int, bool]]]:
        """How many jobs each group has, and whether there may be more."""
        limit = max(_FEWEST, _FIRST_ENTRIES // max(1, len(keys)))
        counts = yield from self._count(keys, since, limit)
        cut = [key for key in keys if counts[key][1]]
        more = (_MOST_ENTRIES - sum(number for number, _ in counts.values())) // max(1, len(cut))
        if cut and more > limit:
            counts |= yield from self._count(cut, since, more)
        return counts

    def _count(self, keys: Sequence[_Key], since: float | None, limit: int) -> Plan[dict[_Key, tuple[int, bool]]]:
        counts: dict[_Key, tuple[int, bool]] = {}
        for some in chunked(keys, _SELECTS):
            parts = [self._part(key, since) for key in some]
            found = yield from self._count_parts(parts, limit)
            counts |= {key: (number, number >= limit) for key, number in zip(some, found, strict=True)}
        return counts

    def _count_parts(self, parts: Sequence[Statement], limit: int) -> Plan[list[int]]:
        """How many entries each part of the index has, at most ``limit``."""
        counts = [0] * len(parts)
        rows = yield (
            " UNION ALL ".join(
                f"SELECT {number}, COUNT(*) FROM (SELECT 1 FROM {part} LIMIT {limit}) AS part{number}"
                for number, (part, _) in enumerate(parts)
            ),
            tuple(value for _, values in parts for value in values),
        )
        for number, count in rows:
            counts[int(number)] = int(count)
        return counts

    def hours(self, groups: Sequence[FailedGroup]) -> Plan[list[list[int]]]:
        """How many jobs of each group failed in each of the last 24 hours, the oldest first. Great numbers are cut."""
        rows = yield f"SELECT {self.dialect.now}", ()
        now = next(self.dialect.parse_timestamp(moment) for (moment,) in rows)
        wanted = [(row, ago) for row, group in enumerate(groups) for ago in _hours_of(group, now)]
        limit = max(_FEWEST_OF_AN_HOUR, _HOURLY_ENTRIES // max(1, len(wanted)))
        found = [[0] * HOURS_OF_A_GROUP for _ in groups]
        for some in chunked(wanted, _SELECTS):
            parts = [self._hour(groups[row], now - ago * _HOUR) for row, ago in some]
            counts = yield from self._count_parts(parts, limit)
            for (row, ago), count in zip(some, counts, strict=True):
                found[row][-ago] = count
        return found

    def _hour(self, group: FailedGroup, begin: datetime) -> Statement:
        """Entries of a group in the hour that begins then."""
        mark = self.dialect.placeholder
        part, values = self._part(_Key(group.fingerprint, group.name), None)
        moments = self.dialect.timestamp(begin), self.dialect.timestamp(begin + _HOUR)
        return f"{part} AND failed_at > {mark} AND failed_at <= {mark}", (*values, *moments)

    def _part(self, key: _Key, since: float | None) -> Statement:
        """The range of the index that a group is."""
        mark = self.dialect.placeholder
        part = f"{self._table} WHERE fingerprint = {mark} AND name = {mark}"
        values: tuple[Any, ...] = key
        if not self.scope.is_everything:
            mine, names = self.scope.as_sql(mark)
            part, values = f"{part} AND {mine}", (*values, *names)
        return part if since is None else f"{part} AND failed_at >= {self.dialect.seconds_from_now(-since)}", values

    @property
    def _table(self) -> str:
        return f"queue_failed_jobs {self.dialect.group_hint}"


def _hours_of(group: FailedGroup, now: datetime) -> range:
    """The hours in which it may have jobs, by how many hours ago each begins. A group without a fingerprint has none:
    the index does not find its jobs."""
    newest, oldest = (int((now - moment) / _HOUR) + 1 for moment in (group.last, group.first))
    return range(max(1, newest), min(HOURS_OF_A_GROUP, oldest) + 1) if group.fingerprint else range(0)


def _first(rows: Any) -> _Key | None:
    found = sorted(rows, key=lambda row: int(row[0]))
    return _Key(*found[0][1:]) if found else None
