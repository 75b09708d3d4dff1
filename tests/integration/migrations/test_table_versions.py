"""`outbox.migrations` on every database: each version, from every state in which tables can be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError

import outbox
from outbox import migrations
from outbox.drivers.database.versions import VERSIONS, Kind, elements_of, tables_of
from outbox.errors import MigrationError
from tests.servers import databases, sql
from tests.support.earlier_releases import BEFORE, Release, unpack
from tests.support.table_versions import add_job, describe, execute, operations, scripted, version

FIRST = {table.name for table in tables_of(1)}


def test_the_versions_make_up_the_metadata() -> None:
    elements = elements_of(migrations.LATEST)
    for table in outbox.metadata.sorted_tables:
        mine = {(element.kind, element.name) for element in elements if element.table == table.name}
        assert {name for kind, name in mine if kind is Kind.COLUMN} == set(table.columns.keys())
        assert {name for kind, name in mine if kind is Kind.INDEX} == {index.name for index in table.indexes}
    assert {element.table for element in elements} == set(outbox.metadata.tables)


@pytest.mark.parametrize("number", range(2, migrations.LATEST + 1))
def test_a_version_can_be_added_instantly_and_is_seen_by_older_code(number: int) -> None:
    columns = VERSIONS[number - 1].columns
    assert set(columns) & FIRST
    for name, added in columns.items():
        table = outbox.metadata.tables[name]
        later = {column for each in VERSIONS[number:] for column in each.columns.get(name, ())}
        before = [column for column in table.columns.keys() if column not in later]  # noqa: SIM118 - in their order
        assert tuple(before[-len(added) :]) == added, "the last ones"
        assert all(table.columns[column].nullable for column in added)
        indexed = {column.name for index in table.indexes for column in index.columns}
        assert not indexed & set(added) or name == "queue_failed_jobs", "an index of live jobs would slow claims"


def test_up_and_down_through_every_version(database_url: str) -> None:
    numbers = range(1, migrations.LATEST + 1)
    made = {}
    with operations(database_url) as op:
        for number in numbers:
            migrations.upgrade(op, version=number)
            assert version(database_url) == number
            made[number] = describe(database_url)
            migrations.upgrade(op, version=number)
            assert describe(database_url) == made[number]
        for number in reversed(numbers):
            assert describe(database_url) == made[number]
            migrations.downgrade(op, version=number)
            assert describe(database_url) == made[number]
            migrations.downgrade(op, version=number - 1)
            assert version(database_url) == number - 1
    assert describe(database_url) == {}


@pytest.mark.parametrize("number", range(1, migrations.LATEST + 1))
def test_new_tables_are_what_upgrades_make(database_url: str, number: int) -> None:
    with operations(database_url) as op:
        for each in range(1, number + 1):
            migrations.upgrade(op, version=each)
        upgraded = describe(database_url)
        migrations.downgrade(op, version=0)
        migrations.upgrade(op, version=number)
    assert describe(database_url) == upgraded


@pytest.mark.parametrize("release", BEFORE, ids=lambda release: f"version-{release.tables}")
def test_a_version_is_what_its_release_has_made(database_url: str, tmp_path: Path, release: Release) -> None:
    """Versions of before never change."""
    environment = {**os.environ, "PYTHONPATH": str(unpack(release, tmp_path / "release"))}
    subprocess.run([sys.executable, "-c", CREATE, database_url], env=environment, cwd=tmp_path, check=True)
    made = describe(database_url)
    assert version(database_url) == release.tables
    for table in made:
        execute(database_url, f"DROP TABLE {table}")
    with operations(database_url) as op:
        migrations.upgrade(op, version=release.tables)
    assert describe(database_url) == made


CREATE = """
import asyncio, sys, outbox
from pathlib import Path
from sqlalchemy.ext.asyncio import create_async_engine

assert Path(outbox.__file__).is_relative_to(Path.cwd()), "the release, not what is tested"

async def main():
    engine = create_async_engine(sys.argv[1])
    async with engine.begin() as connection:
        await connection.run_sync(outbox.metadata.create_all)
    await engine.dispose()

