"""A page of jobs reads a bounded number of rows, however many there are: by the server's own count, and by plans."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import event

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.filters import FAILED_EXAMINED, FailedFilter, JobFilter, JobPlace
from outbox.drivers.values import JobState
from tests.conformance.jobs import envelope, envelopes
from tests.support.many_rows import fill, fill_failed, fill_finished, keep_statistics, rows_read

JOBS = 4_000
EXAMINED = 300


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.drivers.database.operations.job_pages.EXAMINED_PER_PAGE", EXAMINED)


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
    for after in (None, middle):
        with rows_read() as found:
            await driver.jobs.page(matching, 50, after)
        assert found.total <= 2 * EXAMINED + 100, after
    await driver.close()


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_the_first_jobs_are_read_by_an_index_though_the_server_expects_few(database: DatabaseDriver) -> None:
    """Where many came since it last looked, it takes reading and sorting the whole table for the cheapest plan."""
    await fill(database, 30_000)
    await fill(database, 30_000, table="failed_jobs")
    await fill_failed(database, 30_000, groups=3)
    await fill_finished(database, 30_000)
    await keep_statistics(database, divided_by=100)
    group = FailedFilter(name="tests.Job", group=f"{1:016x}")
    assert database.finished is not None
    for read in (
        lambda: database.jobs.list_jobs(limit=500),
        lambda: database.jobs.list_jobs("many", limit=500),
        lambda: database.failed.page(limit=500),
        lambda: database.failed.page("many", limit=500),
        lambda: database.failed.page(limit=500, matching=group),
        lambda: database.failed.bounded_page(None, 500, None),
        lambda: database.failed.bounded_page(None, 500, None, matching=group),
        lambda: database.finished.latest(limit=500),
        lambda: database.finished.page(limit=500),
    ):
        with rows_read() as found:
            await read()
        assert 500 <= found.total <= 1_100


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_a_small_group_is_found_by_its_fingerprint_alone(database: DatabaseDriver) -> None:
    await fill_failed(database, 30_000, groups=3_000)
    await keep_statistics(database)
    group = FailedFilter(group=f"{1:016x}")
    for read in (
        lambda: database.failed.page(limit=50, matching=group),
        lambda: database.failed.bounded_page(None, 50, None, matching=group),
    ):
        with rows_read() as found:
            await read()
        assert 10 <= found.total <= 50
    with rows_read() as found:
        await database.failed.bounded_page(None, 50, None, matching=FailedFilter(error="nothing", group=f"{1:016x}"))
    assert FAILED_EXAMINED <= found.total <= 2 * FAILED_EXAMINED + 10, "the latest, as no index has errors"


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
