"""A page of jobs reads a bounded number of rows, however many there are: by the server's own count, and by plans."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import event, text

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.filters import JobFilter, JobPlace
from outbox.drivers.values import JobState
from tests.conformance.jobs import envelope, envelopes

JOBS = 4_000
EXAMINED = 300
READS = "Handler_read_%"


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.drivers.database.operations.job_pages.EXAMINED_PER_PAGE", EXAMINED)


async def rows_read(driver: DatabaseDriver, matching: JobFilter, limit: int, after: JobPlace | None) -> int:
    """Of one page, by the server's count of this session: the reader has one connection."""

    async def count() -> int:
        async with driver.database.reader.connect() as connection:
            rows = await connection.execute(text(f"SHOW SESSION STATUS LIKE '{READS}'"))
            return sum(int(row[1]) for row in rows)

    before = await count()
    counting = await count() - before
    await driver.jobs.page(matching, limit, after)
    return await count() - before - 2 * counting


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(
    "matching",
    [
        JobFilter(),
        JobFilter(queue="many"),
        JobFilter(name="tests.None"),
        JobFilter(queue="many", name="tests.None"),
        JobFilter(state=JobState.RETRYING),
        *(JobFilter(queue="many", state=state) for state in JobState),
    ],
    ids=str,
)
async def test_a_page_reads_no_more_rows_than_it_may(migrated_url: str, backend: str, matching: JobFilter) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite counts no rows: its plans are looked at below")
    driver = DatabaseDriver(migrated_url, pool_size=1)
    await driver.jobs.insert([*envelopes(JOBS, queue="many"), *[envelope(queue="many", delay=60) for _ in range(JOBS)]])
    await driver.jobs.insert(envelopes(JOBS, queue="more", priority=0))
    middle = JobPlace.of((await driver.jobs.list_jobs("many", limit=JOBS // 2))[-1])
    costs = {str(after): await rows_read(driver, matching, 50, after) for after in (None, middle)}
    await driver.close()
    assert max(costs.values()) <= 2 * EXAMINED + 100, costs


@pytest.mark.usefixtures("small_pages")
async def test_ready_jobs_behind_many_delayed_ones_are_found_at_once(migrated_url: str) -> None:
    driver = DatabaseDriver(migrated_url)
    await driver.jobs.insert([envelope(priority=0, delay=60) for _ in range(2 * EXAMINED)])
    await driver.jobs.insert([envelope(priority=5)])
    page = await driver.jobs.page(JobFilter("default", state=JobState.READY), 10)
    await driver.close()
    assert [job.priority for job in page.jobs] == [5]


async def test_sqlite_searches_the_claim_index(
    migrated_url: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend != "sqlite":
        pytest.skip("the plans of SQLite")
    driver = DatabaseDriver(migrated_url)
    await driver.jobs.insert(envelopes(10))
    first = JobPlace.of((await driver.jobs.list_jobs(limit=1))[0])
    plans = await plans_of(driver, lambda: driver.jobs.page(JobFilter("default"), 5, first))
    plans += await plans_of(driver, lambda: driver.jobs.page(JobFilter(name="tests.Job"), 5, first))
    await driver.close()
    assert len(plans) == 3
    for plan in plans:
        assert "SEARCH queue_jobs USING" in plan[0], plan
        assert "queue_jobs_claim" in plan[0], plan


async def plans_of(driver: DatabaseDriver, work: Callable[[], object]) -> list[list[str]]:
    sent: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.lstrip().startswith("SELECT"):
            sent.append((statement, parameters))

    engine = driver.database.reader.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    await work()  # type: ignore[misc]
    event.remove(engine, "before_cursor_execute", note)
    plans = []
    async with driver.database.reader.connect() as connection:
        for statement, parameters in sent:
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append([row[3] for row in rows])
    return plans