asyncio.run(main())
"""


def test_tables_that_the_application_made_from_the_metadata_have_a_version(database_url: str) -> None:
    databases.create_tables(database_url, outbox.metadata)
    made = describe(database_url)
    assert version(database_url) == migrations.LATEST
    with operations(database_url) as op:
        migrations.upgrade(op, version=1)
        migrations.upgrade(op, version=migrations.LATEST)
    assert describe(database_url) == made


def test_a_script_makes_the_same_and_unmakes_it(database_url: str, backend: str) -> None:
    with operations(database_url) as op:
        migrations.upgrade(op, version=1)
        migrations.upgrade(op, version=migrations.LATEST)
        upgraded = describe(database_url)
        migrations.downgrade(op, version=0)
    for start, end in [(0, 1), (1, migrations.LATEST), (migrations.LATEST, 1), (1, 0), (0, migrations.LATEST)]:
        op, printed = scripted(backend)
        migrate = migrations.upgrade if start < end else migrations.downgrade
        migrate(op, version=end, from_version=start)
        for statement in filter(str.strip, printed.getvalue().split(";\n")):
            execute(database_url, statement)
        assert version(database_url) == end
    assert describe(database_url) == upgraded


def test_a_script_asks_for_the_version_of_the_tables() -> None:
    op, printed = scripted("mysql")
    with pytest.raises(MigrationError, match=r"upgrade\(op, version=2, from_version=1\)"):
        migrations.upgrade(op, version=2)
    with pytest.raises(MigrationError, match=r"downgrade\(op, version=0, from_version=1\)"):
        migrations.downgrade(op, version=0)
    with pytest.raises(MigrationError, match="no version 99"):
        migrations.upgrade(op, version=1, from_version=99)
    assert printed.getvalue() == ""


class StopError(Exception):
    pass


class Interrupted:
    """``op`` of a migration that is lost before one of its statements."""

    def __init__(self, op: Operations, before: int) -> None:
        self.op = op
        self.left = before

    def execute(self, sqltext: str) -> None:
        if not self.left:
            raise StopError
        self.left -= 1
        self.op.execute(sqltext)

    def get_bind(self) -> Connection:
        return self.op.get_bind()

    def get_context(self) -> MigrationContext:
        return self.op.get_context()


@pytest.mark.parametrize("start", range(migrations.LATEST))
def test_an_upgrade_that_was_interrupted_gets_on(database_url: str, start: int) -> None:
    """Wherever that was: each run begins with what the one before has left."""
    with operations(database_url) as op:
        migrations.upgrade(op, version=migrations.LATEST)
        upgraded = describe(database_url)
        migrations.downgrade(op, version=0)
        for number in range(1, start + 1):
            migrations.upgrade(op, version=number)
        while True:
            try:
                migrations.upgrade(Interrupted(op, 1), version=migrations.LATEST)
                break
            except StopError:
                continue
        migrations.upgrade(Interrupted(op, 0), version=migrations.LATEST)
    assert describe(database_url) == upgraded


def test_a_downgrade_that_was_interrupted_gets_on(database_url: str) -> None:
    with operations(database_url) as op:
        migrations.upgrade(op, version=migrations.LATEST)
        for left in range(len(outbox.metadata.tables), 1, -1):
            with pytest.raises(StopError):
                migrations.downgrade(Interrupted(op, 1), version=0)
            assert len(describe(database_url)) == left - 1
        migrations.downgrade(Interrupted(op, 1), version=0)
    assert describe(database_url) == {}


def test_a_statement_that_a_killed_migration_left_running_gets_done_first(database_url: str, backend: str) -> None:
    """The server goes on with a statement whose client is gone."""
    if backend == "sqlite":
        pytest.skip("SQLite has no server: its statements end with their process")

    class Overtaken(Interrupted):
        def execute(self, sqltext: str) -> None:
            execute(database_url, sqltext)
            self.op.execute(sqltext)

    with operations(database_url) as op:
        for number in range(1, migrations.LATEST + 1):
            migrations.upgrade(Overtaken(op, 0), version=number)
            assert version(database_url) == number
        migrations.downgrade(Overtaken(op, 0), version=0)
    assert describe(database_url) == {}


def test_an_error_of_the_server_stays_what_it_is(database_url: str) -> None:
    class Mistaken(Interrupted):
        def execute(self, sqltext: str) -> None:
            self.op.execute(sqltext.replace("ADD COLUMN last_error ", "ADD COLUMN queue "))

    with operations(database_url) as op:
        migrations.upgrade(op, version=1)
        with pytest.raises(DBAPIError, match="(?i)duplicate column"):
            migrations.upgrade(Mistaken(op, 0), version=2)
        assert version(database_url) == 1


def test_a_version_that_this_release_does_not_have(database_url: str) -> None:
    with operations(database_url) as op:
        for number in (0, migrations.LATEST + 1):
            with pytest.raises(MigrationError, match=f"no version {number}.* 1 to {migrations.LATEST}"):
                migrations.upgrade(op, version=number)
        for number in (-1, migrations.LATEST + 1):
            with pytest.raises(MigrationError, match=f"no version {number}.* 0 to {migrations.LATEST}"):
                migrations.downgrade(op, version=number)
    assert describe(database_url) == {}


def test_a_server_that_outbox_does_not_know() -> None:
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True})
    with pytest.raises(MigrationError, match="not in postgresql"):
        migrations.upgrade(Operations(context), version=1, from_version=0)


def test_a_table_of_somebody_elses_is_left_alone(database_url: str) -> None:
    execute(database_url, "CREATE TABLE queue_workers (id INTEGER PRIMARY KEY, name VARCHAR(64))")
    before = describe(database_url)["queue_workers"]
    assert version(database_url) == 0
    with operations(database_url) as op, pytest.raises(MigrationError, match="queue_workers that outbox did not make"):
        migrations.upgrade(op, version=migrations.LATEST)
    assert describe(database_url)["queue_workers"] == before


def test_tables_that_are_newer_are_left_alone(database_url: str) -> None:
    with operations(database_url) as op:
        migrations.upgrade(op, version=migrations.LATEST)
        execute(database_url, "ALTER TABLE queue_jobs ADD COLUMN policy VARCHAR(10)")
        before = describe(database_url)
        migrations.upgrade(op, version=migrations.LATEST)
        assert version(database_url) == migrations.LATEST
        with pytest.raises(MigrationError, match=r"newer .*queue_jobs \(policy\)"):
            migrations.downgrade(op, version=1)
    assert describe(database_url) == before


def test_a_downgrade_refuses_to_lose_what_is_stored(database_url: str) -> None:
    with operations(database_url) as op:
        migrations.upgrade(op, version=2)
        upgraded = describe(database_url)
        add_job(database_url, last_error="ValueError: no")
        with pytest.raises(MigrationError, match=r"stored in queue_jobs \(last_error\); nothing was changed"):
            migrations.downgrade(op, version=1)
        assert describe(database_url) == upgraded
        migrations.downgrade(op, version=1, discard=True)
        assert version(database_url) == 1
        with pytest.raises(MigrationError, match=r"stored in queue_jobs; nothing"):
            migrations.downgrade(op, version=0)
        execute(database_url, "INSERT INTO queue_pauses (queue, paused_at) VALUES ('mail', '2026-01-01 00:00:00')")
        with pytest.raises(MigrationError, match=r"stored in queue_jobs, queue_pauses; nothing"):
            migrations.downgrade(op, version=0)
        migrations.downgrade(op, version=0, discard=True)
    assert describe(database_url) == {}


def test_what_workers_write_by_themselves_is_no_loss(database_url: str) -> None:
    with operations(database_url) as op:
        migrations.upgrade(op, version=4)
        execute(
            database_url,
            "INSERT INTO queue_metrics (id, period, begins_at, queue, name, data) "
            "VALUES ('0123456789abcdef', 1, '2026-01-01 00:00:00', 'mail', 'a.Job', '{}')",
        )
        migrations.downgrade(op, version=2)
        execute(
            database_url,
            "INSERT INTO queue_workers (id, name, host, pid, queues, concurrency, running, processed, failed, "
            "started_at, seen_at, running_jobs) VALUES ('0123456789abcdef', 'w', 'h', 1, 'mail', 1, 0, 0, 0, "
            "'2026-01-01 00:00:00', '2026-01-01 00:00:00', '[]')",
        )
        migrations.downgrade(op, version=1)
        migrations.downgrade(op, version=0)
    assert describe(database_url) == {}


def test_the_right_to_read_is_enough_to_ask_for_the_version(database_url: str, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite has no users")
    with operations(database_url) as op:
        migrations.upgrade(op, version=1)
    with sql.connection(database_url) as connection:
        schema = connection.scalar(text("SELECT DATABASE()"))
        connection.execute(text("CREATE USER 'reads'@'%' IDENTIFIED BY 'only'"))
        try:
            connection.execute(text(f"GRANT SELECT ON {schema}.* TO 'reads'@'%'"))
            reader = make_url(database_url).set(username="reads", password="only")
            assert version(reader.render_as_string(hide_password=False)) == 1
        finally:
            connection.execute(text("DROP USER 'reads'@'%'"))
