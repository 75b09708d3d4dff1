"""Readings from MQTT into the database: `python -m app.consumer`.

Each message becomes a row and a job in one transaction, and is acknowledged after the commit. Dying in
between means that the broker delivers it again: outbox's inbox then knows it.
"""

import asyncio
import logging
import signal
import time
from collections import Counter
from datetime import UTC
from enum import StrEnum

import aiomqtt
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from app import db
from app.mqtt import Client
from app.readings import Measurement, NewReading, record
from app.settings import Settings, settings
from outbox import Backoff, inbox

log = logging.getLogger(__name__)

LARGEST = 4096  # bytes: a reading has fewer than a hundred
PAUSES = Backoff.exponential(1.0, maximum=30.0, jitter=0.2)  # seconds between two tries to connect
HEALTHY = 10.0  # seconds after which a connection that ends counts as having worked


class Outcome(StrEnum):
    """What became of a message."""

    STORED = "stored"
    KNOWN = "known already"
    REFUSED = "refused"


async def take(topic: str, payload: bytes) -> Outcome:
    """Store one message's reading and dispatch its job.

    A message that is no reading is logged and refused; that the database is away raises, since the
    message is not to blame.
    """
    try:
        reading = parse(topic, payload)
    except ValueError as error:
        log.warning("refused %.80r on %s: %s", payload, topic, error)
        return Outcome.REFUSED
    try:
        return await _store(reading)
    except IntegrityError:
        return await _store(reading)  # it came another way at the same moment; now it shows


def parse(topic: str, payload: bytes) -> NewReading:
    """The reading in a message on `sensors/<sensor>/temperature`; raises ValueError if there is none."""
    if len(payload) > LARGEST:
        raise ValueError(f"{len(payload)} bytes are no reading")
    parts = topic.split("/")
    if len(parts) < 2:
        raise ValueError("the topic names no sensor")
    try:
        measurement = Measurement.model_validate_json(payload)
        return NewReading(sensor=parts[1], **measurement.model_dump())
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in error.errors())
        raise ValueError("; ".join(problems)) from error


async def _store(reading: NewReading) -> Outcome:
    # Not MQTT's own number of the message: the broker uses it again.
    message_id = f"{reading.sensor} {reading.measured_at.astimezone(UTC).isoformat()}"
    async with db.transaction() as session, inbox(session, message_id, source="mqtt") as fresh:
        # A reading may have come another way, and is then no message that was received.
        return Outcome.STORED if fresh and await record(session, [reading]) else Outcome.KNOWN


class Consumer:
    """Keeps a connection to the broker, and counts what comes over it."""

    def __init__(self, config: Settings) -> None:
        self.config = config
        self.counts: Counter[Outcome] = Counter()
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Consume until cancelled. A broker or a database that goes away is waited for."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._consume()
            except (aiomqtt.MqttError, SQLAlchemyError, OSError) as error:
                # Not acknowledged means not lost: the broker sends the message again when we are back.
                self.connected.clear()
                failures = 1 if time.monotonic() - began > HEALTHY else failures + 1
                pause = PAUSES.delay(failures)
                reason = str(error).partition("\n")[0]  # SQLAlchemy appends the statement and a link
                log.warning("stopped consuming (%s), trying again in %.1f s", reason, pause)
                await asyncio.sleep(pause)

    async def _consume(self) -> None:
        async with self._client() as client:
            await client.subscribe(self.config.mqtt_topic, qos=1)
            log.info("consuming %s", self.config.mqtt_topic)
            self.connected.set()
            async for message in client.messages:
                outcome = await take(message.topic.value, message.payload)
                self.counts[outcome] += 1
                client.acknowledge(message)

    def _client(self) -> Client:
        # A session that outlives the connection: the broker collects for us while we are away.
        return Client(
            self.config.mqtt_host,
            self.config.mqtt_port,
            username=self.config.mqtt_user,
            password=self.config.mqtt_password,
            identifier=self.config.mqtt_client_id,
            clean_session=False,
        )


async def main() -> None:
    """Consume until SIGTERM or SIGINT, then say what was done."""
    consumer = Consumer(settings())
    running = asyncio.ensure_future(consumer.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        log.info("stopped: %s", dict(consumer.counts))
    finally:
        await db.dispose()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(main())
