"""Jobs that are dispatched to Redis in transactions, and what a test does to their rows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

import outbox
from outbox import dispatch_many
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.tables import jobs
from outbox.drivers.redis import RedisDriver
from outbox.envelope import Envelope
from outbox.settlement import Settlement
from tests.support.orders import Receipt, async_engine, sync_engine

WAITING = ">redis"


async def committed(url: str, *numbers: int, **options: object) -> list[outbox.JobId]:
    engine = async_engine(url)
    async with AsyncSession(engine) as session, session.begin():
        receipts = [Receipt(order_id=number) for number in numbers]
        ids = await dispatch_many(receipts, session=session, connection="redis", **options)  # type: ignore[arg-type]
    await engine.dispose()
    return ids


async def drained(redis: RedisDriver, queue: str = "mail") -> list[int]:
    claims = await redis.jobs.claim([queue], 1_000, 30)
    await redis.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    return [json.loads(claim.payload)["order_id"] for claim in claims]


async def age(url: str, seconds: int) -> None:
    """As if every row had been written so many seconds earlier, and were due."""
    engine = sync_engine(url)
    with engine.begin() as connection:
        for job_id, written in connection.execute(select(jobs.c.id, jobs.c.created_at)).all():
            earlier = written - timedelta(seconds=seconds)
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(created_at=earlier, available_at=earlier))
    engine.dispose()


def let_go(url: str) -> None:
    """As if the hold on every row had run out."""
    engine = sync_engine(url)
    with engine.begin() as connection:
        earlier = datetime(2020, 1, 1)  # noqa: DTZ001 - as the tables have it, in UTC
        held = jobs.c.reserved_until.is_not(None)
        connection.execute(update(jobs).where(held).values(available_at=earlier, reserved_until=earlier))
    engine.dispose()


async def due_in(driver: DatabaseDriver | RedisDriver, queue: str) -> float:
    due = (await driver.jobs.next_due([queue])).due
    assert due is not None
    return due


def just_before(redis: RedisDriver, meanwhile: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The next jobs that a relay sends reach Redis when ``meanwhile`` has happened."""
    insert_once = redis.relay_target.insert_once

    async def accept_late(envelopes: Sequence[Envelope]) -> frozenset[outbox.JobId]:
        monkeypatch.setattr(redis.relay_target, "insert_once", insert_once)
        await meanwhile()
        return await insert_once(envelopes)

    monkeypatch.setattr(redis.relay_target, "insert_once", accept_late)


async def arrived(redis: RedisDriver) -> list[int]:
    async with asyncio.timeout(20):
        while not (numbers := await drained(redis)):
            await asyncio.sleep(0.01)
    return numbers
