"""Groups of failed jobs: found along their index, retried and forgotten by their fingerprints from the shell."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from outbox import migrations
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.filters import FailedFilter
from outbox.settlement import Failure
from tests.conformance.jobs import envelope, envelopes
from tests.support.commands import execute, fail, run
from tests.support.many_rows import MOST_READ, fill, fill_failed, keep_statistics, rows_read
from tests.support.table_versions import operations, version

NUMBERED = Failure("LookupError", "no order 17", "")
WITHOUT = "UPDATE queue_failed_jobs SET fingerprint = NULL WHERE exception LIKE '%LookupError%'"


async def test_a_group_is_retried_and_forgotten_from_the_shell(database: DatabaseDriver, migrated_url: str) -> None:
    await fail(database, *envelopes(3), failure=NUMBERED)
    await fail(database, *envelopes(2))
    groups = (await run(migrated_url, "failed", "--groups", "--json")).document["groups"]
    numbered = next(group["fingerprint"] for group in groups if group["count"] == 3)
    assert numbered in (await run(migrated_url, "failed", "--groups")).out
    listed = (await run(migrated_url, "failed", "--group", numbered, "--json")).document["failed_jobs"]
    assert [job["exception"]["type"] for job in listed] == ["LookupError"] * 3
    assert (await run(migrated_url, "retry", "--group", numbered)).out == "Retried 3 failed jobs.\n"
    [other] = (await run(migrated_url, "failed", "--groups", "--json")).document["groups"]
    ran = await run(migrated_url, "forget", "--group", other["fingerprint"])
    assert (ran.code, "--yes" in ran.err) == (2, True)
    ran = await run(migrated_url, "forget", "--group", other["fingerprint"], "--yes")
    assert ran.out == "Forgot 2 failed jobs.\n"
    ran = await run(migrated_url, "retry", "--group", "LookupError")
    assert (ran.code, "16 hexadecimal digits" in ran.err) == (2, True)


async def test_failures_of_an_earlier_release_are_groups_by_their_type_until_a_worker_has_looked(
    database: DatabaseDriver,
) -> None:
    claims = await fail(database, *envelopes(3), failure=NUMBERED)
    await fail(database, *envelopes(2))
    before = await database.failed.groups()
    await execute(database, WITHOUT)
    found = [(group.error, group.count, bool(group.fingerprint)) for group in await database.failed.groups()]
    assert found == [("LookupError", 3, False), ("ConnectionRefusedError", 2, True)]
    assert await database.failed.hours(await database.failed.groups()) == [[0] * 24, [0] * 23 + [2]]
    # Another program may have written what is no exception.
    await execute(
        database,
        "UPDATE queue_failed_jobs SET exception = '[1]', fingerprint = NULL WHERE id = :id",
        id=claims[0].fence.job_id.bytes,
    )
    assert database.metrics is not None
    await database.metrics.upkeep()
    after = await database.failed.groups()
    assert {(group.error, group.count, group.at_least) for group in after} == {
        ("LookupError", 2, False),
        ("ConnectionRefusedError", 2, False),
        ("unknown", 1, False),
    }
    assert {group.fingerprint for group in before} < {group.fingerprint for group in after}


async def test_unreadable_rows_have_a_fingerprint(database: DatabaseDriver) -> None:
    await database.jobs.insert([envelope()])
    await execute(database, "UPDATE queue_jobs SET priority = 42")
    assert await database.jobs.fail_unreadable() == 1
    [group] = await database.failed.groups()
    [job] = await database.failed.page()
    assert group.fingerprint == job.fingerprint


async def test_the_last_hours_of_a_group(database: DatabaseDriver) -> None:
    claims = await fail(database, *envelopes(4), failure=NUMBERED)
    for claim, hours in zip(claims, (0.5, 1.5, 1.6, 25), strict=True):
        moment = database.database.dialect.now_plus(str(-int(hours * 3_600_000_000)))
        key = claim.fence.job_id.bytes
        await execute(database, f"UPDATE queue_failed_jobs SET failed_at = {moment} WHERE id = :id", id=key)
    [group] = await database.failed.groups()
    assert group.count == 4
    assert await database.failed.hours([group]) == [[0] * 22 + [2, 1]]


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
@pytest.mark.parametrize("groups", [3, 400])
async def test_groups_of_many_failed_jobs_read_25_000_rows_at_most(database: DatabaseDriver, groups: int) -> None:
    await fill_failed(database, 30_000, groups)
    await fill(database, 5_000, table="failed_jobs")
    await keep_statistics(database)
    for matching in (FailedFilter(), FailedFilter(since=7_200), FailedFilter(error="KeyError"), FailedFilter("x")):
        with rows_read() as read:
            found = await database.failed.groups(limit=50, matching=matching)
            await database.failed.hours(found)
        assert 0 < read.total <= MOST_READ, matching
    largest = await database.failed.groups(limit=50)
    assert len(largest) == min(50, groups + 1)
    assert all(group.at_least for group in largest)
    [group] = await database.failed.groups(matching=FailedFilter(group=f"{1:016x}"))
    assert (group.count, group.at_least) == ((3_500, True) if groups == 3 else (75, False))


def test_a_downgrade_drops_fingerprints_and_nothing_else(migrated_url: str) -> None:
    with operations(migrated_url) as op:
        op.get_bind().execute(
            text(
                "INSERT INTO queue_failed_jobs (id, connection, queue, name, priority, payload, headers, attempts, "
                "exception, failed_at, fingerprint) VALUES ('0123456789abcdef', 'database', 'mail', 'shop.Receipt', 5, "
                "'{}', '{}', 1, '{}', '2026-01-01 00:00:00', '0123456789abcdef')"
            )
        )
        migrations.downgrade(op, version=3)
        migrations.upgrade(op, version=4)
    assert version(migrated_url) == 4
