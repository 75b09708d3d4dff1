"""What a database says of its size and of open transactions."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import StoreFacts
from outbox.web.alerts import alerts_of
from outbox.web.values import BlockedKeys
from tests.conformance.jobs import envelopes
from tests.servers import sql


async def test_tables_have_sizes(database: DatabaseDriver) -> None:
    await database.jobs.insert(envelopes(50))
    found = await database.facts()
    assert sum(table.data for table in found.tables) >= 16 * 1024
    if database.database.engine.dialect.name != "sqlite":
        assert {"queue_jobs", "queue_metrics"} <= {table.name for table in found.tables}


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_the_oldest_open_transaction_is_told(database: DatabaseDriver, migrated_url: str) -> None:
    with sql.connection(migrated_url) as other:
        other.execute(text("START TRANSACTION"))
        other.execute(text("SELECT slot FROM queue_lock_slots WHERE slot = 0 FOR UPDATE"))
        async with asyncio.timeout(20):
            while (age := (await database.facts()).oldest_transaction) is None:
                await asyncio.sleep(0.2)  # InnoDB renews the view when it has not been read for 0.1 s
        assert age < 3_000, "in no zone is it hours old"
        other.execute(text("ROLLBACK"))


@pytest.mark.sqlite
def test_a_transaction_that_was_forgotten_is_an_alert() -> None:
    facts = {"long": StoreFacts(oldest_transaction=7_200.0), "short": StoreFacts(oldest_transaction=5.0)}
    [alert] = alerts_of(["long", "short"], [], [], {}, BlockedKeys((), {}), [], {}, facts)
    assert (alert.connection, alert.place) == ("long", "/health")
    assert "has been open for 2h" in alert.message
