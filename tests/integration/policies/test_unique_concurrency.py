"""Unique jobs in transactions that meet: no deadlock, and no application waits for a worker."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

import outbox.sync
from outbox import Job, JobId
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.connection.plans import run
from outbox.drivers.database.jobs.claim import ClaimRequest, ClaimTransaction
from outbox.drivers.database.jobs.settlement_plan import SettlementPlan
from outbox.drivers.database.jobs.unconfirmed import UnconfirmedWrites
from outbox.drivers.values import Claim
from outbox.settlement import Settlement
from tests.integration.policies.unique_job_classes import Latest, Sync
from tests.support.orders import sync_engine
from tests.support.row_locks import Arrivals

LEVELS = ["READ COMMITTED", "REPEATABLE READ"]
SERVERS = [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]

on_servers = pytest.mark.parametrize("backend", SERVERS, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(migrated_url: str, level: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Of an application that would give up after a second of waiting for a lock."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    engine = sync_engine(migrated_url, isolation_level=level, pool_size=20)
    yield engine
    engine.dispose()


class Transaction:
    """One of an application's, in a thread."""

    def __init__(self, engine: Engine, *jobs: Job, lock_wait: int = 50, **options: Any) -> None:
        self.receipts: list[JobId] = []
        self.error: BaseException | None = None
        self.dispatched, self.end = threading.Event(), threading.Event()
        self.commits = True
        self._engine, self._jobs, self._options, self._lock_wait = engine, jobs, options, lock_wait
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with Session(self._engine) as session:
                session.execute(text(f"SET SESSION innodb_lock_wait_timeout = {self._lock_wait}"))
                # A snapshot of before, at REPEATABLE READ.
                session.execute(text("SELECT COUNT(*) FROM queue_unique")).all()
                self.receipts = outbox.sync.dispatch_many(self._jobs, session=session, **self._options)
                session.flush()
                self.dispatched.set()
                self.end.wait(120)
                (session.commit if self.commits else session.rollback)()
        except BaseException as error:
            self.error = error
            self.dispatched.set()

    async def has_dispatched(self) -> list[JobId]:
        assert await asyncio.to_thread(self.dispatched.wait, 60)
        assert self.error is None, self.error
        return self.receipts

    async def ends(self, *, commit: bool = True) -> list[JobId]:
        self.commits = commit
        self.end.set()
        await asyncio.to_thread(self._thread.join, 60)
        assert not self._thread.is_alive()
        assert self.error is None, self.error
        return self.receipts


@asynccontextmanager
async def open_claim(database: DatabaseDriver) -> AsyncIterator[list[Claim]]:
    """A claim whose worker is frozen before its COMMIT, for as long as this lasts."""
    transaction = ClaimTransaction(
        database.database,
        UnconfirmedWrites(),
        database.jobs.claim_scan,
        "database",
        ClaimRequest(["default"], 10, 30.0),
    )
    async with database.database.engine.connect() as connection:
        yield await transaction.run(connection)
        await connection.commit()


async def claimed(database: DatabaseDriver) -> list[Claim]:
    return await database.jobs.claim(["default"], 10, 30)


@on_servers
@pytest.mark.parametrize("on_conflict", ["ignore", "replace"])
@pytest.mark.parametrize("first_commits", [False, True])
async def test_eight_transactions_want_one_key(
    database: DatabaseDriver, engine: Engine, on_conflict: str, first_commits: bool
) -> None:
    options: dict[str, Any] = {"on_conflict": on_conflict}
    first = Transaction(engine, Sync(customer_id=7), **options)
    [made] = await first.has_dispatched()
    others = [Transaction(engine, Sync(customer_id=7, edition=number), **options) for number in range(1, 8)]
    await Arrivals([database]).wait_for(7)
    await first.ends(commit=first_commits)
    for other in others:
        other.end.set()
    receipts = [receipt for other in others for receipt in await other.ends()]
    assert sum(receipt.created for receipt in receipts) == (0 if first_commits else 1)
    [job] = await database.jobs.list_jobs()
    assert set(receipts) == {job.id}
    assert (job.id == made) is first_commits


@on_servers
async def test_keys_in_opposite_orders(database: DatabaseDriver, engine: Engine) -> None:
    """Many transactions with several keys each, some of which roll back: nobody gets a deadlock."""
    seeds = random.Random(7)

    def work(seed: int) -> int:
        chance, made = random.Random(seed), 0
        for _ in range(15):
            keys = chance.sample(range(30), 12)
            with Session(engine) as session:
                session.execute(text("SELECT COUNT(*) FROM queue_unique")).all()
                jobs = [Sync(customer_id=key, edition=seed) for key in keys]
                receipts = outbox.sync.dispatch_many(jobs, session=session, on_conflict="replace")
                if chance.random() < 0.3:
                    session.rollback()
                else:
                    session.commit()
                    made += sum(receipt.created for receipt in receipts)
        return made

    tasks = [asyncio.to_thread(work, seeds.randrange(10_000)) for _ in range(8)]
    made = sum(await asyncio.gather(*tasks))
    assert made == len(await database.jobs.list_jobs(limit=1_000)) >= 30


