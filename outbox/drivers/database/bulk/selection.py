"""Which jobs a bulk operation is about, as SQL. Every read is of a bounded part of the jobs, along an index."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    Table,
    Text,
    func,
    literal,
    literal_column,
    or_,
    select,
)

from outbox.drivers.bulk import BulkRequest, Verb
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.operations.failed_filters import is_error
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.operations.inspection import has_key
from outbox.drivers.database.tables import failed_jobs, jobs
from outbox.options import RELAY_PREFIX

_LIVE = ("id", "queue", "name", "created_at", "reserved_until", "last_error")
_FAILED = ("id", "connection", "queue", "name", "failed_at", "fingerprint")
_ALIAS = "part"


class Selection(NamedTuple):
    """The jobs that ``request`` means at the time ``at``, of those that ``scope`` lets a driver see."""

    dialect: Dialect
    scope: FailedJobScope
    request: BulkRequest
    at: datetime

    @property
    def table(self) -> Table:
        return failed_jobs if self.request.verb.of_failed else jobs

    def conditions(self, source: FromClause | None = None) -> list[ColumnElement[bool]]:
        """On rows of the table, or of a `part` of it."""
        given = self.table if source is None else source
        columns, matching = given.c, self.request.matching
        found = [*self._of_table(columns), *self._of_age(columns)]
        exact = {"queue": matching.queue, "name": matching.name, "fingerprint": matching.group}
        found += [columns[name] == value for name, value in exact.items() if value is not None]
        name = _ALIAS if source is not None else self.table.name
        if matching.key is not None:
            found.append(has_key(self.dialect, name, matching.key))
        if matching.error is not None:
            found.append(self._has_error(columns, name, matching.error))
        return found

    def _of_table(self, columns: Any) -> list[ColumnElement[bool]]:
        if self.request.verb.of_failed:
            return [self.scope.on(columns.connection)]
        # Rows that wait for the relay are no jobs of this connection.
        found = [func.substr(columns.queue, 1, 1) != RELAY_PREFIX]
        if self.request.verb is Verb.MOVE:
            now: ColumnElement[Any] = literal_column(self.dialect.now)
            found += [
                columns.queue != self.request.to,
                or_(columns.reserved_until.is_(None), columns.reserved_until <= now),
            ]
        return found

    def _of_age(self, columns: Any) -> list[ColumnElement[bool]]:
        matching = self.request.matching
        begun = columns.failed_at if self.request.verb.of_failed else columns.created_at
        found = [begun <= self._ago(matching.older_than or 0.0)]
        if matching.since is not None:
            found.append(begun >= self._ago(matching.since))
        return found

    def _ago(self, seconds: float) -> ColumnElement[Any]:
        # As a text, which a clock of another zone cannot shift.
        return literal(self.dialect.timestamp(self.at - timedelta(seconds=seconds)), Text)

    def _has_error(self, columns: Any, name: str, error: str) -> ColumnElement[bool]:
        if not self.request.verb.of_failed:
            return func.instr(columns.last_error, error) > 0
        kind, message = (self._text(name, "exception", part) for part in ("type", "message"))
        return is_error(error, kind, message)

    def _text(self, name: str, column: str, path: str) -> ColumnElement[str]:
        return literal_column(self.dialect.json_text(f"{name}.{column}", path))

    def part(self, limit: int, *where: ColumnElement[bool], hint: str, order: Any = ()) -> Subquery:
        """The first ``limit`` rows of the table that meet ``where``, with the columns that `conditions` look at."""
        verb, matching = self.request.verb, self.request.matching
        names = [*(_FAILED if verb.of_failed else _LIVE)]
        names += ["headers"] if matching.key is not None else []
        names += ["exception"] if matching.error is not None and verb.of_failed else []
        query = select(*(self.table.c[name] for name in names)).with_hint(self.table, hint).where(*where)
        return query.order_by(*order).limit(limit).subquery(_ALIAS)

    def counted(self, limit: int) -> Subquery:
        """What a preview looks at: of the group or the queue that the request names, or of all jobs."""
        queue, group = self.request.matching.queue, self.request.matching.group
        if group is not None:
            return self.part(limit, failed_jobs.c.fingerprint == group, hint=self.dialect.group_hint)
        if queue is None:
            return self.part(limit, hint=self.dialect.primary_hint, order=(self.table.c.id,))
        hint = self.dialect.failed_hint if self.request.verb.of_failed else self.dialect.claim_hint
        return self.part(limit, self.table.c.queue == queue, hint=hint)

    def walked(self, after: bytes, last: bytes, limit: int) -> Subquery:
        """What one transaction looks at: the next jobs by id, whether they match or not."""
        key = self.table.c.id
        query = select(key).with_hint(self.table, self.dialect.primary_hint).where(key > after, key <= last)
        return query.order_by(key).limit(limit).subquery(_ALIAS)

    def matching(self, after: bytes, last: bytes, limit: int) -> Select[Any]:
        """The ids of the jobs that match, from ``after`` one id on up to another."""
        key = self.table.c.id
        query = select(key).with_hint(self.table, self.dialect.primary_hint).where(key > after, key <= last)
        return query.where(*self.conditions()).order_by(key).limit(limit)
