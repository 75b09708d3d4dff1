"""A job without a policy pays nothing: no entry of an index, and no row beside its own."""

from __future__ import annotations

from sqlalchemy import inspect, text

from outbox import metadata
from outbox.drivers.database import DatabaseDriver
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, envelopes
from tests.servers import sql

JOBS = 200
INDEXES = {
    "queue_jobs": {("queue", "priority", "available_at")},
    "queue_failed_jobs": {("failed_at",), ("queue", "failed_at"), ("fingerprint", "name", "failed_at")},
}
POLICIES = ("queue_keyed_jobs", "queue_unique", "queue_rates", "queue_rate_waits", "queue_batch", "queue_schedule")


async def test_the_column_of_policies_is_in_no_index(migrated_url: str) -> None:
    engine = sql.engine(migrated_url)
    found = {table: {tuple(index["column_names"]) for index in inspect(engine).get_indexes(table)} for table in INDEXES}
    engine.dispose()
    assert found == INDEXES


async def test_it_is_in_no_table_of_policies(database: DatabaseDriver, migrated_url: str) -> None:
    await database.jobs.insert(envelopes(JOBS))
    claims = await database.jobs.claim(["default"], JOBS // 2, 30)
    await database.jobs.settle([Settlement.failed(claim.fence, FAILURE) for claim in claims[:10]])
    with sql.connection(migrated_url) as connection:
        count = {
            table: connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one()
            for table in metadata.tables
            if table.startswith(POLICIES)
        }
    assert count
    assert not any(count.values()), count
