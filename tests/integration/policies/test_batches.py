"""Batches: when all members have ended, what follows is dispatched, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import outbox
import outbox.sync
from outbox import Batch, Job, add_to_batch, dispatch_batch
from outbox.client_state import default_client
from outbox.connections import open_driver
from outbox.drivers.bulk import BulkFilter, BulkRequest, Verb
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.jobs.job_store import DatabaseJobs
from outbox.drivers.database.policies import batch_end, registry
from outbox.drivers.redis import RedisDriver
from outbox.errors import BatchClosed, InvalidJob, InvalidOption, PayloadTooLarge
from outbox.events import JobSettled
from outbox.relay.relay import Relay
from outbox.relay.thread import RelayThreads
from outbox.settings import Settings
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE
from tests.servers import sql
from tests.support.embedded_worker import working
from tests.support.orders import async_engine, sync_engine
from tests.support.row_locks import arrivals

ran: list[str] = []
healed: set[str] = set()


class Part(Job):
    name = "tests.batches.Part"
    max_tries = 1

    label: str = "part"
    fails: bool = False
    adds: tuple[str, ...] = ()

    async def handle(self) -> None:
        ran.append(self.label)
        if self.adds:
            self.context.batch.add([Part(label=label) for label in self.adds])
        if self.fails and self.label not in healed:
            raise ValueError("no luck")


class AddsOne(Job):
    name = "tests.batches.AddsOne"

    async def handle(self) -> None:
        self.context.batch.add(WithoutFields())


class WithoutFields(Job):
    name = "tests.batches.WithoutFields"

    async def handle(self) -> None:
        ran.append("added")


class After(Job):
    name = "tests.batches.After"

    label: str

    async def handle(self) -> None:
        ran.append(self.label)


class Step(Job):
    """Of a chain."""

    name = "tests.batches.Step"
    max_tries = 1

    label: str
    fails: bool = False
    prepends: str = ""
    adds: tuple[str, ...] = ()
    cancels: bool = False

    async def handle(self) -> str:
        ran.append(self.label if self.context.previous is None else f"{self.context.previous}-{self.label}")
        if self.prepends:
            self.context.chain.prepend(Step(label=self.prepends))
        if self.adds:
            self.context.batch.add([[Step(label=label) for label in self.adds]])
        if self.cancels:
            # Half of a cancellation, which has asked for the members before this job has ended.
            driver = open_driver(Settings(), "database")
            assert driver.policies is not None
            assert await driver.policies.mark_cancelled(self.context.batch.id)
            await driver.close()
        if self.fails and self.label not in healed:
            raise ValueError("no luck")
        return self.label


class Replaced(Job):
    name = "tests.batches.Replaced"
    concurrency_key = "key"
    on_full = "replace_running"

    key: int = 1

    async def handle(self) -> None: ...


FOLLOW_UPS: dict[str, Any] = {
    "then": After(label="then"),
    "catch": After(label="catch"),
    "finally_": After(label="finally"),
}


@pytest.fixture(autouse=True)
async def _environment(monkeypatch: pytest.MonkeyPatch, migrated_url: str) -> AsyncIterator[None]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    ran.clear()
    healed.clear()
    yield
    await outbox.disconnect()
    await asyncio.to_thread(outbox.sync.disconnect)
    await default_client.part(RelayThreads).close()


def count(url: str, table: str = "queue_jobs") -> int:
    with sql.connection(url) as connection:
        return int(connection.scalar(text(f"SELECT COUNT(*) FROM {table}")) or 0)


async def test_then_and_finally_follow_the_last_member(migrated_url: str) -> None:
    engine = async_engine(migrated_url)
    async with working(migrated_url) as worker:
        async with AsyncSession(engine) as session:
            batch_id = await dispatch_batch(
                [Part(label=str(number)) for number in range(20)], name="import", session=session, **FOLLOW_UPS
            )
            await session.commit()
        await worker.event(JobSettled, 22)
    await engine.dispose()
    assert sorted(ran[:20]) == sorted(map(str, range(20)))
    assert sorted(ran[20:]) == ["finally", "then"]
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.name, status.state, status.total, status.failed, status.outstanding) == (
        "import", "finished", 20, 0, 0,
    )  # fmt: skip
    assert status.finished_at is not None
    assert [each.id for each in await outbox.batches()] == [batch_id]


@pytest.mark.parametrize(
    ("failures", "allowed", "follows"),
    [(1, False, "catch"), (1, "5%", "then"), (2, "5%", "catch"), (2, 2, "then"), (20, True, "then")],
)
async def test_failures_up_to_what_is_allowed(migrated_url: str, failures: int, allowed: Any, follows: str) -> None:
    async with working(migrated_url) as worker:
        batch_id = await dispatch_batch(
            [Part(fails=number < failures) for number in range(20)], allow_failures=allowed, **FOLLOW_UPS
        )
        await worker.event(JobSettled, 22)
    assert sorted(ran[20:]) == sorted(["finally", follows])
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.state, status.failed) == ("failed" if follows == "catch" else "finished", failures)


async def test_a_rollback_leaves_nothing(migrated_url: str) -> None:
    engine = sync_engine(migrated_url)
    with Session(engine) as session:
        outbox.sync.dispatch_batch([Part(), Batch([Part()])], session=session)
        session.flush()
        session.rollback()
        session.commit()
    engine.dispose()
    for table in ("queue_jobs", "queue_batches", "queue_batch_members"):
        assert count(migrated_url, table) == 0


async def test_two_last_members_end_it_once(database: DatabaseDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both settlements commit before either looks."""
    await dispatch_batch([Part(), Part()], then=After(label="then"))
    claims = await database.jobs.claim(["default"], 2, 30)
    both = asyncio.Barrier(2)
    look = batch_end.batches_without_members

    async def look_together(*arguments: Any) -> Any:
        await both.wait()
        found = await look(*arguments)
        await both.wait()
        return found

    monkeypatch.setattr(batch_end, "batches_without_members", look_together)
    other = DatabaseDriver(database.database.url.render_as_string(hide_password=False))
    await asyncio.gather(
        *(
            driver.jobs.settle([Settlement.completed(claim.fence).leaving(claim.policies or 0, claim.headers)])
            for driver, claim in zip((database, other), claims, strict=True)
        )
    )
    await other.close()
    assert [job.name for job in await database.jobs.list_jobs()] == [After.name]


