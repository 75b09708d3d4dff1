"""Counting the jobs of each queue reads a bounded number of rows: by the server's own count, and by plans."""

from __future__ import annotations

import json
import re

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.connection import engine
from outbox.drivers.metrics import Activity
from outbox.drivers.values import QueueCounts, RunningJob, WorkerStatus
from outbox.errors import OutboxError
from outbox.ids import new_job_id, new_token
from outbox.settlement import Outcome
from tests.conformance.jobs import envelope, envelopes
from tests.support.commands import execute, run
from tests.support.many_rows import fill, keep_statistics

MANY = 60_000
MOST_READ = 25_000


async def counts(driver: DatabaseDriver) -> dict[str, QueueCounts]:
    return {each.queue: each for each in await driver.queues.counts()}


class RowsRead:
    """The rows that the server reads for statements of the inspector."""

    def __init__(self, driver: DatabaseDriver) -> None:
        self.total = 0
        self._open: dict[object, int] = {}
        engine = driver.database.inspector.sync_engine
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "rollback", self._end)

    @staticmethod
    def _count(connection: object) -> int:
        rows = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read_%%'")  # type: ignore[attr-defined]
        return sum(int(row[1]) for row in rows)

    def _begin(self, connection: object) -> None:
        before = self._count(connection)
        after = self._count(connection)
        self._open[connection] = after + (after - before)

    def _end(self, connection: object) -> None:
        self.total += self._count(connection) - self._open.pop(connection)


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_counts_of_100_000_jobs_read_25_000_rows_at_most(driver: DatabaseDriver) -> None:
    await fill(driver, MANY)
    await fill(driver, 20_000, available_at="2999-01-01 00:00:00")
    await fill(driver, 20_000, table="failed_jobs")
    await driver.jobs.insert([envelope(queue="few"), envelope(queue="few", delay=60)])
    await keep_statistics(driver)
    read = RowsRead(driver)
    found = await counts(driver)
    assert 0 < read.total <= MOST_READ
    few, many = found["few"], found["many"]
    assert (few.ready, few.delayed, few.age, few.at_least) == (1, 1, None, False)
    assert many.at_least
    assert 500 <= many.ready <= 10_000
    assert many.oldest is not None
    await driver.metrics.upkeep()
    read.total = 0
    found = await counts(driver)
    assert read.total <= MOST_READ
    assert found["few"] == QueueCounts("few", 1, 1, 0, 0, found["few"].oldest, paused=False)
    many = found["many"]
    assert (many.ready, many.delayed, many.failed, many.at_least) == (MANY, 20_000, 20_000, False)
    assert many.age is not None
    assert 0 <= many.age < 60


@pytest.mark.parametrize("count", [9_999, 10_000])
async def test_fewer_than_10_000_jobs_are_counted_exactly(driver: DatabaseDriver, count: int) -> None:
    await fill(driver, count)
    many = (await counts(driver))["many"]
    assert many.ready == count
    assert many.at_least == (count == 10_000)


async def test_ready_jobs_beside_many_delayed_ones_are_exact(driver: DatabaseDriver) -> None:
    await fill(driver, 30_000, available_at="2999-01-01 00:00:00")
    await driver.jobs.insert(envelopes(12, queue="many"))
    many = (await counts(driver))["many"]
    assert (many.ready, many.at_least) == (12, True)
    await driver.metrics.upkeep()
    many = (await counts(driver))["many"]
    assert (many.ready, many.delayed, many.at_least) == (12, 30_000, False)


async def test_a_count_that_has_become_too_low_is_raised_to_what_is_seen(driver: DatabaseDriver) -> None:
    await driver.jobs.insert(envelopes(3, queue="many"))
    await driver.metrics.upkeep()
    await fill(driver, 20_000)
    many = (await counts(driver))["many"]
    assert many.ready == 10_000
    assert many.age is not None


async def test_the_running_jobs_among_many_are_those_of_the_workers_heartbeats(driver: DatabaseDriver) -> None:
    await fill(driver, 30_000, available_at="2999-01-01 00:00:00")
    running = tuple(RunningJob(new_job_id(), "tests.Job", "many", 1.0) for _ in range(3))
    await driver.workers.heartbeat(WorkerStatus(new_token(), "one", "host", 1, "many", 20, 3, 0, 0, jobs=running))
    assert (await counts(driver))["many"].reserved == 3


