"""Several clients in one process: each has its settings, its connections and its listeners."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import outbox
import outbox.sync
from outbox import Job, Outbox, RateLimit, Settings
from outbox.errors import ConfigurationError
from outbox.events import Event, JobDispatched, JobSettled


class Step(Job):
    name = "clients.Step"
    number: int

    async def handle(self) -> None:
        if self.number:
            await outbox.dispatch(Step(number=self.number - 1), queue="next")


class SyncStep(Job):
    name = "clients.SyncStep"

    def handle(self) -> None:
        outbox.sync.dispatch(Step(number=0), queue="next")


@pytest.fixture
def backend() -> str:
    """Which database it is matters to none of this."""
    return "sqlite"


def store(folder: Path, name: str) -> Settings:
    path = folder / f"{name}.db"
    engine = create_engine(f"sqlite:///{path}")
    outbox.metadata.create_all(engine)
    engine.dispose()
    return Settings(database_url=f"sqlite+aiosqlite:///{path}")


def ids(settings: Settings) -> list[bytes]:
    with sqlite3.connect(settings.database_url.removeprefix("sqlite+aiosqlite:///")) as connection:
        found = [row[0] for row in connection.execute("SELECT id FROM queue_jobs ORDER BY id")]
    connection.close()
    return found


@pytest.fixture
def one(tmp_path: Path) -> Settings:
    return store(tmp_path, "one")


@pytest.fixture
def other(tmp_path: Path) -> Settings:
    return store(tmp_path, "other")


@pytest.fixture
def default(tmp_path: Path) -> Iterator[Settings]:
    settings = store(tmp_path, "default")
    outbox.configure(database_url=settings.database_url)
    yield settings
    outbox.sync.disconnect()
    outbox.configure()


async def test_jobs_go_to_the_database_of_their_client(one: Settings, other: Settings, default: Settings) -> None:
    first, second = Outbox(one), Outbox(other)
    by_method = await first.dispatch(Step(number=0))
    many = await second.dispatch_many([Step(number=0), Step(number=0)])
    with first.use():
        in_block = await outbox.dispatch(Step(number=0))
        with second.use():
            nested = await outbox.dispatch(Step(number=0))
        assert [counts.ready for counts in await outbox.counts()] == [2]
    outside = await outbox.dispatch(Step(number=0))
    assert ids(one) == [by_method.bytes, in_block.bytes]
    assert ids(other) == [*(job_id.bytes for job_id in many), nested.bytes]
    assert ids(default) == [outside.bytes]
    await first.close()
    await second.close()
    await outbox.disconnect()


async def test_a_batch_goes_to_the_database_of_its_client(one: Settings, other: Settings) -> None:
    async with Outbox(one) as first, Outbox(other):
        batch_id = await first.dispatch_batch([Step(number=0), Step(number=0)], name="steps", then=Step(number=0))
        with first.use():
            status = await outbox.batch(batch_id)
    assert status is not None
    assert (status.name, status.total) == ("steps", 2)
    assert (len(ids(one)), len(ids(other))) == (2, 0)


def test_sync_code_takes_from_the_limit_of_its_client(one: Settings) -> None:
    limit = RateLimit("clients.mail", "1/h")
    client = Outbox(one)
    with client.use():
        assert outbox.sync.limits.take(limit.name, timeout=0)
        assert not outbox.sync.limits.take(limit.name, timeout=0)
        outbox.sync.disconnect()


async def test_a_closed_client_leaves_others_alone_and_opens_again(one: Settings, other: Settings) -> None:
    async with Outbox(one) as first:
        async with Outbox(other):
            await outbox.dispatch(Step(number=0))
        in_block = await outbox.dispatch(Step(number=0))
        by_method = await first.dispatch(Step(number=0))
        assert ids(one) == [in_block.bytes, by_method.bytes]
    assert len(ids(other)) == 1
    await first.dispatch(Step(number=0))
    assert len(ids(one)) == 3
    await first.close()
    await first.close()


async def test_tasks_that_run_at_once_keep_their_clients(one: Settings, other: Settings) -> None:
    entered = asyncio.Barrier(2)

    async def work(settings: Settings) -> bytes:
        async with Outbox(settings):
            await entered.wait()
            job_id = await outbox.dispatch(Step(number=0))
            await entered.wait()
            return job_id.bytes

    first, second = await asyncio.gather(work(one), work(other))
    assert (ids(one), ids(other)) == ([first], [second])


def test_sync_code_and_threads_use_the_client_that_they_entered(
    one: Settings, other: Settings, default: Settings
) -> None:
    before = threading.enumerate()
    clients = Outbox(one), Outbox(other)
    entered = threading.Barrier(2)
    made: dict[int, list[bytes]] = {}

    def work(number: int) -> None:
        with clients[number].use():
            entered.wait()
            made[number] = [outbox.sync.dispatch(Step(number=0)).bytes for _ in range(5)]
            assert [counts.ready for counts in outbox.sync.counts()] == [5]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outbox.sync.dispatch(Step(number=0))
    assert (ids(one), ids(other)) == (made[0], made[1])
    assert len(ids(default)) == 1
    for client in clients:
        asyncio.run(client.close())
    left = [each for each in threading.enumerate() if each.name == "outbox-sync" and each not in before]
    assert left == [], "what the clients have started ends with them"


async def test_in_a_session_the_commit_is_announced_by_the_client(one: Settings, other: Settings) -> None:
    engine = create_async_engine(one.database_url)
    heard: list[Event] = []
    client = Outbox(one)
    client.listen(heard.append, JobDispatched)
    async with AsyncSession(engine) as session, session.begin():
        job_id = await client.dispatch(Step(number=0), session=session, queue="slow")
    await engine.dispose()
    await client.close()
    assert heard == [JobDispatched(job_id, Step.name, "slow", "database", in_session=True)]
    assert ids(one) == [job_id.bytes]
    assert ids(other) == []


@pytest.mark.parametrize("job", [Step(number=1), SyncStep()], ids=["async", "sync"])
async def test_the_jobs_of_a_worker_dispatch_by_its_client(
    one: Settings, other: Settings, default: Settings, job: Job
) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def settled(_: Event) -> None:
        loop.call_soon_threadsafe(ended.set)

    async with Outbox(one) as client, Outbox(other):
        client.listen(settled, JobSettled)
        await client.dispatch(job)
        async with client.worker(sleep=0.05, grace=5):
            async with asyncio.timeout(20):
                await ended.wait()
        with client.use():
            assert [(counts.queue, counts.ready) for counts in await outbox.counts()] == [("next", 1)]
    assert ids(other) == ids(default) == []


async def test_listeners_neither_break_nor_delay_a_dispatch(one: Settings, caplog: pytest.LogCaptureFixture) -> None:
    slow, heard = threading.Event(), []

    def broken(_: Event) -> None:
        raise RuntimeError("telemetry is down")

    def waits(event: Event) -> None:
        assert slow.wait(20)
        heard.append(event)

    client = Outbox(one)
    client.listen(broken)
    client.listen(waits, JobDispatched)
    job_id = await client.dispatch(Step(number=0))
    assert ids(one) == [job_id.bytes], "stored while the listener waits"
    slow.set()
    await client.close()
    assert heard == [JobDispatched(job_id, Step.name, "default", "database", in_session=False)]
    assert "a listener failed on JobDispatched" in caplog.text


async def test_events_that_listeners_do_not_keep_up_with_are_dropped_and_counted(
    one: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("outbox.listeners.MOST_EVENTS", 3)
    begun, go = threading.Event(), threading.Event()
    heard: list[Event] = []

    def waits(event: Event) -> None:
        begun.set()
        assert go.wait(20)
        heard.append(event)

    client = Outbox(one)
    client.listen(waits)
    await client.dispatch(Step(number=0))
    assert await asyncio.to_thread(begun.wait, 20)
    await client.dispatch_many([Step(number=0) for _ in range(10)])
    go.set()
    await client.close()
    assert len(heard) == 4
    assert "7 events were dropped" in caplog.text


def test_a_client_takes_settings_or_their_names(one: Settings) -> None:
    assert Outbox(database_url=one.database_url).settings.database_url == one.database_url
    with pytest.raises(TypeError, match="database_url"):
        Outbox(one, database_url=one.database_url)
    with pytest.raises(ConfigurationError, match="datbase_url"):
        Outbox(datbase_url="x")
