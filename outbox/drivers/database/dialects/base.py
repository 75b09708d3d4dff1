"""The statements of a dialect, as text with the placeholders of its drivers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Delete, Select, Table, Text, TextClause, and_, delete, literal, or_

from outbox.drivers.database.dialects.failed_job_statements import FailedJobStatements
from outbox.drivers.database.dialects.syntax import MICROSECONDS, PRIORITY_LIST
from outbox.drivers.database.raw_columns import Selection
from outbox.drivers.database.tables import EVERY_QUEUE, FROM_ENVELOPE, PARKED, jobs
from outbox.drivers.filters import JobPlace
from outbox.drivers.values import SILENT_SECONDS
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.options import RELAY_PREFIX
from outbox.policies.attempt_limits import MOST_TRIES

_IS_HERE = f"SUBSTR(queue, 1, 1) <> '{RELAY_PREFIX}'"
"""A condition: the job is not on its way to another connection."""

_from_envelope = attrgetter(*FROM_ENVELOPE)
_INSERT = f"INSERT INTO queue_jobs (id, {', '.join(FROM_ENVELOPE)}, attempts, available_at, created_at)"
_INSERT_GATED = f"{_INSERT[:-1]}, policies)"

Statement = tuple[str, tuple[Any, ...]]
"""SQL and its parameters."""


class Dialect(FailedJobStatements):
    """Statements that insert, claim, settle and inspect. Their parameters have the order of the docstrings."""

    skip_locked: str
    """The end of a SELECT that locks its rows, and skips rows that other transactions have locked."""
    for_update: str
    """The end of a SELECT that locks its rows, and waits for other transactions."""
    for_share: str
    """The end of a SELECT that keeps other transactions from changing its rows, and waits for them."""
    key_hint: str
    """A hint to read `keyed_jobs` by key."""
    insert_missing: str
    """The beginning of an INSERT that leaves out rows that are there."""
    row_list: str = ""
    """The beginning of a list of rows on the right of IN."""
    unchecked: str = ""
    """The beginning of an UPDATE of rows that may hold broken JSON. MariaDB checks all JSON columns of a row that is
    updated, and refuses: then no worker could claim anything."""
    keeps_deleted: bool = False
    """Whether deleted entries stay in the claim index for as long as an older transaction is open. Then claims had
    better not begin at its head: see `cursors`."""
    settings: str
    """Names and values of those settings of the server that `outbox check` judges."""

    @cached_property
    def _around_available_at(self) -> tuple[str, str]:
        return f", {self.placeholders(len(FROM_ENVELOPE))}, 0, ", f", {self.now}"

    @staticmethod
    def insert_into(*, policies: bool) -> str:
        """The beginning of an INSERT. It names the column ``policies`` only where a job has one: tables of before take
        all other jobs."""
        return _INSERT_GATED if policies else _INSERT

    @staticmethod
    def policies_of(job: Envelope) -> str:
        return "NULL" if job.policies is None else str(int(job.policies))

    def id_parameter(self, job_id: JobId) -> bytes | str:
        """The parameter of `id_placeholder`."""
        return job_id.bytes

    def insert(self, jobs: Sequence[Envelope]) -> Statement:
        """New rows, their values as parameters: any driver takes them, and an application's logs and traces show them
        apart from the statement."""
        middle, end = self._around_available_at
        gated = any(job.policies is not None for job in jobs)
        rows: list[str] = []
        parameters: list[Any] = []
        for job in jobs:
            parameters += (self.id_parameter(job.id), *_from_envelope(job))
            if job.available_at is not None:
                available = self.placeholder
                parameters.append(self.timestamp(job.available_at))
            elif job.delay:
                available = self.now_plus(self.placeholder)
                parameters.append(int(job.delay * MICROSECONDS))
            else:
                available = self.now
            policies = f", {self.policies_of(job)}" if gated else ""
            rows.append(f"({self.id_placeholder}{middle}{available}{end}{policies})")
        return (
            f"{self.insert_into(policies=gated)} VALUES {', '.join(rows)} {self.keep_existing('queue_jobs', 'id')}",
            tuple(parameters),
        )

    def insert_many(self, jobs: Sequence[Envelope]) -> Statement:
        """New rows in the form that outbox's own drivers write fastest. The statement may have four times the bytes of
        the payloads."""
        return self.insert(jobs)

    def due(self) -> Statement:
        """A condition: a job of any priority is due. One range of the claim index for each priority, in its order."""
        return f"priority IN ({PRIORITY_LIST}) AND available_at <= {self.now}", ()

    def due_from(self, starts: Sequence[tuple[int, datetime | None]]) -> Statement:
        """`due` for some priorities, each from a moment on."""
        ranges = " OR ".join(
            f"(priority = {priority} AND available_at >= {self.placeholder} AND available_at <= {self.now})"
            for priority, _ in starts
        )
        return f"({ranges})", tuple(start for _, start in starts)

    def more_urgent_due(self, queue: str, priority: int) -> Statement:
        """A column: whether a job of a more urgent priority may be due."""
        firsts = [f"{self.first(self.placeholder, str(urgent))} <= {self.now}" for urgent in range(priority)]
        return f", COALESCE({' OR '.join(firsts) or 'NULL'}, 0)", (queue,) * priority

    def select_claimable(self, queue: str, due: Statement, limit: int, more: Statement = ("", ())) -> Statement:
        """Lock up to ``limit`` jobs of a queue that are ``due`` and unheld, in the order of the claim index. It reads
        the columns of `claimable`, and ``more``."""
        return (
            f"SELECT {self.claimable.sql}{more[0]} FROM queue_jobs {self.claim_hint} "
            f"WHERE queue = {self.placeholder} AND {due[0]} "
            f"AND (reserved_until IS NULL OR reserved_until <= {self.now}) "
            f"AND NOT EXISTS (SELECT 1 FROM queue_pauses WHERE queue IN ({self.placeholder}, '{EVERY_QUEUE}') "
            f"AND (paused_until IS NULL OR paused_until > {self.now})) "
            f"ORDER BY priority, available_at LIMIT {self.placeholder} {self.skip_locked}",
            (*more[1], queue, *due[1], queue, limit),
        )

    @cached_property
    def claimable_in(self) -> Selection:
        """What `select_claimable` reads of a row with the column of `more_urgent_due`."""
        return self.claimable.also(urgent="")

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
        listed, parameters = self.each_id(ids)
        return ", ".join(listed), parameters

    def each_id(self, ids: Sequence[bytes]) -> tuple[list[str], tuple[bytes, ...]]:
        """Each of these ids as an expression, with the parameters of all of them."""
        return [self.placeholder] * len(ids), tuple(ids)

    def reserve(self, ids: str, *, in_place: bool = False) -> str:
        """Parameters: token; microseconds of the lease, twice, or once ``in_place``; those of ``ids``, which `id_list`
        makes.

        Both moments move to the end of the lease, so what is held leaves the part of the claim index that claims read.
        They never meet a row that its holder is about to delete, nor walk over thousands of long jobs. ``in_place`` it
        stays there, for a moment, and no index is touched.
        """
        # One more attempt than the column holds would be an error, and no claim that meets the row would succeed.
        end = self.now_plus(self.placeholder)
        moved = "" if in_place else f"available_at = {end}, "
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} SET reserved_by = {self.placeholder}, "
            f"reserved_until = {end}, {moved}attempts = attempts + (attempts < {MOST_TRIES}) "
            f"WHERE id IN ({ids})"
        )

    def held(self, count: int, *, lock: bool) -> str:
        """The tokens of these rows, which ``lock`` locks in the order of the key. Parameters: ids."""
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
        """Renew rows that are held under different tokens: ``held`` has pairs of an id and its token. A row is renewed
        only under the token of its pair. Parameters before those of the statement: microseconds of the lease, twice."""
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
        """Delete rows held under one token. Parameters: those of ``ids``, which `id_list` makes; token."""

    def remove(self, count: int) -> str:
        """Delete rows that this transaction has locked and found held. Parameters: ids."""
        return self.remove_locked(count)

    def remove_locked(self, count: int) -> str:
        """Delete rows that this transaction has locked, held or not. Parameters: ids."""
        return f"DELETE FROM queue_jobs WHERE id IN ({self.placeholders(count)})"

    def cancel(self, ids: str) -> str:
        """Delete jobs without policies, held or not, except those that are on their way to another connection.
        Parameters: those of ``ids``, which `id_list` makes."""
        return f"DELETE FROM queue_jobs WHERE id IN ({ids}) AND policies IS NULL AND {_IS_HERE}"

    def cancellable(self) -> str:
        """Lock a job with policies that `cancel` has left; its policies and headers. Parameters: id."""
        return (
            f"SELECT policies, headers FROM queue_jobs {self.primary_hint} WHERE id = {self.placeholder} "
            f"AND policies IS NOT NULL AND {_IS_HERE} {self.for_update}"
        )

    def put_back(self, count: int, errors: int = 0) -> str:
        """Give rows back; ``errors`` of them get a last error. Parameters: (id, microseconds until available) per row;
        (id, attempts to take back) per row; (id, error) and then id per row with an error; ids."""
        case = f"({self.case('id', count)})"
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} "
            f"SET available_at = {self.now_plus(case)}, attempts = attempts - {case}, "
            f"reserved_by = NULL, reserved_until = NULL{self._last_errors(errors)} "
            f"WHERE id IN ({self.placeholders(count)})"
        )

    def _last_errors(self, count: int) -> str:
        if not count:
            return ""
        return (
            f", last_error = {self.case('id', count, 'last_error')}, last_error_at = "
            f"CASE WHEN id IN ({self.placeholders(count)}) THEN {self.now} ELSE last_error_at END"
        )

    def defer(self, count: int) -> str:
        """Take the attempt back, and let the lease end as if it had run out. Parameters: (id, microseconds until then)
        per row, twice; ids."""
        end = self.now_plus(f"({self.case('id', count)})")
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} SET available_at = {end}, reserved_until = {end}, "
            f"attempts = attempts - 1 WHERE id IN ({self.placeholders(count)})"
        )

    def gated(self, table: str, count: int) -> str:
        """Id, policies and headers of those of these rows of ``table`` that have policies. Parameters: ids."""
        return (
            f"SELECT id, policies, headers FROM {table} {self.primary_hint} "
            f"WHERE id IN ({self.placeholders(count)}) AND policies IS NOT NULL ORDER BY id"
        )

    def park(self, count: int) -> str:
        """Take rows that this transaction has locked out of the reach of claims. Parameters: ids."""
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} SET available_at = '{PARKED}' "
            f"WHERE id IN ({self.placeholders(count)})"
        )

    def move(self, count: int) -> str:
        """Put rows that this transaction has locked into another queue. Parameters: queue; ids."""
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} SET queue = {self.placeholder} "
            f"WHERE id IN ({self.placeholders(count)})"
        )

    def replace_payload(self) -> str:
        """Parameters: payload, headers, id."""
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} SET payload = {self.placeholder}, "
            f"headers = {self.placeholder} WHERE id = {self.placeholder}"
        )

    def replace_headers(self) -> str:
        """Parameters: headers, id."""
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} SET headers = {self.placeholder} "
            f"WHERE id = {self.placeholder}"
        )

    def unpark(self, count: int) -> str:
        """Make parked rows claimable. Parameters: ids."""
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} SET available_at = {self.now} "
            f"WHERE id IN ({self.placeholders(count)}) AND available_at = '{PARKED}'"
        )

    def postpone(self, count: int) -> str:
        """Let claims find rows later. Parameters: (id, microseconds until then) per row; ids."""
        later = self.now_plus(f"({self.case('id', count)})")
        return (
            f"{self.unchecked}UPDATE queue_jobs {self.primary_hint} "
            f"SET available_at = {later} WHERE id IN ({self.placeholders(count)})"
        )

    def by_ids(self, query: Select[Any], table: Table, ids: Sequence[bytes]) -> Select[Any]:
        """``query`` on the rows of ``table`` with these ids. It reads no other row."""
        return query.where(table.c.id.in_(ids)).order_by(table.c.id)

    def delete(self, table: Table, ids: Sequence[bytes]) -> Delete | TextClause:
        """Delete the rows of ``table`` with these ids. It reads no other row."""
        return delete(table).where(table.c.id.in_(ids))

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
    def place(self, alias: str) -> str:
        """A text by which rows of `keyed_jobs` are ordered: the moment, 26 characters, and the sequence, 20 digits."""

    @abstractmethod
    def drains(self) -> str:
        """Whether a worker's row names a queue. Parameters: queue."""

    @property
    def seen_lately(self) -> str:
        """A condition: a worker was heard of a short while ago. One that was not shares no work any more."""
        return f"seen_at > {self.seconds_from_now(-SILENT_SECONDS)}"

    @abstractmethod
    def next_due(self, queues: int) -> str:
        """A row for each priority that is asked for: queue, priority, the moment of its first job (NULL if it has
        none), now, seconds until then. One row without a queue counts the workers that take jobs of one of the queues
        and have room. They were seen in the last `SILENT_SECONDS`. One for each queue that is paused, and for
        `EVERY_QUEUE`, without a number of workers; its moment is the end of the pause. Parameters:
        `probe_parameters`."""

    @abstractmethod
    def probe_parameters(self, priority_cursors: Sequence[tuple[str, int]], queues: Sequence[str]) -> tuple[str, ...]:
        """``priority_cursors`` are queues and priorities. A dialect that keeps nothing deleted is asked for all."""

    def count_workers(self, queues: int) -> str:
        """How many workers were seen in the last `SILENT_SECONDS`, and how many of them take jobs of one of the queues.
        Parameters: queues."""
        drained = " OR ".join([self.drains()] * queues)
        return (
            f"SELECT COUNT(*), SUM(CASE WHEN {drained} THEN 1 ELSE 0 END) FROM queue_workers WHERE {self.seen_lately}"
        )

    @abstractmethod
    def queues_with_due(self, queues: int) -> str:
        """Of several queues those in which something may be claimable. Parameters: `due_parameters`."""

    @abstractmethod
    def due_parameters(self, queues: Sequence[str]) -> tuple[str, ...]: ...
