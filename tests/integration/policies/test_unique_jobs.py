"""Unique jobs, one transaction at a time: what a dispatch meets, and what a claim makes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

import outbox.sync
from outbox import JobId, dispatch, dispatch_many
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import Claim, JobState
from outbox.errors import DuplicateJob, InvalidOption, SessionUnusable, TablesMissing
from outbox.settlement import Outcome, Settlement
from outbox.testing import travel
from tests.conformance.jobs import FAILURE
from tests.integration.policies.unique_job_classes import ByMethod, Latest, Once, Quiet, Sync
from tests.servers import sql
from tests.support.orders import async_engine, sync_engine
from tests.support.table_versions import execute


@pytest.fixture(autouse=True)
async def configured(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    yield
    await outbox.disconnect()
    outbox.sync.disconnect()


@pytest.fixture
async def engine(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(migrated_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def sync(migrated_url: str) -> Iterator[Engine]:
    engine = sync_engine(migrated_url)
    yield engine
    engine.dispose()


async def waiting(database: DatabaseDriver) -> list[tuple[JobId, dict[str, object]]]:
    return [(job.id, json.loads(job.payload)) for job in await database.jobs.list_jobs()]


async def claimed(database: DatabaseDriver) -> list[Claim]:
    return await database.jobs.claim(["default"], 10, 30)


async def settle(database: DatabaseDriver, claim: Claim, outcome: Outcome = Outcome.COMPLETED) -> frozenset[str]:
    ends = {
        Outcome.COMPLETED: Settlement.completed(claim.fence),
        Outcome.RETRIED: Settlement.retried(claim.fence, 0.0, FAILURE),
        Outcome.FAILED: Settlement.failed(claim.fence, FAILURE),
    }
    settled = await database.jobs.settle([ends[outcome].leaving(claim.policies or 0, claim.headers)])
    assert len(settled.accepted) == 1
    return settled.news.queues


def make_overdue(url: str, seconds: int = 10) -> None:
    """Jobs have been due for a while."""
    with sql.connection(url) as connection:
        ago = (
            f"strftime('%Y-%m-%d %H:%M:%f', 'now', '-{seconds} seconds') || '000'"
            if connection.dialect.name == "sqlite"
            else f"UTC_TIMESTAMP(6) - INTERVAL {seconds} SECOND"
        )
        connection.execute(text(f"UPDATE queue_unique_jobs SET due_at = {ago}"))
        connection.execute(text(f"UPDATE queue_jobs SET available_at = {ago} WHERE reserved_by IS NULL"))


async def test_a_dispatch_meets_the_job_that_waits(database: DatabaseDriver) -> None:
    first = await dispatch(Sync(customer_id=7))
    second = await dispatch(Sync(customer_id=7, edition=1))
    other = await dispatch(Sync(customer_id=8))
    assert (first.created, second.created, other.created) == (True, False, True)
    assert second == first
    assert isinstance(second, JobId)
    assert repr(second) == f"JobId('{first}')"
    assert await outbox.find(second) == await outbox.find(first)
    assert sorted(await waiting(database)) == sorted(
        [(first, {"customer_id": 7, "edition": 0}), (other, {"customer_id": 8, "edition": 0})]
    )


async def test_a_method_makes_the_key_and_a_dispatch_decides(database: DatabaseDriver) -> None:
    first = await dispatch(ByMethod(code="A"))
    assert (await dispatch(ByMethod(code="a"))) == first
    assert (await dispatch(ByMethod(code="a"), unique=False)).created
    assert (await dispatch(Sync(customer_id=1), unique=True)).created
    assert (await dispatch(Sync(customer_id=1, edition=2), unique=True)).created
    with pytest.raises(InvalidOption, match="no field 'client'"):
        await dispatch(Sync(customer_id=1), unique=["client"])
    assert len(await waiting(database)) == 4


@pytest.mark.parametrize("kind", ["async", "sync", "sync session in async code"])
async def test_in_a_session(database: DatabaseDriver, engine: AsyncEngine, sync: Engine, kind: str) -> None:
    async def one(edition: int, *, commit: bool) -> JobId:
        job = Sync(customer_id=7, edition=edition)
        if kind == "async":
            async with AsyncSession(engine) as session:
                receipt = await dispatch(job, session=session)
                await (session.commit() if commit else session.rollback())
            return receipt
        with Session(sync) as session:
            receipt = (
                outbox.sync.dispatch(job, session=session) if kind == "sync" else await dispatch(job, session=session)
            )
            (session.commit if commit else session.rollback)()
        return receipt

    rolled_back = await one(0, commit=False)
    first = await one(1, commit=True)
    second = await one(2, commit=True)
    assert (rolled_back.created, first.created, second.created) == (True, True, False)
    assert second == first != rolled_back
    assert await waiting(database) == [(first, {"customer_id": 7, "edition": 1})]


async def test_in_a_savepoint_that_is_rolled_back(database: DatabaseDriver, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        savepoint = await session.begin_nested()
        gone = await dispatch(Sync(customer_id=7), session=session)
        await savepoint.rollback()
        kept = await dispatch(Sync(customer_id=7), session=session)
        same = await dispatch(Sync(customer_id=7), session=session)
        await session.commit()
    assert gone != kept
    assert (kept.created, same.created) == (True, False)
    assert [job_id for job_id, _ in await waiting(database)] == [kept]


async def test_an_async_session_in_sync_code_says_so(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        with pytest.raises(SessionUnusable, match=r"await outbox\.dispatch"):
            outbox.sync.dispatch(Sync(customer_id=7), session=session)


async def test_several_at_once(database: DatabaseDriver, engine: AsyncEngine) -> None:
    """They are delayed: by the time that so many are dispatched again, they could have been due for too long."""
    jobs = [Sync(customer_id=number % 600, edition=number) for number in range(1_200)]
    async with AsyncSession(engine) as session:
        receipts = await dispatch_many(jobs, session=session, delay=3_600)
        await session.commit()
    assert [receipt.created for receipt in receipts] == [True] * 600 + [False] * 600
    assert receipts[:600] == receipts[600:]
    again = await dispatch_many(jobs, delay=3_600)
    assert again == receipts
    assert not any(receipt.created for receipt in again)
    assert len(await database.jobs.list_jobs(limit=2_000)) == 600


async def test_raise_refuses_all_and_writes_nothing(database: DatabaseDriver, engine: AsyncEngine) -> None:
    first = await dispatch(Sync(customer_id=7))
    new, taken = Sync(customer_id=1), Sync(customer_id=7)
    with pytest.raises(DuplicateJob, match=f"unique.Sync: the job {first} has the same key") as raised:
        await dispatch_many([new, taken], on_conflict="raise")
    assert raised.value.job_id == first
    async with AsyncSession(engine) as session:
        with pytest.raises(DuplicateJob):
            await dispatch_many([new, taken], on_conflict="raise", session=session)
        await session.commit()
    assert [job_id for job_id, _ in await waiting(database)] == [first]
    assert (await dispatch(new)).created, "its key was not taken"


async def test_replace_keeps_id_and_place_and_gives_the_newest_payload(database: DatabaseDriver) -> None:
    first = await dispatch(Sync(customer_id=7), on_conflict="replace")
    between = await dispatch(Sync(customer_id=8))
    for edition in (1, 2):
        met = await dispatch(Sync(customer_id=7, edition=edition), on_conflict="replace")
        assert (met, met.created) == (first, False)
    claims = await claimed(database)
    assert [claim.fence.job_id for claim in claims] == [first, between]
    assert json.loads(claims[0].payload) == {"customer_id": 7, "edition": 2}
    stored = await database.jobs.get(first)
    assert stored is not None
    assert json.loads(stored.payload) == {"customer_id": 7, "edition": 2}, "also for the next attempt"


@pytest.mark.parametrize("on_conflict", ["ignore", "raise", "replace"])
async def test_a_job_that_runs_swallows_no_dispatch(database: DatabaseDriver, on_conflict: str) -> None:
    first = await dispatch(Sync(customer_id=7))
    [claim] = await claimed(database)
    second = await dispatch(Sync(customer_id=7, edition=1), on_conflict=on_conflict)  # type: ignore[arg-type]
    assert second.created
    await settle(database, claim)
    assert await waiting(database) == [(second, {"customer_id": 7, "edition": 1})]
    assert first != second


async def test_a_job_that_has_long_been_due_gets_a_successor(database: DatabaseDriver, migrated_url: str) -> None:
    first = await dispatch(Sync(customer_id=7))
    make_overdue(migrated_url)
    second = await dispatch(Sync(customer_id=7, edition=1))
    assert second.created
    assert (await dispatch(Sync(customer_id=7, edition=2))) == second
    assert {claim.fence.job_id for claim in await claimed(database)} == {first, second}


async def test_a_retry_after_a_failure_does_not_hold_the_key(database: DatabaseDriver) -> None:
    first = await dispatch(Sync(customer_id=7))
    [claim] = await claimed(database)
    await settle(database, claim, Outcome.RETRIED)
    assert (await dispatch(Sync(customer_id=7))).created
    assert first in {claim.fence.job_id for claim in await claimed(database)}


async def test_a_key_is_held_for_seconds(database: DatabaseDriver, migrated_url: str) -> None:
    first = await dispatch(Once(customer_id=7))
    [claim] = await claimed(database)
    await settle(database, claim)
    met = await dispatch(Once(customer_id=7))
    assert (met, met.created) == (first, False)
    assert (await dispatch(Once(customer_id=7, edition=1), on_conflict="replace")).created
    execute(migrated_url, "UPDATE queue_unique SET held_until = '2026-01-01 00:00:00.000000'")
    make_overdue(migrated_url)
    assert (await dispatch(Once(customer_id=7))).created


async def test_debounce_puts_a_waiting_job_off(database: DatabaseDriver, migrated_url: str) -> None:
    first = await dispatch(Quiet(customer_id=7))
    due = (await database.jobs.next_due(["default"])).due
    assert due is not None
    assert 240 < due <= 300
    await dispatch(Quiet(customer_id=7, edition=1))
    # The moment of the first dispatch comes, but not that of the second.
    execute(migrated_url, "UPDATE queue_jobs SET available_at = created_at")
    assert await claimed(database) == []
    due = (await database.jobs.next_due(["default"])).due
    assert due is not None
    assert 240 < due <= 300
    execute(migrated_url, "UPDATE queue_unique_jobs SET first_at = '2026-01-01 00:00:00.000000'")
    await dispatch(Quiet(customer_id=7, edition=2))
    with sql.connection(migrated_url) as connection:
        kept = connection.scalar(text("SELECT due_at FROM queue_unique_jobs"))
    make_overdue(migrated_url, 0)
    [claim] = await claimed(database)
    assert kept is not None
    assert (claim.fence.job_id, json.loads(claim.payload)["edition"]) == (first, 2)


async def test_until_the_end_never_two_run_and_the_newest_wins(database: DatabaseDriver, migrated_url: str) -> None:
    first = await dispatch(Latest(customer_id=7))
    [running] = await claimed(database)
    assert running.fence.job_id == first
    second = await dispatch(Latest(customer_id=7, edition=1))
    assert second.created
    assert await claimed(database) == []
    stored = await database.jobs.get(second)
    assert stored is not None
    assert stored.state is JobState.PARKED
    assert any("parked: a job of the same key runs" in line for line in await database.policies.explain(stored))
    make_overdue(migrated_url)
    execute(
        migrated_url, f"UPDATE queue_jobs SET available_at = '9999-12-31 00:00:00.000000' WHERE id = x'{second.hex}'"
    )
    met = await dispatch(Latest(customer_id=7, edition=2))
    assert (met, met.created) == (second, False), "however long it has been due"
    assert await settle(database, running) == {"default"}
    [claim] = await claimed(database)
    assert (claim.fence.job_id, json.loads(claim.payload)["edition"]) == (second, 2)
    await settle(database, claim)
    assert await waiting(database) == []
    with sql.connection(migrated_url) as connection:
        assert connection.scalar(text("SELECT COUNT(*) FROM queue_unique_running")) == 0


async def test_until_the_end_a_due_job_can_be_skipped(database: DatabaseDriver) -> None:
    await dispatch(Latest(customer_id=7), when_running="skip")
    [running] = await claimed(database)
    second = await dispatch(Latest(customer_id=7), when_running="skip")
    assert await claimed(database) == []
    assert await database.jobs.get(second) is None
    assert (await dispatch(Latest(customer_id=7), when_running="skip")).created
    await settle(database, running)


async def test_until_the_end_two_due_jobs_run_one_after_the_other(database: DatabaseDriver, migrated_url: str) -> None:
    first = await dispatch(Latest(customer_id=7))
    make_overdue(migrated_url)
    second = await dispatch(Latest(customer_id=7))
    assert second.created
    [running] = await claimed(database)
    assert running.fence.job_id == first
    await settle(database, running, Outcome.RETRIED)
    [running] = await claimed(database)
    [other] = {first, second} - {running.fence.job_id}
    await settle(database, running)
    assert [claim.fence.job_id for claim in await claimed(database)] == [other]


async def test_a_job_that_an_operator_removes_frees_its_key(database: DatabaseDriver, sync: Engine) -> None:
    first = await dispatch(Sync(customer_id=7))
    await outbox.cancel(first)
    second = await dispatch(Sync(customer_id=7))
    assert second.created
    with Session(sync) as session:
        assert outbox.sync.cancel(second, session=session)
        session.commit()
    assert (await dispatch(Sync(customer_id=7))).created
    await outbox.clear("default")
    assert (await dispatch(Sync(customer_id=7))).created
    assert len(await waiting(database)) == 1


async def test_an_operator_removes_a_running_job(database: DatabaseDriver, sync: Engine) -> None:
    """Until the end, in a session: what is parked behind it is found by upkeep."""
    first = await dispatch(Latest(customer_id=7))
    await claimed(database)
    second = await dispatch(Latest(customer_id=7))
    assert await claimed(database) == []
    with Session(sync) as session:
        assert outbox.sync.cancel(first, session=session)
        session.commit()
    heard: list[frozenset[str]] = []
    database.policies.on_news = lambda news: heard.append(news.queues)
    await database.policies.upkeep()
    assert heard == [{"default"}]
    [running] = await claimed(database)
    assert running.fence.job_id == second
    third = await dispatch(Latest(customer_id=7))
    await outbox.cancel(second)
    assert [claim.fence.job_id for claim in await claimed(database)] == [third]


async def test_a_failed_job_is_retried_by_hand_if_its_key_is_free(database: DatabaseDriver) -> None:
    first = await dispatch(Sync(customer_id=7))
    [claim] = await claimed(database)
    await settle(database, claim, Outcome.FAILED)
    second = await dispatch(Sync(customer_id=7))
    with pytest.raises(DuplicateJob, match=f"stays failed: the job {second} has its key") as raised:
        await outbox.retry(first)
    assert raised.value.job_id == second
    assert await outbox.retry_all() == 0
    [claim] = await claimed(database)
    await settle(database, claim)
    assert await outbox.retry(first)
    met = await dispatch(Sync(customer_id=7, edition=9))
    assert (met, met.created) == (first, False), "it has its key again"
    assert [claim.fence.job_id for claim in await claimed(database)] == [first]


async def test_two_failed_jobs_of_a_key_are_not_both_retried(database: DatabaseDriver) -> None:
    for _ in range(2):
        await dispatch(Sync(customer_id=7))
        [claim] = await claimed(database)
        await settle(database, claim, Outcome.FAILED)
    assert await outbox.retry_all() == 1
    assert len(await outbox.failed_jobs()) == 1


async def test_upkeep_removes_what_is_over(database: DatabaseDriver, migrated_url: str) -> None:
    await dispatch_many([Sync(customer_id=number) for number in range(5)])
    await dispatch(Once(customer_id=1))
    await claimed(database)
    await dispatch(Sync(customer_id=100))
    await database.policies.upkeep()
    assert _rows(migrated_url) == (7, 7)
    make_overdue(migrated_url, 120)
    await database.policies.upkeep()
    assert _rows(migrated_url) == (2, 2), "of the job that waits, and of the key that lasts for seconds"


async def test_keys_that_are_held_for_long_are_not_in_the_way_of_upkeep(
    database: DatabaseDriver, migrated_url: str
) -> None:
    """More of them than an upkeep looks at, among them one that an operator has removed."""
    held = await dispatch_many([Once(customer_id=number) for number in range(502)], unique_until=3600)
    assert await outbox.cancel(held[0])
    await database.jobs.claim(["default"], 501, 30)
    with travel(seconds=1):
        await dispatch_many([Sync(customer_id=number) for number in range(5)])
        await claimed(database)
    with travel(seconds=90):
        await database.policies.upkeep()
        assert _rows(migrated_url) == (501, 501)
        assert not (await dispatch(Once(customer_id=501), unique_until=3600)).created
    with travel(hours=25):
        await database.policies.upkeep()
    assert _rows(migrated_url) == (0, 0)


def _rows(url: str) -> tuple[int, int]:
    with sql.connection(url) as connection:
        tables = ("queue_unique", "queue_unique_jobs")
        keys, jobs = (connection.scalar(text(f"SELECT COUNT(*) FROM {table}")) for table in tables)
        return int(keys or 0), int(jobs or 0)


async def test_tables_without_their_rows_say_so(migrated_url: str) -> None:
    execute(migrated_url, "CREATE TABLE kept AS SELECT slot FROM queue_lock_slots")
    execute(migrated_url, "DELETE FROM queue_lock_slots")
    try:
        with pytest.raises(TablesMissing, match=r"queue_lock_slots lacks its rows.*start a worker"):
            await dispatch(Sync(customer_id=7))
    finally:
        execute(migrated_url, "INSERT INTO queue_lock_slots (slot) SELECT slot FROM kept")


async def test_a_process_that_lost_the_answer_to_its_commit_makes_no_second_job(database: DatabaseDriver) -> None:
    """What a retry finds is what the first try has committed."""
    from outbox.envelope import serialize

    envelope = serialize(Sync(customer_id=7))
    assert await database.policies.insert_unique([envelope]) == {}
    assert await database.policies.insert_unique([envelope]) == {}
    assert [job_id for job_id, _ in await waiting(database)] == [envelope.id]


async def test_a_chain_and_a_batch_keep_all_of_their_jobs(database: DatabaseDriver, engine: AsyncEngine) -> None:
    """Their jobs take no keys: one that met another would be missing in them."""
    first = await dispatch(Sync(customer_id=7))
    await outbox.dispatch_chain([Sync(customer_id=7, edition=1), Sync(customer_id=7, edition=2)])
    async with AsyncSession(engine) as session:
        await outbox.dispatch_batch([Sync(customer_id=7, edition=number) for number in (3, 4)], session=session)
        await session.commit()
    versions = {payload["edition"] for job_id, payload in await waiting(database) if job_id != first}
    assert versions == {1, 3, 4}
    assert len(await claimed(database)) == 4
