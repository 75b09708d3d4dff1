"""Tables that are older or newer than the code: what dispatches, what refuses, and what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

import outbox
from outbox import migrations
from outbox.drivers.database import DatabaseDriver
from outbox.errors import RequestRefused, TablesMissing
from tests.conformance.jobs import envelope, envelopes
from tests.servers import databases, sql
from tests.support.commands import run
from tests.support.table_versions import describe, execute, operations, version

OLDER = migrations.LATEST - 1


@pytest.fixture
async def driver(database_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(database_url)
    yield driver
    await driver.close()


def migrate(url: str, number: int) -> None:
    with operations(url) as op:
        migrations.upgrade(op, version=number)


async def problems(url: str, level: str = "problem") -> list[str]:
    checked = await run(url, "check", "--json")
    findings = checked.document["findings"]
    assert checked.code == any(finding["level"] == "problem" for finding in findings)
    return [f"{finding['message']} → {finding['advice']}" for finding in findings if finding["level"] == level]


@pytest.mark.parametrize(("older", "commands"), [(2, ("jobs", "failed")), (OLDER, ("jobs", "stats"))])
async def test_older_tables_take_jobs_and_are_named_by_every_command(
    driver: DatabaseDriver, database_url: str, backend: str, older: int, commands: tuple[str, ...]
) -> None:
    """A deploy that has new code before its migration: applications go on dispatching."""
    migrate(database_url, older)
    await driver.jobs.insert([envelope()])
    await driver.jobs.insert(envelopes(50))
    if older == 2:
        with pytest.raises(RequestRefused, match="alembic upgrade head"):
            await driver.jobs.insert([envelope()._replace(policies=1)])
    starting = DatabaseDriver(database_url)
    with pytest.raises(TablesMissing, match="alembic upgrade head"):
        await starting.check()
    await starting.close()
    [problem] = await problems(database_url)
    assert "has tables of another version: run `alembic upgrade head`" in problem
    assert f"of version {older} and lack " in problem
    assert f"outbox.migrations.upgrade(op, version={migrations.LATEST})" in problem
    server = "sqlite" if backend == "sqlite" else "mysql"
    assert f"`outbox ddl {server} --from {older}`" in problem
    for command in commands:
        ran = await run(database_url, command)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert "run `alembic upgrade head`" in ran.err


async def test_what_is_missing_is_named(database_url: str) -> None:
    migrate(database_url, 1)
    [problem] = await problems(database_url)
    for lacking in (
        "queue_failed_jobs (",
        "queue_jobs (last_error, last_error_at, ",
        "queue_workers (memory, ordered, running_jobs",
    ):
        assert lacking in problem


async def test_rows_that_tables_are_made_with_are_made_again(driver: DatabaseDriver, database_url: str) -> None:
    """An upgrade may be interrupted before them: a worker that starts writes them, and so does the next upgrade."""
    migrate(database_url, migrations.LATEST)
    execute(database_url, "DELETE FROM queue_lock_slots WHERE slot >= 4000")
    assert version(database_url) == migrations.LATEST
    await driver.check()
    assert slots(database_url) == 4_096
    execute(database_url, "DELETE FROM queue_lock_slots WHERE slot < 4000")
    migrate(database_url, migrations.LATEST)
    assert slots(database_url) == 4_096


def slots(url: str) -> int:
    with sql.connection(url) as connection:
        return int(connection.scalar(text("SELECT COUNT(*) FROM queue_lock_slots")) or 0)


async def test_an_upgrade_that_was_interrupted_is_named(database_url: str) -> None:
    migrate(database_url, 1)
    execute(database_url, "DROP TABLE queue_pauses")
    [problem] = await problems(database_url)
    assert "of version 0 and lack" in problem
    assert "queue_pauses" in problem
    assert "--from" not in problem
    migrate(database_url, migrations.LATEST)
    assert await problems(database_url) == []


async def test_newer_tables_are_named_and_work(driver: DatabaseDriver, database_url: str) -> None:
    migrate(database_url, migrations.LATEST)
    execute(database_url, "ALTER TABLE queue_jobs ADD COLUMN policy VARCHAR(10)")
    assert await problems(database_url) == []
    newer = [warning for warning in await problems(database_url, "warning") if "newer" in warning]
    assert [warning.partition(" → ")[0] for warning in newer] == [
        "the tables are newer than this release of outbox, which does not know queue_jobs (policy)"
    ]
    await driver.check()
    await driver.jobs.insert([envelope()])
    [claim] = await driver.jobs.claim(["default"], 1, 30)
    assert claim.attempt == 1


@pytest.mark.parametrize("number", range(1, migrations.LATEST))
async def test_the_printed_statements_upgrade_tables(database_url: str, backend: str, number: int) -> None:
    databases.create_tables(database_url, outbox.metadata)
    latest = describe(database_url)
    with operations(database_url) as op:
        migrations.downgrade(op, version=number)
    printed = await run(database_url, "ddl", backend, "--from", str(number))
    assert printed.code == 0
    for statement in filter(str.strip, printed.out.split(";\n")):
        execute(database_url, statement)
    assert version(database_url) == migrations.LATEST
    assert describe(database_url) == latest
    assert (await run(database_url, "ddl", backend, "--from", str(migrations.LATEST))).out == ""
    refused = await run(database_url, "ddl", backend, "--from", str(migrations.LATEST + 1))
    assert refused.code == 2
    assert f"no version {migrations.LATEST + 1}" in refused.err
