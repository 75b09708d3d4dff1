"""Failed jobs of Redis move to the database: each of them, once, and no others, whatever ends in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NoReturn

import pytest
from redis import Redis as Client

from outbox.drivers.base import BeforeRemoval
from outbox.drivers.database import DatabaseDriver, FailedJobArchive
from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis.keys import key
from outbox.drivers.redis.operations import failed_job_export
from outbox.drivers.redis.operations.failed_job_export import ExportedFailedJobs
from outbox.drivers.redis.operations.failed_jobs import FailedJobs
from outbox.drivers.values import Claim, FailedJob, WorkerStatus
from outbox.envelope import Envelope
from outbox.errors import BackendUnavailable, TablesMissing
from outbox.ids import JobId
from outbox.settlement import Failure, Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes
from tests.support.commands import fail
from tests.support.row_locks import arrivals

WORKER = WorkerStatus(b"w" * 16, "name", "host", 1, "default", 1, 0, 0, 0)
FAILED_KEY = key("default", "failed")


class Process:
    """A worker or an operator: its driver, and the two stores behind it."""

    def __init__(self, redis_url: str, database_url: str) -> None:
        self.keeper = FailedJobArchive(database_url, of="redis")
        self.driver = RedisDriver(redis_url, failed_store=self.keeper)
        assert isinstance(self.driver.failed, ExportedFailedJobs)
        self.handing = self.driver.failed

    async def fail(self, *jobs: Envelope) -> list[Claim]:
        """Let jobs fail, and end before they have moved on."""
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(self.handing, "arrived", lambda: None)
            return await fail(self.driver, *jobs)

    async def heartbeat(self) -> None:
        """With what follows from it, beside it."""
        await self.driver.workers.heartbeat(WORKER)
        await self.moved()

    async def moved(self) -> None:
        assert self.handing.moving is not None
        await self.handing.moving


@pytest.fixture
async def make(redis_url: str, migrated_url: str) -> AsyncIterator[Callable[[], Process]]:
    made: list[Process] = []

    def another() -> Process:
        made.append(Process(redis_url, migrated_url))
        return made[-1]

    yield another
    for process in made:
        await process.driver.close()


@pytest.fixture
def worker(make: Callable[[], Process]) -> Process:
    return make()


@pytest.fixture
def operator(make: Callable[[], Process]) -> Process:
    return make()


class Pause:
    """Stops whoever calls, once, until it is told to go on."""

    def __init__(self) -> None:
        self.reached, self._go_on = asyncio.Event(), asyncio.Event()

    def continue_from(self) -> None:
        self._go_on.set()

    def before(self, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def paused(*arguments: Any) -> Any:
            self.reached.set()
            await self._go_on.wait()
            return await work(*arguments)

        return paused


async def end(*_: object) -> NoReturn:
    """As after a kill -9: what follows is not done."""
    raise asyncio.CancelledError


@contextmanager
def ending_at(target: object, name: str, step: Callable[..., Awaitable[Any]] = end) -> Iterator[None]:
    """Whoever comes to this step ends there, or in the ``step`` that is taken instead."""
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(target, name, step)
        with pytest.raises(asyncio.CancelledError):
            yield


# --- the way


async def test_a_failed_job_moves_to_the_database_by_itself(
    worker: Process, database: DatabaseDriver, admin: Client
) -> None:
    job = envelope(queue="mail", priority=2)._replace(headers='{"max_tries": 7}')
    await fail(worker.driver, job, failure=FAILURE)
    await worker.moved()
    [row] = await database.failed.page()
    assert (row.id, row.connection, row.queue, row.name, row.priority) == (job.id, "redis", "mail", job.name, 2)
    assert (row.payload, row.attempts, row.failure) == (job.payload, 1, FAILURE)
    assert abs((row.failed_at - await worker.driver.now()).total_seconds()) < 60
    assert set(admin.keys()) == {b"outbox:queues"}
    assert await worker.driver.failed.page() == [row]
    assert [(counts.queue, counts.failed) for counts in await worker.driver.queues.counts()] == [("mail", 1)]


async def test_closing_waits_for_those_on_their_way(worker: Process, database: DatabaseDriver) -> None:
    await fail(worker.driver, *envelopes(150))
    await worker.driver.close()
    assert len(await database.failed.page(limit=200)) == 150


async def test_a_heartbeat_moves_on_what_a_process_left(
    worker: Process, operator: Process, database: DatabaseDriver
) -> None:
    await worker.fail(*envelopes(3))
    assert await database.failed.page() == []
    await operator.heartbeat()
    assert len(await database.failed.page()) == 3


async def test_a_database_that_is_away_delays_no_worker_and_loses_nothing(
    worker: Process, database: DatabaseDriver, admin: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*_: object) -> None:
        raise BackendUnavailable("mysql is away")

    keep, worker.keeper.keep = worker.keeper.keep, away  # type: ignore[method-assign]
    await fail(worker.driver, *envelopes(3))
    await worker.heartbeat()
    await fail(worker.driver, envelope())
    await worker.heartbeat()
    assert caplog.text.count("failed jobs stay in Redis until the database takes them: mysql is away") == 1
    assert admin.zcard(FAILED_KEY) == 4
    with pytest.raises(BackendUnavailable):
        await worker.driver.failed.page()
    worker.keeper.keep = keep  # type: ignore[method-assign]
    await worker.heartbeat()
    assert len(await database.failed.page()) == 4
    assert admin.zcard(FAILED_KEY) == 0


async def test_a_database_that_hangs_delays_no_heartbeat(
    worker: Process, database: DatabaseDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections, and then says nothing for a minute or more."""
    await worker.fail(envelope())
    pause = Pause()
    worker.keeper.keep = pause.before(worker.keeper.keep)  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        for _ in range(3):
            await worker.driver.workers.heartbeat(WORKER)
        await pause.reached.wait()
        assert [each.id for each in await worker.driver.workers.all()] == [WORKER.id]
    pause.continue_from()
    await worker.heartbeat()
    assert len(await database.failed.page()) == 1


