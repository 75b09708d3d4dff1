"""The MQTT consumer without a broker: what becomes of a message."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app import consumer, db, readings
from app.consumer import LARGEST, Outcome, take
from outbox.drivers.database import DatabaseDriver
from tests.app import rows
from tests.app.rows import Queued, queued
from tests.support.row_locks import Arrivals

TOPIC = "sensors/roof/temperature"
MESSAGE = {"measured_at": "2010-07-01T12:00:00Z", "value": 71.6, "unit": "F"}


def payload(**changes: object) -> bytes:
    return json.dumps({**MESSAGE, **changes}).encode()


async def test_a_reading_and_its_job_commit_together(shop: str) -> None:
    assert await take(TOPIC, payload()) is Outcome.STORED

    (reading,) = await rows.readings()
    assert (reading.sensor, reading.value, reading.unit) == ("roof", 71.6, "F")
    assert reading.measured_at.isoformat() == "2010-07-01T12:00:00+00:00"
    assert await queued() == [Queued("app.ProcessReading", "default", {"reading_id": reading.id, "sensor": "roof"})]


async def test_a_message_delivered_again_changes_nothing(shop: str) -> None:
    await take(TOPIC, payload())

    assert await take(TOPIC, payload()) is Outcome.KNOWN
    assert await take(TOPIC, payload(measured_at="2010-07-01T14:00:00+02:00", value=0)) is Outcome.KNOWN

    assert len(await rows.readings()) == 1
    assert len(await queued()) == 1


async def test_readings_within_one_second_are_two(shop: str) -> None:
    await take(TOPIC, payload(measured_at="2010-07-01T12:00:00.250Z"))

    assert await take(TOPIC, payload(measured_at="2010-07-01T12:00:00.750Z")) is Outcome.STORED
    assert len(await queued()) == 2


async def test_two_consumers_with_one_message_store_it_once(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes while the first has received the message and has not committed."""
    look = readings.stored
    database = DatabaseDriver(shop)
    second: list[asyncio.Task[Outcome]] = []

    async def look_while_another_waits(session: AsyncSession, keys: Sequence[readings.Key]) -> list[readings.Key]:
        second.append(asyncio.ensure_future(take(TOPIC, payload())))
        if not shop.startswith("sqlite"):  # there the second cannot even begin before the first has committed
            await Arrivals([database]).wait_for(1)
        return await look(session, keys)

    monkeypatch.setattr(readings, "stored", look_while_another_waits)
    assert await take(TOPIC, payload()) is Outcome.STORED
    [other] = second
    assert await other is Outcome.KNOWN
    await database.close()
    assert len(await rows.readings()) == 1
    assert len(await queued()) == 1


async def test_a_reading_whose_job_cannot_be_dispatched_is_not_there(
    shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no job today")

    monkeypatch.setattr(readings, "dispatch_many", fail)
    with pytest.raises(RuntimeError):
        await take(TOPIC, payload())

    assert await rows.readings() == []


@pytest.mark.parametrize(
    ("topic", "content"),
    [
        (TOPIC, b""),
        (TOPIC, b"\xff\xfe"),
        (TOPIC, b"{"),
        (TOPIC, b"[]"),
        (TOPIC, b"null"),
        (TOPIC, b"{}"),
        (TOPIC, payload(value="warm")),
        (TOPIC, payload(value=float("nan"))),
        (TOPIC, payload(value=1e300)),
        (TOPIC, payload(unit="K")),
        (TOPIC, payload(measured_at="yesterday")),
        (TOPIC, payload(measured_at="2010-07-01T12:00:00")),
        (TOPIC, payload(note="x" * LARGEST)),
        ("sensors", payload()),
        ("sensors/ro of/temperature", payload()),
        ("sensors/" + "x" * 65 + "/temperature", payload()),
    ],
)
async def test_what_is_no_reading_is_refused_and_logged(
    topic: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "app.consumer"):
        assert await take(topic, content) is Outcome.REFUSED  # without a database: it never gets that far

    (record,) = caplog.records
    assert "refused" in record.getMessage()
    assert len(record.getMessage()) < 600


async def test_a_database_that_is_away_is_not_the_messages_fault(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise OperationalError("BEGIN", {}, ConnectionRefusedError())

    monkeypatch.setattr(db, "transaction", away)
    with pytest.raises(OperationalError):
        await take(TOPIC, payload())
    monkeypatch.undo()


async def test_a_batch_with_the_same_reading_twice_stores_it_once(shop: str) -> None:
    reading = consumer.parse(TOPIC, payload())
    async with db.transaction() as session:
        assert len(await readings.record(session, [reading, reading])) == 1

    assert len(await queued()) == 1
