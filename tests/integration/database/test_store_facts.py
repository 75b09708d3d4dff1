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


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_it_is_told_while_a_statement_holds_bytes_that_are_no_text(
    database: DatabaseDriver, migrated_url: str
) -> None:
    """Ids are such bytes. MySQL then refuses to list transactions at all."""
    with sql.connection(migrated_url) as other:
        other.execute(text("START TRANSACTION"))
        other.execute(text("SELECT slot FROM queue_lock_slots WHERE slot = 0 FOR UPDATE"))
        connection = other.connection.driver_connection
        assert connection is not None
        sleeping = asyncio.create_task(asyncio.to_thread(connection.query, b"SELECT SLEEP(2), _binary'\xff\xfe.'"))
        found = []
        while not sleeping.done():
            found.append((await database.facts()).oldest_transaction)
            await asyncio.sleep(0.2)
        other.execute(text("ROLLBACK"))
    assert any(found), "and no reading failed"
    assert max(age or 0.0 for age in found) < 3_000


@pytest.mark.sqlite
def test_a_transaction_that_was_forgotten_is_an_alert() -> None:
    facts = {"long": StoreFacts(oldest_transaction=7_200.0), "short": StoreFacts(oldest_transaction=5.0)}
    [alert] = alerts_of(["long", "short"], [], [], {}, BlockedKeys((), {}), [], {}, facts)
    assert (alert.connection, alert.place) == ("long", "/health")
    assert "has been open for 2h" in alert.message