async def test_a_settlement_that_is_not_committed_keeps_it_open(database: DatabaseDriver, migrated_url: str) -> None:
    """The other last member looks while the deletion of the first is not committed: the first looks after it."""
    batch_id = await dispatch_batch([Part(), Part()], then=After(label="then"))
    first, second = await database.jobs.claim(["default"], 2, 30)
    if "sqlite" in migrated_url:
        pytest.skip("SQLite has one writer")
    engine = sync_engine(migrated_url)
    with engine.begin() as held:
        keys = {"batch": batch_id.bytes, "member": first.fence.job_id.bytes}
        held.execute(text("DELETE FROM queue_batch_members WHERE batch_id = :batch AND member_id = :member"), keys)
        await database.jobs.settle([Settlement.completed(second.fence).leaving(second.policies or 0, second.headers)])
        assert [job.name for job in await database.jobs.list_jobs()] == [Part.name]
        held.rollback()
    engine.dispose()
    await database.jobs.settle([Settlement.completed(first.fence).leaving(first.policies or 0, first.headers)])
    assert [job.name for job in await database.jobs.list_jobs()] == [After.name]


@pytest.mark.parametrize("commits", [True, False])
async def test_nothing_waits_for_a_transaction_that_adds(
    database: DatabaseDriver, migrated_url: str, commits: bool
) -> None:
    if "sqlite" in migrated_url:
        pytest.skip("SQLite has one writer")
    batch_id = await dispatch_batch([Part()], then=After(label="then"))
    engine = async_engine(migrated_url)
    async with AsyncSession(engine) as session:
        await add_to_batch(batch_id, [Part(label="b")], session=session)
        async with asyncio.timeout(40):
            await complete_all(database)
        assert await database.jobs.list_jobs() == [], "it may still get a member"
        await (session.commit() if commits else session.rollback())
    await engine.dispose()
    if commits:
        await complete_all(database)
    else:
        await database.policies.upkeep()
    assert [job.name for job in await database.jobs.list_jobs()] == [After.name]


