"""`outbox stats`, `clear`, `pause`, `resume`, `cancel`, `workers`, `monitor --once`: live jobs and their workers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.jobs.claim import ClaimRequest, ClaimTransaction
from outbox.drivers.values import QueueCounts, WorkerOrder, WorkerStatus
from outbox.errors import InvalidOption
from outbox.ids import new_job_id
from outbox.settlement import Settlement
from tests.conformance.jobs import claim_one, envelope, envelopes
from tests.support.commands import execute, fail, run


@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)], indirect=True)
@pytest.mark.parametrize(
    "command",
    ["clear mail --yes", "pause", "flush --yes", "stats", "check", "prune", "schedule list", "dispatch app.Job"],
)
async def test_a_connection_without_a_name_is_not_the_default(migrated_url: str, command: str) -> None:
    """Such as that of a variable that is not set."""
    ran = await run(migrated_url, *command.split(), "--connection", "")
    assert (ran.code, ran.out) == (2, "")
    assert "Invalid value for '--connection': it is the name of a connection, not ''" in ran.err


# --- stats


async def test_each_job_is_counted_once_in_its_state(driver: DatabaseDriver, migrated_url: str) -> None:
    await fail(driver, envelope(queue="mail"))
    await driver.jobs.insert([*envelopes(3, queue="mail"), envelope(queue="mail", delay=60)])
    await claim_one(driver, "mail")
    await claim_one(driver, "mail", lease=0)  # a lease that has ended: ready again
    await driver.queues.pause("slow")
    document = (await run(migrated_url, "stats", "--json")).document
    mail, slow = document["queues"]
    assert 0 <= mail.pop("oldest_seconds") < 60
    place = {"connection": "database", "on_its_way_to": None}
    assert mail == place | {
        "queue": "mail", "ready": 2, "delayed": 1, "retrying": 0, "reserved": 1, "parked": 0, "failed": 1,
        "paused": False,
    }  # fmt: skip
    assert slow == place | {
        "queue": "slow", "ready": 0, "delayed": 0, "retrying": 0, "reserved": 0, "parked": 0, "failed": 0,
        "oldest_seconds": None, "paused": True,
    }  # fmt: skip


async def test_the_oldest_is_the_first_that_became_ready(driver: DatabaseDriver) -> None:
    await driver.jobs.insert([envelope(), envelope(), envelope(delay=60)])
    first = (await driver.jobs.list_jobs())[0]
    await execute(
        driver,
        "UPDATE queue_jobs SET available_at = :then WHERE id = :id",
        then=driver.database.dialect.timestamp(first.available_at.replace(year=first.available_at.year - 1)),
        id=first.id.bytes,
    )
    [counts] = await driver.queues.counts()
    assert counts.oldest is not None
    assert 364 * 86_400 < counts.oldest < 367 * 86_400


async def test_stats_are_a_table(driver: DatabaseDriver, migrated_url: str) -> None:
    assert (await run(migrated_url, "stats")).out == "No jobs.\n"
    await driver.jobs.insert(envelopes(1_200))
    await driver.queues.pause("default")
    head, row = (await run(migrated_url, "stats")).out.splitlines()
    assert head.split() == ["Queue", "Ready", "Delayed", "Retrying", "Reserved", "Failed", "Oldest", "State"]
    assert row.split()[:5] == ["default", "1,200", "0", "0", "0"]
    assert row.split()[-1] == "paused"


# --- clear


async def test_clear_leaves_jobs_that_a_worker_holds(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert([*envelopes(3), envelope(delay=60), envelope(queue="other")])
    held = await claim_one(driver)
    await claim_one(driver, lease=0)  # nobody holds it any more
    ran = await run(migrated_url, "clear", "default", "--yes")
    assert (ran.code, ran.out) == (0, "Removed 3 jobs from default.\n")
    assert {job.id for job in await driver.jobs.list_jobs("default")} == {held.fence.job_id}
    assert len((await driver.jobs.settle([Settlement.completed(held.fence)])).accepted) == 1
    assert len(await driver.jobs.list_jobs("other")) == 1


async def test_clear_neither_takes_nor_awaits_what_is_being_claimed(driver: DatabaseDriver, backend: str) -> None:
    """A claimer stops in the middle of its transaction, in which it has locked its jobs and not yet marked them: more
    than `clear` looks at in one round."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    await driver.jobs.insert(envelopes(1_120))
    taking = ClaimTransaction(
        driver.database,
        driver.jobs.unconfirmed,
        driver.jobs.claim_scan,
        "database",
        ClaimRequest(["default"], 1_105, 30),
    )
    async with driver.database.engine.connect() as connection:
        claims = await taking.run(connection)
        async with asyncio.timeout(60):
            assert await driver.queues.clear("default") == 15
        await connection.commit()
    left = await driver.jobs.list_jobs(limit=2_000)
    assert {job.id for job in left} == {claim.fence.job_id for claim in claims}
    assert len((await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])).accepted) == 1_105


