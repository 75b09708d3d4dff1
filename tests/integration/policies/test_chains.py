"""Chains: each next job is inserted in the settlement of the one before, with its result."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import outbox.sync
from outbox import Job, dispatch_chain, retry
from outbox.client_state import default_client
from outbox.drivers.database import DatabaseDriver
from outbox.errors import InvalidJob, InvalidOption, PayloadTooLarge
from outbox.events import JobSettled
from outbox.relay.thread import RelayThreads
from outbox.settlement import Outcome
from tests.servers import sql
from tests.support.embedded_worker import Embedded, working
from tests.support.orders import async_engine, sync_engine

ran: list[tuple[str, Any]] = []


class Step(Job):
    """Notes what the job before returned, and returns what it is told to."""

    name = "tests.chains.Step"
    backoff = 0

    label: str
    returns: Any = None
    fails: int = 0
    """Attempts that fail."""
    prepends: tuple[str, ...] = ()
    appends: tuple[str, ...] = ()

    max_tries = 2

    async def handle(self) -> Any:
        ran.append((self.label, self.context.previous))
        assert self.context.chain.id, "it is in a chain"
        self.context.chain.prepend(*(Step(label=label) for label in self.prepends))
        self.context.chain.append(*(Step(label=label) for label in self.appends))
        if self.context.attempt <= self.fails and self.label not in healed:
            raise ValueError("no luck")
        return self.returns


class AddsLists(Job):
    name = "tests.chains.AddsLists"

    async def handle(self) -> None:
        self.context.chain.append([Step(label="y"), Step(label="z")])
        self.context.chain.prepend((Step(label="w"),))


class Lazy(Job):
    """Its result is no JSON."""

    name = "tests.chains.Lazy"
    results: ClassVar[dict[str, Any]] = {"object": object(), "long": "x" * 65_535, "fits": "x" * 65_534}

    which: str

    def handle(self) -> Any:
        return self.results[self.which]


class InSession(Job):
    """Its end is committed in a transaction of its own handler."""

    name = "tests.chains.InSession"

    fails: bool = False
    conflicts: bool = False
    """SQLite refuses its first transaction: another one has written since it read."""

    async def handle(self, session: AsyncSession) -> Any:
        ran.append(("session", self.context.previous))
        await session.execute(text("SELECT COUNT(*) FROM queue_jobs"))
        if self.conflicts and [label for label, _ in ran].count("session") == 1:
            with sql.connection(os.environ["DATABASE_URL"]) as connection:
                connection.execute(text("INSERT INTO elsewhere VALUES (1)"))
        return object() if self.fails else 7


class Hopeless(Job):
    name = "tests.chains.Hopeless"

    async def handle(self) -> None:
        self.context.fail("hopeless")


class Catch(Job):
    name = "tests.chains.Catch"

    async def handle(self) -> None:
        ran.append(("catch", self.context.previous))


healed: set[str] = set()


@pytest.fixture(autouse=True)
async def _environment(monkeypatch: pytest.MonkeyPatch, migrated_url: str) -> AsyncIterator[None]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    ran.clear()
    healed.clear()
    yield
    await outbox.disconnect()
    await asyncio.to_thread(outbox.sync.disconnect)
    await default_client.part(RelayThreads).close()


async def ends(worker: Embedded, count: int) -> list[Outcome]:
    await worker.event(JobSettled, count)
    return [event.outcome for event in worker.of(JobSettled)]


async def test_each_job_reads_what_the_one_before_returned(migrated_url: str) -> None:
    engine = async_engine(migrated_url)
    async with working(migrated_url) as worker:
        async with AsyncSession(engine) as session:
            first = await dispatch_chain(
                [
                    Step(label="a", returns={"rows": [1, 2.5, "ü"]}),
                    Step(label="b", fails=1, returns=3),
                    Step(label="c"),
                ],
                session=session,
            )
            await session.commit()
        await ends(worker, 4)
        assert worker.of(JobSettled)[0].job_id == first
    await engine.dispose()
    assert ran == [("a", None), ("b", {"rows": [1, 2.5, "ü"]}), ("b", {"rows": [1, 2.5, "ü"]}), ("c", 3)]
    assert stored(migrated_url) == []


def stored(url: str, table: str = "queue_jobs") -> list[str]:
    with sql.connection(url) as connection:
        return list(connection.scalars(text(f"SELECT name FROM {table}")))


async def test_a_rollback_leaves_nothing(migrated_url: str) -> None:
    engine = sync_engine(migrated_url)
    with Session(engine) as session:
        outbox.sync.dispatch_chain([Step(label="a"), Step(label="b")], session=session)
        session.flush()
        session.rollback()
        session.commit()
    engine.dispose()
    assert stored(migrated_url) == []


async def test_without_a_session_and_without_async(migrated_url: str) -> None:
    await asyncio.to_thread(outbox.sync.dispatch_chain, [Step(label="a"), Step(label="b")], delay=0)
    async with working(migrated_url) as worker:
        assert await ends(worker, 2) == [Outcome.COMPLETED] * 2
    assert [label for label, _ in ran] == ["a", "b"]


async def test_a_job_adds_to_its_chain_once(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        await dispatch_chain([Step(label="a", fails=1, prepends=("b", "c"), appends=("e",)), Step(label="d")])
        await ends(worker, 6)
    assert [label for label, _ in ran] == ["a", "a", "b", "c", "d", "e"]


async def test_a_job_adds_lists_to_its_chain(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        await dispatch_chain([AddsLists(), Step(label="x")])
        await ends(worker, 5)
    assert [label for label, _ in ran] == ["w", "x", "y", "z"]


async def test_a_failure_dispatches_catch_and_its_retry_goes_on(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        first = await dispatch_chain([Step(label="a", fails=2, returns=1), Step(label="b")], catch=Catch())
        assert await ends(worker, 3) == [Outcome.RETRIED, Outcome.FAILED, Outcome.COMPLETED]
        assert ran[-1] == (
            "catch",
            {"job_id": str(first), "name": Step.name, "error": "ValueError: no luck"},
        )
        healed.add("a")
        assert await retry(first)
        await ends(worker, 5)
    assert ran[-2:] == [("a", None), ("b", 1)]


@pytest.mark.parametrize("which", ["object", "long"])
async def test_a_result_that_cannot_be_passed_on_fails_the_job(migrated_url: str, which: str) -> None:
    async with working(migrated_url) as worker:
        await dispatch_chain([Lazy(which=which), Step(label="b")])
        assert await ends(worker, 1) == [Outcome.FAILED]
        failure = worker.of(JobSettled)[0].failure
    assert failure.type.endswith("InvalidResult")
    assert ("no JSON" if which == "object" else "65,537 bytes, the limit 65,536") in failure.message
    assert stored(migrated_url) == []


async def test_the_largest_result_and_the_one_that_nobody_reads(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        await dispatch_chain([Lazy(which="fits"), Step(label="b"), Lazy(which="object")])
        assert await ends(worker, 3) == [Outcome.COMPLETED] * 3
    assert ran == [("b", Lazy.results["fits"])]


async def test_a_job_that_fails_itself_ends_the_chain(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        await dispatch_chain([Hopeless(), Step(label="b")], catch=Catch())
        await ends(worker, 2)
    assert [label for label, _ in ran] == ["catch"]
    assert stored(migrated_url) == []


async def test_a_link_whose_class_is_gone_is_caught(migrated_url: str, database: DatabaseDriver) -> None:
    await dispatch_chain([Step(label="a"), Step(label="b")], catch=Catch())
    with sql.connection(migrated_url) as connection:
        connection.execute(text("UPDATE queue_jobs SET name = 'tests.gone'"))
    async with working(migrated_url) as worker:
        await ends(worker, 2)
    [(label, previous)] = ran
    assert (label, previous["name"]) == ("catch", "tests.gone")


class Unregistered(Job):
    pass


async def test_bad_chains_write_nothing(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidJob, match="at least one"):
        await dispatch_chain([])
    with pytest.raises(InvalidJob, match="no method `handle`"):
        await dispatch_chain([Step(label="a"), Unregistered()])
    with pytest.raises(InvalidJob, match="dispatch takes a Job"):
        await dispatch_chain([Step(label="a"), "b"])  # type: ignore[list-item]
    with pytest.raises(InvalidJob, match="at most 1,000 jobs, not 1,001"):
        await dispatch_chain([Step(label="a")] * 1_001)
    with pytest.raises(InvalidOption, match="'redis', and its chain for 'database'"):
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        monkeypatch.setattr(Catch, "connection", "redis")
        await dispatch_chain([Step(label="a"), Catch()])
    monkeypatch.setenv("OUTBOX_PAYLOAD_LIMIT", "2000")
    with pytest.raises(PayloadTooLarge, match="payload is"):
        await dispatch_chain([Step(label="a"), Step(label="x" * 2_000)])
    with pytest.raises(PayloadTooLarge, match="after its first job"):
        await dispatch_chain([Step(label="a"), *[Step(label="x" * 900)] * 3])
    assert stored(migrated_url) == []


async def test_jobs_that_end_in_a_session(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        await dispatch_chain([Step(label="a", returns=1), InSession(), Step(label="b")])
        assert await ends(worker, 3) == [Outcome.COMPLETED] * 3
        # On SQLite a heartbeat of the worker can come between a read and the write, and then the handler runs again.
        assert list(dict.fromkeys(ran)) == [("a", None), ("session", 1), ("b", 7)]
        await dispatch_chain([InSession(fails=True), Step(label="b")], catch=Catch())
        assert (await ends(worker, 5))[3:] == [Outcome.FAILED, Outcome.COMPLETED]
    assert stored(migrated_url) == []


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_conflict_in_a_session_inserts_the_next_job_once(migrated_url: str) -> None:
    with sql.connection(migrated_url) as connection:
        connection.execute(text("CREATE TABLE elsewhere (number INTEGER NOT NULL)"))
    async with working(migrated_url) as worker:
        await dispatch_chain([Step(label="a", returns=1), InSession(conflicts=True), Step(label="b")])
        assert await ends(worker, 3) == [Outcome.COMPLETED] * 3
        # The worker's own writes, such as its heartbeat, may refuse a further transaction.
        first, *tries, last = ran
        assert (first, last) == (("a", None), ("b", 7))
        assert len(tries) >= 2
        assert set(tries) == {("session", 1)}
        assert [settled.attempt for settled in worker.of(JobSettled)] == [1, 1, 1]
    assert stored(migrated_url) == []


async def test_context_chain_outside_a_chain(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        await outbox.dispatch(Step(label="a"), max_tries=1)
        assert await ends(worker, 1) == [Outcome.FAILED]
        assert "in no chain" in worker.of(JobSettled)[0].failure.message


@pytest.mark.redis
@pytest.mark.parametrize("backend", [pytest.param("mysql", marks=pytest.mark.mysql)], indirect=True)
async def test_a_chain_on_redis(migrated_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    engine = async_engine(migrated_url)
    async with working(migrated_url, redis_url=redis_url, connection="redis") as worker:
        async with AsyncSession(engine) as session:
            await dispatch_chain(
                [Step(label="a", returns=1), Step(label="b", appends=("d",)), Hopeless()],
                catch=Catch(),
                session=session,
                connection="redis",
            )
            await session.commit()
        await ends(worker, 4)
    await engine.dispose()
    assert [label for label, _ in ran] == ["a", "b", "catch"]
    assert ran[1] == ("b", 1)
