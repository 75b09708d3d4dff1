"""`outbox failed`, `retry`, `forget`, `flush`, `prune`: what they do, what they print, and exit codes."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import WorkerStatus
from outbox.envelope import Envelope
from outbox.ids import new_job_id
from outbox.settlement import Failure
from tests.conformance.jobs import envelope
from tests.support.commands import age_failure, break_payload, execute, fail, run

HOUR = 3600.0


def named(job: Envelope, job_id: str) -> Envelope:
    return job._replace(id=UUID(job_id))


# --- failed


async def test_failed_jobs_are_listed_with_what_is_needed_to_choose_one(
    driver: DatabaseDriver, migrated_url: str
) -> None:
    [claim] = await fail(driver, envelope(queue="mail", payload='{"order_id": 7}'))
    ran = await run(migrated_url, "failed")
    assert ran.code == 0
    [head, row] = ran.out.splitlines()
    assert head.split() == ["ID", "Failed", "Tries", "Queue", "Job", "Error", "Payload"]
    for part in (str(claim.fence.job_id)[-12:], "ago", "mail", "tests.Job", "ConnectionRefusedError", "order_id"):
        assert part in row
    assert "\x1b" not in ran.out, "there are colours where there is no terminal"


async def test_failed_jobs_as_json(driver: DatabaseDriver, migrated_url: str) -> None:
    [claim] = await fail(driver, envelope(queue="mail", priority=2, payload='{"order_id":7}'))
    document = (await run(migrated_url, "failed", "--json")).document
    [job] = document["failed_jobs"]
    assert document["connection"] == "database"
    assert (job["id"], job["queue"], job["priority"], job["attempts"]) == (str(claim.fence.job_id), "mail", 2, 1)
    assert job["exception"]["type"] == "ConnectionRefusedError"
    assert set(job["exception"]) == {"type", "message", "traceback"}
    failed_at = datetime.fromisoformat(job["failed_at"])
    assert abs((failed_at - await driver.now()).total_seconds()) < 60
    assert job["failed_at"].endswith("Z")
    assert (await run(migrated_url, "failed", str(claim.fence.job_id), "--json")).document["failed_job"] == job


async def test_failed_can_be_limited_to_a_queue_and_to_the_latest(driver: DatabaseDriver, migrated_url: str) -> None:
    older, *_ = await fail(driver, envelope(queue="mail"))
    await age_failure(driver, older, HOUR)
    [latest] = await fail(driver, envelope(queue="mail"))
    await fail(driver, envelope(queue="slow"))
    ran = await run(migrated_url, "failed", "--queue", "mail", "--limit", "1", "--json")
    assert [job["id"] for job in ran.document["failed_jobs"]] == [str(latest.fence.job_id)]
    ran = await run(migrated_url, "failed", "--limit", "1")
    assert "3 failed jobs in all" in ran.err
    assert (await run(migrated_url, "failed", "--queue", "none")).out == "No failed jobs in none.\n"


async def test_one_failed_job_is_shown_whole(driver: DatabaseDriver, migrated_url: str) -> None:
    text = "long " * 500
    trace = 'Traceback (most recent call last):\n  File "mail.py", line 7, in handle\nOSError: no route\n'
    [claim] = await fail(
        driver,
        envelope(payload=f'{{"text": "{text}"}}')._replace(headers='{"max_tries": 7}'),
        failure=Failure("OSError", "no route", trace),
    )
    job_id = str(claim.fence.job_id)
    shown = (await run(migrated_url, "failed", job_id)).out
    for part in (job_id, trace, text, '"max_tries": 7', "OSError: no route", "UTC, "):
        assert part in shown
    assert (await run(migrated_url, "failed", job_id[-12:])).out.splitlines()[0] == shown.splitlines()[0]


async def test_a_poisonous_payload_is_shown_and_cannot_command_the_terminal(
    driver: DatabaseDriver, migrated_url: str
) -> None:
    poison = '{"a": "\x1b[31m\x07 \0 [bold]\N{PILE OF POO}\N{RIGHT-TO-LEFT OVERRIDE}'
    [claim] = await fail(driver, envelope(), failure=Failure("Bad\x1b]0;", "[red]no\nsuch\x9b", "\x1b[2J"))
    await break_payload(driver, claim, poison)
    for arguments in ([], [str(claim.fence.job_id)]):
        shown = (await run(migrated_url, "failed", *arguments)).out
        assert not set(shown) & set("\x1b\x07\0\x9b\N{RIGHT-TO-LEFT OVERRIDE}")
        assert r"\x1b[31m" in shown
        assert "[bold]\N{PILE OF POO}" in shown
        assert "[red]no" in shown
    [job] = (await run(migrated_url, "failed", "--json")).document["failed_jobs"]
    assert job["payload"] == poison


async def test_a_job_that_has_not_failed_is_not_found(driver: DatabaseDriver, migrated_url: str) -> None:
    job = envelope()
    await driver.jobs.insert([job])
    ran = await run(migrated_url, "failed", str(job.id))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"outbox: no failed job {job.id}: `outbox failed` lists failed jobs\n"


# --- retry


async def test_jobs_are_retried_by_id(driver: DatabaseDriver, migrated_url: str) -> None:
    one, two = await fail(driver, envelope(1), envelope(2))
    ran = await run(migrated_url, "retry", str(one.fence.job_id), two.fence.job_id.hex[-8:].upper())
    assert (ran.code, ran.out) == (0, "Retried 2 failed jobs.\n")
    assert {job.id for job in await driver.jobs.list_jobs()} == {one.fence.job_id, two.fence.job_id}


async def test_retry_does_what_it_can_and_says_what_is_missing(driver: DatabaseDriver, migrated_url: str) -> None:
    [claim] = await fail(driver, envelope())
    gone = str(new_job_id())
    ran = await run(migrated_url, "retry", gone, "ffffffffffff", str(claim.fence.job_id), "--json")
    assert ran.code == 1
    assert ran.document == {
        "connection": "database",
        "retried": 1,
        "job_ids": [str(claim.fence.job_id)],
        "missing": ["ffffffffffff", gone],
        "skipped": [],
    }
    assert gone in ran.err


async def test_what_may_mean_several_jobs_is_refused_with_their_ids(driver: DatabaseDriver, migrated_url: str) -> None:
    ids = ["01a20be1-066d-77db-9804-09370cf7aa54", "01a20be1-066d-77db-9804-0937ffffffff"]
    await fail(driver, *(named(envelope(), job_id) for job_id in ids))
    ran = await run(migrated_url, "retry", "01a20be1-066d", ids[0])
    assert ran.code == 2
    for job_id in ids:
        assert job_id in ran.err
    assert len(await driver.failed.page()) == 2, "something was retried all the same"


@pytest.mark.parametrize("typed", ["0937ff", "not-an-id", "01a20be1066d77db98040937ffffffff0"])
async def test_what_is_no_id_is_refused(driver: DatabaseDriver, migrated_url: str, typed: str) -> None:
    ran = await run(migrated_url, "retry", typed)
    assert ran.code == 2
    assert "is not a job's id" in ran.err


async def test_all_of_a_queue_are_retried(driver: DatabaseDriver, migrated_url: str) -> None:
    await fail(driver, envelope(queue="mail"), envelope(queue="slow"))
    assert (await run(migrated_url, "retry", "--queue", "mail")).out == "Retried 1 failed job.\n"
    assert (await run(migrated_url, "retry", "--all", "--json")).document["retried"] == 1
    assert await driver.failed.page() == []


async def test_broken_payloads_are_skipped_and_named(driver: DatabaseDriver, migrated_url: str) -> None:
    good, bad = await fail(driver, envelope(1), envelope(2))
    await break_payload(driver, bad, "{")
    refused = await run(migrated_url, "retry", str(good.fence.job_id), str(bad.fence.job_id))
    assert refused.code == 1
    assert str(bad.fence.job_id) in refused.err
    assert refused.err.count("\n") == 1
    assert len(await driver.failed.page()) == 2
    ran = await run(migrated_url, "retry", "--all")
    assert (ran.code, ran.out) == (0, "Retried 1 failed job.\n")
    assert ran.err.startswith("Skipped 1 ")
    assert str(bad.fence.job_id) in ran.err
    skipped = (await run(migrated_url, "retry", "--all", "--json")).document
    assert (skipped["retried"], skipped["skipped"]) == (0, [str(bad.fence.job_id)])


@pytest.mark.parametrize("arguments", [[], ["--all", "0123456789ab"], ["--queue", "mail", "0123456789ab"]])
async def test_retry_wants_to_know_which(driver: DatabaseDriver, migrated_url: str, arguments: list[str]) -> None:
    ran = await run(migrated_url, "retry", *arguments)
    assert ran.code == 2
    assert "--all" in ran.err


# --- forget, flush, prune


async def test_jobs_are_forgotten_by_id(driver: DatabaseDriver, migrated_url: str) -> None:
    one, two = await fail(driver, envelope(1), envelope(2))
    ran = await run(migrated_url, "forget", str(one.fence.job_id))
    assert (ran.code, ran.out) == (0, "Forgot 1 failed job.\n")
    ran = await run(migrated_url, "forget", str(one.fence.job_id), "--json")
    assert ran.code == 1
    expected = {"connection": "database", "forgotten": 0, "job_ids": [], "missing": [str(one.fence.job_id)]}
    assert ran.document == expected
    assert [job.id for job in await driver.failed.page()] == [two.fence.job_id]


@pytest.mark.parametrize("arguments", [["flush"], ["flush", "--queue", "mail", "--json"]])
async def test_nothing_is_flushed_unasked(driver: DatabaseDriver, migrated_url: str, arguments: list[str]) -> None:
    await fail(driver, envelope(queue="mail"))
    ran = await run(migrated_url, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "add --yes" in ran.err
    assert len(await driver.failed.page()) == 1


@pytest.mark.parametrize("yes", ["--yes", "-y", "--force"])
async def test_flush_takes_what_is_older_than_so_many_hours(
    driver: DatabaseDriver, migrated_url: str, yes: str
) -> None:
    older, younger = await fail(driver, envelope(1), envelope(2))
    await age_failure(driver, older, 1.5 * HOUR + 5)
    await age_failure(driver, younger, 1.5 * HOUR - 60)
    ran = await run(migrated_url, "flush", "--hours", "1.5", yes)
    assert (ran.code, ran.out) == (0, "Removed 1 failed job.\n")
    assert [job.id for job in await driver.failed.page()] == [younger.fence.job_id]
    assert (await run(migrated_url, "flush", "--queue", "none", yes, "--json")).document["removed"] == 0
    assert (await run(migrated_url, "flush", yes, "--json")).document == {"connection": "database", "removed": 1}


async def test_prune_takes_what_is_older_than_a_day_and_workers_that_are_gone(
    driver: DatabaseDriver, migrated_url: str
) -> None:
    older, younger = await fail(driver, envelope(1), envelope(2))
    await age_failure(driver, older, 24 * HOUR + 5)
    await age_failure(driver, younger, 24 * HOUR - 60)
    for number, name in enumerate(["gone", "alive"]):
        await driver.workers.heartbeat(WorkerStatus(bytes([number]) * 16, name, "host", 1, "default", 20, 0, 0, 0))
    await execute(driver, "UPDATE queue_workers SET seen_at = '2020-01-01 00:00:00.000000' WHERE name = 'gone'")
    ran = await run(migrated_url, "prune", "--json")
    removed = {"failed_jobs": 1, "workers": 1, "messages": 0, "finished_jobs": 0, "audit_entries": 0}
    assert ran.document == {"connection": "database"} | removed
    assert [job.id for job in await driver.failed.page()] == [younger.fence.job_id]
    assert [worker.name for worker in await driver.workers.all()] == ["alive"]
    assert (await run(migrated_url, "prune", "--hours", "0")).out == "Removed 1 failed job and 0 silent workers.\n"
    assert [worker.name for worker in await driver.workers.all()] == ["alive"], "a worker that lives was forgotten"
