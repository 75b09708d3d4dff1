"""MySQL 8.0+ and MariaDB 10.6+."""

from __future__ import annotations

from datetime import UTC, datetime

from outbox.drivers.database.dialects.base import Dialect
from outbox.drivers.database.tables import CLAIM_INDEX


class MySQL(Dialect):
    p = "%s"
    now = "UTC_TIMESTAMP(6)"
    skip_locked = "FOR UPDATE SKIP LOCKED"
    for_update = "FOR UPDATE"
    claim_hint = f"FORCE INDEX ({CLAIM_INDEX})"
    primary_hint = "FORCE INDEX (PRIMARY)"
    # Not INSERT IGNORE, which would also turn errors such as a value out of range into warnings.
    keep_existing = "ON DUPLICATE KEY UPDATE id = queue_jobs.id"
    replace = "REPLACE"
    settings = (
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin', "
        "'binlog_format', 'read_only', 'super_read_only', 'max_allowed_packet')"
    )

    def later(self, microseconds: str) -> str:
        return f"{self.now} + INTERVAL {microseconds} MICROSECOND"

    def moment(self, when: datetime) -> str:
        return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")

    def until(self, moment: str) -> str:
        return f"TIMESTAMPDIFF(MICROSECOND, {self.now}, {moment}) / 1e6"

    def remove_held(self, count: int) -> str:
        return f"{self.remove(count)} AND reserved_by = {self.p}"

    def remove(self, count: int, table: str = "queue_jobs") -> str:
        # The form for several tables, because the one for a single table takes no index hint.
        return f"DELETE {table} FROM {table} {self.primary_hint} WHERE id IN ({self.marks(count)})"
