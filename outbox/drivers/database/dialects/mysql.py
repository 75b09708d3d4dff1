"""MySQL 8.0+ and MariaDB 10.6+."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Select, Table, TextClause, column, func, text

from outbox.drivers.database.dialects.base import Dialect, Statement
from outbox.drivers.database.dialects.bulk_insert import WORTH_A_DOCUMENT, bulk_insert
from outbox.drivers.database.dialects.syntax import PRIORITY_LIST
from outbox.drivers.database.tables import CLAIM_INDEX, EVERY_QUEUE
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.options import PRIORITIES

_CLOCK = "UTC_TIMESTAMP(6)"


class MySQL(Dialect):
    placeholder = "%s"
    id_placeholder = "UNHEX(%s)"
    now = _CLOCK
    claimable = Dialect.claimable.also(waited=f"TIMESTAMPDIFF(MICROSECOND, available_at, {_CLOCK})")
    skip_locked = "FOR UPDATE SKIP LOCKED"
    for_update = "FOR UPDATE"
    for_share = "LOCK IN SHARE MODE"
    claim_hint = f"FORCE INDEX ({CLAIM_INDEX})"
    group_hint = "FORCE INDEX (queue_failed_jobs_fingerprint)"
    loose_scans = ("Using index for group-by", "index skip scan for")  # as a table, and as a tree
    latest_hint = "FORCE INDEX (queue_failed_jobs_failed_at)"
    failed_hint = "FORCE INDEX (queue_failed_jobs_queue)"
    finished_hint = "FORCE INDEX (queue_finished_jobs_finished_at)"
    primary_hint = "FORCE INDEX (PRIMARY)"
    table_sizes = (
        "SELECT table_name, table_rows, data_length, index_length FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND LEFT(table_name, 6) = 'queue_' "
        "ORDER BY data_length + index_length DESC, table_name"
    )
    fresh_sizes = "SET @outbox_sizes = 0 /*!80003 , SESSION information_schema_stats_expiry = 0 */"  # not of MariaDB
    # The times are in the zone of the server's machine.
    oldest_transaction = (
        "SELECT MAX(TIMESTAMPDIFF(MICROSECOND, trx_started, CONVERT_TZ(NOW(6), @@session.time_zone, 'SYSTEM'))) / 1e6 "
        "FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> CONNECTION_ID()",
        "SELECT MAX(timer_wait) / 1e12 FROM performance_schema.events_transactions_current "
        "WHERE state = 'ACTIVE' AND thread_id <> PS_CURRENT_THREAD_ID()",
    )
    straight_join = "STRAIGHT_JOIN"
    wait_hint = "FORCE INDEX (queue_rate_waits_rate)"
    key_hint = "FORCE INDEX (queue_keyed_jobs_key)"
    insert_missing = "INSERT IGNORE INTO"
    unchecked = "/*M! SET STATEMENT check_constraint_checks = 0 FOR */ "  # a comment to MySQL
    keeps_deleted = True
    is_queue = "queue <=> %s"
    as_failed = MappingProxyType(
        {
            "queue": "COALESCE(LEFT(CONVERT(queue USING ascii), 64), '')",
            "name": "COALESCE(LEFT(CONVERT(name USING ascii), 255), '')",
            "priority": "LEAST(GREATEST(COALESCE(priority, 5), 0), 65535)",
            "payload": "COALESCE(payload, 'null')",
            "headers": "COALESCE(headers, '{}')",
            "attempts": "LEAST(GREATEST(COALESCE(attempts, 0), 0), 65535)",
        }
    )
    settings = (
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin', "
        "'binlog_format', 'read_only', 'super_read_only', 'max_allowed_packet')"
    )

    def now_ahead(self, microseconds: int) -> str:
        return f"({_CLOCK} + INTERVAL {microseconds} MICROSECOND)" if microseconds else _CLOCK

    def now_plus(self, microseconds: str) -> str:
        return f"{self.now} + INTERVAL {microseconds} MICROSECOND"

    def update_existing(self, key: str) -> str:  # noqa: ARG002
        return "ON DUPLICATE KEY UPDATE"

    def microseconds(self, moment: str) -> str:
        return f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {moment})"

    def minute_of(self, moment: str) -> str:
        return f"TIMESTAMP(DATE({moment}), MAKETIME(HOUR({moment}), MINUTE({moment}), 0))"

    def seconds_until(self, moment: str) -> str:
        return f"TIMESTAMPDIFF(MICROSECOND, {self.now}, {moment}) / 1e6"

    def json_text(self, column: str, path: str) -> str:
        text = f"CASE WHEN JSON_VALID({column}) THEN JSON_UNQUOTE(JSON_EXTRACT({column}, '$.{path}')) END"
        return f"(CONVERT({text} USING utf8mb4) COLLATE utf8mb4_bin)"

    def exception_text(self, key: str) -> str:
        text = f"COALESCE(JSON_UNQUOTE(JSON_EXTRACT(queue_failed_jobs.exception, '$.{key}')), 'unknown')"
        return f"(CONVERT({text} USING utf8mb4) COLLATE utf8mb4_bin)"

    def place(self, alias: str) -> str:
        return f"CONCAT({alias}.moment, LPAD({alias}.seq, 20, '0'))"

    def drains(self) -> str:
        return f"FIND_IN_SET({self.placeholder}, queues)"

    def id_parameter(self, job_id: JobId) -> str:
        # asyncmy takes fifteen times as long to quote bytes. A literal would give each job a statement of its own.
        return job_id.hex

    def insert_many(self, jobs: Sequence[Envelope]) -> Statement:
        return self.insert(jobs) if len(jobs) < WORTH_A_DOCUMENT else bulk_insert(self, jobs)

    def next_due(self, queues: int) -> str:
        return (
            f"SELECT queue, priority, moment, {self.now}, {self.seconds_until('moment')}, workers FROM ("
            f"SELECT queue, priority, {self.first(*_PRIORITY)} AS moment, 0 AS workers FROM {_PRIORITIES} "
            "UNION ALL SELECT NULL, NULL, NULL, COUNT(*) FROM queue_workers WHERE running < concurrency "
            f"AND {self.seen_lately} AND ({' OR '.join([self.drains()] * queues)}) "
            "UNION ALL SELECT queue, NULL, paused_until, NULL FROM queue_pauses "
            f"WHERE queue IN ({self.placeholders(queues)}, '{EVERY_QUEUE}') "
            f"AND (paused_until IS NULL OR paused_until > {self.now})) AS looked_at"
        )

    def probe_parameters(self, priority_cursors: Sequence[tuple[str, int]], queues: Sequence[str]) -> tuple[str, ...]:
        return (json.dumps(priority_cursors), *queues, *queues)

    def queues_with_due(self, queues: int) -> str:  # noqa: ARG002
        return f"SELECT DISTINCT queue FROM {_PRIORITIES} WHERE {self.first(*_PRIORITY)} <= {self.now}"

    def due_parameters(self, queues: Sequence[str]) -> tuple[str, ...]:
        return (json.dumps([(queue, priority) for queue in queues for priority in PRIORITIES]),)

    def queues_of_jobs(self) -> str:
        return f"SELECT DISTINCT queue FROM queue_jobs {self.claim_hint}"

    @property
    def unusual(self) -> str:
        return f"{self.is_queue} AND (priority < 0 OR priority > 9)"

    def unclaimable(self, limit: int) -> str:
        columns = self.unreadable.sql
        # Two statements in one: each alone is a range, and what is held for ever is in no index.
        return (
            f"(SELECT {columns} FROM queue_jobs {self.claim_hint} WHERE queue = %s AND (priority < 0 OR priority > 9 "
            f"OR priority IS NULL OR (priority IN ({PRIORITY_LIST}) "
            f"AND (available_at IS NULL OR available_at < '1000-01-01'))) LIMIT {limit}) UNION ALL "
            f"(SELECT {columns} FROM queue_jobs JOIN ({self._held_for_ever()}) AS held USING (id) "
            f"LIMIT {limit})"
        )

    def each_id(self, ids: Sequence[bytes]) -> tuple[list[str], tuple[bytes, ...]]:
        # asyncmy takes fifteen times as long to quote each as a parameter, and quotes bytes with backslashes where
        # NO_BACKSLASH_ESCAPES is set, too.
        return [f"x'{key.hex()}'" for key in ids], ()

    def keep_existing(self, table: str, *key: str) -> str:
        # Not INSERT IGNORE, which would also turn errors such as a value out of range into warnings.
        return f"ON DUPLICATE KEY UPDATE {key[0]} = {table}.{key[0]}"

    def select_by_key(
        self, columns: str, table: str, column: str, keys: Sequence[bytes], *, also: str = "", lock: str = ""
    ) -> Statement:
        if len(keys) == 1:
            where = f"{table}.{column} = x'{keys[0].hex()}'"
            return (
                f"SELECT {columns} FROM {table} {self.primary_hint} WHERE {where}{also and f' AND {also}'} {lock}",
                (),
            )
        listed = ", ".join(f'"{key.hex()}"' for key in keys)
        # Within a SELECT of its own: MySQL refuses to lock a JSON_TABLE.
        table_of_keys = f"JSON_TABLE('[{listed}]', '$[*]' COLUMNS (hex CHAR({2 * len(keys[0])}) PATH '$'))"
        picked = f"(SELECT hex FROM {table_of_keys} AS listed) AS picked"
        joined = f"{picked} STRAIGHT_JOIN {table} {self.primary_hint} ON {table}.{column} = UNHEX(picked.hex)"
        return f"SELECT {columns} FROM {joined}{also and f' WHERE {also}'} {lock}", ()

    def lock_slots(self, slots: Sequence[int], table: str = "queue_lock_slots") -> Statement:
        if len(slots) == 1:
            return f"SELECT slot FROM {table} WHERE slot = {slots[0]:d} FOR UPDATE", ()
        listed = ", ".join(map(str, slots))
        return (
            f"SELECT slot FROM (SELECT number FROM JSON_TABLE('[{listed}]', '$[*]' COLUMNS (number INT PATH '$')) "
            "AS listed) AS picked "
            f"STRAIGHT_JOIN {table} {self.primary_hint} ON slot = picked.number FOR UPDATE",
            (),
        )

    def remove_held(self, ids: str) -> str:
        return (
            f"DELETE queue_jobs FROM queue_jobs {self.primary_hint} "
            f"WHERE id IN ({ids}) AND reserved_by = {self.placeholder}"
        )

    def remove(self, count: int) -> str:
        # The form for several tables, because the one for a single table takes no index hint. And a look at a column
        # outside the key: without one the optimizer reads the whole index whenever the list names most of the table.
        return (
            f"DELETE queue_jobs FROM queue_jobs {self.primary_hint} WHERE id IN ({self.placeholders(count)}) "
            "AND reserved_by IS NOT NULL"
        )

    # Where a list of ids names most of a small table, the optimizer reads the whole table, even with an index hint. It
    # then waits for every row that another transaction is writing. A join with the list looks up each row by its key.

    def by_ids(self, query: Select[Any], table: Table, ids: Sequence[bytes]) -> Select[Any]:
        picked = text(f"SELECT hex FROM {_PICKED}").bindparams(ids=_json(ids)).columns(column("hex")).subquery("picked")
        return (
            query.select_from(picked.join(table, table.c.id == func.unhex(picked.c.hex)))
            .prefix_with("STRAIGHT_JOIN")
            .with_hint(table, self.primary_hint)
        )

    def delete(self, table: Table, ids: Sequence[bytes]) -> TextClause:
        name = table.name
        return text(
            f"DELETE {name} FROM {_PICKED} STRAIGHT_JOIN {name} {self.primary_hint} ON {name}.id = UNHEX(picked.hex)"
        ).bindparams(ids=_json(ids))


_PRIORITIES = (
    "JSON_TABLE(%s, '$[*]' COLUMNS (queue VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin PATH '$[0]', "
    "priority SMALLINT UNSIGNED PATH '$[1]')) AS priorities"
)
_PRIORITY = ("priorities.queue", "priorities.priority")
_PICKED = "JSON_TABLE(:ids, '$[*]' COLUMNS (hex CHAR(32) PATH '$')) AS picked"


def _json(ids: Sequence[bytes]) -> str:
    return json.dumps([key.hex() for key in ids])
