"""`outbox bulk`, `outbox operations` and `outbox audit`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import outbox
from outbox.drivers.database import DatabaseDriver
from tests.conformance.jobs import envelope, envelopes
from tests.support.commands import fail, run

pytestmark = pytest.mark.sqlite


@pytest.fixture
def backend() -> str:
    """The other databases are tested below the commands."""
    return "sqlite"


@pytest.fixture
async def driver(migrated_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[DatabaseDriver]:
    monkeypatch.chdir(tmp_path)  # away from this project's own settings
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setattr("outbox.console.bulk.actor", lambda: "anna@web1")
    monkeypatch.setattr("outbox.console.operations.actor", lambda: "anna@web1")
    monkeypatch.setattr("outbox.console.command.actor", lambda: "anna@web1")
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()
    await outbox.disconnect()


async def test_jobs_are_previewed_changed_and_recorded(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert(envelopes(1_100, queue="mail"))
    await fail(driver, envelope(queue="failing"))
    seen = await run(migrated_url, "bulk", "move", "--queue", "mail", "--to", "slow", "--preview")
    assert (seen.code, seen.out.splitlines()[0]) == (0, "1,100 live jobs match.")
    assert len(seen.out.splitlines()) == 6
    assert await driver.operations.latest(1) == []
    asked = await run(migrated_url, "bulk", "move", "--queue", "mail", "--to", "slow")
    assert (asked.code, "add --yes" in asked.err) == (2, True)
    moved = await run(migrated_url, "bulk", "move", "--queue", "mail", "--to", "slow", "--yes", "--wait")
    assert moved.code == 0
    assert "finished  move to slow: queue mail; 1,100 jobs of 1,100 done" in moved.out
    retried = await run(
        migrated_url, "bulk", "retry", "--error", "ConnectionRefusedError", "--since", "1h", "--yes", "--wait", "--json"
    )
    document = retried.document["operation"]
    assert (document["verb"], document["state"], document["done"], document["by"]) == (
        "retry", "finished", 1, "anna@web1",
    )  # fmt: skip
    refused = await run(migrated_url, "bulk", "cancel", "--group", "0" * 16)
    assert "a group is one of failed jobs" in refused.err
    gone = await run(migrated_url, "bulk", "forget", "--group", "0" * 16, "--preview")
    assert gone.out == "0 failed jobs match.\n"
    none = await run(migrated_url, "bulk", "forget", "--all", "--yes")
    assert (none.code, none.out) == (0, "0 failed jobs match.\n")
    await run(migrated_url, "clear", "slow", "--yes")
    audit = await run(migrated_url, "audit", "--json")
    assert [(entry["by"], entry["action"], entry["count"]) for entry in audit.document["entries"]] == [
        ("anna@web1", "clear", 1_100),
        ("anna@web1", "bulk retry", 1),
        ("anna@web1", "bulk move", 1_100),
    ]
    assert audit.document["entries"][0]["target"] == {"queue": "slow"}
    assert "bulk move" in (await run(migrated_url, "audit", "--limit", "2", "--before", _last(audit.document))).out


async def test_an_entry_tells_what_a_command_was_about(driver: DatabaseDriver, migrated_url: str) -> None:
    await fail(driver, envelope(queue="mail"))
    for arguments in (
        ("pause", "--connection", "database", "--reason", "a bug"),
        ("resume", "--connection", "database"),
        ("pause", "mail", "slow", "--for", "2h"),
        ("resume", "mail"),
        ("retry", "--all"),
    ):
        assert (await run(migrated_url, *arguments)).code == 0
    entries = (await run(migrated_url, "audit", "--json")).document["entries"]
    assert [(entry["action"], entry["target"]) for entry in reversed(entries)] == [
        ("pause", {"connection": "database", "reason": "a bug"}),
        ("resume", {"connection": "database"}),
        ("pause", {"queue": "mail", "for": 7_200.0}),
        ("pause", {"queue": "slow", "for": 7_200.0}),
        ("resume", {"queue": "mail"}),
        ("retry", {"connection": "database"}),
    ]


def _last(document: dict[str, list[dict[str, str]]]) -> str:
    return document["entries"][1]["id"]


async def test_operations_are_listed_shown_and_stopped(driver: DatabaseDriver, migrated_url: str) -> None:
    assert (await run(migrated_url, "operations")).out == "No bulk operations.\n"
    await driver.jobs.insert(envelopes(3, queue="mail"))
    began = await run(migrated_url, "bulk", "cancel", "--queue", "mail", "--yes")
    [made] = await driver.operations.latest(10)
    assert f"`outbox operations show {made.id}`" in began.err
    assert "cancel: queue mail; 0 jobs of 3 done" in (await run(migrated_url, "operations", "list")).out
    assert "waiting" in (await run(migrated_url, "operations", "show", str(made.id))).out
    assert (await run(migrated_url, "operations", "stop", str(made.id))).code == 0
    again = await run(migrated_url, "operations", "stop", str(made.id))
    assert (again.code, "had ended already" in again.out) == (1, True)
    await driver.operations.work_off()
    assert len(await driver.jobs.list_jobs()) == 3
    unknown = await run(migrated_url, "operations", "show", "01890000-0000-7000-8000-000000000000")
    assert (unknown.code, "no bulk operation" in unknown.err) == (1, True)


async def test_jobs_have_to_be_chosen(driver: DatabaseDriver, migrated_url: str) -> None:
    for arguments in (["cancel"], ["retry", "--all", "--queue", "mail"], ["move", "--queue", "mail"], ["empty"]):
        assert (await run(migrated_url, "bulk", *arguments, "--yes")).code == 2
    assert await driver.operations.latest(1) == []