async def complete_all(database: DatabaseDriver) -> None:
    claims = await database.jobs.claim(["default"], 10, 30)
    await database.jobs.settle(
        [Settlement.completed(claim.fence).leaving(claim.policies or 0, claim.headers) for claim in claims]
    )


async def test_upkeep_ends_what_a_crash_left(
    database: DatabaseDriver, monkeypatch: pytest.MonkeyPatch, migrated_url: str
) -> None:
    batch_id = await dispatch_batch([Part(), Part(fails=True)], **FOLLOW_UPS)
    claims = await database.jobs.claim(["default"], 2, 30)

    async def crash(*_: Any) -> Any:
        raise outbox.OutboxError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(batch_end, "batches_without_members", crash)
        ends = [Settlement.completed(claims[0].fence), Settlement.failed(claims[1].fence, FAILURE)]
        await database.jobs.settle(
            [end.leaving(claim.policies or 0, claim.headers) for end, claim in zip(ends, claims, strict=True)]
        )
    assert await database.jobs.list_jobs() == []
    for _ in range(2):
        await database.policies.upkeep()
        assert len(await database.jobs.list_jobs()) == 2, "catch and finally"
    with sql.connection(migrated_url) as connection:
        connection.execute(text("UPDATE queue_batches SET finished_at = '2020-01-01'"))
    await database.policies.upkeep()
    assert await outbox.batch(batch_id) is None
    assert count(migrated_url, "queue_batch_failures") == 0


async def test_members_add_members(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        batch_id = await dispatch_batch([Part(label="a", adds=("b", "c"))], **FOLLOW_UPS)
        await worker.event(JobSettled, 5)
    assert sorted(ran[1:3]) == ["b", "c"]
    assert sorted(ran[3:]) == ["finally", "then"]
    status = await outbox.batch(batch_id)
    assert status is not None
    assert status.total == 3


async def test_a_member_adds_one_member(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        await dispatch_batch([AddsOne()], then=After(label="then"))
        await worker.event(JobSettled, 3)
    assert ran == ["added", "then"]


async def test_jobs_are_added_from_outside_while_it_is_open(migrated_url: str, database: DatabaseDriver) -> None:
    batch_id = await dispatch_batch([Part()], then=After(label="then"))
    engine = async_engine(migrated_url)
    async with AsyncSession(engine) as session:
        await add_to_batch(batch_id, [Part(label="b")], session=session)
        await session.commit()
    await asyncio.to_thread(outbox.sync.add_to_batch, batch_id, [Part(label="c")])
    async with working(migrated_url) as worker:
        await worker.event(JobSettled, 4)
    assert ran[-1] == "then"
    with pytest.raises(BatchClosed, match="has ended"):
        await add_to_batch(batch_id, [Part()])
    async with AsyncSession(engine) as session:
        with pytest.raises(BatchClosed, match="has ended"):
            await add_to_batch(batch_id, [Part()], session=session)
        await session.rollback()
        await session.commit()
    await engine.dispose()
    with pytest.raises(BatchClosed, match="is not known"):
        await add_to_batch(outbox.JobId(int=7), [Part()])
    assert count(migrated_url) == count(migrated_url, "queue_batch_members") == 0


async def test_a_nested_batch_is_one_member(migrated_url: str) -> None:
    inner = Batch([Part(label="b"), Part(label="c", fails=True)], then=After(label="inner then"), allow_failures=1)
    async with working(migrated_url) as worker:
        batch_id = await dispatch_batch([Part(label="a"), inner], **FOLLOW_UPS)
        await worker.event(JobSettled, 6)
    assert sorted(ran[:3]) == ["a", "b", "c"]
    assert sorted(ran[3:]) == ["finally", "inner then", "then"]
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.total, status.failed) == (2, 0)


async def test_a_retry_of_failures_reopens_it(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        inner = Batch([Part(label="x", fails=True)], name="inner")
        batch_id = await dispatch_batch([Part(label="a"), inner], **FOLLOW_UPS)
        await worker.event(JobSettled, 4)
        assert sorted(ran[2:]) == ["catch", "finally"]
        status = await outbox.batch(batch_id)
        assert status is not None
        assert (status.state, status.failed) == ("failed", 1)
        healed.add("x")
        assert await outbox.retry_batch(batch_id) == 1
        await worker.event(JobSettled, 6)
    assert ran[4:] == ["x", "then"], "neither catch nor finally a second time"
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.state, status.failed, status.outstanding) == ("finished", 0, 0)


async def test_a_retry_puts_all_failed_members_of_one_unique_key_back(migrated_url: str) -> None:
    """They took no key when they were dispatched, and take none now."""
    async with working(migrated_url) as worker:
        members = [Part(label=label, fails=True) for label in ("x", "y")]
        batch_id = await dispatch_batch(members, **FOLLOW_UPS, unique=["fails"])
        await worker.event(JobSettled, 4)
        healed.update(("x", "y"))
        assert await outbox.retry_batch(batch_id) == 2
        await worker.event(JobSettled, 7)
    assert sorted(ran[4:6]) == ["x", "y"]
    assert ran[6:] == ["then"]


async def test_a_batch_ends_with_a_member_that_another_job_replaces(database: DatabaseDriver) -> None:
    """At once, not with the next upkeep."""
    batch_id = await dispatch_batch([Replaced()], then=After(label="then"))
    [_] = await database.jobs.claim(["default"], 10, 30)
    newer = await outbox.dispatch(Replaced())
    [claim] = await database.jobs.claim(["default"], 10, 30)
    assert claim.fence.job_id == newer
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.state, status.outstanding) == ("finished", 0)
    [then] = await database.jobs.claim(["default"], 10, 30)
    assert then.name == After.name


