"""A job without a policy pays nothing: no entry of an index, and no row beside its own."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect, text

from outbox import Job, metadata
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.dialects.mysql import MySQL
from outbox.envelope import serialize
from outbox.events import JobSettled
from outbox.runtime import store_services
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, envelopes
from tests.servers import sql
from tests.support.embedded_worker import OFTEN, working
from tests.support.every_engine import before_each_statement

JOBS = 200
INDEXES = {
    "queue_jobs": {("queue", "priority", "available_at")},
    "queue_failed_jobs": {("failed_at",), ("queue", "failed_at"), ("fingerprint", "name", "failed_at")},
}
OWN = ("queue_jobs", "queue_failed_jobs")
"""Where a job without a policy is."""
SLOTS = ("queue_key_slots", "queue_inbox_slots", "queue_lock_slots", "queue_rate_slots")
NOT_OF_JOBS = ("queue_workers", "queue_metrics", *SLOTS)
"""Workers write the first two by time; migrations have filled the others."""


async def test_the_column_of_policies_is_in_no_index(migrated_url: str) -> None:
    engine = sql.engine(migrated_url)
    found = {table: {tuple(index["column_names"]) for index in inspect(engine).get_indexes(table)} for table in INDEXES}
    engine.dispose()
    assert found == INDEXES


class Plain(Job):
    queue = "plain"

    async def handle(self) -> dict[str, int]:
        return {"rows": 1}


async def test_it_is_in_no_other_table(database: DatabaseDriver, migrated_url: str) -> None:
    await database.jobs.insert(envelopes(JOBS))
    claims = await database.jobs.claim(["default"], JOBS // 2, 30)
    await database.jobs.settle([Settlement.failed(claim.fence, FAILURE) for claim in claims[:10]])
    await database.jobs.settle([Settlement.completed(claim.fence) for claim in claims[10:20]])
    with sql.connection(migrated_url) as connection:
        count = {
            table: connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one()
            for table in set(metadata.tables) - {*OWN, *NOT_OF_JOBS}
        }
    assert len(count) > 20
    assert not any(count.values()), count


async def test_a_worker_writes_its_claim_and_its_end(
    database: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever classes with limits, results, versions, encryption, resources or sessions this process knows. Schedules
    that other tests declare are left out: they tick by the clock."""
    monkeypatch.setattr(store_services, "declared_schedules", lambda _settings, _connection: [])
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement.removeprefix(MySQL.unchecked))

    async with working(migrated_url, sleep=OFTEN, queue=("plain",), concurrency=10) as worker:
        with before_each_statement(note):
            await database.jobs.insert([serialize(Plain()) for _ in range(10)])
            await worker.event(JobSettled, 10)
    written = [each.split(" SELECT ")[0] for each in sent if each.startswith(("INSERT", "UPDATE", "DELETE", "REPLACE"))]
    of_jobs = [each for each in written if not any(table in each for table in NOT_OF_JOBS)]
    assert {table for each in of_jobs for table in metadata.tables if table in each} == {"queue_jobs"}, of_jobs
    assert [each.split()[0] for each in of_jobs][:2] == ["INSERT", "UPDATE"], of_jobs
    assert {each.split()[0] for each in of_jobs[2:]} == {"DELETE"}, of_jobs
