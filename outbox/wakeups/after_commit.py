"""Callbacks that run after a session's transaction has committed, and only then."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

_KEY = "outbox.after_commit"

_log = logging.getLogger("outbox.wakeups")

Action = Callable[[], None]


class _Waiting:
    """The actions of one outermost transaction, by the savepoint that they depend on."""

    def __init__(self, root: SessionTransaction) -> None:
        self.root = root
        self.actions: dict[SessionTransaction, list[Action]] = {}

    def add(self, transaction: SessionTransaction, *actions: Action) -> None:
        self.actions.setdefault(transaction, []).extend(actions)

    def drop(self, transaction: SessionTransaction) -> list[Action]:
        return self.actions.pop(transaction, [])


def after_commit(session: Session, action: Action) -> None:
    """Call ``action`` after the outermost commit, unless a savepoint that is open now is rolled back.

    ``action`` must be quick. Its exceptions are logged. If the session has joined an external transaction, ``action``
    is called before that transaction commits.
    """
    root = session.get_transaction()
    if root is None:
        return
    waiting = session.info.get(_KEY)
    if waiting is None or waiting.root is not root:
        waiting = session.info[_KEY] = _Waiting(root)
    waiting.add(session.get_nested_transaction() or root, action)


def waits_for_commit(session: Session, action: Action) -> bool:
    """Whether ``action`` was handed to `after_commit` in the open transaction, and no savepoint has undone that."""
    waiting = session.info.get(_KEY)
    if waiting is None or waiting.root is not session.get_transaction():
        return False
    return any(action in actions for actions in waiting.actions.values())


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    waiting = session.info.get(_KEY)
    if waiting is None:
        return
    nested = session.get_nested_transaction()
    if nested is None:
        del session.info[_KEY]
        for action in waiting.drop(waiting.root) if waiting.root is session.get_transaction() else ():
            _call(action)
        return
    # A savepoint was released: its actions now depend on what encloses it.
    waiting.add(enclosing(nested), *waiting.drop(nested))


def enclosing(savepoint: SessionTransaction) -> SessionTransaction:
    """The savepoint around ``savepoint``, or the outermost transaction. Those of flushes in between are left out."""
    found = savepoint
    while (parent := found.parent) is not None:
        found = parent
        if found.nested:
            break
    return found


@event.listens_for(Session, "after_soft_rollback")
def _rolled_back(session: Session, transaction: SessionTransaction) -> None:
    waiting = session.info.get(_KEY)
    if waiting is None:
        return
    waiting.drop(transaction)
    if transaction is waiting.root:
        del session.info[_KEY]


def _call(action: Any) -> None:
    try:
        action()
    except Exception:  # noqa: BLE001 - the commit stands
        _log.exception("a callback after a commit failed; the commit itself stands")
