"""Both stores, and relays between them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from outbox.client_state import default_client
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.relay import relay as relay_module
from outbox.relay.relay import Relay
from outbox.relay.thread import RelayThreads


@pytest.fixture
def configured(migrated_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stores, and no relay of this process: tests move jobs themselves, or ask for `relay_loop`."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(default_client.part(RelayThreads), "wake", lambda *_: None)


@pytest.fixture
def relay(database: DatabaseDriver, redis: RedisDriver) -> Relay:
    return Relay(database, redis, "redis")


@pytest.fixture
def looking_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are looked at again at the next move, instead of seconds later."""
    monkeypatch.setattr(relay_module, "FIRST_LOOK", 0.0)
    monkeypatch.setattr(relay_module, "AGAIN_AFTER", 0.0)


@pytest.fixture
async def late(migrated_url: str, redis: RedisDriver) -> AsyncIterator[Relay]:
    """The relay of another process, which is about to take longer than its hold on the rows lasts."""
    source = DatabaseDriver(migrated_url)
    yield Relay(source, redis, "redis")
    await source.close()
