"""Whose failed jobs: `queue_failed_jobs` may keep those of several connections."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, true

from outbox.drivers.database.tables import failed_jobs


@dataclass(frozen=True, slots=True)
class FailedJobScope:
    """The connections whose failed jobs a driver sees, and puts back: one of them only, or all ``but`` some.

    A row under a name that no connection has any more belongs to the database that it is in.
    """

    only: str | None = None
    but: frozenset[str] = frozenset()

    @property
    def is_everything(self) -> bool:
        return self.only is None and not self.but

    @property
    def condition(self) -> ColumnElement[bool]:
        return self.on(failed_jobs.c.connection)

    def on(self, connection: ColumnElement[str]) -> ColumnElement[bool]:
        """The condition on another column that holds names of connections."""
        if self.only is not None:
            return connection == self.only
        return connection.not_in(sorted(self.but)) if self.but else true()

    def as_sql(self, placeholder: str) -> tuple[str, tuple[str, ...]]:
        """The condition as text, with its parameters."""
        if self.only is not None:
            return f"connection = {placeholder}", (self.only,)
        names = tuple(sorted(self.but))
        listed = ", ".join([placeholder] * len(names))
        return (f"connection NOT IN ({listed})" if names else "1 = 1"), names
