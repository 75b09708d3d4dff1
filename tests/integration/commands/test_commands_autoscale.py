"""`outbox autoscale`, and the same numbers by the SQL of the scaler in deploy/kubernetes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from outbox import Job
from outbox.console.autoscale import Load
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.metrics import Activity
from outbox.drivers.pauses import PauseKind, PauseTarget, PauseTerms
from outbox.drivers.values import WorkerStatus
from outbox.envelope import serialize
from outbox.histogram import Histogram
from outbox.options import JobOptions
from tests.support.commands import execute, run

SCALER = Path(__file__).parents[3] / "deploy" / "kubernetes" / "worker-scaler.yaml"


class Scaled(Job):
    queue = "mail"

    async def handle(self) -> None: ...


def ran(attempts: int, seconds: float) -> Activity:
    activity = Activity(Counter({"completed": attempts - 1, "failed": 1}), Histogram(), Histogram())
    for _ in range(attempts):
        activity.run.add(seconds)
    return activity


async def fill(driver: DatabaseDriver) -> None:
    """600 ready jobs of 2 s, one that runs, one that is delayed, and a worker of 20 slots."""
    await driver.jobs.insert([serialize(Scaled()) for _ in range(601)])
    await driver.jobs.insert([serialize(Scaled(), JobOptions(delay=600))])
    await driver.jobs.claim(["mail"], 1, 600)
    assert driver.metrics is not None
    await driver.metrics.write({("mail", Scaled.name): ran(10, 2.0), ("other", Scaled.name): ran(10, 9.0)})
    await driver.workers.heartbeat(WorkerStatus(b"w" * 16, "w1", "host", 1, "default,mail", 20, 0, 0, 0))
    await driver.workers.heartbeat(WorkerStatus(b"x" * 16, "w2", "host", 2, "other", 20, 0, 0, 0))


async def test_it_says_how_many_workers_clear_a_queue_in_time(migrated_url: str) -> None:
    driver = DatabaseDriver(migrated_url)
    await fill(driver)
    found = await run(migrated_url, "autoscale", "mail", "--within", "30", "--concurrency", "20")
    assert found.out == "2  600 jobs ready, 2 s each, 20 slots now, cleared in 60 s\n"
    document = (await run(migrated_url, "autoscale", "mail", "--max", "3", "--within", "1", "--json")).document
    assert document == {
        "connection": "database",
        "queue": "mail",
        "ready": 600,
        "reserved": 1,
        "mean_run": 2.0,
        "slots": 20,
        "workers": 1,
        "clear_seconds": 60.0,
        "wanted": 3,
    }
    await driver.queues.pause("mail")
    assert (await run(migrated_url, "autoscale", "mail")).out.startswith("1  0 jobs ready"), "for the one that runs"
    assert (await run(migrated_url, "autoscale", "none", "--min", "2")).out.startswith("2  0 jobs ready, no run is")
    refused = await run(migrated_url, "autoscale", "mail", "--min", "5", "--max", "4")
    assert (refused.code, "--min 5 is over --max 4" in refused.err) == (2, True)
    await driver.close()


@pytest.mark.parametrize(
    "backend", [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
async def test_the_scaler_gives_seconds_of_work(migrated_url: str) -> None:
    trigger = next(yaml.safe_load_all(SCALER.read_text()))["spec"]["triggers"][0]["metadata"]
    engine = create_async_engine(migrated_url)

    async def work() -> int:
        """As the scaler reads it: the text of the only column of the only row, which has to be a whole number."""
        async with engine.connect() as connection:
            [[value]] = await connection.execute(text(f"SELECT CAST(({trigger['query']}) AS CHAR)"))
        assert value.isdecimal()
        return int(value)

    driver = DatabaseDriver(migrated_url)
    assert await work() == 0
    await driver.jobs.insert([serialize(Scaled())])
    assert await work() == 1, "one second, where no run is known"
    await fill(driver)
    assert await work() == 1202, "601 ready jobs of 2 s"
    for target in (PauseTarget(PauseKind.QUEUE, "mail"), PauseTarget(PauseKind.CONNECTION, driver.name)):
        await driver.pauses.pause(target, PauseTerms(seconds=3_600))
        assert await work() == 0
        await execute(driver, "UPDATE queue_pauses SET paused_until = paused_at")
        assert await work() == 1202, "a pause that has ended, which upkeep has yet to remove"
    await driver.close()
    await engine.dispose()


@pytest.mark.parametrize(
    ("load", "wanted"),
    [
        (Load(0, 0, None, 0, 0), 0),
        (Load(1, 0, None, 0, 0), 1),
        (Load(1, 0, 0.001, 0, 0), 1),
        (Load(500, 0, None, 80, 4), 4),
        (Load(2_400, 0, 1.0, 20, 1), 2),
        (Load(2_401, 0, 1.0, 20, 1), 3),
        (Load(0, 60, 1.0, 60, 3), 3),
        (Load(1_000_000, 0, 1.0, 20, 1), 50),
    ],
)
def test_the_number_of_workers(load: Load, wanted: int) -> None:
    assert load.wanted(within=60, concurrency=20, least=0, most=50) == wanted