async def test_clear_passes_over_held_jobs_to_those_behind_them(driver: DatabaseDriver) -> None:
    """Several rounds, with held jobs at every place where one ends, and many jobs of one priority and one moment."""
    await driver.jobs.insert(envelopes(1_500, priority=1))
    held = await driver.jobs.claim(["default"], 1_100, 60)
    await driver.jobs.insert([*envelopes(1_500, priority=0), *envelopes(1_500, priority=9), envelope(queue="other")])
    assert await driver.queues.clear("default") == 3_400
    left = await driver.jobs.list_jobs("default", limit=5_000)
    assert {job.id for job in left} == {claim.fence.job_id for claim in held}
    assert await driver.queues.clear("default") == 0


async def test_nothing_is_cleared_unasked(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert([envelope()])
    ran = await run(migrated_url, "clear", "default")
    assert (ran.code, ran.out) == (2, "")
    assert "add --yes" in ran.err
    assert len(await driver.jobs.list_jobs()) == 1
    ran = await run(migrated_url, "clear", "default", "--force", "--json")
    assert ran.document == {"connection": "database", "queue": "default", "removed": 1}


# --- pause and resume


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert([envelope(queue="mail")])
    ran = await run(migrated_url, "pause", "mail")
    assert (ran.code, ran.out) == (0, "mail is paused.\n")
    assert await driver.jobs.claim(["mail"], 10, 30) == []
    again = await run(migrated_url, "pause", "mail", "slow", "--json")
    assert again.document == {"connection": "database", "paused": ["slow"], "already_paused": ["mail"]}
    assert (await run(migrated_url, "resume", "mail")).out == "mail is resumed.\n"
    assert len(await driver.jobs.claim(["mail"], 10, 30)) == 1
    ran = await run(migrated_url, "resume", "mail", "slow", "--json")
    assert ran.code == 0
    assert ran.document == {"connection": "database", "resumed": ["slow"], "not_paused": ["mail"]}


@pytest.mark.parametrize("arguments", [["pause", "Mail"], ["clear", "Mail", "-y"], ["failed", "--queue", "größe"]])
async def test_a_name_that_no_queue_can_have_is_refused(
    driver: DatabaseDriver, migrated_url: str, arguments: list[str]
) -> None:
    ran = await run(migrated_url, *arguments)
    assert ran.code == 2
    assert "a queue's name is" in ran.err
    with pytest.raises(InvalidOption):
        await driver.queues.pause("Mail")


# --- cancel


async def test_a_cancelled_job_is_gone_and_its_worker_owns_nothing(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert([envelope(queue="mail"), envelope(queue="slow", delay=60)])
    running = await claim_one(driver, "mail")
    [delayed] = await driver.jobs.list_jobs("slow")
    ran = await run(migrated_url, "cancel", str(running.fence.job_id), str(delayed.id)[-12:])
    assert (ran.code, ran.out) == (0, "Cancelled 2 jobs.\n")
    assert await driver.jobs.list_jobs() == []
    assert (await driver.jobs.extend([running.fence], 30)).lost == {running.fence}
    end = Settlement.released(running.fence)
    assert (await driver.jobs.settle([end])).stale == (end,)
    assert await driver.jobs.list_jobs() == []
    assert await driver.failed.page() == []


async def test_cancel_does_not_wait_for_other_jobs(driver: DatabaseDriver, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    await driver.jobs.insert(envelopes(20))
    taking = ClaimTransaction(
        driver.database, driver.jobs.unconfirmed, driver.jobs.claim_scan, "database", ClaimRequest(["default"], 5, 30)
    )
    async with driver.database.engine.connect() as connection:
        busy = {claim.fence.job_id for claim in await taking.run(connection)}
        mine = [job.id for job in await driver.jobs.list_jobs() if job.id not in busy]
        async with asyncio.timeout(60):
            assert await driver.jobs.cancel(mine) == mine
        await connection.commit()
    assert {job.id for job in await driver.jobs.list_jobs()} == busy


async def test_cancel_says_what_is_no_live_job(driver: DatabaseDriver, migrated_url: str) -> None:
    live, gone = envelope(), new_job_id()
    [failed] = await fail(driver, envelope())
    await driver.jobs.insert([live])
    ran = await run(migrated_url, "cancel", str(live.id), str(gone), failed.fence.job_id.hex[-12:], "--json")
    assert ran.code == 1
    assert ran.document == {
        "connection": "database",
        "cancelled": 1,
        "job_ids": [str(live.id)],
        "missing": [failed.fence.job_id.hex[-12:], str(gone)],
    }
    assert len(await driver.failed.page()) == 1


# --- reschedule and change


async def test_waiting_jobs_are_changed_and_those_that_run_are_named(driver: DatabaseDriver, migrated_url: str) -> None:
    delayed, gone = envelope(delay=3_600), new_job_id()
    await driver.jobs.insert([envelope(), delayed])
    held = await claim_one(driver)
    ran = await run(migrated_url, "reschedule", str(delayed.id), "--delay", "0")
    assert (ran.code, ran.out) == (0, "Rescheduled 1 job.\n")
    ran = await run(migrated_url, "reschedule", str(delayed.id), "--at", "2031-01-31T12:00+01:00")
    job = await driver.jobs.get(delayed.id)
    assert job is not None
    assert f"{job.available_at:%Y-%m-%dT%H:%M}" == "2031-01-31T11:00"
    ids = [str(job_id) for job_id in (held.fence.job_id, delayed.id, gone)]
    ran = await run(migrated_url, "change", *ids, "--queue", "mail", "--priority", "0", "--json")
    assert ran.code == 1
    document = ran.document
    assert "runs" in document.pop("refused")[ids[0]]
    assert document == {"connection": "database", "changed": 1, "job_ids": ids[1:2], "missing": ids[2:]}
    [changed] = await driver.jobs.list_jobs("mail")
    assert (changed.id, changed.priority) == (delayed.id, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("reschedule", "0" * 32), "--at or --delay"),
        (("reschedule", "0" * 32, "--at", "2031-01-31", "--delay", "5m"), "one of the two"),
        (("reschedule", "0" * 32, "--at", "soon"), "is not a time"),
        (("reschedule", "0" * 32, "--at", "2999-01-01"), "ten years"),
        (("change", "0" * 32), "--queue, --priority"),
        (("change", "0" * 32, "--priority", "10"), "0<=x<=9"),
    ],
)
async def test_changes_that_make_no_sense_are_refused(arguments: tuple[str, ...], said: str) -> None:
    ran = await run("sqlite://", *arguments)
    assert ran.code == 2
    assert said in ran.err


# --- workers and monitor


async def test_workers_are_asked_to_be_quiet_and_to_stop(driver: DatabaseDriver, migrated_url: str) -> None:
    ids = [bytes([number]) * 16 for number in (7, 8)]
    statuses = [
        WorkerStatus(each, "mail@web1", "web1", 42, "mail", 20, 0, 0, 0, memory=64 * 1024**2, version="0.9.1")
        for each in ids
    ]
    for status in statuses:
        assert await driver.workers.heartbeat(status) is None
    several = await run(migrated_url, "workers", "quiet", "mail@web1")
    assert several.code == 2
    assert ids[1].hex() in several.err
    ran = await run(migrated_url, "workers", "quiet", ids[0].hex()[:8], "none@web1")
    assert (ran.code, ran.out) == (1, "mail@web1 will claim nothing until `outbox workers resume`.\n")
    assert "there is no worker none@web1" in ran.err
    shown = (await run(migrated_url, "workers")).out
    for each in ("asked to be quiet", "64 MiB", "0.9.1"):
        assert each in shown
    assert await driver.workers.heartbeat(statuses[0]) is WorkerOrder.QUIET
    assert await driver.workers.heartbeat(replace(statuses[0], state="quiet")) is None, "it is told once"
    first, second = (await run(migrated_url, "workers", "--json")).document["workers"]
    assert (first["state"], first["ordered"], second["ordered"]) == ("quiet", None, None)
    assert (await run(migrated_url, "workers", "resume", ids[0].hex())).code == 0
    stopped = await run(migrated_url, "workers", "stop", ids[0].hex(), "--json")
    assert stopped.document["workers"] == [ids[0].hex()]
    assert await driver.workers.heartbeat(statuses[0]) is WorkerOrder.STOP, "the last order counts"
    assert "after `quiet`" in (await run(migrated_url, "workers", "--json", "quiet", "mail@web1")).err


async def test_workers_are_listed_and_the_silent_are_marked(driver: DatabaseDriver, migrated_url: str) -> None:
    assert (await run(migrated_url, "workers")).out == "No workers.\n"
    for number, name in enumerate(["mail@web1", "gone@web2"]):
        status = WorkerStatus(bytes([number]) * 16, name, "web", 4242, "mail,default", 20, 3, 1_234, 5)
        await driver.workers.heartbeat(status)
    await execute(driver, "UPDATE queue_workers SET seen_at = '2020-01-01 00:00:00.000000' WHERE name = 'gone@web2'")
    head, alive, gone = (await run(migrated_url, "workers")).out.splitlines()
    assert head.split()[:4] == ["Worker", "Host", "PID", "Queues"]
    assert alive.split()[:7] == ["mail@web1", "web", "4242", "mail,default", "3/20", "1,234", "5"]
    assert not alive.rstrip().endswith("silent")
    assert gone.rstrip().endswith("silent")
    document = (await run(migrated_url, "workers", "--json")).document
    worker = document["workers"][0]
    assert (worker["queues"], worker["processed"], worker["running"]) == (["mail", "default"], 1_234, 3)
    assert worker["started_at"].endswith("Z")
    assert worker["seen_seconds"] < 60


async def test_monitor_exits_1_when_a_queue_is_too_long(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert([*envelopes(3, queue="mail"), envelope(queue="slow", delay=60)])
    assert (await run(migrated_url, "monitor", "--once", "--max", "3")).code == 0
    ran = await run(migrated_url, "monitor", "--once", "--max", "2")
    assert ran.code == 1
    [row] = [line for line in ran.out.splitlines() if line.startswith("mail")]
    assert row.rstrip().endswith("long")
    ran = await run(migrated_url, "monitor", "--max", "2", "--json")
    assert ran.code == 1
    assert (ran.document["max"], ran.document["longer_than_max"]) == (2, ["mail"])
    assert ran.document["per_second"] is None
    assert (await run(migrated_url, "monitor", "slow", "none", "--max", "0", "--json")).code == 0


async def test_monitor_shows_the_queues_that_were_asked_for(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert([envelope(queue="mail"), envelope(queue="slow")])
    document = (await run(migrated_url, "monitor", "mail", "none", "--json")).document
    assert [(queue["queue"], queue["ready"]) for queue in document["queues"]] == [("mail", 1), ("none", 0)]
    assert document["workers"] == []
    assert "slow" not in (await run(migrated_url, "monitor", "mail")).out


async def test_counts_of_an_empty_store_are_none(driver: DatabaseDriver) -> None:
    assert await driver.queues.counts() == []
    await driver.queues.pause("mail")
    assert await driver.queues.counts() == [QueueCounts("mail", 0, 0, 0, 0, None, paused=True)]