async def test_cancelling(migrated_url: str) -> None:
    batch_id = await dispatch_batch([Part(), Batch([Part(), Part()])], **FOLLOW_UPS)
    assert await outbox.cancel_batch(batch_id)
    assert not await outbox.cancel_batch(batch_id)
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.state, status.outstanding) == ("cancelled", 0)
    with pytest.raises(BatchClosed, match="was cancelled"):
        await add_to_batch(batch_id, [Part()])
    async with working(migrated_url) as worker:
        await worker.event(JobSettled)
    assert ran == ["finally"]


async def test_a_batch_is_named_by_any_form_of_its_id() -> None:
    batch_id = await dispatch_batch([Part(label="a")])
    await add_to_batch(str(batch_id), [Part(label="b")])
    for given in (batch_id, str(batch_id), UUID(str(batch_id))):
        status = await outbox.batch(given)
        assert status is not None
        assert (status.id, status.total) == (batch_id, 2)
        assert await outbox.retry_batch(given) == 0
    assert await outbox.cancel_batch(str(batch_id))
    wrong: Any
    for wrong in ("x", 7, None):
        for call in (outbox.batch, outbox.cancel_batch, outbox.retry_batch, lambda each: add_to_batch(each, [Part()])):
            with pytest.raises(InvalidOption, match="the id of a batch is a UUID, not"):
                await call(wrong)
    for wrong in (0, -1, 1.5, "x", 10_001):
        with pytest.raises(InvalidOption, match="a limit is a whole number from 1 to 10,000"):
            await outbox.batches(limit=wrong)


async def test_bad_batches_write_nothing(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidJob, match="at least one"):
        await dispatch_batch([])
    with pytest.raises(InvalidJob, match="at least one"):
        await dispatch_batch([Part(), Batch([])])
    with pytest.raises(InvalidJob, match="dispatch takes a Job"):
        await dispatch_batch([Part()], then="done")  # type: ignore[arg-type]
    for wrong in (-1, "5", "x%", "101%", 0.5):
        with pytest.raises(InvalidOption, match="allow_failures"):
            await dispatch_batch([Part()], allow_failures=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="name of a batch"):
        await dispatch_batch([Part()], name="ü")
    monkeypatch.setenv("OUTBOX_PAYLOAD_LIMIT", "2000")
    with pytest.raises(PayloadTooLarge):
        await dispatch_batch([Part(), Part(label="x" * 2_000)])
    for table in ("queue_jobs", "queue_batches", "queue_batch_members"):
        assert count(migrated_url, table) == 0


