"""The MQTT consumer with a real broker: what is acknowledged, and what comes back."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiomqtt
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import consumer, db
from app.consumer import Consumer, Outcome
from app.settings import settings
from outbox import Backoff
from tests.app import rows
from tests.app.rows import queued
from tests.servers import LocalServer, Mosquitto, ServerMissingError

pytestmark = pytest.mark.mosquitto


@pytest.fixture
def broker(tmp_path: Path, shop: str, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    try:
        broker = Mosquitto(tmp_path / "mosquitto")
    except ServerMissingError as missing:
        pytest.skip(str(missing))
    monkeypatch.setenv("APP_MQTT_PORT", str(broker.port))
    monkeypatch.setattr(consumer, "PAUSES", Backoff(0.05))
    settings.cache_clear()
    return broker


@asynccontextmanager
async def consuming() -> AsyncIterator[Consumer]:
    one = Consumer(settings())
    task = asyncio.ensure_future(one.run())
    try:
        await asyncio.wait_for(one.connected.wait(), 60)
        yield one
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def publish(*hours: int, content: bytes | None = None) -> None:
    async with aiomqtt.Client("127.0.0.1", settings().mqtt_port) as client:
        for hour in hours:
            message = {"measured_at": f"2010-07-01T{hour:02}:00:00Z", "value": 71.6, "unit": "F"}
            await client.publish("sensors/roof/temperature", content or json.dumps(message), qos=1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_readings_arrive_with_their_jobs_and_bad_messages_do_no_harm(broker: LocalServer) -> None:
    with broker:
        async with consuming() as one:
            await publish(1, 2)
            await publish(0, content=b"no reading")
            await publish(2, 3)
            await until(lambda: one.counts.total() == 5)

    assert one.counts == {Outcome.STORED: 3, Outcome.KNOWN: 1, Outcome.REFUSED: 1}
    assert len(await queued()) == 3


async def test_what_was_not_committed_is_delivered_again(broker: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is away for the first message: nothing is acknowledged until it is stored."""
    take = consumer.take
    tries: list[bytes] = []

    async def away_at_first(topic: str, payload: bytes) -> Outcome:
        tries.append(payload)
        if len(tries) == 1:
            raise OperationalError("BEGIN", {}, ConnectionRefusedError())
        return await take(topic, payload)

    monkeypatch.setattr(consumer, "take", away_at_first)
    with broker:
        async with consuming() as one:
            await publish(1)
            await until(lambda: one.counts[Outcome.STORED] == 1)

    assert len(tries) == 2
    assert tries[0] == tries[1]
    assert len(await queued()) == 1


DIES = """
import asyncio, os, signal
from app import consumer, mqtt

def die(client, message):
    os.kill(os.getpid(), signal.SIGKILL)

mqtt.Client.acknowledge = die
asyncio.run(consumer.main())
"""


async def test_a_message_comes_again_after_a_consumer_was_killed_before_it_acknowledged(broker: LocalServer) -> None:
    """Its transaction has committed: nothing is stored twice, although the broker delivers the message again."""
    with broker:
        async with consuming():
            pass  # subscribes, so that the broker keeps what is published
        await publish(1)
        dying = await asyncio.create_subprocess_exec(sys.executable, "-c", DIES)
        assert await asyncio.wait_for(dying.wait(), 60) == -signal.SIGKILL
        assert len(await queued()) == 1
        async with consuming() as one:
            await until(lambda: one.counts.total() == 1)
            await publish(1)  # as a sensor does that has not heard of the broker
            await until(lambda: one.counts.total() == 2)

    assert one.counts == {Outcome.KNOWN: 2}
    assert len(await rows.readings()) == 1
    assert len(await queued()) == 1
    async with db.snapshot() as session:
        assert (await session.execute(text("SELECT source FROM queue_inbox"))).scalars().all() == ["mqtt"]


async def test_the_broker_keeps_what_comes_while_the_consumer_is_away(broker: LocalServer) -> None:
    with broker:
        async with consuming():
            pass
        await publish(1, 2)
        async with consuming() as one:
            await until(lambda: one.counts[Outcome.STORED] == 2)


async def test_a_broker_that_goes_away_is_waited_for(broker: LocalServer) -> None:
    with broker:
        async with consuming() as one:
            await publish(1)
            await until(lambda: one.counts[Outcome.STORED] == 1)
            await asyncio.to_thread(broker.kill)
            await until(lambda: not one.connected.is_set())
            await asyncio.to_thread(broker.restart)
            await until(one.connected.is_set)
            await publish(2)
            await until(lambda: one.counts[Outcome.STORED] == 2)

    assert len(await rows.readings()) == 2
