"""What operators read: in transactions that cannot write, from the replica of a connection if it has one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import outbox
from outbox.connections import open_driver
from outbox.drivers.database import DatabaseDriver
from outbox.errors import ConfigurationError
from outbox.ids import JobId
from outbox.settings import ConnectionSettings, Settings
from outbox.web import dashboard
from tests.conformance.jobs import envelope
from tests.servers import databases
from tests.support.commands import run
from tests.support.dashboards import BASE, browser, fill, mounted, signed_in, told
from tests.support.every_engine import before_each_statement

NOWHERE = "mysql+asyncmy://nobody@127.0.0.1:1/shop"
SHOWN = [
    "/",
    "/queues",
    "/queues/mail",
    "/jobs",
    "/jobs?state=ready&queue=mail",
    "/jobs?state=running",
    "/jobs?state=finished",
    "/failures",
    "/failures/jobs",
    "/failures/jobs?error=SMTPError",
    "/classes",
    "/workers",
    "/schedules",
    "/keys",
    "/batches",
    "/operations",
    "/operations/new?verb=cancel&queue=mail",
]


@pytest.fixture(scope="module")
def left_open() -> Iterator[ExitStack]:
    """Left when the event loops of the tests have ended, and with them the connections of dashboards."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def replica_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path, left_open: ExitStack) -> str:
    """Another database with the same tables, which nothing copies to."""
    if backend == "sqlite":
        (tmp_path / "replica").mkdir()
        return databases.fresh_file(tmp_path / "replica", request.getfixturevalue("migrated_sqlite"))
    url = left_open.enter_context(databases.fresh_database(request.getfixturevalue("sql_server")))
    databases.create_tables(url, outbox.metadata)
    return url


@pytest.fixture
async def primary(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


@pytest.fixture
async def replica(replica_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(replica_url)
    yield driver
    await driver.close()


async def test_pages_and_commands_read_the_replica_and_write_the_primary(
    primary: DatabaseDriver,
    replica: DatabaseDriver,
    migrated_url: str,
    replica_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = envelope(queue="here"), envelope(queue="there")
    await primary.jobs.insert([here])
    await replica.jobs.insert([there])
    settings = Settings(database_url=migrated_url, replica_url=replica_url)
    async with browser(mounted(dashboard(signed_in(), settings=settings, time_limit=30))) as admin:
        assert str(there.id) in (await admin.get(f"{BASE}/jobs")).text
        assert (await admin.get(f"{BASE}/jobs/{here.id}")).status_code == 404
        paused = await admin.post(f"{BASE}/queues/here/pause", data={"connection": "database"})
        assert paused.status_code == 303
        cancelled = await admin.post(f"{BASE}/jobs/{there.id}/cancel", data={"connection": "database"})
        assert cancelled.status_code == 404, "the primary has no such job"
    assert [each.name for each in await primary.pauses.all()] == ["here"]
    assert await replica.pauses.all() == []
    assert await replica.audit.latest(10) == []
    assert await replica.jobs.get(there.id) is not None
    monkeypatch.setenv("OUTBOX_REPLICA_URL", replica_url)
    listed = await run(migrated_url, "jobs", "--json")
    assert [job["id"] for job in listed.document["jobs"]] == [str(there.id)]
    cleared = await run(migrated_url, "clear", "here", "--yes")
    assert "1 job" in cleared.out
    assert (await run(migrated_url, "stats", "--json")).document["queues"][0]["queue"] == "there"
    assert (await run(migrated_url, "audit", "--json")).document["entries"] == []
    assert [entry.action for entry in await primary.audit.latest(10)] == ["clear", "pause"]


async def test_without_its_replica_pages_say_so_and_actions_go_on(primary: DatabaseDriver, migrated_url: str) -> None:
    sqlite = primary.database.engine.dialect.name == "sqlite"
    nowhere = "sqlite+aiosqlite:////nowhere/at/all.db" if sqlite else NOWHERE
    settings = Settings(database_url=migrated_url, replica_url=nowhere)
    async with browser(mounted(dashboard(signed_in(), settings=settings, time_limit=30))) as admin:
        page = await admin.get(f"{BASE}/jobs")
        assert (page.status_code, "the replica" in told(page)) == (503, True)
        paused = await admin.post(f"{BASE}/queues/mail/pause", data={"connection": "database"})
        assert paused.status_code == 303
    assert [each.name for each in await primary.pauses.all()] == ["mail"]


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_what_pages_read_could_not_be_written(primary: DatabaseDriver, migrated_url: str) -> None:
    jobs = await fill(primary)
    variable = {"mysql": "transaction_read_only", "mariadb": "tx_read_only"}
    seen: dict[str, set[Any]] = {}

    def look(connection: Any, _: Any, statement: str, *__: Any) -> None:
        cursor = connection.connection.cursor()
        name = variable["mariadb" if connection.dialect.is_mariadb else "mysql"]
        cursor.execute(f"SELECT @@{name}, CONNECTION_ID()")
        seen.setdefault(statement, set()).add(cursor.fetchone()[0])
        cursor.close()

    with before_each_statement(look):
        async with browser(
            mounted(dashboard(signed_in(), settings=Settings(database_url=migrated_url), time_limit=30))
        ) as admin:
            for path in [*SHOWN, f"/jobs/{jobs.ready}", f"/jobs/{jobs.failed}"]:
                assert (await admin.get(BASE + path)).status_code == 200, path
    assert len(seen) > 20
    assert {statement for statement, flags in seen.items() if flags != {1}} == set()


async def test_a_question_is_one_transaction(primary: DatabaseDriver) -> None:
    """It sees one state of the tables, whatever others write meanwhile."""
    await primary.jobs.insert([envelope(1)])

    async def count() -> int:
        return len(await primary.jobs.list_jobs())

    async def twice() -> tuple[int, int]:
        before = await count()
        await _elsewhere(primary, envelope(2).id)
        return before, await count()

    assert await primary.read_only(twice) == (1, 1)
    assert await count() == 2


async def _elsewhere(primary: DatabaseDriver, job_id: JobId) -> None:
    other = DatabaseDriver(primary.session_url or "")
    await other.jobs.insert([envelope(2)])
    await other.close()


@pytest.mark.sqlite
def test_a_replica_of_another_kind_is_refused(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}"
    for wrong, reason in ((NOWHERE, "of two kinds"), ("postgresql://x/y", "its replica: outbox keeps jobs in")):
        with pytest.raises(ConfigurationError, match=reason):
            open_driver(Settings(database_url=url, replica_url=wrong), "database", reads_replica=True)
    connections = {"fast": ConnectionSettings(driver="redis", url="redis://127.0.0.1:1/0", replica_url=url)}
    with pytest.raises(ConfigurationError, match="only a database can have"):
        open_driver(Settings(database_url=url, connections=connections), "fast")