async def test_a_chain_is_one_member_until_its_last_job_ends(migrated_url: str) -> None:
    chain = [Step(label="a", prepends="b"), Step(label="c", adds=("x", "y"))]
    async with working(migrated_url) as worker:
        batch_id = await dispatch_batch([chain], **FOLLOW_UPS)
        await worker.event(JobSettled, 7)
    assert [each for each in ran[:5] if each[0] in "abc"] == ["a", "a-b", "b-c"]
    assert [each for each in ran[:5] if each[0] in "xy"] == ["x", "x-y"], "a chain that one of the chain has added"
    assert sorted(ran[5:]) == ["finally", "then"]
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.state, status.total, status.failed, status.outstanding) == ("finished", 2, 0, 0)
    assert count(migrated_url, "queue_batch_members") == 0


async def test_a_chain_fails_with_one_of_its_jobs_and_goes_on_with_its_retry(migrated_url: str) -> None:
    chains = [
        [Step(label=f"{name}1"), Step(label=f"{name}2", fails=name == "b"), Step(label=f"{name}3")] for name in "ab"
    ]
    async with working(migrated_url) as worker:
        batch_id = await dispatch_batch([Part(label="p"), *chains], **FOLLOW_UPS)
        await worker.event(JobSettled, 8)
        assert sorted(ran[:6]) == ["a1", "a1-a2", "a2-a3", "b1", "b1-b2", "p"]
        assert sorted(ran[6:]) == ["catch", "finally"]
        status = await outbox.batch(batch_id)
        assert status is not None
        assert (status.state, status.total, status.failed) == ("failed", 3, 1)
        healed.add("b2")
        assert await outbox.retry_batch(batch_id) == 1
        await worker.event(JobSettled, 11)
    assert ran[8:] == ["b1-b2", "b2-b3", "then"]
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.state, status.total, status.failed, status.outstanding) == ("finished", 3, 0, 0)


@pytest.mark.parametrize("how", ["cancel", "clear", "bulk"])
async def test_a_batch_ends_with_the_removal_of_its_last_member(database: DatabaseDriver, how: str) -> None:
    """Without upkeep."""
    batch_id = await dispatch_batch([Part()], then=Part(label="then"))
    [member] = await database.policies.batch_members(batch_id)
    if how == "cancel":
        assert await database.jobs.cancel([member]) == [member]
    elif how == "clear":
        assert await database.queues.clear("default") == 1
    else:
        assert database.operations is not None
        await database.operations.start(BulkRequest(Verb.CANCEL, BulkFilter(queue="default")))
        await database.operations.work_off()
    status = await database.policies.batch(batch_id)
    assert status is not None
    assert status.state == "finished"
    assert [json.loads(job.payload)["label"] for job in await database.jobs.list_jobs()] == ["then"]


async def test_a_cancelled_batch_runs_no_later_job_of_a_chain(migrated_url: str) -> None:
    """Neither of a chain that waits, nor of one whose job ends after the members were asked for."""
    async with working(migrated_url) as worker:
        batch_id = await dispatch_batch([[Step(label="a", cancels=True), Step(label="b")]], **FOLLOW_UPS)
        await worker.event(JobSettled, 2)
    assert ran == ["a", "finally"]
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.state, status.total, status.outstanding) == ("cancelled", 1, 0)
    waiting = await dispatch_batch([[Step(label="c"), Step(label="d")]])
    assert await outbox.cancel_batch(waiting)
    assert count(migrated_url) == 0
    assert count(migrated_url, "queue_batch_members") == 0


async def test_a_chain_is_added_from_outside(migrated_url: str) -> None:
    batch_id = await dispatch_batch([Step(label="a")], then=After(label="then"))
    [first] = await add_to_batch(batch_id, [[Step(label="b"), Step(label="c")]])
    async with working(migrated_url) as worker:
        await worker.event(JobSettled, 4)
    assert sorted(ran[:3]) == ["a", "b", "b-c"]
    assert ran[3:] == ["then"]
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.total, first.int != 0) == (2, True)


