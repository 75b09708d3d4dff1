"""Rollups of metrics: charts of a day read few rows, and nothing is counted twice or left out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.metrics import Activity, MetricPoint
from outbox.settings import Settings
from outbox.settlement import Outcome
from outbox.web import dashboard
from tests.support.commands import execute
from tests.support.dashboards import BASE, browser, mounted, signed_in
from tests.support.many_rows import MOST_READ, insert_rows, keep_statistics, rows_read

DAY = 86_400
AGES = (0, 2, 4, 9, 11, 19, 20, 21, 45, 61, 130, 131, 700, 1_000, 1_429, 1_435)
"""Minutes."""


async def write(database: DatabaseDriver, minutes: int) -> None:
    """A row of a class of its own, so many minutes old, and one of a class that all have in common."""
    for name in (f"Job{minutes}", "Every"):
        activity = Activity()
        activity.add({Outcome.COMPLETED: minutes + 1}, [0.5] * (minutes + 1), [0.25] * (minutes + 1))
        await database.metrics.write({("mail", name): activity})
        moment = database.database.dialect.now_plus(str(-minutes * 60_000_000))
        if minutes:
            new = f"UPDATE queue_metrics SET begins_at = {moment}, period = 1 WHERE name = :name AND period = 0"
            await execute(database, new, name=name)


def settled(points: Iterable[MetricPoint]) -> dict[str, tuple[int, int, int]]:
    """By class: attempts, waits and runs."""
    found: dict[str, tuple[int, int, int]] = {}
    for point in points:
        attempts, waits, runs = found.get(point.name, (0, 0, 0))
        more = sum(point.settled.values()), point.wait.count, point.run.count
        found[point.name] = (attempts + more[0], waits + more[1], runs + more[2])
    return found


async def rollups(database: DatabaseDriver) -> int:
    async with database.database.engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT COUNT(*) FROM queue_metrics WHERE queue = '*'")
        return int(rows.scalar_one())


async def test_rolled_up_points_are_all_points_once(database: DatabaseDriver) -> None:
    for minutes in AGES:
        await write(database, minutes)
    expected = settled(await database.metrics.points(DAY))
    assert settled(await database.metrics.rolled_up(DAY)) == expected, "without a rollup"
    await database.metrics.upkeep()
    assert await rollups(database) >= 142
    found = await database.metrics.rolled_up(DAY)
    assert settled(found) == expected == settled(await database.metrics.points(DAY))
    assert [point.at for point in found] == sorted(point.at for point in found)
    assert {point.seconds for point in found if point.name == "Job700"} == {600}
    await write(database, 0)
    assert settled(await database.metrics.rolled_up(DAY)) == settled(await database.metrics.points(DAY))


async def test_a_gap_in_rollups_is_read_from_the_rows(database: DatabaseDriver) -> None:
    for minutes in AGES:
        await write(database, minutes)
    await database.metrics.upkeep()
    some = database.database.dialect.now_plus(str(-500 * 60_000_000))
    more = database.database.dialect.now_plus(str(-540 * 60_000_000))
    gap = f"period = 11 AND begins_at < {some} AND begins_at > {more}"
    await execute(database, f"DELETE FROM queue_metrics WHERE {gap}")
    assert settled(await database.metrics.rolled_up(DAY)) == settled(await database.metrics.points(DAY))


async def test_two_workers_make_one_rollup_of_each_time(database: DatabaseDriver, migrated_url: str) -> None:
    for minutes in AGES:
        await write(database, minutes)
    expected = settled(await database.metrics.points(DAY))
    other = DatabaseDriver(migrated_url)
    await asyncio.gather(database.metrics.upkeep(), other.metrics.upkeep())
    await other.close()
    assert settled(await database.metrics.rolled_up(DAY)) == expected
    assert await rollups(database) <= 144


async def test_rollups_are_kept_for_little_more_than_a_day(database: DatabaseDriver) -> None:
    for minutes in (20, 60):
        await write(database, minutes)
    await database.metrics.upkeep()
    assert await rollups(database) > 0
    old = database.database.dialect.now_plus(str(-(DAY + 7_200) * 1_000_000))
    await execute(database, f"UPDATE queue_metrics SET begins_at = {old} WHERE period = 11")
    await execute(database, "DELETE FROM queue_metrics WHERE period <> 11")
    for _ in range(2):
        await database.metrics.upkeep()
    assert await rollups(database) == 0


@pytest.mark.parametrize("value", ["{", "[]", "[1]", '[["mail", "Job", {"settled": 7}]]'])
async def test_rollups_of_other_programs_hide_no_rows(database: DatabaseDriver, value: str) -> None:
    for minutes in (0, 60):
        await write(database, minutes)
    await database.metrics.upkeep()
    await execute(database, "UPDATE queue_metrics SET data = :value WHERE period = 11", value=value)
    assert settled(await database.metrics.rolled_up(DAY))["Job0"] == (1, 1, 1)


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_pages_with_charts_of_40_queues_read_25_000_rows_at_most(
    database: DatabaseDriver, migrated_url: str
) -> None:
    data = '{"settled":{"completed":1},"wait":{"buckets":{"7":1},"total":0.1},"run":{"buckets":{"7":1},"total":0.1}}'
    moment = database.database.dialect.minute_of("UTC_TIMESTAMP(6) - INTERVAL n DIV 40 MINUTE")
    values = f"UNHEX(LPAD(HEX(n), 32, '0')), 1, {moment}, CONCAT('q', MOD(n, 40)), 'tests.Job', '{data}'"
    await insert_rows(database, "queue_metrics (id, period, begins_at, queue, name, data)", values, 40 * 1_440)
    await database.metrics.upkeep()
    await keep_statistics(database)
    for path in ("/", "/queues", "/queues/q1", "/classes", "/classes/one?name=tests.Job"):
        app = dashboard(signed_in(), settings=Settings(database_url=migrated_url), time_limit=30)
        async with browser(mounted(app)) as viewer:
            with rows_read() as read:
                assert (await viewer.get(BASE + path)).status_code == 200
        assert 0 < read.total <= MOST_READ, path
