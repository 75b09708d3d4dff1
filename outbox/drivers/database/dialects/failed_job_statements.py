"""Statements that move jobs to `queue_failed_jobs` and back, and that find rows that no claim can read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

from outbox.drivers.database.dialects.syntax import PRIORITY_LIST, Syntax
from outbox.drivers.database.raw_columns import Selection
from outbox.drivers.database.tables import CLAIMED, KEPT, failed_jobs

RESCUED, ANY_PAUSE = 1, 2
"""Flags of a row: an earlier claim ended without being settled; a job class or a key may be paused."""

_DUE_ROWS_LOOKED_AT = 1_000
_LONGEST_HOLD = 2 * 86_400
"""Seconds: twice the longest lease that a worker can have."""
_KEPT = ", ".join(KEPT)
_INTO_FAILED = f"REPLACE INTO queue_failed_jobs (connection, {_KEPT}, exception, failed_at, fingerprint)"


class FailedJobStatements(Syntax):
    """Parameters are given in the order in which the docstrings list them."""

    claimable = Selection(
        {
            **{name: name for name in CLAIMED},
            # One column for both: each costs the server and the driver something for every row.
            "flags": f"(reserved_by IS NOT NULL) + {ANY_PAUSE} * EXISTS (SELECT 1 FROM queue_job_pauses)",
        }
    )
    """What `select_claimable` reads of a row. ``flags`` are `RESCUED` and `ANY_PAUSE`. Each dialect adds ``waited``:
    microseconds for which it could have been claimed."""
    is_queue: str
    """Whether a row is in a queue, which may be NULL. Parameters: queue."""
    as_failed: Mapping[str, str]
    """Columns of an unreadable row as ``queue_failed_jobs`` can hold them, where that takes more than the column."""
    # A row that was written with another priority failed because of it.
    as_live: Mapping[str, str] = MappingProxyType(
        {"priority": "CASE WHEN priority BETWEEN 0 AND 9 THEN priority ELSE 5 END", "attempts": "0"}
    )
    """Columns of a failed row as a claim can read them, where that takes more than the column."""

    def copy_to_failed(self, count: int) -> str:
        """Parameters: connection; (id, exception as JSON) per row; (id, fingerprint) per row; ids."""
        case = self.case("id", count)
        return (
            f"{_INTO_FAILED} SELECT {self.placeholder}, {_KEPT}, {case}, {self.now}, {case} "
            f"FROM queue_jobs {self.primary_hint} WHERE id IN ({self.placeholders(count)})"
        )

    def copy_unreadable(self, count: int) -> str:
        """Parameters: connection; (row key, id) per row; (row key, exception as JSON) per row; (row key, fingerprint)
        per row; row keys."""
        case = self.case(self.row_key, count)
        kept = [case if name == "id" else self.as_failed.get(name, name) for name in KEPT]
        return (
            f"{_INTO_FAILED} SELECT {self.placeholder}, {', '.join(kept)}, {case}, {self.now}, {case} "
            f"FROM queue_jobs {self.primary_hint} WHERE {self.row_key} IN ({self.placeholders(count)})"
        )

    def remove_unreadable(self, count: int) -> str:
        """Parameters: row keys."""
        return f"DELETE FROM queue_jobs WHERE {self.row_key} IN ({self.placeholders(count)})"

    def rows_of_queue(self, limit: int) -> str:
        """Rows of a queue that no worker can drain, as `unclaimable` gives them. Parameters: queue."""
        return f"SELECT {self.unreadable.sql} FROM queue_jobs {self.claim_hint} WHERE {self.is_queue} LIMIT {limit}"

    @cached_property
    def unreadable(self) -> Selection:
        """What `unclaimable` and `rows_of_queue` read of a row."""
        return self.claimable.also(row_key=self.row_key, reserved_until="reserved_until")

    @abstractmethod
    def queues_of_jobs(self) -> str:
        """The names of all queues that have live jobs, read from one entry of the claim index each."""

    @property
    @abstractmethod
    def unusual(self) -> str:
        """A condition: rows of a queue that are in no range of `due`, nor of jobs that become due later. Parameters:
        queue, once for each placeholder."""

    @abstractmethod
    def unclaimable(self, limit: int) -> str:
        """Rows of a queue that no claim meets. Only ranges of the claim index are read, and the first due rows for
        holds that do not end. Parameters: queue, once for each placeholder."""

    def _held_for_ever(self) -> str:
        """Row keys of rows whose hold does not end, among the first due rows of a queue."""
        return (
            f"SELECT {self.row_key} FROM (SELECT {self.row_key}, reserved_until FROM queue_jobs {self.claim_hint} "
            f"WHERE queue = {self.placeholder} AND priority IN ({PRIORITY_LIST}) AND available_at <= {self.now} "
            f"ORDER BY priority, available_at LIMIT {_DUE_ROWS_LOOKED_AT}) AS due "
            f"WHERE reserved_until > {self.seconds_from_now(_LONGEST_HOLD)}"
        )

    def failures(self, count: int) -> str:
        """The exceptions of failed jobs, as JSON. Parameters: ids."""
        return (
            f"SELECT id, exception FROM queue_failed_jobs {self.primary_hint} "
            f"WHERE id IN ({self.placeholders(count)}) ORDER BY id"
        )

    def keep_failed(self, count: int) -> str:
        """Failed jobs of another store, whose clock may be ahead of this one. Parameters per row: all columns in their
        order, ``failed_at`` twice."""
        earlier = f"CASE WHEN {self.placeholder} < {self.now} THEN {self.placeholder} ELSE {self.now} END"
        row = ", ".join(earlier if column.name == "failed_at" else self.placeholder for column in failed_jobs.c)
        names = ", ".join(failed_jobs.c.keys())
        return f"REPLACE INTO queue_failed_jobs ({names}) VALUES {', '.join([f'({row})'] * count)}"

    def copy_from_failed(self, count: int) -> str:
        """Failed jobs become live again without their payloads leaving the server. Parameters: ids."""
        live = [self.as_live.get(name, name) for name in KEPT]
        return (
            f"INSERT INTO queue_jobs ({_KEPT}, available_at, created_at) "
            f"SELECT {', '.join(live)}, {self.now}, {self.now} FROM queue_failed_jobs {self.primary_hint} "
            f"WHERE id IN ({self.placeholders(count)}) {self.keep_existing('queue_jobs', 'id')}"
        )

    @abstractmethod
    def json_text(self, column: str, path: str) -> str:
        """The text at ``path``, such as ``keys.fair.name``, of a column that may hold broken JSON; NULL where there is
        none. Compared byte by byte."""

    @abstractmethod
    def exception_text(self, key: str) -> str:
        """The ``type`` or the ``message`` of a failed job's exception, compared byte by byte. ``unknown`` for rows of
        other programs that have none."""
