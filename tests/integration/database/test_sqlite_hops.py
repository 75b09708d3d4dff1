"""Counted, not timed: how often work on SQLite changes threads."""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import event

import outbox.sync
from outbox import configure
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.settlement import Settlement
from tests.conformance.jobs import envelope, envelopes
from tests.support.aiosqlite_threads import before_each_call
from tests.support.embedded_worker import Ping


@pytest.fixture
def backend() -> str:
    return "sqlite"


class Hops:
    def __init__(self) -> None:
        self.count = 0
        self.threads: set[int] = set()
        """Each connection has one."""
        self.may_begin = threading.Event()
        self.may_begin.set()

    def note(self, thread: int) -> None:
        self.count += 1
        self.threads.add(thread)
        assert self.may_begin.wait(20)

    def since(self) -> int:
        count, self.count = self.count, 0
        return count


@pytest.fixture
def hops() -> Iterator[Hops]:
    hops = Hops()
    with before_each_call(hops.note):
        yield hops


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url, inserts_directly=True)
    await driver.jobs.insert([envelope(queue="first")])
    await driver.jobs.next_due(["default"])
    await driver.jobs.claim(["first"], 1, 30)
    yield driver
    await driver.close()


@pytest.mark.parametrize("count", [1, 400, 3_000])
async def test_a_dispatch_is_one_hop(driver: DatabaseDriver, hops: Hops, count: int) -> None:
    await driver.jobs.insert(envelopes(count))
    assert hops.since() == 1
    assert sum(counts.ready for counts in await driver.queues.counts()) == count


def test_a_sync_dispatch_is_none(migrated_url: str, hops: Hops) -> None:
    configure(database_url=migrated_url)
    try:
        outbox.sync.dispatch(Ping())
        hops.since()
        outbox.sync.dispatch(Ping())
        outbox.sync.dispatch_many([Ping() for _ in range(1_500)])
        assert hops.since() == 0
    finally:
        outbox.sync.disconnect()
        configure()


def test_a_sync_dispatch_does_not_run_its_event_loop(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(database_url=migrated_url)
    iterations = []
    try:
        outbox.sync.dispatch(Ping())
        with monkeypatch.context() as patched:
            patched.setattr(selectors.PollSelector, "select", lambda _, timeout=None: iterations.append(timeout) or [])
            outbox.sync.dispatch(Ping())
            outbox.sync.dispatch_many([Ping() for _ in range(1_500)])
        assert not iterations
    finally:
        outbox.sync.disconnect()
        configure()


async def test_a_look_is_one_hop_a_claim_three_and_its_end_two(driver: DatabaseDriver, hops: Hops) -> None:
    await driver.jobs.insert(envelopes(10))
    hops.since()
    await driver.jobs.next_due(["default"])
    assert hops.since() == 1
    claims = await driver.jobs.claim(["default"], 10, 30)
    assert (len(claims), hops.since()) == (10, 3)
    await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    assert hops.since() == 2


async def test_a_listener_of_the_engine_misses_nothing(driver: DatabaseDriver) -> None:
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement.split()[0])

    event.listen(driver.database.engine.sync_engine, "before_cursor_execute", note)
    await driver.jobs.insert([envelope()])
    await driver.jobs.claim(["default"], 1, 30)
    assert sent == ["BEGIN", "INSERT", "BEGIN", "SELECT", "UPDATE"]


async def test_all_jobs_of_a_dispatch_are_written_or_none(driver: DatabaseDriver) -> None:
    jobs = envelopes(1_500)
    jobs[-1] = jobs[-1]._replace(priority=None)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="NOT NULL"):
        await driver.jobs.insert(jobs)
    assert [counts for counts in await driver.queues.counts() if counts.ready] == []
    await driver.jobs.insert(envelopes(2))
    assert sum(counts.ready for counts in await driver.queues.counts()) == 2


async def test_a_dispatch_that_is_cancelled_leaves_a_connection_that_works(driver: DatabaseDriver, hops: Hops) -> None:
    hops.may_begin.clear()
    task = asyncio.create_task(driver.jobs.insert(envelopes(3_000)))
    async with asyncio.timeout(10):
        while not hops.since():
            await asyncio.sleep(0)
    task.cancel()
    hops.may_begin.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await driver.jobs.insert([envelope(queue="later")])
    [later] = await driver.jobs.claim(["later"], 1, 30)
    assert later.queue == "later"


async def test_many_dispatches_at_once_share_a_connection(driver: DatabaseDriver, hops: Hops) -> None:
    await asyncio.gather(*(driver.jobs.insert([envelope()]) for _ in range(100)))
    assert len(hops.threads) == 1
    assert sum(counts.ready for counts in await driver.queues.counts()) == 100


async def test_claims_and_ends_at_once_follow_each_other_on_one_connection(driver: DatabaseDriver, hops: Hops) -> None:
    """On two, one of them would sleep inside SQLite until the other has ended, and longer."""
    await driver.jobs.insert(envelopes(30))
    ended = await driver.jobs.claim(["default"], 10, 30)
    hops.threads.clear()
    await asyncio.gather(
        driver.jobs.settle([Settlement.completed(claim.fence) for claim in ended]),
        driver.jobs.claim(["default"], 10, 30),
        driver.jobs.claim(["default"], 10, 30),
    )
    assert len(hops.threads) == 1
    assert sum(counts.reserved for counts in await driver.queues.counts() if counts.queue == "default") == 20


async def test_a_dispatch_asks_sqlite_once_the_write_before_it_has_ended(driver: DatabaseDriver, hops: Hops) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def write(connection: SqlConnection) -> None:
        await connection.exec_driver_sql("DELETE FROM queue_pauses", ())
        begun.set()
        await end.wait()

    writing = asyncio.create_task(driver.database.write_plain(write))
    await begun.wait()
    hops.since()
    dispatching = asyncio.create_task(driver.jobs.insert([envelope()]))
    await asyncio.sleep(0.1)
    assert hops.since() == 0
    end.set()
    await asyncio.gather(writing, dispatching)
    assert sum(counts.ready for counts in await driver.queues.counts()) == 1
