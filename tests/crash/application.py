"""An application that dispatches: in transactions of its own, some of which roll back, or straight to a store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from outbox import Job, JobId, dispatch
from outbox.drivers.base import JobWriter
from outbox.envelope import serialize
from outbox.errors import BackendUnavailable
from tests.support.orders import async_engine


@dataclass
class Ledger:
    """What the application knows of its own transactions."""

    committed: set[JobId] = field(default_factory=set)
    rolled_back: set[JobId] = field(default_factory=set)
    unknown: set[JobId] = field(default_factory=set)
    """The server died before it said so: it happened, or it did not."""


async def dispatch_in_transactions(url: str, jobs: Sequence[Job], ledger: Ledger, *, pause: float = 0.0) -> None:
    """One transaction per job; every fifth rolls back. One that meets a dead server is done again."""
    engine = async_engine(url)
    try:
        for number, job in enumerate(jobs):
            while not await _transaction(engine, job, ledger, roll_back=number % 5 == 4):
                await asyncio.sleep(0.1)
            await asyncio.sleep(pause)
    finally:
        await engine.dispose()


async def _transaction(engine: AsyncEngine, job: Job, ledger: Ledger, *, roll_back: bool) -> bool:
    """Whether its outcome was as intended."""
    session = AsyncSession(engine)
    try:
        connection = await session.connection()
    except DBAPIError:
        await session.close()
        return False
    try:
        job_id = await dispatch(job, session=session)
        await session.flush()
    except DBAPIError:
        await _close(session, connection)
        return False
    if roll_back:
        ledger.rolled_back.add(job_id)
        await _close(session, connection)
        return True
    try:
        await session.commit()
    except DBAPIError:
        ledger.unknown.add(job_id)
        return False
    else:
        ledger.committed.add(job_id)
        return True
    finally:
        await _close(session, connection)


async def _close(session: AsyncSession, connection: AsyncConnection) -> None:
    try:
        await session.close()
    except DBAPIError:
        # The transaction is gone, whatever becomes of the server. A connection that refused to roll back belongs to
        # nobody any more: whoever drops it like that empties the pool, and is told of it when it is collected.
        await connection.invalidate()


async def dispatch_to(store: JobWriter, jobs: Sequence[Job], ledger: Ledger, *, pause: float = 0.0) -> None:
    """One call per job. One that meets a dead server is a new job when it is done again."""
    for job in jobs:
        while not await _stored(store, job, ledger):
            await asyncio.sleep(0.1)
        await asyncio.sleep(pause)


async def _stored(store: JobWriter, job: Job, ledger: Ledger) -> bool:
    # Sealed here and not by `dispatch`, which cannot say the id of a job whose fate is unknown.
    envelope = serialize(job)
    try:
        await store.jobs.insert([envelope])
    except BackendUnavailable:
        ledger.unknown.add(envelope.id)
        return False
    ledger.committed.add(envelope.id)
    return True
