"""Jobs of schedules on Redis: the database lets them tick, and the relay moves them on."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox.drivers.database import DatabaseDriver
from tests.support.worker_processes import Workers


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.sqlite)])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_each_tick_runs_once_on_redis(
    migrated_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("QUEUE_CONNECTION", "redis")
    workers = Workers(migrated_url, tmp_path, "tests.support.scheduled_jobs")
    try:
        fleet = [await workers.started("--connection", "redis", "--queue", "ticks") for _ in range(2)]
        runs = await workers.oracle.wait("tick", 4)
        for worker in fleet:
            await worker.terminate()
    finally:
        await workers.close()
    ticks = [run.error.rpartition(" ")[0] for run in runs]
    assert len(ticks) == len(set(ticks)) >= 4
    driver = DatabaseDriver(migrated_url)
    schedule = await driver.schedules.get("tests.support.scheduled_jobs.EverySecond")
    await driver.close()
    assert schedule is not None
    assert (schedule.definition.connection, schedule.definition.job and schedule.definition.job.queue) == (
        "redis",
        ">redis",
    )
