"""Changing tables while jobs are dispatched and run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from outbox.drivers.database.connection.errors import code_of
from outbox.drivers.database.ddl import Change
from outbox.errors import MigrationError

_LOCK_WAIT_SECONDS = 1
"""While ``ALTER TABLE`` waits for an open transaction, every other statement on the table waits behind it."""
_PAUSE_SECONDS = 1.0
"""In which those go on."""
_TIMED_OUT = 1205
_NOT_INSTANT = {
    1800,  # the server knows no INSTANT
    1845,  # not for this change
    1846,  # not for this change or this table
    4092,  # this table was changed instantly too often
}
_DONE_ALREADY = {
    1050,  # the table is there
    1051,  # the table is not there
    1060,  # the column is there
    1061,  # the index is there
    1091,  # the column is not there
}


class Operations(Protocol):
    """What is used of Alembic's ``op``, the module as well as an object of the class."""

    def execute(self, sqltext: str) -> None: ...

    def get_bind(self) -> Connection: ...

    def get_context(self) -> MigrationContext: ...


def apply(op: Operations, plan: Callable[[], Iterable[Change]], lock_timeout: float) -> None:
    """Make the changes of ``plan``, which says what is left to do whenever it is called.

    Raises:
        MigrationError: a transaction stayed open on a table for ``lock_timeout`` seconds.
    """
    context = op.get_context()
    if context.as_sql or context.dialect.name == "sqlite":
        for change in plan():
            op.execute(change.statement)
        return
    with _brief_lock_waits(op.get_bind()):
        changes = list(plan())
        while changes:
            try:
                _change(op, changes[0], lock_timeout)
            except DBAPIError as error:
                # The server may still be at a statement of a migration that was killed.
                if code_of(error) not in _DONE_ALREADY or changes == (left := list(plan())):
                    raise
                changes = left
            else:
                del changes[0]


@contextmanager
def _brief_lock_waits(connection: Connection) -> Iterator[None]:
    before = connection.scalar(text("SELECT @@SESSION.lock_wait_timeout"))
    connection.execute(text(f"SET SESSION lock_wait_timeout = {_LOCK_WAIT_SECONDS}"))
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.execute(text(f"SET SESSION lock_wait_timeout = {before}"))


def _change(op: Operations, change: Change, lock_timeout: float) -> None:
    try:
        _execute(op, change.statement, lock_timeout)
    except DBAPIError as error:
        if not change.in_place or code_of(error) not in _NOT_INSTANT:
            raise
        _execute(op, change.in_place, lock_timeout)


def _execute(op: Operations, statement: str, lock_timeout: float) -> None:
    deadline = time.monotonic() + lock_timeout
    while True:
        try:
            op.execute(statement)
            return
        except DBAPIError as error:
            if code_of(error) != _TIMED_OUT:
                raise
            if time.monotonic() >= deadline:
                raise MigrationError(_busy(statement, lock_timeout)) from error
        time.sleep(_PAUSE_SECONDS)


def _busy(statement: str, lock_timeout: float) -> str:
    return (
        f"a transaction has been open on the table for more than {lock_timeout:g} s, and {statement!r} waits for it. "
        "End it (information_schema.INNODB_TRX lists what is open), and migrate again: what was changed stays changed"
    )
