"""Bulk operations: what is previewed is done, to the jobs that there were, once, whatever is killed or stopped.

One call works for a second. Where a test calls once, no time passes: a machine that is busy would not get to the end.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, text

import outbox
from outbox import Job, bulk, dispatch, dispatch_many
from outbox.drivers.bulk import BulkFilter, BulkRequest, BulkState, Verb
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.bulk.portion import Portion
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import PolicyNews
from outbox.errors import ConfigurationError, InvalidOption, JobNotFound
from outbox.events import BulkOperationEnded, BulkOperationStarted
from outbox.ids import JobId, new_job_id
from outbox.settlement import Failure, Settlement
from outbox.wakeups.base import CANCELLED
from tests.conformance.jobs import envelope, envelopes
from tests.integration.policies.unique_job_classes import Sync
from tests.servers import sql
from tests.support.embedded_worker import working
from tests.support.python_process import run_python
from tests.support.row_locks import locked

ROOT = Path(__file__).parents[3]
DYING = "tests.support.dying_operation"
TIMED_OUT = Failure("shop.GatewayTimeout", "the gateway was silent", "Traceback: …")


class Charge(Job):
    name = "bulk.Charge"
    queue = "mail"
    ordering_key = "customer"

    customer: int

    async def handle(self) -> None: ...


@pytest.fixture(autouse=True)
async def configured(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    yield
    await outbox.disconnect()


async def fail(database: DatabaseDriver, queue: str = "mail", failure: Failure = TIMED_OUT) -> list[JobId]:
    claims = await database.jobs.claim([queue], 5_000, 30)
    ends = [Settlement.failed(claim.fence, failure).leaving(claim.policies or 0, claim.headers) for claim in claims]
    await database.jobs.settle(ends)
    return [claim.fence.job_id for claim in claims]


async def live(database: DatabaseDriver) -> dict[str, int]:
    jobs = await database.jobs.list_jobs(limit=10_000)
    return {queue: sum(job.queue == queue for job in jobs) for queue in sorted({job.queue for job in jobs})}


@pytest.mark.usefixtures("timeless")
async def test_all_jobs_that_match_are_moved_and_no_others(database: DatabaseDriver) -> None:
    await database.jobs.insert(envelopes(2_345, queue="mail"))
    await database.jobs.insert(envelopes(7, queue="other"))
    held = await database.jobs.claim(["mail"], 5, 30)
    found = await bulk.preview("move", queue="mail", to="slow")
    assert (found.count, found.at_least, len(found.sample)) == (2_340, False, 5)
    made = await bulk.start("move", queue="mail", to="slow", by="anna")
    assert (made.state, made.total, made.by) == (BulkState.WAITING, 2_340, "anna")
    await database.jobs.insert(envelopes(3, queue="mail"))
    assert await database.policies.upkeep() is None
    ended = await bulk.progress(made.id)
    assert (ended.state, ended.done, ended.refused) == (BulkState.FINISHED, 2_340, 0)
    assert await live(database) == {"mail": len(held) + 3, "other": 7, "slow": 2_340}
    [entry] = await database.audit.latest(10)
    assert (entry.by, entry.action, entry.count) == ("anna", "bulk move", 2_340)
    assert entry.target == {"queue": "mail", "to": "slow", "operation": str(made.id)}


@pytest.mark.usefixtures("timeless")
@pytest.mark.parametrize("chosen", [{"key": "customer:7"}, {"error": "silent"}, {"since": timedelta(hours=1)}])
async def test_live_jobs_are_cancelled_by_what_they_are(database: DatabaseDriver, chosen: dict[str, object]) -> None:
    await dispatch_many([Charge(customer=7)])
    [claim] = await database.jobs.claim(["mail"], 1, 30)
    await database.jobs.settle(
        [Settlement.retried(claim.fence, 60.0, TIMED_OUT).leaving(claim.policies or 0, claim.headers)]
    )
    if "since" not in chosen:
        await dispatch_many([Charge(customer=8), Charge(customer=9)])
    assert (await bulk.preview("cancel", **chosen)).count == 1  # type: ignore[arg-type]
    assert (await bulk.preview("cancel", older_than=3_600, **chosen)).count == 0  # type: ignore[arg-type]
    heard: list[PolicyNews] = []
    database.policies.on_news = heard.append
    made = await bulk.start("cancel", **chosen)  # type: ignore[arg-type]
    await database.operations.work_off()
    assert (await bulk.progress(made.id)).done == 1
    assert await database.jobs.get(claim.fence.job_id) is None
    assert CANCELLED in heard[0].queues, "workers are told to look for what they run"
    [began, ended] = heard[0].events
    assert began == BulkOperationStarted(made.id, "cancel", None, 1)
    assert ended == BulkOperationEnded(made.id, "cancel", None, 1, 0, stopped=False)


@pytest.mark.usefixtures("timeless")
@pytest.mark.parametrize("error", ["GatewayTimeout", "shop.GatewayTimeout", "was silent"])
async def test_failed_jobs_are_retried_and_forgotten_by_their_exception(database: DatabaseDriver, error: str) -> None:
    await dispatch_many([Charge(customer=number) for number in range(3)])
    timed_out = await fail(database)
    await database.jobs.insert(envelopes(2, queue="other"))
    others = await fail(database, "other", Failure("ValueError", "no", ""))
    assert (await bulk.preview("retry", error=error, key="customer:1")).count == 1
    assert (await bulk.preview("retry", error=error)).count == len(timed_out)
    assert (await bulk.preview("forget", queue="other")).count == len(others)
    retried, forgotten = await bulk.start("retry", error=error), await bulk.start("forget", queue="other")
    await database.operations.work_off()
    assert [(await bulk.progress(made.id)).done for made in (retried, forgotten)] == [3, 2]
    assert {job.id for job in await database.jobs.list_jobs()} == set(timed_out)
    assert await database.failed.page() == []
    claims = await database.jobs.claim(["mail"], 10, 30)
    assert len(claims) == len(timed_out), "no key is blocked any more"


@pytest.mark.usefixtures("timeless")
async def test_retries_that_are_refused_are_counted_and_said(database: DatabaseDriver, migrated_url: str) -> None:
    first = await dispatch(Sync(customer_id=7))
    await fail(database, "default")
    waiting = await dispatch(Sync(customer_id=7))
    await database.jobs.insert([broken := envelope(queue="mail"), envelope(queue="mail")])
    await fail(database)
    with sql.connection(migrated_url) as connection:
        connection.execute(
            text("UPDATE queue_failed_jobs SET payload = '{oops' WHERE id = :id"), {"id": broken.id.bytes}
        )
        connection.commit()
    made = await bulk.start("retry")
    await database.operations.work_off()
    ended = await bulk.progress(made.id)
    assert (ended.state, ended.total, ended.done, ended.refused) == (BulkState.FINISHED, 3, 1, 2)
    assert ended.reason is not None
    assert str(first) in ended.reason
    assert str(waiting) in ended.reason
    assert {job.id for job in await database.failed.page()} == {first, broken.id}


@pytest.mark.usefixtures("timeless")
async def test_an_operation_is_stopped_between_two_transactions(database: DatabaseDriver) -> None:
    await database.jobs.insert(envelopes(2_500, queue="mail"))
    made = await bulk.start("cancel", queue="mail")
    await database.database.write(Portion(database.database, database.failed, None).run)
    assert (await bulk.progress(made.id)).state is BulkState.RUNNING
    assert await bulk.stop(made.id, by="anna")
    assert not await bulk.stop(made.id)
    await database.policies.upkeep()
    ended = await bulk.progress(made.id)
    assert (ended.state, ended.done) == (BulkState.STOPPED, 1_000)
    assert await live(database) == {"mail": 1_500}
    assert [(entry.by, entry.action, entry.count) for entry in await database.audit.latest(10)] == [
        ("anna", "bulk stop", 1),
        ("an application", "bulk cancel", 1_000),
    ]
    assert [each.id for each in await bulk.operations()] == [made.id]


@pytest.mark.parametrize("moment", ["between", "within"])
@pytest.mark.parametrize("verb", ["retry", "move"])
async def test_a_killed_worker_leaves_nothing_out_and_does_nothing_twice(
    database: DatabaseDriver, migrated_url: str, verb: str, moment: str, tmp_path: Path
) -> None:
    await database.jobs.insert(envelopes(2_500, queue="mail"))
    if verb == "retry":
        await fail(database)
    made = await bulk.start(verb, to="slow" if verb == "move" else None)
    env = {"DATABASE_URL": migrated_url, "PYTHONPATH": str(ROOT)}
    killed = run_python("-m", DYING, migrated_url, moment, cwd=tmp_path, env=env, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = await bulk.progress(made.id)
    assert (left.done, left.state) == (1_000, BulkState.RUNNING)
    async with asyncio.timeout(120):
        # A server has to notice that the process is gone before it gives its locks back.
        while not (ended := await bulk.progress(made.id)).state.has_ended:
            await database.operations.work_off()
    assert (ended.done, ended.refused, ended.state) == (2_500, 0, BulkState.FINISHED)
    assert await live(database) == {"slow" if verb == "move" else "mail": 2_500}
    [entry] = await database.audit.latest(10)
    assert entry.count == 2_500


@pytest.mark.usefixtures("timeless")
async def test_a_job_that_an_application_holds_is_passed_over_and_done_later(database: DatabaseDriver) -> None:
    if database.database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    jobs = envelopes(1_200, queue="mail")
    await database.jobs.insert(jobs)
    made = await bulk.start("move", to="slow", queue="mail")
    async with locked(database, "queue_jobs", jobs[3].id):
        assert await database.operations.work_off() == 1.0
        assert (await bulk.progress(made.id)).done == 1_199
        assert await live(database) == {"mail": 1, "slow": 1_199}
    assert await database.operations.work_off() is None
    ended = await bulk.progress(made.id)
    assert (ended.done, ended.state) == (1_200, BulkState.FINISHED)
    assert await live(database) == {"slow": 1_200}


@pytest.mark.usefixtures("timeless")
async def test_jobs_that_leave_while_they_are_looked_at_let_no_other_be_skipped(
    database: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    monkeypatch.setattr("outbox.drivers.database.bulk.portion.EXAMINED", 10)
    await database.jobs.insert([*envelopes(5, queue="other"), *envelopes(25, queue="mail")])
    made = await bulk.start("cancel", queue="mail")
    looks = 0

    def look(connection: object, cursor: object, statement: str, *_: object) -> None:
        nonlocal looks
        looks += "queue_jobs.id" in statement
        if looks == 2:
            with sql.connection(migrated_url) as other:
                other.execute(text("DELETE FROM queue_jobs WHERE queue = 'other'"))
                other.commit()

    event.listen(database.database.engine.sync_engine, "before_cursor_execute", look)
    await database.operations.work_off()
    assert (await bulk.progress(made.id)).done == 25
    assert await live(database) == {}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_worker_begins_with_what_waits_when_it_starts(database: DatabaseDriver, migrated_url: str) -> None:
    made = await database.operations.start(BulkRequest(Verb.RETRY, BulkFilter()))
    async with working(migrated_url) as worker:
        assert (await worker.event(BulkOperationEnded)).operation_id == made.id


@pytest.mark.usefixtures("timeless")
async def test_two_workers_share_no_operation(database: DatabaseDriver, migrated_url: str) -> None:
    if database.database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    await database.jobs.insert(envelopes(10, queue="mail"))
    first, second = await bulk.start("cancel", queue="mail"), await bulk.start("retry")
    other = DatabaseDriver(migrated_url)
    async with locked(database, "queue_operations", first.id):
        assert await other.operations.work_off() is None
    await other.close()
    assert (await bulk.progress(first.id)).state is BulkState.WAITING
    assert (await bulk.progress(second.id)).state is BulkState.FINISHED


async def test_what_cannot_be_done_is_said(database: DatabaseDriver) -> None:
    for verb, chosen in (
        ("empty", {}),
        ("move", {}),
        ("retry", {"to": "slow"}),
        ("retry", {"queue": "no such: queue"}),
        ("retry", {"since": -1}),
        ("retry", {"since": "an hour"}),
        ("retry", {"name": 7}),
        ("retry", {"error": ""}),
    ):
        with pytest.raises(InvalidOption):
            await bulk.start(verb, **chosen)  # type: ignore[arg-type]
    for ask in (bulk.progress, bulk.stop):
        with pytest.raises(JobNotFound, match="no bulk operation"):
            await ask(new_job_id())
        with pytest.raises(InvalidOption):
            await ask("seven")
    with pytest.raises(InvalidOption):
        await bulk.operations(limit=0)
    assert not await database.operations.is_open()


@pytest.mark.usefixtures("timeless")
async def test_jobs_of_one_group_are_retried(database: DatabaseDriver) -> None:
    await database.jobs.insert(envelopes(3, queue="mail"))
    timed_out = await fail(database)
    await database.jobs.insert(envelopes(2, queue="mail"))
    await fail(database, failure=Failure("shop.Refused", "no such card", "Traceback: …"))
    group = TIMED_OUT.fingerprint
    found = await bulk.preview("retry", group=group)
    assert (found.count, {job.id for job in found.sample}) == (3, set(timed_out))
    made = await bulk.start("retry", group=group, queue="mail")
    await database.policies.upkeep()
    ended = await bulk.progress(made.id)
    assert (ended.done, ended.request.matching.group) == (3, group)
    assert {job.id for job in await database.jobs.list_jobs("mail")} == set(timed_out)
    assert {job.failure.type for job in await database.failed.page()} == {"shop.Refused"}
    with pytest.raises(InvalidOption, match="is about live jobs"):
        await bulk.preview("cancel", group=group)
    with pytest.raises(InvalidOption, match="16 digits"):
        await bulk.start("retry", group=group.upper())


async def test_a_connection_on_redis_says_what_to_use(redis: RedisDriver) -> None:
    with pytest.raises(ConfigurationError, match="outbox retry"):
        bulk.operations_of(redis)


async def test_a_preview_looks_at_a_bounded_number_of_jobs(
    database: DatabaseDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.jobs.insert(envelopes(60, queue="mail"))
    await database.jobs.insert(envelopes(20, queue="other"))
    monkeypatch.setattr("outbox.drivers.database.bulk.store.COUNTED", 50)
    everything = await database.operations.preview(BulkRequest(Verb.CANCEL, BulkFilter()))
    assert (everything.count, everything.at_least) == (51, True)
    one_queue = await database.operations.preview(BulkRequest(Verb.CANCEL, BulkFilter(queue="other")))
    assert (one_queue.count, one_queue.at_least) == (20, False)
