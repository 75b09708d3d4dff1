"""What a dialect owes: statements as text, in the placeholders of its drivers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Delete, Select, Table, Text, TextClause, and_, delete, literal, or_

from outbox.drivers.database.raw_columns import Selection
from outbox.drivers.database.tables import CLAIMED, FROM_ENVELOPE, KEPT, failed_jobs, jobs
from outbox.drivers.filters import JobPlace
from outbox.envelope import Envelope
from outbox.job import PRIORITIES

MICROSECONDS = 1_000_000
# Written out, so that each priority is one range of the claim index and the ranges are read in its order.
PRIORITY_LIST = ", ".join(str(priority) for priority in PRIORITIES)
# What the column holds; one more would be an error, and no claim that meets the row would succeed.
_MAX_ATTEMPTS = 65_535

_NO_MOMENT = datetime(1970, 1, 1, tzinfo=UTC)
_DUE_ROWS_LOOKED_AT = 1_000
_KEPT = ", ".join(KEPT)
_INTO_FAILED = f"REPLACE INTO queue_failed_jobs (connection, {_KEPT}, exception, failed_at)"
_from_envelope = attrgetter(*FROM_ENVELOPE)

Statement = tuple[str, tuple[Any, ...]]
"""SQL and its parameters."""


class Dialect(ABC):
    """Statements that claim, settle and insert. Parameters are given in the order in which the docstrings list them."""

    placeholder: str
    """The placeholder of the drivers."""
    now: str
    """The database's clock, in UTC, with the finest fraction it has."""
    skip_locked: str
    """What ends a select whose rows the transaction will write, skipping rows that others are writing."""
    for_update: str
    """The same, waiting for them."""
    claim_hint: str
    primary_hint: str
    """Index hints after the name of ``queue_jobs``. On a nearly empty table the optimizer would rather scan all of it,
    and lock or wait for rows that are none of the statement's business."""
    insert_into = f"INSERT INTO queue_jobs (id, {', '.join(FROM_ENVELOPE)}, attempts, available_at, created_at)"
    keep_existing: str
    """What ends an INSERT that leaves rows alone whose id is there already."""
    row_list: str = ""
    """What goes before a list of rows on the right of IN."""
    unchecked: str = ""
    """What goes before an UPDATE of a row that may hold broken JSON. MariaDB checks the JSON columns of every row that
    is written, whether they are written or not, and refuses: no worker could claim anything any more."""
    keeps_deleted: bool = False
    """Whether entries that were deleted stay in the claim index for as long as an older transaction is open, so that
    claims had better not begin at its head: see `cursors`."""
    row_key: str = "id"
    """What tells a row of ``queue_jobs`` from all others, whatever is in its columns."""
    claimable = Selection({**{name: name for name in CLAIMED}, "rescued": "reserved_by IS NOT NULL"})
    """What `select_claimable` reads of a row."""
    as_failed: Mapping[str, str]
    """Columns of an unreadable row as ``queue_failed_jobs`` can hold them, where that takes more than the column."""
    # A row that was written with another priority failed because of it.
    as_live: Mapping[str, str] = MappingProxyType(
        {"priority": "CASE WHEN priority BETWEEN 0 AND 9 THEN priority ELSE 5 END", "attempts": "0"}
    )
    """Columns of a failed row as a claim can read them, where that takes more than the column."""
    settings: str
    """Names and values of those settings of the server that `outbox check` judges."""

    @abstractmethod
    def now_plus(self, microseconds: str) -> str:
        """The moment that lies the given SQL expression of microseconds after now."""

    @abstractmethod
    def timestamp(self, when: datetime) -> Any:
        """An aware datetime as a parameter."""

    @abstractmethod
    def seconds_until(self, moment: str) -> str:
        """The seconds from now to the given SQL expression of a moment, as a float."""

    def parse_moment(self, value: Any) -> datetime:
        """A moment as the drivers return it, as an aware datetime; 1970 for what is none."""
        try:
            return (datetime.fromisoformat(value) if isinstance(value, str) else value).replace(tzinfo=UTC)
        except (ValueError, TypeError, AttributeError):
            return _NO_MOMENT

    def placeholders(self, count: int) -> str:
        return ", ".join([self.placeholder] * count)

    @cached_property
    def _around_available_at(self) -> tuple[str, str]:
        return f", {self.placeholders(len(FROM_ENVELOPE))}, 0, ", f", {self.now})"

    def insert(self, jobs: Sequence[Envelope]) -> Statement:
        """New rows, with parameters: any driver takes them, and an application's logs and traces keep them apart."""
        middle, end = self._around_available_at
        rows: list[str] = []
        parameters: list[Any] = []
        for job in jobs:
            key, key_parameters = self.id_list([job.id.bytes])
            parameters += (*key_parameters, *_from_envelope(job))
            if job.available_at is not None:
                available = self.placeholder
                parameters.append(self.timestamp(job.available_at))
            elif job.delay:
                available = self.now_plus(self.placeholder)
                parameters.append(int(job.delay * MICROSECONDS))
            else:
                available = self.now
            rows.append(f"({key}{middle}{available}{end}")
        return f"{self.insert_into} VALUES {', '.join(rows)} {self.keep_existing}", tuple(parameters)

    def insert_many(self, jobs: Sequence[Envelope]) -> Statement:
        """The same in the form that is written fastest over outbox's own drivers. It may have four times as many
        bytes."""
        return self.insert(jobs)

    def select_claimable(self) -> str:
        """Parameters: queue, queue, limit."""
        return self._claimable(f"priority IN ({PRIORITY_LIST}) AND available_at <= {self.now}")

    def select_claimable_from(self, priorities: Sequence[int]) -> str:
        """The same of some priorities, each from a moment on: still one range of the claim index for each, in its
        order. Parameters: queue, moments, queue, limit."""
        ranges = " OR ".join(
            f"(priority = {priority} AND available_at >= {self.placeholder} AND available_at <= {self.now})"
            for priority in priorities
        )
        return self._claimable(f"({ranges})")

    def select_claimable_in(self, priority: int) -> str:
        """The same of one priority, from a moment on. The column ``urgent`` says whether there may be a job of a more
        urgent one. Parameters: queue, once for each more urgent priority; queue, moment, queue, limit."""
        firsts = [f"{self.first(self.placeholder, str(urgent))} <= {self.now}" for urgent in range(priority)]
        return self._claimable(
            f"priority = {priority} AND available_at >= {self.placeholder} AND available_at <= {self.now}",
            f", COALESCE({' OR '.join(firsts) or 'NULL'}, 0)",
        )

    def _claimable(self, where: str, more: str = "") -> str:
        return (
            f"SELECT {self.claimable.sql}{more} FROM queue_jobs {self.claim_hint} "
            f"WHERE queue = {self.placeholder} AND {where} "
            f"AND (reserved_until IS NULL OR reserved_until <= {self.now}) "
            f"AND NOT EXISTS (SELECT 1 FROM queue_pauses WHERE queue_pauses.queue = {self.placeholder}) "
            f"ORDER BY priority, available_at LIMIT {self.placeholder} {self.skip_locked}"
        )

    def key_of(self, row: Any) -> Any:
        """The row key of a row of `claimable`."""
        return row.id

    def first(self, queue: str, priority: str) -> str:
        """When the first job of a queue and priority becomes available, as an expression; both are expressions."""
        # By equality, and ordered by all columns of the claim index: no row is sorted, whatever the optimizer thinks of
        # the table, and the read ends where the priority ends. A range or a MIN goes on to the next entry that is not
        # deleted, through all that are in the priorities after it.
        return (
            f"(SELECT jobs.available_at FROM queue_jobs AS jobs {self.claim_hint} "
            f"WHERE jobs.queue = {queue} AND jobs.priority = {priority} "
            "ORDER BY jobs.queue, jobs.priority, jobs.available_at LIMIT 1)"
        )

    def id_list(self, ids: Sequence[bytes]) -> tuple[str, tuple[bytes, ...]]:
        """A list of ids for the statements that every job passes through, with its parameters."""
        return self.placeholders(len(ids)), tuple(ids)

    def reserve(self, ids: str, *, in_place: bool = False) -> str:
        """Parameters: token; microseconds of the lease, twice, or once ``in_place``; those of ``ids``, which `among`
        makes.

        Both moments move to the end of the lease: what is held leaves the part of the claim index that claims read, so
        that they never meet a row that its holder is about to delete, nor walk over thousands of long jobs.
        ``in_place`` it stays there, for a moment, and no index is touched.
        """
        end = self.now_plus(self.placeholder)
        moved = "" if in_place else f"available_at = {end}, "
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} SET reserved_by = {self.placeholder}, "
            f"reserved_until = {end}, {moved}attempts = attempts + (attempts < {_MAX_ATTEMPTS}) "
            f"WHERE id IN ({ids})"
        )

    def held(self, count: int, *, lock: bool) -> str:
        """Who holds these rows now, locking them in the order of the key if asked. Parameters: ids."""
        return (
            f"SELECT id, reserved_by FROM queue_jobs {self.primary_hint} WHERE id IN ({self.placeholders(count)}) "
            f"ORDER BY id {self.for_update if lock else ''}"
        )

    def renew(self, count: int) -> str:
        """Parameters: microseconds of the lease, twice; ids; token."""
        end = self.now_plus(self.placeholder)
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} SET reserved_until = {end}, available_at = {end} "
            f"WHERE id IN ({self.placeholders(count)}) AND reserved_by = {self.placeholder}"
        )

    def renew_each(self, held: Sequence[tuple[bytes, bytes]]) -> Statement:
        """The same for rows held under different tokens: ``held`` has pairs of an id and its token. A row is renewed
        only under the token of its own pair. Parameters before those of the statement: microseconds of the lease,
        twice."""
        end = self.now_plus(self.placeholder)
        ids, parameters = self.id_list([key for key, _ in held])
        pairs: list[str] = []
        for pair in held:
            listed, more = self.id_list(pair)
            pairs.append(f"({listed})")
            parameters += more
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} SET reserved_until = {end}, available_at = {end} "
            f"WHERE id IN ({ids}) AND (id, reserved_by) IN ({self.row_list}{', '.join(pairs)})",
            parameters,
        )

    @abstractmethod
    def remove_held(self, ids: str) -> str:
        """Delete rows held under one token. Parameters: those of ``ids``, which `among` makes; token."""

    @abstractmethod
    def remove(self, count: int) -> str:
        """Delete rows that this transaction has locked and found held. Parameters: ids."""

    def cancel(self, ids: str) -> str:
        """Delete jobs, held or not, except those that are on their way to another connection. Parameters: those of
        ``ids``, which `id_list` makes."""
        return f"DELETE FROM queue_jobs WHERE id IN ({ids}) AND SUBSTR(queue, 1, 1) <> '>'"

    def put_back(self, count: int, errors: int = 0) -> str:
        """``errors`` of the rows get a last error. Parameters: (id, microseconds until available) per row; (id,
        attempts to take back) per row; (id, error) and then id per row with an error; ids."""
        cases = " ".join([f"WHEN {self.placeholder} THEN {self.placeholder}"] * count)
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} "
            f"SET available_at = {self.now_plus(f'(CASE id {cases} END)')}, "
            f"attempts = attempts - (CASE id {cases} END), reserved_by = NULL, reserved_until = NULL"
            f"{self._last_errors(errors)} WHERE id IN ({self.placeholders(count)})"
        )

    def _last_errors(self, count: int) -> str:
        if not count:
            return ""
        cases = " ".join([f"WHEN {self.placeholder} THEN {self.placeholder}"] * count)
        return (
            f", last_error = CASE id {cases} ELSE last_error END, last_error_at = "
            f"CASE WHEN id IN ({self.placeholders(count)}) THEN {self.now} ELSE last_error_at END"
        )

    def defer(self, count: int) -> str:
        """Take the attempt back, and let the lease end as if it had run out. Parameters: (id, microseconds until then)
        per row, twice; ids."""
        end = self.now_plus(f"(CASE id {' '.join([f'WHEN {self.placeholder} THEN {self.placeholder}'] * count)} END)")
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} SET available_at = {end}, reserved_until = {end}, "
            f"attempts = attempts - 1 WHERE id IN ({self.placeholders(count)})"
        )

    def copy_to_failed(self, count: int) -> str:
        """Parameters: connection; (id, exception as JSON) per row; ids."""
        cases = " ".join([f"WHEN {self.placeholder} THEN {self.placeholder}"] * count)
        return (
            f"{_INTO_FAILED} SELECT {self.placeholder}, {_KEPT}, CASE id {cases} END, {self.now} "
            f"FROM queue_jobs {self.primary_hint} WHERE id IN ({self.placeholders(count)})"
        )

    def copy_unreadable(self, count: int) -> str:
        """Parameters: connection; (row key, id) per row; (row key, exception as JSON) per row; row keys."""
        cases = f"CASE {self.row_key} {' '.join([f'WHEN {self.placeholder} THEN {self.placeholder}'] * count)} END"
        kept = [cases if name == "id" else self.as_failed.get(name, name) for name in KEPT]
        return (
            f"{_INTO_FAILED} SELECT {self.placeholder}, {', '.join(kept)}, {cases}, {self.now} "
            f"FROM queue_jobs {self.primary_hint} WHERE {self.row_key} IN ({self.placeholders(count)})"
        )

    def remove_unreadable(self, count: int) -> str:
        """Parameters: row keys."""
        return f"DELETE FROM queue_jobs WHERE {self.row_key} IN ({self.placeholders(count)})"

    def rows_of_queue(self, limit: int) -> str:
        """Rows of a queue that no worker can drain, as `unclaimable` gives them. Parameters: queue."""
        return f"SELECT {self.unreadable.sql} FROM queue_jobs {self.claim_hint} WHERE {self.is_queue} LIMIT {limit}"

    is_queue: str
    """Whether a row is in a queue, which may be NULL. Parameters: queue."""

    @cached_property
    def unreadable(self) -> Selection:
        """What `unclaimable` and `rows_of_queue` read of a row."""
        return self.claimable.also(row_key=self.row_key, reserved_until="reserved_until")

    @cached_property
    def claimable_in(self) -> Selection:
        """What `select_claimable_in` reads of a row."""
        return self.claimable.also(urgent="")

    @abstractmethod
    def queues_of_jobs(self) -> str:
        """The names of all queues that have live jobs, read from one entry of the claim index each."""

    @abstractmethod
    def unclaimable(self, limit: int, longest_hold: int) -> str:
        """Rows of a queue that no claim meets. Only ranges of the claim index are read, and the first due rows for
        holds that end later than ``longest_hold`` microseconds from now. Parameters: queue, once for each
        placeholder."""

    def _held_for_ever(self, longest_hold: int) -> str:
        """The row keys of those among the first due rows of a queue."""
        return (
            f"SELECT {self.row_key} FROM (SELECT {self.row_key}, reserved_until FROM queue_jobs {self.claim_hint} "
            f"WHERE queue = {self.placeholder} AND priority IN ({PRIORITY_LIST}) AND available_at <= {self.now} "
            f"ORDER BY priority, available_at LIMIT {_DUE_ROWS_LOOKED_AT}) AS due "
            f"WHERE reserved_until > {self.now_plus(str(longest_hold))}"
        )

    def failures(self, count: int) -> str:
        """The exceptions of those of these jobs that have failed, as JSON. Parameters: ids."""
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
            f"WHERE id IN ({self.placeholders(count)}) {self.keep_existing}"
        )

    def by_ids(self, query: Select[Any], table: Table, ids: Sequence[bytes]) -> Select[Any]:
        """``query`` on the rows of ``table`` with these ids, read one after the other, and no other row looked at."""
        return query.where(table.c.id.in_(ids)).order_by(table.c.id)

    def delete(self, table: Table, ids: Sequence[bytes]) -> Delete | TextClause:
        """The rows of ``table`` with these ids, no other row looked at."""
        return delete(table).where(table.c.id.in_(ids))

    @abstractmethod
    def exception_text(self, key: str) -> str:
        """A text of a failed job's exception, compared byte by byte: ``type`` or ``message``. Rows that somebody else
        wrote may have none: ``unknown``."""

    def after_place(self, place: JobPlace) -> ColumnElement[bool]:
        """Jobs behind this place, in ranges of the claim index. Written out: MySQL makes no range of
        ``(priority, available_at, id) > (…)``."""
        at = self._place(place)
        return or_(*(and_(*(c == v for c, v in at[:n]), at[n][0] > at[n][1]) for n in range(len(at))))

    def up_to_place(self, place: JobPlace) -> ColumnElement[bool]:
        """Jobs before this place and at it, in the same way."""
        at = self._place(place)
        before = [and_(*(c == v for c, v in at[:n]), at[n][0] < at[n][1]) for n in range(len(at))]
        return or_(*before, and_(*(c == v for c, v in at)))

    def _place(self, place: JobPlace) -> list[tuple[ColumnElement[Any], Any]]:
        # A moment as a text, which a clock of another zone cannot shift.
        moment = literal(self.timestamp(place.available_at), Text)
        values = (place.queue, place.priority, moment, place.id.bytes)
        return list(zip((jobs.c.queue, jobs.c.priority, jobs.c.available_at, jobs.c.id), values, strict=True))

    @abstractmethod
    def drains(self) -> str:
        """Whether a worker's row names a queue. Parameters: queue."""

    @abstractmethod
    def next_due(self, queues: int, unseen_for: int) -> str:
        """A row for each lane that is asked for: queue, priority, the moment of its first job (NULL where it has none),
        now, seconds until then; one without a queue, for the workers that have room, take jobs of one of the queues and
        were seen in the last ``unseen_for`` microseconds; one for each queue that is paused, without a number of
        workers. Parameters: `look_parameters`."""

    @abstractmethod
    def look_parameters(self, priority_cursors: Sequence[tuple[str, int]], queues: Sequence[str]) -> tuple[str, ...]:
        """``priority_cursors`` are queues and priorities. A dialect that keeps nothing deleted is asked for all."""

    def count_workers(self, queues: int, unseen_for: int) -> str:
        """How many workers were seen in the last ``unseen_for`` microseconds, and how many of them take jobs of one of
        the queues. Parameters: queues."""
        drained = " OR ".join([self.drains()] * queues)
        return (
            f"SELECT COUNT(*), SUM(CASE WHEN {drained} THEN 1 ELSE 0 END) FROM queue_workers "
            f"WHERE seen_at > {self.now_plus(str(-unseen_for))}"
        )

    @abstractmethod
    def queues_with_due(self, queues: int) -> str:
        """Of several queues those in which something may be claimable. Parameters: `due_parameters`."""

    @abstractmethod
    def due_parameters(self, queues: Sequence[str]) -> tuple[str, ...]: ...
