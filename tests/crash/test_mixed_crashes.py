"""Transactional jobs, batches and ordered keys together, while workers are killed and frozen and answers are lost.

The judge reads the application's own table, and none of outbox's."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import make_url

import outbox
from outbox import dispatch_batch, dispatch_many
from outbox.drivers.database import DatabaseDriver
from tests.crash.harness import FLAGS, LEASE
from tests.crash.mixed import End, Member, Ordered, Plain, check_effects, create_effects, effects
from tests.servers import sql
from tests.support.port_forwarder import Forwarder, forwarding
from tests.support.worker_processes import WorkerProcess, Workers

pytestmark = pytest.mark.timeout(900)

PLAIN, KEYS, BATCHES, EACH = 150, 4, 6, 25
TOTAL = PLAIN + (KEYS + BATCHES) * EACH + BATCHES
FLEET = 3


class Chaos:
    """A fleet that disasters befall as it gets on with its work, and the judge of what it did."""

    def __init__(self, url: str, workers: Workers, seed: int) -> None:
        self.url = url
        self.workers = workers
        self.fleet: list[WorkerProcess] = []
        self.chance = random.Random(seed)

    async def begin(self) -> None:
        with sql.connection(self.url) as connection:
            create_effects(connection)
        await dispatch_many([Ordered(owner=key, number=number) for number in range(EACH) for key in range(KEYS)])
        for batch in range(BATCHES):
            members = [Member(owner=batch, number=number) for number in range(EACH)]
            await dispatch_batch(members, then=End(owner=batch), name=f"batch {batch}")
        await dispatch_many([Plain(number=number) for number in range(PLAIN)])
        await outbox.disconnect()
        self.fleet = [await self._worker() for _ in range(FLEET)]

    async def _worker(self) -> WorkerProcess:
        return await self.workers.started("--concurrency", "3", *FLAGS)

    def done(self) -> int:
        with sql.connection(self.url) as connection:
            return len(effects(connection))

    async def until(self, count: int) -> None:
        """So many effects are there. What crashes have left between the last settlement of a batch and its end is what
        the upkeep of workers repairs, once a minute: here more often."""
        driver = DatabaseDriver(self.url)
        try:
            async with asyncio.timeout(120):
                while self.done() < count:
                    await driver.policies.upkeep()
                    await asyncio.sleep(0.05)
        finally:
            await driver.close()

    async def kill(self) -> None:
        victim = self.fleet.pop(self.chance.randrange(len(self.fleet)))
        await victim.kill()
        self.fleet.append(await self._worker())

    async def freeze(self) -> None:
        """For longer than a lease, wherever it is just then, with the locks that it holds; then it goes on."""
        victim = self.chance.choice(self.fleet)
        os.kill(victim.pid, signal.SIGSTOP)
        await asyncio.sleep(LEASE * 1.4)
        os.kill(victim.pid, signal.SIGCONT)

    async def judge(self) -> None:
        await self.until(TOTAL)
        async with asyncio.timeout(120):
            for worker in self.fleet:
                assert await worker.terminate() == 0
        with sql.connection(self.url) as connection:
            check_effects(effects(connection), plain=PLAIN, keys=KEYS, batches=BATCHES, each=EACH)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, migrated_url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)


@pytest.fixture
async def workers(migrated_url: str, tmp_path: Path) -> AsyncIterator[Workers]:
    workers = Workers(migrated_url, tmp_path, "tests.crash.mixed")
    yield workers
    await workers.close()


async def test_kills_and_freezes_lose_and_repeat_no_effect(migrated_url: str, workers: Workers) -> None:
    chaos = Chaos(migrated_url, workers, seed=11)
    await chaos.begin()
    disasters = [chaos.kill, chaos.freeze, chaos.kill, chaos.freeze, chaos.kill]
    for number, disaster in enumerate(disasters, 1):
        await chaos.until(TOTAL * number // (len(disasters) + 2))
        await disaster()
    await chaos.judge()


SERVERS = (pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb))


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
async def test_lost_answers_lose_and_repeat_no_effect(migrated_url: str, workers: Workers) -> None:
    """The server carries out what it is sent, COMMIT included, and its answers do not arrive."""
    async with AsyncExitStack() as stack:
        forwarder: Forwarder = await stack.enter_async_context(forwarding(make_url(migrated_url).port or 3306))
        workers.url = forwarder.url(migrated_url)
        chaos = Chaos(migrated_url, workers, seed=12)
        await chaos.begin()
        bursts = 12
        lost = 0
        for number in range(1, bursts + 1):
            await chaos.until(TOTAL * number // (bursts + 2))
            lost += await forwarder.lose_answers(3)
            if number == bursts // 2:
                await chaos.kill()
                await chaos.freeze()
        await chaos.judge()
        assert lost == bursts * 3
        await workers.close()
