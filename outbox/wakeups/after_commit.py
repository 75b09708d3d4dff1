"""What is to happen once a session's transaction has committed, and not otherwise."""

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
    """The actions of one outermost transaction, kept with the savepoints that they depend on."""

    def __init__(self, root: SessionTransaction) -> None:
        self.root = root
        self.actions: dict[SessionTransaction, list[Action]] = {}

    def add(self, transaction: SessionTransaction, *actions: Action) -> None:
        self.actions.setdefault(transaction, []).extend(actions)

    def drop(self, transaction: SessionTransaction) -> list[Action]:
        return self.actions.pop(transaction, [])


def after_commit(session: Session, action: Action) -> None:
    """Call ``action`` when what ``session`` has written so far is committed: after the outermost commit, unless a
    savepoint that was open at this moment is rolled back. It must be quick; what it raises is logged.

    For a session in a transaction that somebody else commits later (an external connection), it is called too early.
    """
    root = session.get_transaction()
    if root is None:
        return
    waiting = session.info.get(_KEY)
    if waiting is None or waiting.root is not root:
        waiting = session.info[_KEY] = _Waiting(root)
    waiting.add(session.get_nested_transaction() or root, action)


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
    # A released savepoint: from now on it is the fate of what is around it.
    parent = nested.parent
    while parent is not None and not parent.nested and parent.parent is not None:
        parent = parent.parent
    waiting.add(parent or waiting.root, *waiting.drop(nested))


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
        _log.exception("what should have followed a commit failed; the commit itself stands")
