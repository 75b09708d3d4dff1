"""`outbox pause` and `outbox resume`, and where pauses are shown."""

from __future__ import annotations

import pytest

from outbox.drivers.database import DatabaseDriver
from tests.conformance.jobs import envelope, envelopes
from tests.support.commands import run

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def test_a_class_is_paused_with_a_reason_and_an_end(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert(envelopes(2))
    paused = await run(migrated_url, "pause", "--job", "tests.Job", "--reason", "a bug", "--for", "1h")
    assert (paused.code, paused.err) == (0, "")
    assert paused.out.startswith("tests.Job is paused: a bug, until 20")
    again = await run(migrated_url, "pause", "--job", "tests.Job")
    assert again.out.startswith("tests.Job was paused already: a bug, until 20")
    assert await driver.jobs.claim(["default"], 10, 30) == []
    shown = "paused: the job tests.Job: a bug, until 20"
    [stored, _] = await driver.jobs.list_jobs()
    for command in (["stats"], ["monitor", "--once"], ["show", str(stored.id)]):
        ran = await run(migrated_url, *command)
        assert shown in " ".join(ran.out.split()), command
    jobs = (await run(migrated_url, "jobs", "--json")).document["jobs"]
    assert all(job["parked"].startswith(shown) for job in jobs)
    [pause] = (await run(migrated_url, "stats", "--json")).document["pauses"]
    assert (pause["kind"], pause["name"], pause["reason"]) == ("job", "tests.Job", "a bug")
    checked = (await run(migrated_url, "check", "--json")).document["findings"]
    [finding] = [each for each in checked if "is paused" in each["message"]]
    assert finding["level"] == "warning"
    assert finding["advice"] == "`outbox resume --job tests.Job --connection database` lets workers go on"
    assert (await run(migrated_url, "resume", "--job", "tests.Job")).out == "tests.Job is resumed.\n"
    assert (await run(migrated_url, "resume", "--job", "tests.Job")).out == "tests.Job was not paused.\n"
    assert len(await driver.jobs.claim(["default"], 10, 30)) == 2


async def test_a_queue_says_why_it_is_paused(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert([envelope(queue="mail")])
    ran = await run(migrated_url, "pause", "mail", "--reason", "the provider is down", "--json")
    assert ran.document == {
        "connection": "database",
        "paused": ["mail"],
        "already_paused": [],
        "reason": "the provider is down",
        "until": None,
    }
    checked = (await run(migrated_url, "check", "--json")).document["findings"]
    [finding] = [each for each in checked if "is paused" in each["message"]]
    assert finding["message"] == "the queue mail is paused with 1 ready: the provider is down"
    assert "paused: the queue mail: the provider is down" in (await run(migrated_url, "stats")).out


async def test_a_connection_is_paused_as_a_whole(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert([envelope()])
    assert (await run(migrated_url, "pause", "--connection", "database")).out == "database is paused.\n"
    assert await driver.jobs.claim(["default"], 1, 30) == []
    checked = (await run(migrated_url, "check", "--json")).document["findings"]
    [finding] = [each for each in checked if "is paused" in each["message"]]
    assert finding["message"] == "the connection database is paused"
    assert (await run(migrated_url, "resume", "--connection", "database")).out == "database is resumed.\n"


async def test_unknown_names_are_said_and_paused_all_the_same(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert([envelope()])
    job = await run(migrated_url, "pause", "--job", "app.Job")
    assert (job.code, job.out) == (0, "app.Job is paused.\n")
    assert "no job is named app.Job" in job.err
    key = await run(migrated_url, "pause", "--key", "tenant:7")
    assert (key.code, key.out) == (0, "tenant:7 is paused.\n")
    assert "no job has the key tenant:7 now" in key.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give QUEUE, --job NAME or --key KEY"),
        (("mail", "--job", "app.Job"), "give QUEUE, --job NAME or --key KEY"),
        (("mail", "--for", "soon"), "is not a time like 90s, 30m, 2h or 3d"),
        (("mail", "--reason", ""), "1 to 255 characters"),
    ],
)
async def test_what_is_wrong_is_a_usage_error(migrated_url: str, arguments: tuple[str, ...], message: str) -> None:
    ran = await run(migrated_url, "pause", *arguments)
    assert ran.code == 2
    assert message in ran.err
