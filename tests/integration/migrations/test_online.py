"""Tables of MySQL and MariaDB change while they are used: what the server says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, event, text

from outbox import migrations
from outbox.drivers.database.versions import tables_of
from outbox.errors import MigrationError
from tests.servers import databases, sql
from tests.support.table_versions import add_job, execute, operations, operations_on, table_id, version
from tests.support.worker_processes import until

WAITS_FOR_TRANSACTIONS = "Waiting for table metadata lock"


@pytest.fixture(
    params=[pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest) -> Iterator[str]:
    with databases.fresh_database(request.getfixturevalue(f"{backend}_server")) as made:
        yield made


@pytest.fixture
def first(url: str) -> str:
    """With tables of version 1, and a job in them."""
    with operations(url) as op:
        migrations.upgrade(op, version=1)
    add_job(url)
    return url


def test_every_step_after_the_first_is_instant(first: str, backend: str) -> None:
    """The server would refuse it otherwise, and would keep copied tables under new numbers."""
    with sql.connection(first) as connection:
        op = operations_on(connection)
        tables = [table.name for table in tables_of(1)]
        before = {table: table_id(connection, backend, table) for table in tables}
        sent = recorded(connection)
        for number in range(2, migrations.LATEST + 1):
            migrations.upgrade(op, version=number)
        for number in range(migrations.LATEST - 1, 0, -1):
            migrations.downgrade(op, version=number)
        assert {table: table_id(connection, backend, table) for table in tables} == before
        altered = [statement for statement in sent if statement.startswith("ALTER")]
        assert len(altered) >= 2 * (migrations.LATEST - 1)
        assert all(statement.endswith(", ALGORITHM=INSTANT") for statement in altered)


def recorded(connection: Connection) -> list[str]:
    """The statements that are sent from now on."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    return sent


def test_a_table_that_cannot_change_instantly_changes_in_place(first: str) -> None:
    """Compressed rows, among others. `LOCK=NONE` has the server refuse what would keep others from writing."""
    execute(first, "ALTER TABLE queue_jobs ROW_FORMAT=COMPRESSED")
    with sql.connection(first) as connection:
        sent = recorded(connection)
        migrations.upgrade(operations_on(connection), version=2)
        jobs = [statement for statement in sent if statement.startswith("ALTER TABLE queue_jobs ")]
        assert [statement.rpartition("ADD COLUMN last_error_at DATETIME(6), ")[2] for statement in jobs] == [
            "ALGORITHM=INSTANT",
            "ALGORITHM=INPLACE, LOCK=NONE",
        ]
        assert connection.scalar(text("SELECT COUNT(*) FROM queue_jobs")) == 1
    assert version(first) == 2


def test_a_missing_index_is_made_in_place(url: str) -> None:
    with sql.connection(url) as connection:
        op = operations_on(connection)
        migrations.upgrade(op, version=2)
        connection.execute(text("DROP INDEX queue_jobs_claim ON queue_jobs"))
        sent = recorded(connection)
        migrations.upgrade(op, version=2)
        [made] = [statement for statement in sent if "INDEX" in statement]
        assert made == (
            "CREATE INDEX queue_jobs_claim ON queue_jobs (queue, priority, available_at) ALGORITHM=INPLACE LOCK=NONE"
        )


async def test_jobs_are_dispatched_while_an_upgrade_waits_for_a_transaction(first: str) -> None:
    """The upgrade lets others pass after each second of waiting."""
    with sql.connection(first) as holding, sql.connection(first) as others, sql.connection(first) as migrating:
        timeout = migrating.scalar(text("SELECT @@SESSION.lock_wait_timeout"))
        holding.execute(text("START TRANSACTION"))
        holding.execute(text("SELECT COUNT(*) FROM queue_jobs"))
        upgrading = asyncio.create_task(asyncio.to_thread(migrations.upgrade, operations_on(migrating), version=2))
        await until(lambda: waits(others), lambda: "the upgrade to wait")
        # Behind the upgrade, until that gives up for a moment; the transaction is open all the while.
        await asyncio.to_thread(others.execute, text("DELETE FROM queue_jobs WHERE queue = 'none'"))
        assert not upgrading.done()
        holding.execute(text("COMMIT"))
        await upgrading
        assert migrating.scalar(text("SELECT @@SESSION.lock_wait_timeout")) == timeout
    assert version(first) == 2


def waits(connection: Connection) -> bool:
    """Whether a statement of the same database does. The text of others' statements may be none: it is not read."""
    columns, table = ("db", "state"), "information_schema.processlist"
    if not connection.dialect.is_mariadb:  # type: ignore[attr-defined]
        columns, table = ("processlist_db", "processlist_state"), "performance_schema.threads"
    states = f"SELECT {columns[1]} FROM {table} WHERE {columns[0]} = DATABASE()"
    return WAITS_FOR_TRANSACTIONS in connection.scalars(text(states)).all()


def test_an_upgrade_gives_up_and_says_who_is_in_the_way(first: str) -> None:
    with sql.connection(first) as holding, operations(first) as op:
        holding.execute(text("START TRANSACTION"))
        holding.execute(text("SELECT COUNT(*) FROM queue_jobs"))
        with pytest.raises(MigrationError, match="open on the table for more than 0 s, and 'ALTER TABLE queue_jobs"):
            migrations.upgrade(op, version=2, lock_timeout=0)
        holding.execute(text("COMMIT"))
        assert version(first) == 1
        migrations.upgrade(op, version=2, lock_timeout=0)
    assert version(first) == 2
