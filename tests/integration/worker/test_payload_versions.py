"""Payloads of other versions than the code of a worker, on every database and on Redis."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

import outbox.sync
from outbox import Job, dispatch, dispatch_chain, find, retry, upgrade
from outbox.client_state import default_client
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.envelope import Headers, serialize
from outbox.events import JobGivenBack, JobSettled
from outbox.relay.thread import RelayThreads
from outbox.settlement import Outcome
from tests.support.embedded_worker import Embedded, working

NAME = "tests.versions.Mail"
handled: list[tuple[int, Any]] = []


# Both make this module's class of one name, as the code before a deploy and after it does.
def first_code() -> type[Job]:
    class Mail(Job):
        __qualname__ = "Mail"
        name = NAME
        unique: ClassVar = ["key"]
        on_conflict = "replace"
        max_tries = 1

        key: int
        address: str

        async def handle(self) -> None:
            handled.append((1, self.address))

    return Mail


def second_code(*, steps: bool = True) -> type[Job]:
    class Base(Job):
        version = 2
        unique: ClassVar = ["key"]
        on_conflict = "replace"
        max_tries = 1

        key: int
        addresses: list[str]

        async def handle(self) -> None:
            handled.append((self.context.attempt, self.addresses))

    class Bare(Base):
        __qualname__ = "Mail"
        name = NAME

    if not steps:
        return Bare

    class Mail(Base):
        __qualname__ = "Mail"
        name = NAME

        @upgrade(1)
        @staticmethod
        def to_several(payload: dict[str, Any]) -> dict[str, Any]:
            return {"key": payload["key"], "addresses": [payload["address"]]}

    return Mail


@pytest.fixture(autouse=True)
async def _environment(monkeypatch: pytest.MonkeyPatch, migrated_url: str) -> AsyncIterator[None]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    handled.clear()
    yield
    await outbox.disconnect()
    await asyncio.to_thread(outbox.sync.disconnect)
    await default_client.part(RelayThreads).close()


async def outcomes(worker: Embedded, count: int) -> list[Outcome]:
    await worker.event(JobSettled, count)
    return [event.outcome for event in worker.of(JobSettled)]


async def test_an_old_job_runs_with_new_code(migrated_url: str) -> None:
    await dispatch(first_code()(key=1, address="a"))
    second_code()
    async with working(migrated_url) as worker:
        assert await outcomes(worker, 1) == [Outcome.COMPLETED]
    assert handled == [(1, ["a"])]


async def test_a_newer_job_waits_for_newer_code_and_keeps_its_attempts(migrated_url: str) -> None:
    job_id = await dispatch(second_code()(key=1, addresses=["a"]))
    first_code()
    async with working(migrated_url) as worker:
        assert await outcomes(worker, 2) == [Outcome.SNOOZED] * 2, "found again after a pause"
        [event] = worker.of(JobGivenBack)
        assert "has version 2, and this worker's code knows versions up to 1: deploy" in event.reason
        second_code()
    assert handled == []
    stored = await find(job_id)
    assert getattr(stored, "attempts", None) == 0
    second_code()
    async with working(migrated_url) as worker:
        assert await outcomes(worker, 1) == [Outcome.COMPLETED]
    assert handled == [(1, ["a"])]


async def test_a_job_that_cannot_be_upgraded_fails_and_runs_once_the_step_is_there(migrated_url: str) -> None:
    job_id = await dispatch(first_code()(key=1, address="a"))
    second_code(steps=False)
    async with working(migrated_url) as worker:
        assert await outcomes(worker, 1) == [Outcome.FAILED]
        failure = worker.of(JobSettled)[0].failure
        assert failure.type == "outbox.errors.InvalidPayload"
        assert "has version 1, and nothing leads from there to version 2" in failure.message
    second_code()
    await retry(job_id)
    async with working(migrated_url) as worker:
        assert await outcomes(worker, 1) == [Outcome.COMPLETED]
    assert handled == [(1, ["a"])]


@pytest.mark.parametrize("newest", [1, 2])
async def test_a_payload_that_replaces_another_brings_its_version(newest: int, database: DatabaseDriver) -> None:
    codes = {1: lambda: first_code()(key=1, address="a"), 2: lambda: second_code()(key=1, addresses=["b", "c"])}
    first = await dispatch(codes[3 - newest]())
    assert await dispatch(codes[newest]()) == first
    [claim] = await database.jobs.claim(["default"], 10, 30)
    assert (Headers.load(claim.headers).version or 1) == newest
    stored = await database.jobs.get(first)
    assert stored is not None
    assert (Headers.load(stored.headers).version or 1, Headers.load(stored.headers).unique) == (
        newest,
        Headers.load(claim.headers).unique,
    ), "also for the next attempt"


@pytest.mark.parametrize("newest", [1, 2])
async def test_an_encrypted_payload_that_replaces_another_is_upgraded(
    newest: int, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", base64.b64encode(bytes(range(32))).decode())
    codes = {1: lambda: first_code()(key=1, address="a"), 2: lambda: second_code()(key=1, addresses=["b", "c"])}
    first = await dispatch(codes[3 - newest](), encrypt=True)
    assert await dispatch(codes[newest](), encrypt=True) == first
    second_code()
    async with working(migrated_url) as worker:
        assert await outcomes(worker, 1) == [Outcome.COMPLETED]
    assert handled == [(1, ["a"] if newest == 1 else ["b", "c"])]


async def test_each_job_of_a_chain_has_its_version(migrated_url: str) -> None:
    kind = first_code()
    await dispatch_chain([kind(key=1, address="a"), kind(key=2, address="b")])
    second_code()
    async with working(migrated_url) as worker:
        assert await outcomes(worker, 2) == [Outcome.COMPLETED] * 2
    assert handled == [(1, ["a"]), (1, ["b"])]


@pytest.mark.redis
async def test_versions_travel_through_redis(redis_url: str, migrated_url: str) -> None:
    class Plain(Job):
        name = "tests.versions.Plain"
        version = 5

        async def handle(self) -> None:
            handled.append((self.context.attempt, "plain"))

    redis = RedisDriver(redis_url)
    new = serialize(Plain())
    await redis.jobs.insert([new, new._replace(id=serialize(Plain()).id, headers='{"version":6}')])
    async with working(migrated_url, redis_url=redis_url, connection="redis") as worker:
        assert sorted(await outcomes(worker, 2)) == [Outcome.COMPLETED, Outcome.SNOOZED]
    assert handled == [(1, "plain")]
    [left] = await redis.jobs.list_jobs()
    assert (left.headers, left.attempts) == ('{"version":6}', 0)
    await redis.close()
