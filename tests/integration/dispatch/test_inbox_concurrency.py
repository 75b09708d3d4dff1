"""Consumers whose transactions meet: a second one waits, no application gets a deadlock, and none waits for workers."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

import outbox.sync
from outbox import inbox
from outbox.drivers.database import DatabaseDriver
from tests.integration.policies.unique_job_classes import Sync
from tests.support.orders import sync_engine
from tests.support.row_locks import Arrivals

LEVELS = ["READ COMMITTED", "REPEATABLE READ"]
SERVERS = [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]

pytestmark = pytest.mark.parametrize("backend", SERVERS, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LEVELS)
def engine(request: pytest.FixtureRequest, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    engine = sync_engine(migrated_url, isolation_level=request.param, pool_size=20)
    yield engine
    engine.dispose()


class Consumer:
    """One transaction, in a thread, that has looked at the inbox before."""

    def __init__(self, engine: Engine, *message_ids: str, lock_wait: int = 120) -> None:
        self.fresh: list[bool] = []
        self.error: BaseException | None = None
        self.received, self.end = threading.Event(), threading.Event()
        self.commits = True
        self._engine, self._message_ids, self._lock_wait = engine, message_ids, lock_wait
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with Session(self._engine) as session:
                session.execute(text(f"SET SESSION innodb_lock_wait_timeout = {self._lock_wait}"))
                session.execute(text("SELECT COUNT(*) FROM queue_inbox")).all()  # a snapshot, at REPEATABLE READ
                for message_id in self._message_ids:
                    with inbox(session, message_id, source="mqtt") as fresh:
                        self.fresh.append(fresh)
                self.received.set()
                self.end.wait(120)
                (session.commit if self.commits else session.rollback)()
        except BaseException as error:
            self.error = error
            self.received.set()

    async def has_received(self) -> list[bool]:
        assert await asyncio.to_thread(self.received.wait, 120)
        assert self.error is None, self.error
        return self.fresh

    async def ends(self, *, commit: bool = True) -> list[bool]:
        self.commits = commit
        self.end.set()
        await asyncio.to_thread(self._thread.join, 120)
        assert self.error is None, self.error
        return self.fresh


@pytest.mark.parametrize("first_commits", [False, True])
async def test_eight_consumers_have_one_message(database: DatabaseDriver, engine: Engine, first_commits: bool) -> None:
    first = Consumer(engine, "m-1")
    assert await first.has_received() == [True]
    others = [Consumer(engine, "m-1") for _ in range(7)]
    await Arrivals([database]).wait_for(7)
    assert not any(other.received.is_set() for other in others)
    await first.ends(commit=first_commits)
    for other in others:
        other.end.set()
    fresh = [each for other in others for each in await other.ends()]
    assert sum(fresh) == (0 if first_commits else 1)


async def test_consumers_of_neighbouring_messages_do_not_wait(engine: Engine) -> None:
    """Each inserts between the rows of others, which are locked and not committed, or rolled back a moment ago."""
    consumers = [Consumer(engine, f"m-{number}", lock_wait=1) for number in range(12)]
    for consumer in consumers:
        assert await consumer.has_received() == [True]
    for number, consumer in enumerate(consumers):
        await consumer.ends(commit=number % 3 > 0)
    again = [Consumer(engine, f"m-{number}", lock_wait=1) for number in range(12)]
    for number, consumer in enumerate(again):
        assert await consumer.has_received() == [number % 3 == 0]
        await consumer.ends()


async def test_many_consumers_that_dispatch_unique_jobs(database: DatabaseDriver, engine: Engine) -> None:
    """Messages come in several orders, some transactions roll back, and old messages go meanwhile."""
    seeds = random.Random(5)
    taken: list[str] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            message_id = f"m-{chance.randrange(60)}"
            with Session(engine) as session:
                session.execute(text("SELECT COUNT(*) FROM queue_inbox")).all()
                with inbox(session, message_id, source="mqtt") as fresh:
                    if fresh:
                        outbox.sync.dispatch(Sync(customer_id=chance.randrange(5)), session=session)
                if chance.random() < 0.3:
                    session.rollback()
                    continue
                session.commit()
                if fresh:
                    taken.append(message_id)

    async def prune() -> None:
        while not done.is_set():
            await database.inbox.prune()

    done = asyncio.Event()
    pruning = asyncio.ensure_future(prune())
    await asyncio.gather(*(asyncio.to_thread(work, seeds.randrange(10_000)) for _ in range(8)))
    done.set()
    await pruning
    assert sorted(taken) == sorted(set(taken)), "a message was taken twice"
    assert len(taken) > 30


async def test_a_consumer_does_not_wait_for_the_pruning_of_its_message(
    database: DatabaseDriver, engine: Engine
) -> None:
    """Nor does pruning wait for the consumer: it leaves the row for the next time."""
    made = Consumer(engine, "m-1", "m-2")
    await made.has_received()
    await made.ends()
    with engine.begin() as connection:
        connection.execute(text("UPDATE queue_inbox SET kept_until = '2020-01-01'"))
    again = Consumer(engine, "m-1")
    assert await again.has_received() == [False]
    assert await asyncio.wait_for(database.inbox.prune(), 60) == 1
    await again.ends()
    assert await database.inbox.prune() == 1
