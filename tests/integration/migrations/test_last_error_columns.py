"""The columns of the last error: what writes them, and what tables without them do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from outbox.drivers.database import DatabaseDriver
from outbox.errors import TablesMissing
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope
from tests.integration.migrations.test_migrations import alembic
from tests.servers import sql
from tests.support.commands import run

# The number under which InnoDB keeps a table: another one after a rebuild.
TABLE_IDS = {
    "mysql": "SELECT TABLE_ID FROM information_schema.INNODB_TABLES WHERE NAME = :name",
    "mariadb": "SELECT TABLE_ID FROM information_schema.INNODB_SYS_TABLES WHERE NAME = :name",
}


@pytest.fixture
async def driver(database_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(database_url)
    yield driver
    await driver.close()


def table_id(url: str, backend: str) -> int:
    with sql.connection(url) as connection:
        schema = connection.scalar(text("SELECT DATABASE()"))
        return int(connection.scalar(text(TABLE_IDS[backend]), {"name": f"{schema}/queue_jobs"}) or 0)


async def test_an_upgrade_keeps_the_jobs_and_does_not_rebuild_their_table(
    driver: DatabaseDriver, database_url: str, backend: str
) -> None:
    alembic(database_url, "upgrade", "0002")
    waiting = envelope(payload='{"number": 7}')
    await driver.insert([waiting])
    before = None if backend == "sqlite" else table_id(database_url, backend)
    alembic(database_url, "upgrade", "head")
    assert before != 0
    assert before is None or table_id(database_url, backend) == before
    job = await driver.get(waiting.id)
    assert job is not None
    assert (job.payload, job.last_error, job.last_error_at) == (waiting.payload, None, None)
    claim = await claim_one(driver)
    await driver.settle([Settlement.retried(claim.fence, 60, FAILURE)])
    job = await driver.get(waiting.id)
    assert job is not None
    assert job.last_error == FAILURE.summary


async def test_the_columns_are_added_instantly_where_the_server_is_asked_to(database_url: str, backend: str) -> None:
    """A server that could not would refuse `ALGORITHM=INSTANT`."""
    if backend == "sqlite":
        pytest.skip("SQLite adds a column by changing the schema's text")
    alembic(database_url, "upgrade", "0002")
    printed = alembic(database_url, "upgrade", "0002:0003", "--sql").stdout
    statements = re.findall(r"^ALTER TABLE [^;]+", printed, re.MULTILINE)
    assert len(statements) == 3
    with sql.connection(database_url) as connection:
        for statement in statements:
            connection.execute(text(f"{statement}, ALGORITHM=INSTANT"))


async def test_tables_of_before_take_jobs_and_are_named_by_every_command(
    driver: DatabaseDriver, database_url: str
) -> None:
    """A deploy that has new code before its migration: applications go on dispatching."""
    alembic(database_url, "upgrade", "0002")
    await driver.insert([envelope()])
    starting = DatabaseDriver(database_url)
    with pytest.raises(TablesMissing, match="alembic upgrade head"):
        await starting.check()
    await starting.close()
    checked = await run(database_url, "check")
    assert checked.code == 1
    problems = [line for line in checked.out.splitlines() if line.startswith("problem")]
    assert any("tables of another version: run `alembic upgrade head`" in problem for problem in problems), problems
    for command in ("stats", "workers"):
        ran = await run(database_url, command)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert "run `alembic upgrade head`" in ran.err
