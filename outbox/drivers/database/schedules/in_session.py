"""Schedules in an application's own transaction. Each raises `SessionUnusable` as `staging.stage`, and what
`run_in_session` raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session

from outbox.drivers.database.connection.plans import Plan, run_in_session
from outbox.drivers.database.dialects import Dialect, dialect_for
from outbox.drivers.database.jobs.staging import check_transaction
from outbox.drivers.database.schedules import rows
from outbox.policies.schedule import Definition

T = TypeVar("T")


def _run(session: Session, plan: Callable[[Dialect], Plan[T]]) -> T:
    connection = check_transaction(session)()
    return run_in_session(connection, plan(dialect_for(connection.dialect)))


def put(session: Session, name: str, definition: Definition) -> bool:
    return _run(session, lambda dialect: rows.put(dialect, name, definition))


def remove(session: Session, name: str) -> bool:
    return _run(session, lambda dialect: rows.remove(dialect, name))


def pause(session: Session, name: str) -> bool:
    return _run(session, lambda dialect: rows.pause(dialect, name))


def resume(session: Session, name: str) -> bool:
    return _run(session, lambda dialect: rows.resume(dialect, name))
