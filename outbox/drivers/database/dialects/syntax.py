"""Pieces of SQL that the statements of a dialect are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from outbox.options import PRIORITIES

# Written out, so that each priority is one range of the claim index and the ranges are read in its order.
PRIORITY_LIST = ", ".join(str(priority) for priority in PRIORITIES)

MICROSECONDS = 1_000_000

NO_MOMENT = datetime(1970, 1, 1, tzinfo=UTC)


class Syntax(ABC):
    placeholder: str
    """The placeholder of a parameter, as the drivers have it."""
    id_placeholder: str
    """The placeholder of an id in the INSERT of jobs."""
    now: str
    """The database's clock, in UTC, with the finest fraction it has."""
    claim_hint: str
    primary_hint: str
    """Index hints after the name of ``queue_jobs``. Without them the optimizer scans all of a nearly empty table, and
    locks or waits for rows that the statement does not need."""
    loose_scans: tuple[str, ...] = ()
    """What EXPLAIN may say of a statement that reads one entry of each group of an index; empty where it says
    nothing."""
    group_hint: str
    """A hint to read ``queue_failed_jobs`` by fingerprint."""
    latest_hint: str
    """A hint to read ``queue_failed_jobs`` by time."""
    failed_hint: str
    """A hint to read ``queue_failed_jobs`` by queue."""
    finished_hint: str
    """A hint to read ``queue_finished_jobs`` by time."""
    table_sizes: str
    """Name, rows and bytes of data and of indexes of outbox's tables, the largest first. SQLite knows its file only."""
    fresh_sizes: str = ""
    """Has the server tell sizes of now and not of a day ago; empty where it does anyway."""
    oldest_transaction: Sequence[str] = ()
    """Seconds for which the oldest transaction of another connection has been open; empty where nothing tells."""
    straight_join: str
    """Joins a table to the one before it, which is read first whatever the optimizer expects."""
    wait_hint: str
    """A hint to read ``queue_rate_waits`` by rate."""
    row_key: str = "id"
    """The key of a row of ``queue_jobs`` that is unique even where other columns hold wrong values."""

    @abstractmethod
    def now_ahead(self, microseconds: int) -> str:
        """`now`, so many microseconds ahead of the database's clock."""

    def travel(self, microseconds: int) -> None:
        """Put `now` ahead of the database's clock, for tests: in this process, until the next call."""
        self.now = self.now_ahead(microseconds)
        # What was put together with the old one.
        vars(self).pop("_around_available_at", None)

    @abstractmethod
    def now_plus(self, microseconds: str) -> str:
        """The time ``microseconds`` from now. Both are SQL expressions."""

    def seconds_from_now(self, seconds: float) -> str:
        """The time so many seconds from now, as an SQL expression; a negative number gives a time that has passed."""
        return self.now_plus(str(int(seconds * MICROSECONDS)))

    @abstractmethod
    def update_existing(self, key: str) -> str:
        """Between the values of an INSERT and the assignments for a row whose ``key`` is there already."""

    @abstractmethod
    def microseconds(self, moment: str) -> str:
        """Whole microseconds from 1970 to the time ``moment``, as SQL expressions."""

    @abstractmethod
    def minute_of(self, moment: str) -> str:
        """The beginning of the minute that the time ``moment`` is in, as SQL expressions."""

    def timestamp(self, when: datetime) -> str:
        """An aware datetime as a parameter."""
        return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")

    @abstractmethod
    def seconds_until(self, moment: str) -> str:
        """Seconds from now to the time ``moment``, as a float. Both are SQL expressions."""

    @abstractmethod
    def keep_existing(self, table: str, *key: str) -> str:
        """The end of an INSERT into ``table`` that leaves rows alone whose ``key``, of these columns, is there."""

    @abstractmethod
    def select_by_key(
        self, columns: str, table: str, column: str, keys: Sequence[bytes], *, also: str = "", lock: str = ""
    ) -> tuple[str, tuple[Any, ...]]:
        """Read ``columns`` of those rows of ``table`` whose primary key, of one ``column``, is among ``keys``, in their
        order, and that meet ``also``. It reads, and locks, no other row: see `for_update` and `skip_locked`."""

    @abstractmethod
    def lock_slots(self, slots: Sequence[int], table: str = "queue_lock_slots") -> tuple[str, tuple[Any, ...]]:
        """Lock these rows of a table of slots, in their order. Returns a row for each that is there."""

    def parse_timestamp(self, value: Any) -> datetime:
        """The aware datetime of a value that a driver returned; 1970 where it is no time."""
        try:
            return (datetime.fromisoformat(value) if isinstance(value, str) else value).replace(tzinfo=UTC)
        except (ValueError, TypeError, AttributeError):
            return NO_MOMENT

    def placeholders(self, count: int) -> str:
        return ", ".join([self.placeholder] * count)

    def case(self, column: str, count: int, otherwise: str = "") -> str:
        """A value for each of ``count`` rows. Parameters: (value of ``column``, value) per row."""
        cases = " ".join([f"WHEN {self.placeholder} THEN {self.placeholder}"] * count)
        return f"CASE {column} {cases} {otherwise and f'ELSE {otherwise} '}END"
