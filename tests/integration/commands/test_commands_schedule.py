"""`outbox schedule list | show | run | pause | resume | backfill`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import outbox
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.schedules import Declared
from outbox.policies.schedule import JobTemplate
from tests.support.commands import run
from tests.support.schedule_jobs import definition


@pytest.fixture(autouse=True)
def settings(migrated_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    outbox.configure(database_url=migrated_url)
    yield
    outbox.configure()


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url)
    await driver.schedules.put("digest:7", definition("0 7 * * mon-fri", tz="Europe/Berlin"))
    yield driver
    await driver.close()


async def test_list(driver: DatabaseDriver, migrated_url: str) -> None:
    def template() -> JobTemplate:
        raise AssertionError

    await driver.schedules.sync([Declared("gone", definition("90s"), template)])
    document = (await run(migrated_url, "schedule", "list", "--json")).document
    assert [(each["name"], each["state"]) for each in document["schedules"]] == [
        ("digest:7", "active"),
        ("gone", "vanished"),
    ]
    shown = (await run(migrated_url, "schedule", "list")).out
    assert "0 7 * * mon-fri Europe/Berlin" in shown
    assert "vanished" in shown


async def test_show(driver: DatabaseDriver, migrated_url: str) -> None:
    shown = (await run(migrated_url, "schedule", "show", "digest:7")).out
    assert "At 07:00 on Monday through Friday, Europe/Berlin" in shown
    assert shown.count(", 07:00:00 CE") == 5
    assert len((await run(migrated_url, "schedule", "show", "digest:7", "--json")).document["next"]) == 5
    missing = await run(migrated_url, "schedule", "show", "digest:8")
    assert (missing.code, missing.err) == (1, "outbox: there is no schedule digest:8: did you mean digest:7?\n")


async def test_run_pause_and_resume(driver: DatabaseDriver, migrated_url: str) -> None:
    ran = await run(migrated_url, "schedule", "run", "digest:7")
    [job] = await driver.jobs.list_jobs()
    assert ran.out == f"{job.id}\n"
    for command, said in (("pause", "is paused"), ("pause", "was paused already"), ("resume", "is resumed")):
        assert said in (await run(migrated_url, "schedule", command, "digest:7")).out
    assert "was not paused" in (await run(migrated_url, "schedule", "resume", "digest:7")).out
    entries = (await run(migrated_url, "audit", "--json")).document["entries"]
    assert [(entry["action"], entry["target"], entry["count"]) for entry in reversed(entries)] == [
        ("schedule run", {"name": "digest:7"}, 1),
        ("schedule pause", {"name": "digest:7"}, 1),
        ("schedule resume", {"name": "digest:7"}, 1),
    ]


async def test_backfill(driver: DatabaseDriver, migrated_url: str) -> None:
    chosen = ("schedule", "backfill", "digest:7", "--from", "2026-03-02", "--until", "2026-03-06T07:00")
    assert "--yes" in (await run(migrated_url, *chosen)).err
    assert (await run(migrated_url, *chosen, "--yes")).out == "Dispatched 5 jobs.\n"
    assert (await run(migrated_url, *chosen, "--yes")).out == "Dispatched 0 jobs.\n"
    assert len(await driver.jobs.list_jobs()) == 5
    await driver.schedules.put("often", definition("90s"))
    refused = await run(migrated_url, "schedule", "backfill", "often", "--from", "2026-01-01", "--yes")
    assert (refused.code, "more than 1,000 ticks" in refused.err) == (1, True)
    assert (await run(migrated_url, "schedule", "backfill", "often", "--from", "soon")).code == 2
    for first, said in (
        ("0001-01-01T00:00Z", "more than 1,000 ticks"),
        ("0001-01-01T00:00+01:00", "is no time in UTC"),
        ("9999-12-31T23:00-05:00", "is no time in UTC"),
        ("9999-12-31T23:59Z", "Dispatched 0 jobs."),
    ):
        ran = await run(migrated_url, "schedule", "backfill", "often", "--from", first, "--yes")
        assert said in ran.out + ran.err