async def test_nor_a_worker_that_starts(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_job_export, "CHECK_SECONDS", 0.1)
    async with hanging() as port:
        driver = RedisDriver(
            redis_url, failed_store=FailedJobArchive(f"mysql+asyncmy://x@127.0.0.1:{port}/x", of="redis")
        )
        async with asyncio.timeout(60):
            await driver.check()
            await driver.close()


@asynccontextmanager
async def hanging() -> AsyncIterator[int]:
    """The port of a server that takes connections and never says a word."""
    over = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        over.set()


async def test_a_worker_starts_while_the_database_is_away_and_not_while_it_has_no_tables(
    redis_url: str, database_url: str
) -> None:
    for url, error in (("mysql+asyncmy://root@127.0.0.1:1/shop", None), (database_url, TablesMissing)):
        driver = RedisDriver(redis_url, failed_store=FailedJobArchive(url, of="redis"))
        if error is None:
            await driver.check()
        else:
            with pytest.raises(error):
                await driver.check()
        await driver.close()


# --- the fence


async def test_a_zombie_writes_no_row(worker: Process, operator: Process, database: DatabaseDriver) -> None:
    await worker.driver.jobs.insert([envelope()])
    lost = await claim_one(worker.driver, lease=0)
    owner = await claim_one(operator.driver)
    assert len((await worker.driver.jobs.settle([Settlement.failed(lost.fence, FAILURE)])).stale) == 1
    await worker.heartbeat()
    await operator.driver.jobs.settle([Settlement.completed(owner.fence)])
    assert await worker.driver.failed.page() == []
    assert await database.failed.page() == []


# --- processes that end in between


async def test_ending_before_the_row_is_written_loses_nothing(
    worker: Process, operator: Process, database: DatabaseDriver
) -> None:
    [claim] = await worker.fail(envelope())
    with ending_at(worker.keeper, "keep"):
        await worker.handing.hand_over()
    assert [job.id for job in await operator.driver.failed.page()] == [claim.fence.job_id]


async def test_ending_before_the_row_is_committed_loses_nothing_and_leaves_no_row(
    worker: Process, operator: Process, database: DatabaseDriver
) -> None:
    [claim] = await worker.fail(envelope())
    keep = worker.keeper.keep
    with ending_at(worker.keeper, "keep", lambda jobs, _: keep(jobs, end)):
        await worker.handing.hand_over()
    assert await database.failed.page() == []
    assert [job.id for job in await operator.driver.failed.page()] == [claim.fence.job_id]


async def test_ending_before_it_is_removed_from_redis_makes_no_second_failure(
    worker: Process, operator: Process, database: DatabaseDriver, admin: Client
) -> None:
    [claim] = await worker.fail(envelope())
    with ending_at(FailedJobs, "forget_exactly"):
        await worker.handing.hand_over()
    assert (len(await database.failed.page()), admin.zcard(FAILED_KEY)) == (1, 1)
    assert await operator.driver.failed.retry([claim.fence.job_id]) == [claim.fence.job_id]
    await worker.heartbeat()
    assert await database.failed.page() == []
    assert len(await operator.driver.jobs.list_jobs()) == 1


