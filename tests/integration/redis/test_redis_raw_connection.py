"""Scripts and messages go over connections that redis-py makes, past its client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import Redis as Client
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import NoPermissionError as NoPermission
from redis.exceptions import TimeoutError as NoAnswer

from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis.connection.raw_connection import RawConnection
from outbox.drivers.redis.pubsub import PubSub
from tests.conformance.jobs import envelopes

pytestmark = pytest.mark.redis


async def test_a_claim_says_one_thing(driver: RedisDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    await driver.jobs.insert(envelopes(3))
    await driver.jobs.claim(["default"], 1, 30)
    said = []
    say = RawConnection.say

    def counted(wire: RawConnection, data: bytes) -> None:
        said.append(data)
        say(wire, data)

    monkeypatch.setattr(RawConnection, "say", counted)
    assert len(await driver.jobs.claim(["default"], 5, 30)) == 2
    assert [data.count(b"EVALSHA") for data in said] == [1]


async def test_answers_have_the_form_that_is_read_here_whatever_the_url_says(redis_url: str) -> None:
    driver = RedisDriver(f"{redis_url}?protocol=3")
    await driver.jobs.insert(envelopes(3))
    assert len(await driver.jobs.claim(["default"], 5, 30)) == 3
    [line] = driver.store.idle
    [greeting] = await line.ask([("HELLO",)])
    assert greeting[greeting.index(b"proto") + 1] == 2
    await driver.close()


async def test_an_answer_is_waited_for_as_long_as_the_url_says(redis_url: str) -> None:
    driver = RedisDriver(f"{redis_url}?socket_timeout=0.75")
    await driver.jobs.insert(envelopes(1))
    [line] = driver.store.idle
    with pytest.raises(NoAnswer, match=r"no answer for 0\.75 s"):
        await line.ask([("BLPOP", "nothing", 0)])
    await driver.close()


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used(driver: RedisDriver, redis_url: str) -> None:
    await driver.jobs.insert(envelopes(1))
    [line] = driver.store.idle
    with Client.from_url(redis_url) as operator:
        operator.client_kill_filter(_type="normal", skipme=True)
    async with asyncio.timeout(10):
        while not line.closed:
            await asyncio.sleep(0.01)
    assert len(await driver.jobs.claim(["default"], 1, 30)) == 1
    assert line not in driver.store.idle


async def test_a_dispatch_that_is_cancelled_leaves_no_answer_behind(driver: RedisDriver) -> None:
    await driver.jobs.insert(envelopes(1))
    cancelled = asyncio.create_task(driver.jobs.insert(envelopes(1)))
    while driver.store.idle:
        await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert cancelled.cancelled()
    assert len(await driver.jobs.claim(["default"], 5, 30)) in {1, 2}


async def test_a_subscription_hears_at_once_and_learns_that_it_is_over(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    subscribed = await PubSub(redis_url).subscribe("outbox:test", heard.put_nowait)
    answers = asyncio.Semaphore(0)
    receive = subscribed.received

    def received(some: list[Any]) -> None:
        receive(some)
        answers.release()

    monkeypatch.setattr(subscribed, "received", received)
    listening = asyncio.create_task(subscribed.keep_listening(0.5))
    with Client.from_url(redis_url) as operator:
        async with asyncio.timeout(30):
            # To being asked after a silence, and after the next one.
            for _ in range(2):
                await answers.acquire()
        operator.publish("outbox:test", "mail")
        async with asyncio.timeout(10):
            assert await heard.get() == b"mail"
        operator.client_kill_filter(_type="pubsub")
    async with asyncio.timeout(10):
        with pytest.raises(LostConnection):
            await listening
    await subscribed.close()


async def test_messages_are_published_over_one_connection_until_that_is_lost(redis_url: str) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    subscribed = await PubSub(redis_url).subscribe("outbox:test", heard.put_nowait)
    client = PubSub(redis_url)()
    with Client.from_url(redis_url) as operator:
        async with asyncio.timeout(10):
            await client.publish("outbox:test", "mail")
            before = operator.info("stats")["total_connections_received"]
            await client.publish("outbox:test", "default")
            assert operator.info("stats")["total_connections_received"] == before
            assert [await heard.get(), await heard.get()] == [b"mail", b"default"]
            operator.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(LostConnection):
                await client.publish("outbox:test", "lost")
    await client.aclose()
    await subscribed.close()


async def test_a_message_that_the_server_refuses_is_an_error(redis_url: str) -> None:
    with Client.from_url(redis_url) as operator:
        operator.acl_setuser("mute", enabled=True, nopass=True, commands=["+@all"], reset_channels=True)
        client = PubSub(redis_url.replace("redis://", "redis://mute:any@"))()
        with pytest.raises(NoPermission):
            await client.publish("outbox:test", "mail")
        await client.aclose()
        operator.acl_deluser("mute")
