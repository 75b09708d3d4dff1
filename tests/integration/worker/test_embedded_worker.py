"""`outbox.Worker`: a worker among the tasks of an application."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator

import pytest

import outbox
from outbox import Job, dispatch, embedded_worker
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import JobState
from outbox.errors import ConfigurationError
from outbox.events import Event, JobSettled, JobStarted, WorkerStopped
from outbox.runtime.reporting.event_text import EventText, describe


class Greet(Job):
    """Waits for the test where it is told to."""

    name = "tests.embedded.Greet"

    number: int
    waits: bool = False

    async def handle(self) -> None:
        assert self.context.queue == "default"
        begun.append(self.number)
        began.set()
        if self.waits:
            await asyncio.Event().wait()
        done.append(self.number)
        finished.set()


class FailsOnce(Job):
    name = "tests.embedded.FailsOnce"
    backoff = 0.2

    async def handle(self) -> None:
        done.append(self.context.attempt)
        if self.context.attempt == 1:
            raise ValueError("once")


class InThread(Job):
    name = "tests.embedded.InThread"

    def handle(self) -> None:
        done.append(threading.get_ident())
        loop.call_soon_threadsafe(finished.set)


begun: list[int] = []
done: list[int] = []
began = asyncio.Event()
finished = asyncio.Event()
loop: asyncio.AbstractEventLoop


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    global began, finished, loop
    begun.clear()
    done.clear()
    began, finished, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()
    outbox.configure(database_url=migrated_url)
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()
    await outbox.disconnect()
    outbox.configure()


async def wait(event: asyncio.Event) -> None:
    async with asyncio.timeout(30):
        await event.wait()


async def test_it_runs_jobs_and_leaves_the_process_as_it_was(
    driver: DatabaseDriver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "outbox.worker")
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)]
    handlers = list(logging.getLogger("outbox").handlers)
    await dispatch(Greet(number=1))
    async with outbox.Worker(concurrency=2, name="embedded") as worker:
        assert worker.running
        await wait(finished)
        finished.clear()
        await dispatch(InThread())
        await wait(finished)
    assert not worker.running
    assert done[0] == 1
    assert done[1] != threading.get_ident()
    assert await driver.jobs.list_jobs() == []
    assert await driver.workers.all() == [], "its row is still there"
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)]
    assert after == before
    assert logging.getLogger("outbox").handlers == handlers
    assert any("tests.embedded.Greet" in record.getMessage() for record in caplog.records)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (logging.DEBUG, ["running", "retry", "running", "done"]),
        (logging.INFO, ["retry", "done"]),
        (logging.WARNING, ["retry"]),
    ],
)
async def test_what_is_not_logged_is_not_put_into_words(
    driver: DatabaseDriver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    level: int,
    said: list[str],
) -> None:
    caplog.set_level(level, "outbox.worker")
    described: list[str] = []

    def watched(event: Event) -> EventText:
        text = describe(event)
        if isinstance(event, JobStarted | JobSettled):
            described.append(text.word)
        return text

    monkeypatch.setattr(embedded_worker, "describe", watched)
    await dispatch(FailsOnce())
    async with outbox.Worker(sleep=0.05):
        async with asyncio.timeout(30):
            while await driver.jobs.list_jobs():
                await asyncio.sleep(0.01)
    assert described == said
    logged = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert [word for word in logged if word in ("running", "retry", "done")] == said


async def test_leaving_gives_back_what_does_not_end_in_time(driver: DatabaseDriver) -> None:
    job_id = await dispatch(Greet(number=1, waits=True))
    async with outbox.Worker(grace=0.1):
        await wait(began)
    job = await driver.jobs.get(job_id)
    assert job is not None
    assert (job.state, job.attempts, job.last_error) == (JobState.READY, 0, None)


async def test_an_error_in_the_block_and_a_cancellation_stop_it_as_well(driver: DatabaseDriver) -> None:
    with pytest.raises(ZeroDivisionError):
        async with outbox.Worker() as worker:
            raise ZeroDivisionError
    assert not worker.running

    async def lifespan() -> None:
        async with outbox.Worker(grace=0.1):
            began.set()
            await asyncio.Event().wait()

    await dispatch(Greet(number=1, waits=True))
    task = asyncio.create_task(lifespan())
    await wait(began)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [job] = await driver.jobs.list_jobs()
    assert (job.state, job.attempts) == (JobState.READY, 0)


async def test_a_stop_that_is_cancelled_comes_to_its_end_all_the_same(driver: DatabaseDriver) -> None:
    await dispatch(Greet(number=1, waits=True))
    worker = outbox.Worker(grace=0.5)
    await worker.start()
    await wait(began)
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert not worker.running
    [job] = await driver.jobs.list_jobs()
    assert (job.state, job.attempts) == (JobState.READY, 0)


async def test_it_can_be_waited_for_until_there_is_nothing_left(driver: DatabaseDriver) -> None:
    for number in range(3):
        await dispatch(Greet(number=number))
    worker = outbox.Worker(stop_when_empty=True)
    await worker.wait()
    await worker.stop()
    await worker.start()
    async with asyncio.timeout(30):
        await worker.wait()
    assert sorted(done) == [0, 1, 2]
    with pytest.raises(ConfigurationError, match="has started before"):
        await worker.start()


async def test_a_job_that_waits_for_another_attempt_is_something_left(driver: DatabaseDriver) -> None:
    await dispatch(FailsOnce())
    worker = outbox.Worker(stop_when_empty=True)
    await worker.start()
    async with asyncio.timeout(30):
        await worker.wait()
    assert done == [1, 2]


async def test_a_running_worker_names_what_it_runs(driver: DatabaseDriver) -> None:
    job_id = await dispatch(Greet(number=1, waits=True))
    async with outbox.Worker(grace=0, lease=1):
        await wait(began)
        async with asyncio.timeout(30):
            while not (running := [job for each in await outbox.workers() for job in each.jobs]):
                await asyncio.sleep(0.05)
    assert [(job.id, job.name, job.queue) for job in running] == [(job_id, "tests.embedded.Greet", "default")]
    assert running[0].seconds >= 0


async def test_a_listener_that_comes_later_hears_of_it(driver: DatabaseDriver) -> None:
    heard: list[Event] = []
    async with outbox.Outbox(database_url=driver.database.url.render_as_string(hide_password=False)) as client:
        with client.use():
            async with outbox.Worker(sleep=0.1):
                client.listen(heard.append, WorkerStopped)
    assert [type(event) for event in heard] == [WorkerStopped]


@pytest.mark.parametrize("options", [{"processes": 2}, {"reload": True}, {"relay": True}, {"once": True}])
def test_options_of_a_process_of_its_own_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        outbox.Worker(**options)


@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)])
async def test_a_store_without_tables_is_said_before_the_application_starts(database_url: str) -> None:
    outbox.configure(database_url=database_url)
    try:
        with pytest.raises(ConfigurationError, match="alembic upgrade head"):
            async with outbox.Worker():
                raise AssertionError("it has started")
    finally:
        outbox.configure()
