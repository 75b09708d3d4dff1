"""What workers write of what they do: a row for each queue and class of jobs that they touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

import outbox
from outbox import clock
from outbox.backoff import Backoff
from outbox.client import Outbox
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.metrics import Activity, merged, total
from outbox.envelope import serialize
from outbox.events import Events
from outbox.job import Job
from outbox.options import JobOptions
from outbox.runtime.process.exit_codes import Reason
from outbox.runtime.reporting.activities import Activities
from outbox.runtime.worker import Worker
from outbox.settings import Settings, WorkerOptions
from outbox.settlement import Outcome
from tests.conformance.jobs import envelopes
from tests.support.commands import execute
from tests.support.recorded_jobs import Counted
from tests.support.worker_processes import Workers

DAY = 86_400


def activity(*runs: float, outcome: Outcome = Outcome.COMPLETED) -> Activity:
    found = Activity()
    found.add({outcome: len(runs)}, [seconds * 2 for seconds in runs], runs)
    return found


async def age(database: DatabaseDriver, seconds: int) -> None:
    """All rows of what workers did become so much older."""
    moment = "begins_at"
    if database.database.engine.dialect.name == "sqlite":
        older = f"strftime('%Y-%m-%d %H:%M:%f', {moment}, '-{seconds} seconds') || '000'"
    else:
        older = f"{moment} - INTERVAL {seconds} SECOND"
    await execute(database, f"UPDATE queue_metrics SET begins_at = {older} WHERE queue NOT IN ('', '*')")


def minute_of_the_database(database: DatabaseDriver) -> str:
    """In SQL, the current one."""
    return database.database.dialect.minute_of(database.database.dialect.now)


async def rows(database: DatabaseDriver) -> Counter[tuple[int, str, str]]:
    async with database.database.engine.connect() as connection:
        query = "SELECT period, queue, name FROM queue_metrics WHERE queue NOT IN ('', '*')"
        found = await connection.exec_driver_sql(query)
        return Counter((int(period), str(queue), str(name)) for period, queue, name in found)


async def test_a_worker_writes_one_row_for_each_queue_and_class(
    database: DatabaseDriver, migrated_url: str, tmp_path: Path
) -> None:
    jobs = [serialize(Counted(number=number), JobOptions(queue=queue)) for number in range(30) for queue in ("a", "b")]
    await database.jobs.insert(jobs)
    workers = Workers(migrated_url, tmp_path)
    worker = await workers.start("--queue", "a,b", "--stop-when-empty")
    assert await worker.exit_code() == 0
    await workers.close()
    name = jobs[0].name
    assert await rows(database) == {(0, "a", name): 1, (0, "b", name): 1}
    points = await database.metrics.points(3_600)
    assert [(point.queue, point.settled, point.run.count, point.wait.count) for point in points] == [
        ("a", {"completed": 30}, 30, 30),
        ("b", {"completed": 30}, 30, 30),
    ]
    longest = points[0].wait.percentile(1.0)
    assert longest is not None
    assert 0 < longest < 60


class Quick(Job):
    async def handle(self) -> None: ...


class Failing(Job):
    max_tries = 2
    backoff = Backoff(0)

    async def handle(self) -> None:
        raise ValueError("no")


async def drain(url: str, jobs: Sequence[Job]) -> Counter[str]:
    """Let a worker in this process run all jobs; how many statements it has sent: all, and those of metrics."""
    filling = DatabaseDriver(url)
    await filling.jobs.insert([serialize(job, JobOptions()) for job in jobs])
    await filling.close()
    # Its connections belong to the loop of the worker's stores.
    driver = DatabaseDriver(url)
    sent: Counter[str] = Counter()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent["all"] += 1
        # Another INSERT, without rows, asks at the start whether the user may.
        sent["metrics"] += statement.startswith("INSERT INTO queue_metrics") and " VALUES " in statement

    for engine in driver.database.engines:
        event.listen(engine.sync_engine, "before_cursor_execute", note)
    options = WorkerOptions(stop_when_empty=True, concurrency=20, sleep=0.05)
    ended = await Worker(options, [driver], Events(), name="draining").run()
    assert ended.reason is Reason.EMPTY
    return sent


async def test_a_draining_worker_sends_one_statement_in_a_hundred_for_metrics(
    database: DatabaseDriver, migrated_url: str
) -> None:
    """One INSERT a minute: a second of draining sends more than a hundred others."""
    sent = await drain(migrated_url, [Quick() for _ in range(2_500)])
    assert sent["metrics"] == 1
    assert sent["all"] > 100
    assert total(await database.metrics.points(3_600)).settled == {"completed": 2_500}


async def test_each_attempt_is_counted_by_its_outcome(database: DatabaseDriver, migrated_url: str) -> None:
    await drain(migrated_url, [Failing() for _ in range(3)])
    [point] = merged(await database.metrics.points(3_600))
    assert (point.settled, point.ended, point.run.count) == ({"retried": 3, "failed": 3}, 3, 6)


async def test_what_could_not_be_written_is_written_later() -> None:
    activities = Activities()
    activities.put_back({("mail", "Job"): activity(1.0)})
    activities.put_back({("mail", "Job"): activity(2.0)})
    assert activities.take() == {("mail", "Job"): activity(1.0, 2.0)}
    assert activities.take() == {}


async def test_waits_are_counted_from_when_a_job_could_run(database: DatabaseDriver) -> None:
    await database.jobs.insert(envelopes(1))
    await execute(database, f"UPDATE queue_jobs SET available_at = {database.database.dialect.now_plus('-90000000')}")
    [claim] = await database.jobs.claim(["default"], 1, 30)
    assert claim.ready_since is not None
    assert 90 <= clock.now() - claim.ready_since < 120


async def test_rows_are_merged_exactly_as_they_grow_older(database: DatabaseDriver) -> None:
    for runs in ((0.25, 0.5), (0.25,), (4.0, 8.0)):
        await database.metrics.write({("a", "Job"): activity(*runs), ("b", "Job"): activity(1.0)})
    # An hour may begin between two of them.
    await execute(database, f"UPDATE queue_metrics SET begins_at = {minute_of_the_database(database)}")
    before = total(await database.metrics.points(3_600))
    for seconds, period in ((0, 0), (400, 1), (DAY + 3_600, 10), (7 * DAY, 60)):
        await age(database, seconds)
        await database.metrics.upkeep()
        found = await rows(database)
        assert {kept for kept, _, _ in found} == {period}
        whole = total(await database.metrics.points(30 * DAY))
        assert whole == before
        if period == 60:
            assert found == {(60, "a", "Job"): 1, (60, "b", "Job"): 1}
    [a, b] = merged(await database.metrics.points(30 * DAY), 3_600)
    assert (a.seconds, a.queue, a.settled, a.run.mean, b.run.count) == (3_600, "a", {"completed": 5}, 2.6, 3)
    await age(database, 85 * DAY)
    await database.metrics.upkeep()
    assert await rows(database) == {}


async def test_points_are_chosen_by_queue_name_and_time(database: DatabaseDriver) -> None:
    await database.metrics.write({("a", "One"): activity(1), ("a", "Two"): activity(1), ("b", "One"): activity(1)})
    for chosen, expected in (
        ({}, [("a", "One"), ("a", "Two"), ("b", "One")]),
        ({"queue": "a"}, [("a", "One"), ("a", "Two")]),
        ({"name": "One"}, [("a", "One"), ("b", "One")]),
        ({"queue": "a", "name": "Two"}, [("a", "Two")]),
    ):
        points = await database.metrics.points(3_600, **chosen)
        assert [(point.queue, point.name) for point in points] == expected
    await age(database, 4_000)
    assert await database.metrics.points(3_600) == []


async def test_depths_of_several_minutes_are_merged_to_the_greatest(database: DatabaseDriver) -> None:
    await database.jobs.insert(envelopes(3))
    await database.metrics.upkeep()
    # One moment for both: ten minutes may begin between two.
    ago = f"'{await database.now() - timedelta(days=2):%Y-%m-%d %H:%M:%S}.000000'"
    await execute(database, f"UPDATE queue_metrics SET begins_at = {ago}")
    await database.jobs.insert(envelopes(4))
    await database.metrics.upkeep()
    await execute(database, f"UPDATE queue_metrics SET begins_at = {ago} WHERE period = 0")
    for _ in range(2):
        await database.metrics.upkeep()
    old = [depth for depth in await database.metrics.depths(3 * DAY) if depth.at < await database.now() - timedelta(1)]
    assert [(depth.queue, depth.ready) for depth in old] == [("default", 7)]


async def test_an_application_reads_metrics(database: DatabaseDriver, migrated_url: str) -> None:
    await database.metrics.write({("mail", "Receipt"): activity(1.0, 1.0)})
    await database.jobs.insert(envelopes(2, queue="mail"))
    await database.metrics.upkeep()
    async with Outbox(Settings(database_url=migrated_url)):
        [point] = await outbox.metrics(queue="mail", since=timedelta(hours=1))
        assert (point.name, point.settled, point.run.mean) == ("Receipt", {"completed": 2}, 1.0)
        [depth] = await outbox.depths(queue="mail")
        assert (depth.ready, depth.live) == (2, 2)
        assert await outbox.depths(queue="none") == []


@pytest.mark.parametrize("value", ["{", "[]", '{"settled": {"completed": "x"}, "wait": 3}', '{"queues": []}'])
async def test_rows_of_other_programs_hide_no_others(database: DatabaseDriver, value: str) -> None:
    await database.metrics.write({("a", "Job"): activity(1.0)})
    await database.metrics.upkeep()
    await execute(database, "UPDATE queue_metrics SET data = :value", value=value)
    await database.metrics.write({("a", "Job"): activity(1.0)})
    assert total(await database.metrics.points(3_600)) == activity(1.0)
    assert await database.metrics.depths(3_600) == []
    await age(database, 400)
    await database.metrics.upkeep()
    assert total(await database.metrics.points(3_600)) == activity(1.0)
