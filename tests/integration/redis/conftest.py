"""Drivers of one Redis, and a client that sees what they store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from redis import Redis as Client

from outbox.drivers.redis import RedisDriver


@pytest.fixture
async def driver(redis_url: str) -> AsyncIterator[RedisDriver]:
    """The driver under test."""
    driver = RedisDriver(redis_url)
    yield driver
    await driver.close()


@pytest.fixture
async def other(redis_url: str) -> AsyncIterator[RedisDriver]:
    """The driver of another process."""
    driver = RedisDriver(redis_url)
    yield driver
    await driver.close()


@pytest.fixture
def admin(redis_url: str) -> Iterator[Client]:
    with Client.from_url(redis_url) as client:
        yield client