@pytest.mark.parametrize(("target", "step"), [(FailedJobs, "forget"), (failed_job_export, "insert")])
async def test_a_retry_that_ends_in_between_can_be_repeated(
    worker: Process, operator: Process, database: DatabaseDriver, target: object, step: str
) -> None:
    [claim] = await worker.fail(envelope())
    await worker.handing.hand_over()
    with ending_at(target, step):
        await operator.driver.failed.retry([claim.fence.job_id])
    assert len(await database.failed.page()) == 1
    assert await worker.driver.jobs.list_jobs() == []
    assert await operator.driver.failed.retry([claim.fence.job_id]) == [claim.fence.job_id]
    assert await database.failed.page() == []
    assert len(await worker.driver.jobs.list_jobs()) == 1


async def test_a_retry_that_ends_before_its_commit_leaves_the_row_and_one_live_job(
    worker: Process, operator: Process, database: DatabaseDriver
) -> None:
    """The one thing that the two stores cannot do together: the row is still shown. A second retry removes it."""
    [claim] = await worker.fail(envelope())
    await worker.handing.hand_over()
    retry = operator.keeper.retry

    async def retry_and_end(job_ids: Sequence[JobId], put_back: BeforeRemoval) -> None:
        async def put_back_and_end(jobs: Sequence[FailedJob]) -> None:
            await put_back(jobs)
            await end()

        await retry(job_ids, put_back_and_end)

    with ending_at(operator.keeper, "retry", retry_and_end):
        await operator.driver.failed.retry([claim.fence.job_id])
    assert (len(await database.failed.page()), len(await worker.driver.jobs.list_jobs())) == (1, 1)
    running = await claim_one(worker.driver)
    assert await operator.driver.failed.retry([claim.fence.job_id]) == [claim.fence.job_id]
    assert await database.failed.page() == []
    assert len((await worker.driver.jobs.settle([Settlement.completed(running.fence)])).accepted) == 1


# --- processes that meet


async def test_a_slow_hand_over_writes_no_row_of_a_job_that_was_retried_meanwhile(
    worker: Process, operator: Process, database: DatabaseDriver
) -> None:
    [claim] = await worker.fail(envelope())
    pause = Pause()
    worker.keeper.keep = pause.before(worker.keeper.keep)  # type: ignore[method-assign]
    slow = asyncio.create_task(worker.handing.hand_over())
    await pause.reached.wait()
    assert await operator.driver.failed.retry([claim.fence.job_id]) == [claim.fence.job_id]
    pause.continue_from()
    await slow
    assert await database.failed.page() == []
    assert len(await operator.driver.jobs.list_jobs()) == 1


@pytest.mark.parametrize("verb", ["forget", "flush"])
async def test_a_slow_hand_over_brings_back_nothing_that_was_removed_meanwhile(
    worker: Process, operator: Process, database: DatabaseDriver, verb: str
) -> None:
    [claim] = await worker.fail(envelope())
    pause = Pause()
    worker.keeper.keep = pause.before(worker.keeper.keep)  # type: ignore[method-assign]
    slow = asyncio.create_task(worker.handing.hand_over())
    await pause.reached.wait()
    if verb == "forget":
        assert await operator.driver.failed.forget([claim.fence.job_id]) == [claim.fence.job_id]
    else:
        assert await operator.driver.failed.flush() == 1
    pause.continue_from()
    await slow
    assert await database.failed.page() == []


async def test_a_slow_hand_over_does_not_replace_a_later_failure_of_the_same_job(
    worker: Process, operator: Process, database: DatabaseDriver
) -> None:
    [claim] = await worker.fail(envelope())
    pause = Pause()
    worker.keeper.keep = pause.before(worker.keeper.keep)  # type: ignore[method-assign]
    slow = asyncio.create_task(worker.handing.hand_over())
    await pause.reached.wait()
    await operator.driver.failed.retry([claim.fence.job_id])
    again = await claim_one(operator.driver)
    await operator.driver.jobs.settle([Settlement.failed(again.fence, Failure("Later", "", ""))])
    await operator.driver.failed.page()
    pause.continue_from()
    await slow
    assert [job.failure.type for job in await database.failed.page()] == ["Later"]


async def test_a_hand_over_does_not_take_a_later_failure_out_of_redis_with_the_first(
    worker: Process, operator: Process, database: DatabaseDriver, admin: Client
) -> None:
    [claim] = await worker.fail(envelope())
    pause = Pause()
    with pytest.MonkeyPatch.context() as slowed:
        slowed.setattr(FailedJobs, "forget_exactly", pause.before(FailedJobs.forget_exactly))
        slow = asyncio.create_task(worker.handing.hand_over())
        await pause.reached.wait()
    await operator.driver.failed.retry([claim.fence.job_id])
    again = await claim_one(operator.driver)
    operator.handing.arrived = lambda: None  # type: ignore[method-assign]
    await operator.driver.jobs.settle([Settlement.failed(again.fence, Failure("Later", "", ""))])
    pause.continue_from()
    await slow
    assert [job.failure.type for job in await operator.driver.failed.page()] == ["Later"]


