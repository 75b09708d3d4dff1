"""Dispatching in a session: its own transaction writes the jobs."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from outbox.connections import connection_settings, is_relayed
from outbox.dispatch.observers import is_recorded, tell_listeners, traced
from outbox.dispatch.preparing import Serialized
from outbox.drivers.database.jobs.staging import check_database, reserve_keys, stage
from outbox.envelope import Envelope
from outbox.errors import SessionUnusable
from outbox.relay.route import to_relay_row
from outbox.settings import DATABASE
from outbox.telling_workers import tell_workers

AnySession = AsyncSession | Session | async_scoped_session[Any] | scoped_session[Any]


async def stage_in(session: AnySession, serialized: Serialized) -> None:
    """`stage_all`, which asks the database if a job is unique."""
    if not serialized.unique:
        stage_all(session, serialized)
        return
    if isinstance(session, async_scoped_session):
        session = session()
    if isinstance(session, AsyncSession):
        await session.run_sync(stage_all, serialized)
    else:
        stage_all(session, serialized)


def stage_all(session: AnySession, serialized: Serialized) -> None:
    """Hand the jobs to the session, which writes them when it flushes."""
    with traced(serialized, in_session=True):
        target = sync_session(session)
        rows = _rows(target, serialized)
        if not is_recorded(serialized, target):
            _stage(target, rows, serialized)
        tell_listeners(serialized, in_session=True)


def _rows(session: Session, serialized: Serialized) -> list[Envelope]:
    """What is written. Whatever their connection, the session's database is where jobs belong: those for Redis are
    relayed to it from there."""
    settings = serialized.settings
    rows: list[Envelope] = []
    for name, envelopes in serialized.by_connection.items():
        if is_relayed(settings, name):
            # Workers look for them nowhere else, so that in another database they would wait for ever.
            check_database(session, connection_settings(settings, DATABASE).url)
            rows += [to_relay_row(envelope, name) for envelope in envelopes]
        else:
            rows += envelopes
    return rows


def _stage(session: Session, rows: list[Envelope], serialized: Serialized) -> None:
    if serialized.unique:
        met = reserve_keys(session, rows)
        serialized.meet(met)
        rows = [row for row in rows if row.id not in met]
    if rows:
        stage(session, rows, partial(tell_workers, serialized.client, settings=serialized.settings))


def sync_session(session: object) -> Session:
    """The ``Session`` behind any kind of session.

    Raises:
        SessionUnusable: it is none.
    """
    if isinstance(session, async_scoped_session | scoped_session):
        session = session()
    if isinstance(session, AsyncSession):
        session = session.sync_session
    if not isinstance(session, Session):
        raise SessionUnusable(
            f"session= takes a Session or an AsyncSession of SQLAlchemy, not a {type(session).__name__}"
        )
    return session
