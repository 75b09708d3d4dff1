"""The statements that settle jobs, in an application's own transaction: with its commit, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.connection.plans import run_in_session
from outbox.drivers.database.dialects import dialect_for
from outbox.drivers.database.jobs.settlement_plan import SettlementPlan
from outbox.drivers.values import Settled
from outbox.settlement import InsertJobs, Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes
from tests.support.orders import async_engine, sync_engine

Settle = Callable[..., Awaitable[Settled]]


def settle(connection: Connection, settlements: Sequence[Settlement]) -> Settled:
    plan = SettlementPlan(dialect_for(connection.dialect), "database", settlements)
    return run_in_session(connection, plan.lock_and_settle())


@pytest.fixture(params=["sync", "async"])
async def settling(request: pytest.FixtureRequest, migrated_url: str) -> AsyncIterator[Settle]:
    """Settles in a transaction of a session, which is then committed or rolled back."""
    if request.param == "sync":
        engine = sync_engine(migrated_url)

        async def in_session(settlements: Sequence[Settlement], *, commit: bool) -> Settled:
            with Session(engine) as session:
                settled = settle(session.connection(), settlements)
                (session.commit if commit else session.rollback)()
                return settled

        yield in_session
        engine.dispose()
    else:
        async_ = async_engine(migrated_url)

        async def in_async_session(settlements: Sequence[Settlement], *, commit: bool) -> Settled:
            async with AsyncSession(async_) as session:
                settled = await (await session.connection()).run_sync(settle, settlements)
                await (session.commit if commit else session.rollback)()
                return settled

        yield in_async_session
        await async_.dispose()


async def test_every_end_and_its_effects_come_with_the_commit(driver: DatabaseDriver, settling: Settle) -> None:
    await driver.jobs.insert(envelopes(4))
    done, failed, retried, deferred = [claim.fence for claim in await driver.jobs.claim(["default"], 4, 60)]
    next_job = envelope(9, queue="next")
    settlements = [
        Settlement.completed(done, (InsertJobs((next_job,)),)),
        Settlement.failed(failed, FAILURE),
        Settlement.retried(retried, 60, FAILURE),
        Settlement.deferred(deferred, 60),
    ]
    before = await driver.jobs.list_jobs()
    assert await settling(settlements, commit=False) == Settled(tuple(settlements), ())
    assert await driver.jobs.list_jobs() == before
    assert await settling(settlements, commit=True) == Settled(tuple(settlements), ())
    assert {job.id for job in await driver.jobs.list_jobs()} == {retried.job_id, deferred.job_id, next_job.id}
    assert [job.id for job in await driver.failed.page()] == [failed.job_id]


async def test_a_stale_settlement_is_told_and_changes_nothing(driver: DatabaseDriver, settling: Settle) -> None:
    await driver.jobs.insert(envelopes(2))
    lost = await claim_one(driver, lease=0)
    held = [claim.fence for claim in await driver.jobs.claim(["default"], 2, 60)]
    stale = Settlement.completed(lost.fence, (InsertJobs((envelope(9),)),))
    others = [Settlement.completed(fence) for fence in held if fence.job_id != lost.fence.job_id]
    assert await settling([stale, *others], commit=True) == Settled(tuple(others), (stale,))
    assert [job.id for job in await driver.jobs.list_jobs()] == [lost.fence.job_id]