async def test_of_several_only_those_that_were_retried_meanwhile_are_left_out(
    worker: Process, operator: Process, database: DatabaseDriver
) -> None:
    claims = await worker.fail(*envelopes(10))
    pause = Pause()
    worker.keeper.keep = pause.before(worker.keeper.keep)  # type: ignore[method-assign]
    slow = asyncio.create_task(worker.handing.hand_over())
    await pause.reached.wait()
    retried = [claim.fence.job_id for claim in claims[:4]]
    assert await operator.driver.failed.retry(retried) == retried
    pause.continue_from()
    await slow
    assert {job.id for job in await database.failed.page()} == {claim.fence.job_id for claim in claims[4:]}


async def test_a_retry_waits_for_the_hand_over_that_is_writing_the_row(
    worker: Process, operator: Process, database: DatabaseDriver, backend: str
) -> None:
    [claim] = await worker.fail(envelope())
    pause = Pause()
    keep = worker.keeper.keep
    worker.keeper.keep = lambda jobs, still: keep(jobs, pause.before(still))  # type: ignore[method-assign]
    with arrivals(operator.keeper) as waiting:  # type: ignore[arg-type]
        slow = asyncio.create_task(worker.handing.hand_over())
        await pause.reached.wait()
        retrying = asyncio.create_task(operator.driver.failed.retry([claim.fence.job_id]))
        await waiting.wait_for(1)
        pause.continue_from()
        assert await retrying == [claim.fence.job_id]
    await slow
    assert await database.failed.page() == []
    assert len(await operator.driver.jobs.list_jobs()) == 1


async def test_many_processes_hand_over_everything_once(
    make: Callable[[], Process], worker: Process, database: DatabaseDriver, admin: Client
) -> None:
    await worker.fail(*envelopes(400))
    await asyncio.gather(*(make().handing.hand_over() for _ in range(4)))
    assert len(await database.failed.page(limit=500)) == 400
    assert admin.zcard(FAILED_KEY) == 0


# --- whose failed jobs


async def test_each_connection_sees_its_own_failed_jobs(
    worker: Process, migrated_url: str, database: DatabaseDriver
) -> None:
    shop = DatabaseDriver(migrated_url, keeps_failed_of=["redis"])
    await fail(worker.driver, *envelopes(2))
    [theirs] = await fail(shop, envelope())
    assert len(await worker.driver.failed.page()) == 2
    assert [job.id for job in await shop.failed.page()] == [theirs.fence.job_id]
    assert [counts.failed for counts in await shop.queues.counts()] == [1]
    [mine, _] = await worker.driver.failed.page()
    assert await shop.failed.get(mine.id) is None
    assert await shop.failed.find(mine.id.hex[-12:]) == []
    assert await shop.failed.retry([mine.id]) == await shop.failed.forget([mine.id]) == []
    assert await worker.driver.failed.forget([theirs.fence.job_id]) == []
    assert (await shop.failed.retry_all(), await shop.failed.flush(), len(await database.failed.page())) == (1, 0, 2)
    assert await worker.driver.failed.retry_all() == 2
    assert {job.id for job in await shop.jobs.list_jobs()} == {theirs.fence.job_id}
    await shop.close()


async def test_a_redis_whose_clock_is_ahead_fails_nothing_in_the_future(
    worker: Process, operator: Process, database: DatabaseDriver, admin: Client
) -> None:
    """Otherwise `retry --all` and `prune` would not see it yet."""
    [claim] = await worker.fail(envelope())
    admin.zincrby(FAILED_KEY, 3_600e6, claim.fence.job_id.bytes)
    [row] = await operator.driver.failed.page()
    assert row.failed_at <= await database.now()
    assert await operator.driver.failed.retry_all() == 1


async def test_jobs_of_a_megabyte_are_handed_over(worker: Process, database: DatabaseDriver) -> None:
    payload = f'{{"text": "{"🐘" * 250_000}"}}'
    await fail(worker.driver, *(envelope(payload=payload) for _ in range(12)))
    rows: list[FailedJob] = await worker.driver.failed.page()
    assert [row.payload == payload for row in rows] == [True] * 12


async def test_older_failures_are_flushed_by_the_databases_clock(
    worker: Process, operator: Process, admin: Client
) -> None:
    older, younger = await worker.fail(envelope(1), envelope(2))
    admin.zincrby(FAILED_KEY, -3_660e6, older.fence.job_id.bytes)
    admin.zincrby(FAILED_KEY, -3_540e6, younger.fence.job_id.bytes)
    assert await operator.driver.failed.flush(older_than=3_600) == 1
    assert [job.id for job in await operator.driver.failed.page()] == [younger.fence.job_id]
