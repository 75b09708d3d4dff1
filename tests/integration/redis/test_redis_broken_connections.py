"""Whatever becomes of a connection while it is made, used or closed is an outage, on both event loops."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from outbox import Job
from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis import pubsub as messengers
from outbox.drivers.redis.connection import url as addresses
from outbox.drivers.values import BlockingClaimRequest, WorkerStatus
from outbox.envelope import serialize
from outbox.errors import BackendUnavailable
from outbox.events import ConnectionDown, JobSettled, LeaseLost
from outbox.ids import new_job_id, new_token
from outbox.options import JobOptions
from outbox.runtime import store_thread
from outbox.settlement import Fence, Settlement
from tests.conformance.jobs import FAILURE, envelope
from tests.servers import databases
from tests.support.broken_server import (
    Behaviour,
    close,
    close_when_asked,
    connects,
    connects_partly,
    greets,
    reset,
    reset_when_asked,
    says,
    serving,
)
from tests.support.embedded_worker import OFTEN, working
from tests.support.redis_proxy import proxy

BEHAVIOURS: dict[str, Behaviour] = {
    "reset": reset,
    "closed": close,
    "reset when asked": reset_when_asked,
    "closed when asked": close_when_asked,
    "reset between steps of the handshake": connects_partly(reset),
    "closed between steps of the handshake": connects_partly(close),
    "reset after the handshake": connects(reset),
    "closed after the handshake": connects(close),
    "reset at the first command": connects(reset_when_asked),
    "closed at the first command": connects(close_when_asked),
    "half an answer, then reset": connects(says(b"$100\r\nhalf", ending=reset)),
    "half an answer, then closed": connects(says(b"*2\r\n$1", ending=close)),
    "full": greets(b"-ERR max number of clients reached\r\n"),
    "another protocol": says(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
    "another protocol after the handshake": connects(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "bytes": connects(says(b"\x00\xff\x15\x03\x01\r\n")),
    "no number": connects(says(b"$many\r\n")),
    "a line without an end": connects(says(b":" + b"1" * 100_000)),
    "more than was asked": connects(says(b":1\r\n" * 20)),
    "a proxy without a server": connects(says(b"-ERR no upstream host\r\n")),
    "an answer of another kind": connects(says(b"+OK\r\n")),
    "an integer": connects(says(b":1\r\n")),
    "a string": connects(says(b"$5\r\nhello\r\n")),
}
SLOW = {"a line without an end", "a proxy without a server", "an answer of another kind", "an integer", "a string"}
"""The verbs wait for the end of an answer, or for a moment between two tries: all of them at once."""
# Not those that say anything in the clear: TLS gets no further than its own first words.
TLS = ["reset", "closed", "reset when asked", "closed when asked", "full", "another protocol"]
CASES = [*((name, "redis") for name in BEHAVIOURS), *((name, "rediss") for name in TLS)]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
TRIES = 30
"""Of a reset: whether it comes while the connection is made or just after is a matter of chance."""

FENCE = Fence(new_job_id(), new_token())
WORKER = WorkerStatus(b"w" * 16, "name", "host", 1, "default", 1, 0, 0, 0)
QUEUES = ["default", "mail"]

Verb = Callable[[RedisDriver], Awaitable[Any]]
VERBS: dict[str, Verb] = {
    "look": lambda driver: driver.jobs.next_due(QUEUES),
    "wait": lambda driver: driver.blocking_claims.next_due(QUEUES, BlockingClaimRequest(30, lambda: None)),
    "claim": lambda driver: driver.jobs.claim(QUEUES, 10, 30),
    "settle": lambda driver: settle(driver),
    "extend": lambda driver: extend(driver),
    "insert": lambda driver: driver.jobs.insert([envelope(), envelope(queue="mail")]),
    "accept": lambda driver: driver.relay_target.insert_once([envelope()]),
    "list": lambda driver: driver.jobs.list_jobs(),
    "failed": lambda driver: driver.failed.page(),
    "counts": lambda driver: driver.queues.counts(),
}


async def settle(driver: RedisDriver) -> None:
    driver.jobs.locator.claimed(FENCE, "default")
    await driver.jobs.settle([Settlement.failed(FENCE, FAILURE), Settlement.failed(FENCE, FAILURE)])


async def extend(driver: RedisDriver) -> None:
    driver.jobs.locator.claimed(FENCE, "default")
    await driver.jobs.extend([FENCE, FENCE], 30)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Awaitable[None]], None]:
    """Runs a test on one of the loops, and nothing that it opened may be left."""
    # No handshake gets as far as certificates, and to read the system's takes a connection 35 ms of the processor.
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(addresses, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(messengers, "ANSWER_SECONDS", 0.5)
    complaints: list[dict[str, Any]] = []

    def run(test: Awaitable[None]) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            await test
            gc.collect()

        with warnings.catch_warnings(record=True) as left, asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            warnings.simplefilter("always")
            runner.run(main())
        assert [str(warning.message) for warning in left] == []
        assert complaints == []

    return run


async def refused(call: Awaitable[Any], otherwise: str) -> None:
    try:
        await call
    except BackendUnavailable:
        return
    # An integer is what some are answered with.
    assert otherwise.endswith("an integer"), otherwise


@pytest.mark.parametrize(("behaviour", "scheme"), CASES)
def test_a_connection_that_breaks_is_an_outage_to_every_verb(run: Any, behaviour: str, scheme: str) -> None:
    tries = TRIES if (behaviour, scheme) == ("reset", "redis") else 2

    async def use(port: int, name: str, verb: Verb) -> None:
        driver = RedisDriver(f"{scheme}://127.0.0.1:{port}/0")
        try:
            for _ in range(tries):
                await refused(verb(driver), f"{name} took for an answer: {behaviour}")
        finally:
            await driver.close()

    async def test() -> None:
        with serving(BEHAVIOURS[behaviour]) as port:
            uses = [use(port, name, verb) for name, verb in VERBS.items()]
            if scheme == "redis" and behaviour in SLOW:
                await asyncio.gather(*uses)
            else:
                for each in uses:
                    await each

    run(test())


# --- in a worker


class InFlight(Job):
    """Runs until the test lets it end."""

    async def handle(self) -> None:
        started.set()
        await asyncio.to_thread(may_end.wait)


started, may_end = threading.Event(), threading.Event()


@pytest.mark.parametrize("loop", LOOPS)
async def test_the_end_of_a_job_outlives_a_load_balancer_without_a_backend(
    redis_url: str, migrated_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    """All calls to stores are made on a loop of their own."""
    monkeypatch.setattr(store_thread, "new_loop", LOOPS[loop])
    started.clear()
    may_end.clear()
    driver = RedisDriver(redis_url)
    async with proxy(redis_url) as between:
        database = databases.fresh_file(tmp_path, migrated_sqlite)
        async with working(database, redis_url=between.url, connection="redis", lease=60.0, sleep=OFTEN) as worker:
            await driver.jobs.insert([serialize(InFlight(), JobOptions())])
            await asyncio.to_thread(started.wait, 20)
            between.go_away()
            may_end.set()
            await worker.event(ConnectionDown)
            await between.refused(8)
            between.come_back()
            await worker.event(JobSettled)
            assert worker.of(LeaseLost) == []
    assert await driver.jobs.list_jobs() == await driver.failed.page() == []
    await driver.close()
