"""Publishing: never in the way of a commit, and whatever gathers is told at once."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from outbox.wakeups import redis_publisher as module
from outbox.wakeups.redis_channel import CHANNEL, unpack
from outbox.wakeups.redis_publisher import Publisher


class Redis:
    """The part of a client that is used, and a server that can be slow or down."""

    def __init__(self) -> None:
        self.told: list[frozenset[str]] = []
        self.clients = self.closed = self.asked = 0
        self.down = False
        self.answers = threading.Event()
        self.answers.set()
        self._changed = threading.Condition()

    def __call__(self) -> Any:
        self.clients += 1
        return self

    async def publish(self, channel: str, message: str) -> None:
        assert channel == CHANNEL
        with self._changed:
            self.asked += 1
            self._changed.notify_all()
        while not self.answers.is_set():
            await asyncio.sleep(0.001)
        with self._changed:
            self._changed.notify_all()
            if self.down:
                raise ConnectionResetError("gone")
            self.told.append(unpack(message.encode()))

    async def aclose(self) -> None:
        self.closed += 1

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 10)


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Redis:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    # Long enough for a machine that stands still, and far longer than a test that must not wait so long.
    monkeypatch.setattr(module, "EXIT_SECONDS", 60.0)
    return Redis()


class Gap:
    """`asyncio` for the module under test: its pauses last until the test ends them."""

    def __init__(self) -> None:
        self.over = threading.Event()

    async def sleep(self, _: float) -> None:
        while not self.over.is_set():
            await asyncio.sleep(0.001)

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


def test_what_was_committed_is_told(redis: Redis) -> None:
    Publisher(redis).publish({"mail", "default"})
    redis.wait(lambda: redis.told == [{"mail", "default"}])


def test_what_gathers_while_redis_is_slow_is_told_in_one_message(redis: Redis) -> None:
    publisher = Publisher(redis)
    redis.answers.clear()
    publisher.publish({"first"})
    redis.wait(lambda: redis.asked == 1)
    began = time.monotonic()
    for number in range(5_000):
        publisher.publish({f"queue{number % 3}"})
    assert time.monotonic() - began < 30, "nobody waited for Redis, which has not answered yet"
    redis.answers.set()
    redis.wait(lambda: len(redis.told) == 2)
    assert redis.told == [{"first"}, {"queue0", "queue1", "queue2"}]


def test_commits_that_follow_closely_share_a_message(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    gap = Gap()
    monkeypatch.setattr(module, "asyncio", gap)
    publisher = Publisher(redis)
    publisher.publish({"first"})
    redis.wait(lambda: redis.told == [{"first"}])
    for number in range(1_000):
        publisher.publish({f"queue{number % 3}"})
    assert redis.told == [{"first"}]
    gap.over.set()
    redis.wait(lambda: len(redis.told) == 2)
    assert redis.told[1] == {"queue0", "queue1", "queue2"}
    publisher.flush_at_exit()
    assert len(redis.told) == 2


def test_what_redis_did_not_take_is_told_when_it_is_back(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(redis)
    redis.down = True
    with caplog.at_level(logging.WARNING, "outbox.wakeups"):
        publisher.publish({"mail"})
        redis.wait(lambda: redis.clients >= 4)
        publisher.publish({"default"})
        redis.down = False
        redis.wait(lambda: bool(redis.told))
    assert redis.told[0] >= {"mail"}
    redis.wait(lambda: frozenset().union(*redis.told) == {"mail", "default"})
    assert len(caplog.records) == 1, "an outage is told once"
    assert redis.closed >= 3, "no connection is left behind"


def test_one_failure_is_a_connection_that_was_idle_for_long(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(redis)
    publisher.publish({"a"})
    redis.wait(lambda: len(redis.told) == 1)
    redis.down = True
    publish = redis.publish

    async def once(channel: str, message: str) -> None:
        try:
            await publish(channel, message)
        finally:
            redis.down = False

    redis.publish = once  # type: ignore[method-assign]
    publisher.publish({"b"})
    redis.wait(lambda: len(redis.told) == 2)
    assert caplog.records == []


def test_names_that_wait_are_not_without_bound(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_QUEUES", 100)
    publisher = Publisher(redis)
    redis.answers.clear()
    publisher.publish({"first"})
    redis.wait(lambda: redis.asked == 1)
    for number in range(10_000):
        publisher.publish({f"queue{number}"})
    redis.answers.set()
    publisher.flush_at_exit()
    assert redis.told == [{"first"}, {f"queue{number}" for number in range(100)}]


def test_the_end_of_the_interpreter_waits_for_what_was_just_committed(redis: Redis) -> None:
    publisher = Publisher(redis)
    publisher.publish({"mail"})
    publisher.flush_at_exit()
    assert redis.told == [{"mail"}]


def test_the_end_of_the_interpreter_does_not_wait_for_a_redis_that_is_down(redis: Redis) -> None:
    publisher = Publisher(redis)
    redis.down = True
    publisher.publish({"mail"})
    redis.wait(lambda: redis.clients >= 3)
    began = time.monotonic()
    publisher.flush_at_exit()
    assert time.monotonic() - began < 30


def test_a_child_starts_a_thread_of_its_own(redis: Redis) -> None:
    publisher = Publisher(redis)
    publisher.publish({"a"})
    redis.wait(lambda: len(redis.told) == 1)
    publisher.after_fork()
    publisher.publish({"b"})
    redis.wait(lambda: redis.told[-1] == {"b"})
    assert redis.clients == 2
