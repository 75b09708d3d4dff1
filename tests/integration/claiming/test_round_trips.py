"""Counted on the wire, COMMIT included: how often a worker waits for a database server, however far away that is."""

from __future__ import annotations

import pytest

from benchmarks.proxy import between
from outbox.drivers.database import DatabaseDriver
from outbox.settlement import Settlement
from tests.conformance.jobs import envelopes

SERVERS = [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("mysql", "mariadb")]


@pytest.mark.usefixtures("timeless")
@pytest.mark.parametrize("backend", SERVERS)
@pytest.mark.parametrize("count", [1, 400])
async def test_a_claim_waits_three_times_and_its_end_twice(backend: str, count: int, migrated_url: str) -> None:
    """SELECT, UPDATE and COMMIT; DELETE and COMMIT. Nothing is asked before, between or after."""
    async with between(migrated_url) as proxy:
        driver = DatabaseDriver(proxy.url, pool_size=1)
        await driver.jobs.insert(envelopes(count))
        proxy.round_trips = 0
        claims = await driver.jobs.claim(["default"], count, 30)
        assert (len(claims), proxy.round_trips) == (count, 3)
        proxy.round_trips = 0
        await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
        assert proxy.round_trips == 2
        await driver.close()


@pytest.mark.parametrize("backend", SERVERS)
@pytest.mark.parametrize("count", [1, 400])
async def test_a_dispatch_without_a_session_waits_once(backend: str, count: int, migrated_url: str) -> None:
    """One INSERT in autocommit: no BEGIN, no COMMIT, no look at the connection before or after."""
    async with between(migrated_url) as proxy:
        driver = DatabaseDriver(proxy.url, pool_size=1, inserts_directly=True)
        await driver.jobs.insert(envelopes(1))
        proxy.round_trips = 0
        for _ in range(3):
            await driver.jobs.insert(envelopes(count))
        assert proxy.round_trips == 3
        await driver.close()