async def test_the_end_sees_a_member_that_took_the_place_of_the_one_it_waited_for(
    database: DatabaseDriver, migrated_url: str
) -> None:
    """A chain can be retried between the look that finds no member and the end. The end then waits at the row of a job
    whose settlement has inserted the next one where the end has already looked."""
    if "sqlite" in migrated_url:
        pytest.skip("SQLite has one writer")
    batch_id = await dispatch_batch([Part()], then=After(label="then"))
    [claim] = await database.jobs.claim(["default"], 1, 30)
    keys = {"batch": batch_id.bytes, "member": claim.fence.job_id.bytes, "next": bytes([255] * 16)}
    engine = sync_engine(migrated_url)
    with engine.begin() as held:
        held.execute(text("DELETE FROM queue_batch_members WHERE batch_id = :batch AND member_id = :member"), keys)
        with arrivals(database) as arrived:
            ending = asyncio.create_task(batch_end.finish(database.database, batch_id))
            await arrived.wait_for(1)
            held.execute(text("INSERT INTO queue_batch_members (batch_id, member_id) VALUES (:batch, :next)"), keys)
            held.commit()
            await ending
    engine.dispose()
    status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.state, status.outstanding) == ("open", 1)


async def test_bad_chains_write_nothing(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidJob, match="a chain has at least one job"):
        await dispatch_batch([Part(), []])
    with pytest.raises(InvalidJob, match="dispatch takes a Job, not a Batch"):
        await dispatch_batch([[Part(), Batch([Part()])]])  # type: ignore[list-item]
    monkeypatch.setenv("REDIS_URL", "redis://localhost:1/0")
    with pytest.raises(InvalidOption, match=r"a chain in a batch is for a connection of the database.*'redis'"):
        await dispatch_batch([Part(), [Part(), Part()]], connection="redis")
    with pytest.raises(InvalidJob, match="`dispatch_if` leaves out all"):
        await dispatch_batch([[Part(), Part()]], dispatch_if=False)
    for table in ("queue_jobs", "queue_batches", "queue_batch_members"):
        assert count(migrated_url, table) == 0


@pytest.mark.redis
@pytest.mark.parametrize("backend", [pytest.param("mysql", marks=pytest.mark.mysql)], indirect=True)
async def test_members_on_redis(database: DatabaseDriver, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(default_client.part(RelayThreads), "wake", lambda *_: None)
    redis = RedisDriver(redis_url)
    relay = Relay(database, redis, "redis")
    await dispatch_batch([Part() for _ in range(3)], connection="redis", **FOLLOW_UPS)
    assert await relay.move() == 3
    claims = await redis.jobs.claim(["default"], 3, 30)
    for number, claim in enumerate(claims, 1):
        await redis.jobs.settle([Settlement.completed(claim.fence).leaving(claim.policies or 0, claim.headers)])
        assert await relay.remove_ended() == 1
        assert len(await database.jobs.list_jobs()) == (2 if number == 3 else 3 - number)
    await redis.close()


async def test_a_worker_that_stops_when_empty_runs_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The follow-up is inserted after the commit of the last member. Here a claim finds nothing in between."""
    claims: list[int] = []
    claim, committed = DatabaseJobs.claim, registry.committed

    async def counted(self: DatabaseJobs, *arguments: Any, **options: Any) -> Any:
        found = await claim(self, *arguments, **options)
        claims.append(len(found))
        return found

    async def late(*arguments: Any) -> Any:
        while claims[-1] != 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # in which a worker that believes that claim has counted the jobs
        return await committed(*arguments)

    monkeypatch.setattr(DatabaseJobs, "claim", counted)
    monkeypatch.setattr(registry, "committed", late)
    await dispatch_batch([Part()], then=After(label="then"))
    worker = outbox.Worker(stop_when_empty=True, sleep=0.05)
    async with asyncio.timeout(30):
        await worker.start()
        await worker.wait()
    assert ran == ["part", "then"]