@on_servers
@pytest.mark.parametrize("on_conflict", ["ignore", "replace", "raise"])
@pytest.mark.parametrize("kind", [Sync, Latest])
async def test_a_dispatch_does_not_wait_for_a_claim(
    database: DatabaseDriver, engine: Engine, on_conflict: str, kind: type[Sync]
) -> None:
    first = Transaction(engine, kind(customer_id=7))
    [made] = await first.has_dispatched()
    await first.ends()
    async with open_claim(database) as claims:
        assert [claim.fence.job_id for claim in claims] == [made]
        second = Transaction(engine, kind(customer_id=7, edition=1), lock_wait=1, on_conflict=on_conflict)
        [successor] = await second.has_dispatched()
        await second.ends()
    assert successor.created
    assert {job.id for job in await database.jobs.list_jobs()} == {made, successor}


@on_servers
async def test_a_dispatch_does_not_wait_for_a_settlement(database: DatabaseDriver, engine: Engine) -> None:
    first = Transaction(engine, Latest(customer_id=7))
    await first.has_dispatched()
    await first.ends()
    [claim] = await claimed(database)
    second = Transaction(engine, Latest(customer_id=7, edition=1))
    [waiting] = await second.has_dispatched()
    await second.ends()
    assert await claimed(database) == []
    end = Settlement.completed(claim.fence).leaving(claim.policies or 0, claim.headers)
    plan = SettlementPlan(database.database.dialect, "database", [end])
    async with database.database.engine.connect() as connection:
        settled = await run(plan.lock_and_settle(), connection)
        assert settled.news.queues == {"default"}
        third = Transaction(engine, Latest(customer_id=7, edition=2), lock_wait=1)
        [receipt] = await third.has_dispatched()
        await third.ends()
        await connection.commit()
    [claim] = await claimed(database)
    if receipt.created:
        # The settlement had the row of the parked job: it counted as starting.
        assert receipt != waiting
    else:
        assert json.loads(claim.payload)["edition"] == 2
    assert claim.fence.job_id == waiting


@on_servers
@pytest.mark.parametrize("commit", [True, False])
async def test_a_job_does_not_start_before_the_transactions_that_joined_it_have_ended(
    database: DatabaseDriver, engine: Engine, commit: bool
) -> None:
    first = Transaction(engine, Sync(customer_id=7))
    [made] = await first.has_dispatched()
    await first.ends()
    joining = Transaction(engine, Sync(customer_id=7, edition=1), on_conflict="replace")
    [met] = await joining.has_dispatched()
    assert (met, met.created) == (made, False)
    assert await claimed(database) == []
    due = (await database.jobs.next_due(["default"])).due
    assert due is not None
    assert due <= 0.25
    await joining.ends(commit=commit)
    await asyncio.sleep(due)
    [claim] = await claimed(database)
    assert json.loads(claim.payload)["edition"] == int(commit)


@on_servers
async def test_claims_of_other_jobs_go_on(database: DatabaseDriver, engine: Engine) -> None:
    """While a transaction that has joined one job stays open."""
    first = Transaction(engine, Sync(customer_id=7), Sync(customer_id=8))
    seven, eight = await first.has_dispatched()
    await first.ends()
    joining = Transaction(engine, Sync(customer_id=7))
    await joining.has_dispatched()
    assert [claim.fence.job_id for claim in await claimed(database)] == [eight]
    await joining.ends()
    await asyncio.sleep(0.25)
    assert [claim.fence.job_id for claim in await claimed(database)] == [seven]


@on_servers
async def test_claimers_of_one_key_run_one_job(database: DatabaseDriver, engine: Engine, migrated_url: str) -> None:
    """Two jobs of a key that lasts until the end are due, and two claims take them at the same moment."""
    drivers = [DatabaseDriver(migrated_url) for _ in range(2)]
    for number in range(10):
        made = Transaction(engine, Latest(customer_id=number))
        await made.has_dispatched()
        await made.ends()
        with engine.begin() as connection:
            connection.execute(text("UPDATE queue_unique_jobs SET due_at = '2026-01-01'"))
        successor = Transaction(engine, Latest(customer_id=number, edition=1))
        await successor.has_dispatched()
        await successor.ends()
        taken = await asyncio.gather(*(driver.jobs.claim(["default"], 1, 30) for driver in drivers))
        claims = [claim for some in taken for claim in some]
        assert len(claims) <= 1
        async with asyncio.timeout(60):
            while await database.jobs.list_jobs():
                claims += await claimed(database)
                assert len(claims) <= 1
                ends = [Settlement.completed(each.fence).leaving(each.policies or 0, each.headers) for each in claims]
                await database.jobs.settle(ends)
                claims = []
                await asyncio.sleep(0.05)  # a job that a claim has left is put off for a moment
    for driver in drivers:
        await driver.close()
