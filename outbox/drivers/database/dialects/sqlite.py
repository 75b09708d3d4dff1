"""SQLite 3.35+: one writer at a time, so there is nothing to skip and nothing to lock row by row.

Its clock has milliseconds; moments are written with six digits, as SQLAlchemy's DateTime reads and writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, and_, tuple_

from outbox.drivers.database.dialects.base import Dialect, Statement
from outbox.drivers.database.dialects.syntax import MICROSECONDS, PRIORITY_LIST
from outbox.drivers.database.tables import EVERY_QUEUE
from outbox.drivers.filters import JobPlace
from outbox.options import PRIORITIES

_AT = "strftime('%Y-%m-%d %H:%M:%f'"
_CLOCK = "'now'"


class SQLite(Dialect):
    placeholder = "?"
    id_placeholder = "?"
    now = f"({_AT}, {_CLOCK}) || '000')"
    _clock = _CLOCK
    skip_locked = ""
    for_update = ""
    for_share = ""
    claim_hint = ""
    group_hint = ""
    latest_hint = ""
    table_sizes = (
        "SELECT 'the whole file', NULL, page_count * page_size, 0 FROM pragma_page_count(), pragma_page_size()"
    )
    failed_hint = ""
    finished_hint = ""
    primary_hint = ""
    key_hint = ""
    insert_missing = "INSERT OR IGNORE INTO"
    straight_join = "CROSS JOIN"
    wait_hint = ""
    row_list = "VALUES "
    row_key = "rowid"
    claimable = Dialect.claimable.also(
        row_key=row_key, waited="CAST((julianday('now') - julianday(available_at)) * 86400e6 AS INTEGER)"
    )
    is_queue = "queue IS ?"
    as_failed = MappingProxyType(
        {
            "queue": "COALESCE(queue, '')",
            "name": "COALESCE(name, '')",
            "priority": "COALESCE(priority, 5)",
            "payload": "COALESCE(payload, 'null')",
            "headers": "COALESCE(headers, '{}')",
            "attempts": "COALESCE(attempts, 0)",
        }
    )
    # What is kept as a BLOB was written as one: as text, it may be a job.
    as_live = MappingProxyType(
        {
            **{name: f"CAST({name} AS TEXT)" for name in ("queue", "name", "payload", "headers")},
            "priority": f"CASE WHEN priority IN ({PRIORITY_LIST}) THEN priority ELSE 5 END",
            "attempts": "0",
        }
    )
    settings = (
        "SELECT 'journal_mode', journal_mode FROM pragma_journal_mode "
        "UNION ALL SELECT 'file', file FROM pragma_database_list WHERE name = 'main'"
    )

    def now_ahead(self, microseconds: int) -> str:
        self._clock = f"{_CLOCK}, '{microseconds / MICROSECONDS:f} seconds'" if microseconds else _CLOCK
        return f"({_AT}, {self._clock}) || '000')"

    def now_plus(self, microseconds: str) -> str:
        return f"({_AT}, {self._clock}, (({microseconds}) / 1000000.0) || ' seconds') || '000')"

    def update_existing(self, key: str) -> str:
        return f"ON CONFLICT ({key}) DO UPDATE SET"

    def microseconds(self, moment: str) -> str:
        return f"(CAST(strftime('%s', {moment}) AS INTEGER) * 1000000 + CAST(substr({moment}, 21, 6) AS INTEGER))"

    def minute_of(self, moment: str) -> str:
        return f"strftime('%Y-%m-%d %H:%M:00.000000', {moment})"

    def key_of(self, row: Any) -> Any:
        return row.row_key

    def seconds_until(self, moment: str) -> str:
        return f"(julianday({moment}) - julianday({self.now})) * 86400.0"

    def json_text(self, column: str, path: str) -> str:
        return f"(CASE WHEN json_valid({column}) THEN CAST(json_extract({column}, '$.{path}') AS TEXT) END)"

    def exception_text(self, key: str) -> str:
        column = "queue_failed_jobs.exception"
        return (
            f"COALESCE(CASE WHEN json_valid({column}) THEN CAST(json_extract({column}, '$.{key}') AS TEXT) END, "
            "'unknown')"
        )

    def after_place(self, place: JobPlace) -> ColumnElement[bool]:
        # SQLite searches an index by several columns at once, and reads all of it for the alternatives written out.
        columns, values = zip(*self._place(place), strict=True)
        return and_(tuple_(*columns[:3]) >= tuple_(*values[:3]), tuple_(*columns) > tuple_(*values))

    def up_to_place(self, place: JobPlace) -> ColumnElement[bool]:
        columns, values = zip(*self._place(place), strict=True)
        return and_(tuple_(*columns[:3]) <= tuple_(*values[:3]), tuple_(*columns) <= tuple_(*values))

    def place(self, alias: str) -> str:
        return f"({alias}.moment || printf('%020d', {alias}.seq))"

    def drains(self) -> str:
        return f"instr(',' || queues || ',', ',' || {self.placeholder} || ',')"

    def next_due(self, queues: int) -> str:
        # Not a SELECT for each group: SQLite joins at most 500 of them.
        names, levels = (
            ", ".join([f"({self.placeholder})"] * queues),
            ", ".join(f"({priority})" for priority in PRIORITIES),
        )
        return (
            f"WITH names (queue) AS (VALUES {names}), levels (priority) AS (VALUES {levels}) "
            f"SELECT queue, priority, moment, {self.now}, {self.seconds_until('moment')}, workers FROM ("
            "SELECT names.queue AS queue, levels.priority AS priority, (SELECT MIN(available_at) FROM queue_jobs "
            "WHERE queue_jobs.queue = names.queue AND queue_jobs.priority = levels.priority) AS moment, 0 AS workers "
            "FROM names, levels "
            "UNION ALL SELECT NULL, NULL, NULL, COUNT(*) FROM queue_workers WHERE running < concurrency "
            f"AND {self.seen_lately} AND EXISTS (SELECT 1 FROM names "
            "WHERE instr(',' || queue_workers.queues || ',', ',' || names.queue || ',')) "
            "UNION ALL SELECT queue, NULL, paused_until, NULL FROM queue_pauses WHERE (queue = "
            f"'{EVERY_QUEUE}' OR queue IN (SELECT queue FROM names)) "
            f"AND (paused_until IS NULL OR paused_until > {self.now}))"
        )

    def probe_parameters(self, priority_cursors: Sequence[tuple[str, int]], queues: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        return tuple(queues)

    def queues_with_due(self, queues: int) -> str:
        # Grouped, it would read every delayed job of the queues.
        names = ", ".join([f"({self.placeholder})"] * queues)
        return (
            f"SELECT column1 FROM (VALUES {names}) WHERE EXISTS (SELECT 1 FROM queue_jobs WHERE queue = column1 "
            f"AND priority IN ({PRIORITY_LIST}) AND available_at <= {self.now})"
        )

    def queues_of_jobs(self) -> str:
        # DISTINCT would read the whole index.
        return (
            "WITH RECURSIVE names (queue) AS (SELECT MIN(queue) FROM queue_jobs UNION ALL "
            "SELECT (SELECT MIN(queue_jobs.queue) FROM queue_jobs WHERE queue_jobs.queue > names.queue) "
            "FROM names WHERE names.queue IS NOT NULL) SELECT queue FROM names WHERE queue IS NOT NULL "
            "UNION ALL SELECT queue FROM (SELECT queue FROM queue_jobs WHERE queue IS NULL LIMIT 1)"
        )

    @property
    def unusual(self) -> str:
        # Joined by OR, the conditions would be no ranges.
        ranges = ["priority < 0", "priority > 9", "priority IS NULL"]
        ranges.append(f"priority IN ({PRIORITY_LIST}) AND available_at IS NULL")
        selects = [f"SELECT rowid FROM queue_jobs WHERE {self.is_queue} AND {each}" for each in ranges]
        return f"rowid IN ({' UNION ALL '.join(selects)})"

    def unclaimable(self, limit: int) -> str:
        # Text sorts after numbers, and BLOBs after text. Each condition is a range; joined by OR they would be none.
        ranges = [
            "priority < 0",
            "priority > 9",
            "priority IS NULL",
            *(f"priority > {priority} AND priority < {priority + 1}" for priority in PRIORITIES[:-1]),
            f"priority IN ({PRIORITY_LIST}) AND available_at IS NULL",
            f"priority IN ({PRIORITY_LIST}) AND available_at >= ':'",
            f"priority IN ({PRIORITY_LIST}) AND available_at >= '3000' AND available_at < ':' "
            "AND available_at NOT GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]*'",
        ]
        selects = [f"SELECT rowid FROM queue_jobs WHERE queue = ? AND {each}" for each in ranges]
        return (
            f"SELECT {self.unreadable.sql} FROM queue_jobs WHERE rowid IN ("
            f"{' UNION ALL '.join([*selects, self._held_for_ever()])}) LIMIT {limit}"
        )

    def due_parameters(self, queues: Sequence[str]) -> tuple[str, ...]:
        return tuple(queues)

    def keep_existing(self, table: str, *key: str) -> str:  # noqa: ARG002
        return f"ON CONFLICT ({', '.join(key)}) DO NOTHING"

    def select_by_key(
        self, columns: str, table: str, column: str, keys: Sequence[bytes], *, also: str = "", lock: str = ""
    ) -> Statement:
        where = f"{table}.{column} IN ({self.placeholders(len(keys))}){also and f' AND {also}'}"
        return f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {column} {lock}", tuple(keys)

    def lock_slots(self, slots: Sequence[int], table: str = "queue_lock_slots") -> Statement:
        # A SELECT would not begin a transaction that writes.
        return (
            f"UPDATE {table} SET slot = slot WHERE slot IN ({self.placeholders(len(slots))}) RETURNING slot",
            tuple(slots),
        )

    def remove_held(self, ids: str) -> str:
        return f"DELETE FROM queue_jobs WHERE id IN ({ids}) AND reserved_by = {self.placeholder}"
