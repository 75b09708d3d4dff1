"""Sessions on an open connection, whose transaction the application commits.

Such a session joins the transaction of its connection, and may be closed or forgotten without a commit. Its statements
are then committed with that transaction. So are its unwritten jobs. The connection keeps them, and drops them when it
rolls back. It writes them before it commits, opens a savepoint or releases one, and before SQL of the application's own
that may do any of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from sqlalchemy import Connection, event
from sqlalchemy.engine import Transaction
from sqlalchemy.orm import SessionTransaction

from outbox.drivers.database.jobs.staged_jobs import (
    StagedJobs,
    has_begun_on,
    is_rollback,
    may_end_transaction,
    root_of,
)

_WRITE_BEFORE = ("savepoint", "release_savepoint")
_WRITE_BEFORE_COMMIT = ("commit", "prepare_twophase")
_DROP_AT = ("rollback", "rollback_savepoint", "rollback_twophase")


@dataclass(slots=True)
class _Entry:
    """Jobs of one boundary of a session on this connection."""

    staged: StagedJobs
    boundary: SessionTransaction
    outer: Transaction | None
    """What the connection was in when the first of them was dispatched."""
    ended: bool = False
    """Whether the boundary was closed without a commit or a rollback. The jobs then belong to the connection."""

    def is_sent_to(self, connection: Connection) -> bool:
        """Whether the boundary has begun on the connection, so that what ends there ends the boundary."""
        return self.ended or has_begun_on(connection, self.boundary)

    def shares_outer(self, connection: Connection) -> bool:
        """Whether the session would join the connection's transaction without a savepoint of its own."""
        if self.outer is None or not self.outer.is_active:
            return False
        root = root_of(self.boundary)
        if connection in root._connections:  # noqa: SLF001
            _, transaction, owned, _ = root._connections[connection]  # noqa: SLF001
            return transaction.is_active and (not owned or transaction is self.outer)
        mode = self.boundary.session.join_transaction_mode
        return not (
            mode == "create_savepoint" or (mode == "conditional_savepoint" and connection.in_nested_transaction())
        )


class JoinedConnection:
    """The unwritten jobs of all sessions on one connection. Only the connection refers to it, by its listeners."""

    def __init__(self, connection: Connection) -> None:
        self._entries: list[_Entry] = []
        for name in _WRITE_BEFORE:
            event.listen(connection, name, self._write_sent)
        for name in _WRITE_BEFORE_COMMIT:
            event.listen(connection, name, self._write_all)
        for name in _DROP_AT:
            event.listen(connection, name, self._drop)
        event.listen(connection, "commit_twophase", self._commit_twophase)
        event.listen(connection, "before_cursor_execute", self._before_statement)

    def keep(self, connection: Connection, staged: StagedJobs, boundary: SessionTransaction) -> None:
        """Keep ``staged`` until they are written or dropped, also when the session is forgotten."""
        self._entries = [entry for entry in self._entries if entry.staged.envelopes]
        outer = connection.get_nested_transaction() or connection.get_transaction()
        self._entries.append(_Entry(staged, boundary, outer))

    def end(self, connection: Connection, staged: StagedJobs) -> None:
        """The session closed the boundary without a commit or a rollback: the outer transaction decides, if any."""
        for entry in self._entries:
            if entry.staged is staged:
                usable = not connection.closed and not connection.invalidated
                entry.ended = entry.boundary.parent is None and usable and entry.shares_outer(connection)
                if not entry.ended:
                    staged.take()

    # The connection is not kept by this object, which it refers to, but comes with each event.

    def _write_sent(self, connection: Connection, *_: Any) -> None:
        self._write(
            connection,
            [
                entry
                for entry in self._entries
                if entry.is_sent_to(connection) or (entry.boundary.parent is None and entry.shares_outer(connection))
            ],
        )

    def _before_statement(self, connection: Connection, _: object, statement: str, *__: Any) -> None:
        if not self._entries or not may_end_transaction(statement):
            return
        if is_rollback(statement):
            # What SQLAlchemy rolls back is dropped already. Other sessions may go on after it.
            self._write(connection, [entry for entry in self._entries if entry.is_sent_to(connection)])
        else:
            self._write_sent(connection)

    def _write_all(self, connection: Connection, *_: Any) -> None:
        entries = [entry for entry in self._entries if entry.is_sent_to(connection) or entry.shares_outer(connection)]
        try:
            self._write(connection, entries)
        except BaseException:
            # SQLAlchemy takes the transaction for ended now. It would not undo it, nor tell `_drop`.
            if not connection.invalidated:
                connection.connection.rollback()
            for entry in entries:
                entry.staged.take()
            raise
        self._entries.clear()

    def _commit_twophase(self, connection: Connection, _: Any, is_prepared: bool) -> None:
        if not is_prepared:
            self._write_all(connection)

    def _write(self, connection: Connection, entries: list[_Entry]) -> None:
        for entry in entries:
            entry.staged.write(connection)

    def _drop(self, connection: Connection, *_: Any) -> None:
        kept = []
        for entry in self._entries:
            if entry.is_sent_to(connection):
                entry.staged.take()
            else:
                kept.append(entry)
        self._entries = kept


_joined: WeakKeyDictionary[Connection, ReferenceType[JoinedConnection]] = WeakKeyDictionary()


def joined_connection(connection: Connection) -> JoinedConnection:
    """The unwritten jobs of the sessions on ``connection``."""
    known = _joined.get(connection)
    joined = None if known is None else known()
    if joined is None:
        joined = JoinedConnection(connection)
        _joined[connection] = ref(joined)
    return joined
