"""Sessions on an engine, whose connection the application commits below them.

``session.connection()`` is the connection of the session's transaction. An application may end that transaction there,
or a savepoint in it, and the session does not hear of it. So unwritten jobs of the session are written before such a
commit and before such a savepoint. Either may be SQL of the application's own, or part of what DDL does. The jobs are
dropped when that transaction, or the savepoint, is rolled back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import SessionTransaction

from outbox.drivers.database.jobs.staged_jobs import StagedJobs, has_begun_on, may_end_transaction, root_of

_kept: WeakKeyDictionary[SessionTransaction, StagedJobs] = WeakKeyDictionary()
_watched: WeakSet[Engine] = WeakSet()
_lock = threading.RLock()
"""The garbage collector may end a session within."""


def keep(engine: Engine, staged: StagedJobs, boundary: SessionTransaction) -> None:
    """Keep ``staged`` until `forget` is called, or the session is forgotten: its connection is then rolled back."""
    with _lock:
        _kept[boundary] = staged
        if engine in _watched:
            return
        for name, listener in _LISTENERS.items():
            event.listen(engine, name, listener)
        _watched.add(engine)


def forget(boundary: SessionTransaction) -> None:
    """The jobs of ``boundary`` were taken: no commit need look at them. Harmless where it has none here."""
    with _lock:
        _kept.pop(boundary, None)


def _unwritten(begun: Callable[[SessionTransaction], bool]) -> list[StagedJobs]:
    """Those of the boundaries that have ``begun`` on a connection."""
    if not _kept:
        return []
    with _lock:
        return [staged for boundary, staged in _kept.items() if staged.envelopes and begun(boundary)]


def _write(connection: Connection, unwritten: list[StagedJobs]) -> None:
    for staged in unwritten:
        staged.write(connection)


def _before_savepoint(connection: Connection, *_: Any) -> None:
    _write(connection, _unwritten(lambda boundary: has_begun_on(connection, boundary)))


def _before_statement(connection: Connection, _: object, statement: str, *__: Any) -> None:
    if _kept and may_end_transaction(statement):
        _before_savepoint(connection)


def _before_commit(connection: Connection, *_: Any) -> None:
    unwritten = _unwritten(lambda boundary: has_begun_on(connection, root_of(boundary)))
    try:
        _write(connection, unwritten)
    except BaseException:
        # SQLAlchemy takes the transaction for ended now, and would not undo it.
        if not connection.invalidated:
            connection.connection.rollback()
        for staged in unwritten:
            staged.take()
        raise


def _before_twophase_commit(connection: Connection, _: Any, is_prepared: bool) -> None:
    if not is_prepared:
        _before_commit(connection)


def _at_rollback(connection: Connection, *_: Any) -> None:
    for staged in _unwritten(lambda boundary: has_begun_on(connection, boundary)):
        staged.take()


_LISTENERS: dict[str, Callable[..., None]] = {
    "before_cursor_execute": _before_statement,
    "savepoint": _before_savepoint,
    "commit": _before_commit,
    "prepare_twophase": _before_commit,
    "commit_twophase": _before_twophase_commit,
    "rollback": _at_rollback,
    "rollback_savepoint": _at_rollback,
    "rollback_twophase": _at_rollback,
}