async def test_the_oldest_of_many_is_of_any_priority(driver: DatabaseDriver) -> None:
    await fill(driver, 30_000)
    await driver.jobs.insert([envelope(queue="many", priority=9)])
    [last] = [job for job in await driver.jobs.list_jobs("many", limit=40_000) if job.payload != "{}"]
    old = driver.database.dialect.timestamp(last.created_at.replace(year=2020))
    await execute(driver, "UPDATE queue_jobs SET available_at = :old WHERE id = :id", old=old, id=last.id.bytes)
    many = (await counts(driver))["many"]
    assert many.oldest is not None
    assert many.oldest > 5 * 365 * 86_400


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_sqlite_counts_along_the_indexes(driver: DatabaseDriver) -> None:
    await driver.jobs.insert([*envelopes(10), *envelopes(10, queue="other")])
    sent: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if "SELECT" in statement and "UNION ALL" in statement:
            sent.append((statement, parameters))

    event.listen(driver.database.inspector.sync_engine, "before_cursor_execute", note)
    await driver.queues.counts()
    event.remove(driver.database.inspector.sync_engine, "before_cursor_execute", note)
    async with driver.database.inspector.connect() as connection:
        plans = [
            row[3]
            for statement, parameters in sent
            for row in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    scans = [plan for plan in plans if plan.startswith("SCAN queue_") and "USING COVERING INDEX" not in plan]
    assert not scans, plans
    assert any("SEARCH queue_jobs USING" in plan and "queue_jobs_claim" in plan for plan in plans)


async def test_numbers_that_are_not_exact_say_so(driver: DatabaseDriver, migrated_url: str) -> None:
    await fill(driver, 10_500)
    head, row = (await run(migrated_url, "stats")).out.splitlines()
    assert head.split()[-1] == "State"
    assert row.split()[:2] == ["many", "10,000"]
    assert row.rstrip().endswith("at least")
    [document] = (await run(migrated_url, "stats", "--json")).document["queues"]
    assert (document["ready"], document["at_least"]) == (10_000, True)
    await driver.metrics.upkeep()
    row = (await run(migrated_url, "stats")).out.splitlines()[1]
    assert row.split()[:2] == ["many", "10,500"]
    assert re.search(r"counted \d+s ago$", row.rstrip())
    [document] = (await run(migrated_url, "monitor", "--once", "--json")).document["queues"]
    assert "at_least" not in document
    assert 0 <= document["counted_seconds_ago"] < 60


async def test_a_count_is_not_made_again_at_once(driver: DatabaseDriver) -> None:
    await driver.metrics.upkeep()
    await driver.metrics.upkeep()
    assert len(await driver.metrics.depths(3_600)) == 0
    async with driver.database.engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT COUNT(*) FROM queue_metrics")
        assert rows.scalar_one() == 1
    await execute(driver, f"UPDATE queue_metrics SET begins_at = {driver.database.dialect.now_plus('-56000000')}")
    await driver.jobs.insert(envelopes(2))
    await driver.metrics.upkeep()
    assert [(depth.queue, depth.ready) for depth in await driver.metrics.depths(3_600)] == [("default", 2)]


async def test_a_slow_count_is_made_at_an_interval_of_200_times_its_duration(driver: DatabaseDriver) -> None:
    await driver.metrics.upkeep()
    ago = driver.database.dialect.now_plus("-590000000")
    await execute(driver, f"UPDATE queue_metrics SET begins_at = {ago}, data = :data", data='{"seconds": 3.0}')
    await driver.jobs.insert(envelopes(2))
    await driver.metrics.upkeep()
    assert await driver.metrics.depths(3_600) == []
    await execute(driver, "UPDATE queue_metrics SET data = :data", data='{"seconds": 2.9}')
    await driver.metrics.upkeep()
    assert len(await driver.metrics.depths(3_600)) == 1


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_what_operators_read_cannot_write_and_ends_after_two_seconds(
    driver: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(connection: AsyncConnection) -> None:
        await connection.exec_driver_sql(
            "INSERT INTO queue_pauses (queue, paused_at) VALUES ('mail', UTC_TIMESTAMP(6))"
        )

    async def wait(connection: AsyncConnection) -> None:
        digits = "(SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5)"
        tables = ", ".join(f"{digits} AS t{number}" for number in range(14))
        await connection.exec_driver_sql(f"SELECT COUNT(*), SUM(t1.n * t2.n * t3.n) FROM {tables}")

    with pytest.raises((OutboxError, DBAPIError), match="(?i)read.only"):
        await driver.database.inspect(write)
    monkeypatch.setattr(engine, "INSPECTION_SECONDS", 2)
    impatient = DatabaseDriver(migrated_url)
    with pytest.raises(OutboxError, match="longer than 2 s"):
        await impatient.database.inspect(wait)
    await impatient.close()


async def test_a_count_moves_on_by_what_workers_have_done_since(driver: DatabaseDriver) -> None:
    """Two counts ten minutes apart, the later one a minute ago; meanwhile 600 a minute came and 100 a minute ended."""
    dialect = driver.database.dialect
    await fill(driver, 12_000)
    for minutes, ready in ((11, 20_000), (1, 25_000)):
        data = json.dumps({"seconds": 1.0, "queues": {"many": {"ready": ready}}})
        await driver.metrics.upkeep()
        moment = dialect.now_plus(str(-minutes * 60_000_000))
        await execute(
            driver,
            f"UPDATE queue_metrics SET begins_at = {moment}, data = :data WHERE data LIKE '%many%' "
            f"AND begins_at > {dialect.now_plus('-50000000')}",
            data=data,
        )
    ended = Activity()
    for _ in range(1_000):
        ended.add({Outcome.COMPLETED: 1}, [], [])
    await driver.metrics.write({("many", "Job"): ended})
    await execute(driver, f"UPDATE queue_metrics SET begins_at = {dialect.now_plus('-300000000')} WHERE name = 'Job'")
    since = Activity()
    for _ in range(100):
        since.add({Outcome.COMPLETED: 1}, [], [])
    await driver.metrics.write({("many", "Job"): since})
    await execute(
        driver,
        f"UPDATE queue_metrics SET begins_at = {dialect.now_plus('-30000000')} "
        f"WHERE name = 'Job' AND begins_at > {dialect.now_plus('-200000000')}",
    )
    many = (await counts(driver))["many"]
    assert many.age is not None
    assert 60 <= many.age < 120
    # The older count was merged, and is of the beginning of its minute.
    assert 540 <= many.ready - 25_000 + 100 <= 610 * many.age / 60
