"""What a worker does on each store: the tests of this folder run on SQLite, MySQL, MariaDB and Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import outbox
import outbox.sync
from outbox.client_state import default_client
from outbox.connections import open_driver
from outbox.drivers.base import Driver
from outbox.relay.thread import RelayThreads
from outbox.settings import Settings
from tests.servers import databases
from tests.support.embedded_worker import working


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.sqlite),
        pytest.param("mysql", marks=pytest.mark.mysql),
        pytest.param("mariadb", marks=pytest.mark.mariadb),
        pytest.param("redis", marks=pytest.mark.redis),
    ]
)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Store:
    """A store, which the process dispatches to, and a driver of the test for it."""

    def __init__(self, url: str, redis_url: str | None, connection: str, driver: Driver) -> None:
        self.driver = driver
        self.url, self.redis_url, self.connection = url, redis_url, connection

    def worker(self, **options: Any) -> Any:
        """A worker that looks once a minute: what happens sooner was announced."""
        return working(self.url, redis_url=self.redis_url, connection=self.connection, **options)

    @property
    def environment(self) -> dict[str, str]:
        """Of another process."""
        given = {"DATABASE_URL": self.url, "QUEUE_CONNECTION": self.connection}
        return given if self.redis_url is None else given | {"REDIS_URL": self.redis_url}


@pytest.fixture
async def store(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    redis_url, connection = None, "database"
    if backend == "redis":
        redis_url, connection = request.getfixturevalue("redis_url"), "redis"
        url = databases.fresh_file(tmp_path, request.getfixturevalue("migrated_sqlite"))
    else:
        url = request.getfixturevalue("migrated_url")
    outbox.configure(database_url=url, redis_url=redis_url, connection=connection)
    driver = open_driver(Settings(DATABASE_URL=url, REDIS_URL=redis_url), connection)  # type: ignore[call-arg]
    yield Store(url, redis_url, connection, driver)
    await driver.close()
    await asyncio.to_thread(default_client.part(RelayThreads).stop)
    await outbox.disconnect()
    await asyncio.to_thread(outbox.sync.disconnect)
    outbox.configure()
