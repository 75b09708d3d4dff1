"""`outbox jobs`, `show`, and how commands choose jobs: by name, error and age, over all connections, misspelt."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from outbox.console.tracebacks import without_own_frames
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import RunningJob
from outbox.ids import new_job_id
from outbox.relay.route import relay_queue
from outbox.settlement import Failure, Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes
from tests.conformance.test_looking import worker
from tests.support.commands import age_failure, execute, fail, run
from tests.support.many_rows import MOST_READ, fill, keep_statistics, rows_read

HOUR = 3600.0


@pytest.fixture
def few_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end of an id is looked for among three jobs of each place first."""
    monkeypatch.setattr("outbox.drivers.database.operations.inspection.ENDS_LOOKED_AT", 3)


# --- jobs


async def test_jobs_are_listed_with_their_states(driver: DatabaseDriver, migrated_url: str) -> None:
    assert (await run(migrated_url, "jobs")).out == "No jobs.\n"
    await driver.jobs.insert([envelope(queue="mail", payload='{"order": 7}')])
    retried = await claim_one(driver, "mail")
    await driver.jobs.settle([Settlement.retried(retried.fence, 60, FAILURE)])
    await driver.jobs.insert([envelope(queue="slow", delay=HOUR)])
    head, first, second = (await run(migrated_url, "jobs")).out.splitlines()
    assert head.split() == ["ID", "State", "Queue", "Job", "Tries", "Due", "Last", "error", "Payload"]
    for part in (str(retried.fence.job_id), "retrying", "mail", "tests.Job", "ValueError: no such order", "order"):
        assert part in first
    assert "delayed" in second
    document = (await run(migrated_url, "jobs", "--state", "retrying", "--json")).document
    [job] = document["jobs"]
    assert (job["id"], job["state"], job["attempts"]) == (str(retried.fence.job_id), "retrying", 1)
    assert job["last_error"] == "ValueError: no such order"
    assert job["last_error_at"].endswith("Z")
    assert document["next"] is None


async def test_jobs_go_on_where_a_page_ended(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert(envelopes(5, queue="mail"))
    found, place = [], None
    for expected in (2, 2, 1):
        after = () if place is None else ("--after", place)
        document = (await run(migrated_url, "jobs", "--limit", "2", "--json", *after)).document
        assert len(document["jobs"]) == expected
        found += [job["id"] for job in document["jobs"]]
        place = document["next"]
    assert place is None
    assert found == [str(job.id) for job in await driver.jobs.list_jobs()]
    assert "--after database/mail:5:" in (await run(migrated_url, "jobs", "--limit", "2")).err
    refused = await run(migrated_url, "jobs", "--after", "nonsense")
    assert (refused.code, "no place" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobs", "--name", "tests.Jop"), "no job is named tests.Jop: did you mean tests.Job?"),
        (("jobs", "--name", "job"), "no job is named job: did you mean tests.Job?"),
        (("jobs", "--queue", "mial"), "no job is in a queue mial, and no worker drains it: did you mean mail?"),
        (("failed", "--name", "tests.Jop"), "did you mean tests.Job?"),
        (("failed", "--groups", "--name", "tests.Jop"), "did you mean tests.Job?"),
        (("retry", "--name", "tests.Jop"), "did you mean tests.Job?"),
        (("forget", "--name", "tests.Jop", "--yes"), "did you mean tests.Job?"),
        (("flush", "--name", "tests.Jop", "--yes"), "did you mean tests.Job?"),
        (("pause", "mial"), "no job is in a queue mial, and no worker drains it: did you mean mail?"),
    ],
)
async def test_a_name_that_nothing_has_is_said(
    driver: DatabaseDriver, migrated_url: str, arguments: tuple[str, ...], said: str
) -> None:
    await driver.jobs.insert([envelope(queue="mail")])
    ran = await run(migrated_url, *arguments)
    assert ran.code == 0
    assert said in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("jobs", "--name"),
        ("jobs", "--state", "finished", "--name"),
        ("failed", "--name"),
        ("failed", "--groups", "--name"),
        ("retry", "--name"),
        ("bulk", "retry", "--yes", "--name"),
        ("schedule", "pause"),
    ],
)
async def test_a_name_that_is_not_ascii_is_no_traceback(migrated_url: str, arguments: tuple[str, ...]) -> None:
    ran = await run(migrated_url, *arguments, "caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    if migrated_url.startswith("sqlite"):
        assert ran.code in (0, 1)
    else:
        assert (ran.code, "names of jobs and schedules are ASCII" in ran.err) == (1, True)


async def test_an_unknown_queue_is_paused_all_the_same(driver: DatabaseDriver, migrated_url: str) -> None:
    ran = await run(migrated_url, "pause", "later")
    assert (ran.code, ran.out) == (0, "later is paused.\n")
    assert ran.err == "outbox: no job is in a queue later, and no worker drains it\n"
    await driver.workers.heartbeat(worker("known"))
    assert (await run(migrated_url, "pause", "known")).err == ""


# --- show and workers


async def test_the_limits_of_a_job_are_shown_in_words(driver: DatabaseDriver, migrated_url: str) -> None:
    headers = '{"max_exceptions": 3, "counts": {"exceptions": 1}, "expires_after": 60.0, "keep_for": 90.0}'
    job = envelope(queue="mail")._replace(headers=headers)
    await driver.jobs.insert([job])
    shown = (await run(migrated_url, "show", str(job.id))).out
    assert "fails with exception 3; 1 so far" in shown
    assert "failed if no attempt has begun 60 s after its dispatch" in shown
    assert "kept for 90 s after its end" in shown
    told = (await run(migrated_url, "show", str(job.id), "--json")).document["job"]["policies"]
    assert told[0] == "fails with exception 3; 1 so far"


async def test_a_running_job_is_shown_with_its_worker(driver: DatabaseDriver, migrated_url: str) -> None:
    job = envelope(queue="mail", payload='{"order": 7}')._replace(headers='{"max_tries": 7}')
    await driver.jobs.insert([job])
    claim = await claim_one(driver, "mail")
    await driver.workers.heartbeat(
        replace(worker("mail", running=1), name="w1", jobs=(RunningJob(claim.fence.job_id, job.name, "mail", 200.0),))
    )
    shown = (await run(migrated_url, "show", str(job.id))).out
    for part in (str(job.id), "reserved", "w1, process 1 on host, running for 3m 20s", '"order": 7', '"max_tries": 7'):
        assert part in shown
    document = (await run(migrated_url, "show", str(job.id), "--json")).document["job"]
    assert (document["state"], document["worker"]["name"]) == ("reserved", "w1")
    assert 200 <= document["worker"]["running_seconds"] < 260
    listed = (await run(migrated_url, "workers")).out
    assert [line.split()[:4] for line in listed.splitlines()[-1:]] == [[str(job.id), "3m", "20s", "tests.Job"]]
    [row] = (await run(migrated_url, "workers", "--json")).document["workers"]
    assert [(each["id"], each["queue"]) for each in row["jobs"]] == [(str(job.id), "mail")]


async def test_waiting_and_failed_jobs_are_shown(driver: DatabaseDriver, migrated_url: str) -> None:
    [failed] = await fail(driver, envelope(queue="mail"))
    waiting = envelope(delay=HOUR)
    await driver.jobs.insert([waiting])
    ran = await run(migrated_url, "show", str(waiting.id))
    assert "delayed since" in ran.out
    assert "in 59m" in ran.out
    assert "Failed job" in (await run(migrated_url, "show", str(failed.fence.job_id))).out
    document = (await run(migrated_url, "show", failed.fence.job_id.hex[-12:], "--json")).document["job"]
    assert (document["state"], document["id"]) == ("failed", str(failed.fence.job_id))
    missing = str(new_job_id())
    ran = await run(migrated_url, "show", missing)
    assert (ran.code, ran.out, missing in ran.err, ran.err.count("\n")) == (1, "", True, 1)


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_show_by_the_end_of_an_id_reads_25_000_rows_at_most(driver: DatabaseDriver, migrated_url: str) -> None:
    await fill(driver, 60_000)
    await fill(driver, 30_000, table="failed_jobs")
    [failed] = await fail(driver, envelope())
    live = envelope()
    await driver.jobs.insert([live])
    await keep_statistics(driver)
    for job_id in (failed.fence.job_id, live.id):
        with rows_read() as read:
            ran = await run(migrated_url, "show", job_id.hex[-12:])
        assert (ran.code, str(job_id) in ran.out) == (0, True)
        assert 0 < read.total <= MOST_READ


@pytest.mark.usefixtures("few_ends")
async def test_a_job_that_is_not_nearby_is_found_all_the_same(driver: DatabaseDriver, migrated_url: str) -> None:
    jobs = envelopes(9, queue="mail")
    await driver.jobs.insert(jobs)
    middle = sorted(job.id for job in jobs)[4]
    assert await driver.jobs.find(middle.hex[-12:], nearby=True) == []
    assert str(middle) in (await run(migrated_url, "show", middle.hex[-12:])).out
    assert str(middle) in (await run(migrated_url, "show", middle.hex[-8:])).out


# --- failed jobs by what they have in common


async def test_jobs_shows_the_job_of_an_id(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert([job := envelope()])

    async def shown_by(command: str) -> tuple[int, str]:
        """Without ages: the two are read one after the other."""
        ran = await run(migrated_url, command, str(job.id))
        return ran.code, re.sub(r", (now|(\d+[dhms] )+ago)$", "", ran.out, flags=re.MULTILINE)

    assert await shown_by("jobs") == await shown_by("show")
    code, text = await shown_by("show")
    assert (code, "ago" in text, f"Job {job.id}" in text) == (0, False, True)
    assert (await run(migrated_url, "jobs", str(job.id), "--queue", "default")).code == 2
    assert (await run(migrated_url, "jobs", str(new_job_id()))).code == 1


async def test_failed_jobs_are_chosen_by_name_error_and_age(driver: DatabaseDriver, migrated_url: str) -> None:
    late = Failure("app.Late", "took too long", "")
    old, *_ = await fail(driver, envelope(), failure=late)
    await age_failure(driver, old, 2 * HOUR)
    [recent] = await fail(driver, envelope(), failure=late)
    await fail(driver, envelope()._replace(name="app.Report"))

    async def ids(*arguments: str) -> list[str]:
        jobs = (await run(migrated_url, "failed", "--json", *arguments)).document["failed_jobs"]
        return [job["id"] for job in jobs]

    assert len(await ids("--error", "Late")) == 2
    assert await ids("--error", "Late", "--since", "1h") == [str(recent.fence.job_id)]
    assert len(await ids("--name", "app.Report")) == 1
    groups = (await run(migrated_url, "failed", "--groups", "--json")).document["groups"]
    assert [(group["name"], group["exception"], group["count"]) for group in groups] == [
        ("tests.Job", "app.Late", 2),
        ("app.Report", "ConnectionRefusedError", 1),
    ]
    assert groups[0]["first_failed_at"] < groups[0]["last_failed_at"]
    assert "app.Late" in (await run(migrated_url, "failed", "--groups")).out
    assert (await run(migrated_url, "retry", "--error", "Late", "--since", "1h")).out == "Retried 1 failed job.\n"
    ran = await run(migrated_url, "forget", "--error", "Late")
    assert (ran.code, "add --yes" in ran.err) == (2, True)
    assert (await run(migrated_url, "forget", "--error", "Late", "--yes")).out == "Forgot 1 failed job.\n"
    assert (await run(migrated_url, "flush", "--name", "app.Report", "--yes")).out == "Removed 1 failed job.\n"
    assert await driver.failed.page() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("flush", "--hours", "nan", "--yes"),
        ("prune", "--hours", "inf"),
        ("monitor", "--once", "--interval", "nan"),
        ("failed", "--since", "yesterday"),
        ("failed", "--since", "2999-01-01"),
        ("failed", "--since", "nan"),
    ],
)
async def test_what_is_no_time_is_refused(
    driver: DatabaseDriver, migrated_url: str, arguments: tuple[str, ...]
) -> None:
    [claim] = await fail(driver, envelope())
    ran = await run(migrated_url, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert " is not a number" in ran.err or " is not a time like " in ran.err or "is not in the range" in ran.err
    assert await driver.failed.get(claim.fence.job_id) is not None


# --- tracebacks

TRACE = """Traceback (most recent call last):
  File "/srv/venv/lib/python3.11/site-packages/outbox/runtime/execution/executor.py", line 91, in _run
    await call.run()
    ^^^^^^^^^^^^^^^^
  File "/srv/shop/outbox/mail.py", line 7, in handle
    await send()
  File "/srv/shop/jobs.py", line 3, in send
    raise OSError("no route")
OSError: no route
"""


async def test_outboxs_own_frames_are_left_out(driver: DatabaseDriver, migrated_url: str) -> None:
    [claim] = await fail(driver, envelope(), failure=Failure("OSError", "no route", TRACE))
    shown = (await run(migrated_url, "failed", str(claim.fence.job_id))).out
    assert "executor.py" not in shown
    assert "call.run" not in shown
    assert "/srv/shop/outbox/mail.py" in shown, "a package of the application's has the same name"
    assert "1 frame of outbox left out" in shown
    full = (await run(migrated_url, "failed", str(claim.fence.job_id), "--full")).out
    assert TRACE in full


def test_a_traceback_of_nothing_else_stays_whole() -> None:
    own = "".join(TRACE.splitlines(keepends=True)[:4]) + "OSError: no route\n"
    assert without_own_frames(own) == (own, 0)
    assert without_own_frames("nonsense") == ("nonsense", 0)
    grouped = "\n".join(f"  | {line}" for line in TRACE.splitlines())
    kept, hidden = without_own_frames(grouped)
    assert (hidden, "executor.py" in kept, "call.run" in kept, "jobs.py" in kept) == (1, False, False, True)


# --- narrow terminals


async def test_a_terminal_that_says_it_has_no_columns_has_some(
    driver: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await driver.jobs.insert([envelope(queue="mail")])
    expected = (await run(migrated_url, "stats")).out
    monkeypatch.setenv("COLUMNS", "0")
    assert (await run(migrated_url, "stats")).out == expected


@pytest.mark.parametrize("width", [140, 100, 80, 60, 50, 40])
async def test_a_narrow_terminal_loses_whole_columns(
    driver: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    await driver.jobs.insert(envelopes(1_234, queue="notifications"))
    await fail(driver, envelope(queue="mail"))
    await driver.workers.heartbeat(replace(worker("mail,default,low"), name="worker.example.org:4242"))
    wide = {}
    for command in ("stats", "failed", "jobs", "workers", "monitor"):
        arguments = (command, "--limit", "3") if command in {"failed", "jobs"} else (command,)
        lines = (await run(migrated_url, *arguments)).out.splitlines()
        assert all(len(line) <= width for line in lines if not line.startswith("database  ")), (command, lines)
        wide[command] = lines
    head = wide["stats"][0].split()
    assert head[:2] == ["Queue", "Ready"]
    assert ("Delayed" in head) == (width >= 80)
    assert "1,234" in " ".join(wide["stats"])
    assert wide["failed"][0].startswith("ID")
    assert "…" not in wide["failed"][1].split()[0]


# --- all connections


async def test_all_connections_are_looked_at(
    driver: DatabaseDriver, migrated_url: str, redis: RedisDriver, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    await driver.jobs.insert([envelope(queue="mail"), envelope(queue=relay_queue("redis"))])
    await redis.jobs.insert([envelope(queue="mail"), envelope(queue="fast")])
    await redis.workers.heartbeat(worker("fast"))
    rows = (await run(migrated_url, "stats")).out.splitlines()
    assert [line.split()[:2] for line in rows[1:]] == [
        ["database", "on"], ["database", "mail"], ["redis", "fast"], ["redis", "mail"],
    ]  # fmt: skip
    assert "on its way to redis" in rows[1]
    for command in ("stats", "jobs", "monitor", "workers", "failed"):
        assert ">redis" not in (await run(migrated_url, command)).out
    document = (await run(migrated_url, "jobs", "--json")).document
    assert [job["connection"] for job in document["jobs"]] == ["database", "database", "redis", "redis"]
    assert document["connections"] == ["database", "redis"]
    only = (await run(migrated_url, "stats", "--connection", "redis", "--json")).document
    assert only["connection"] == "redis"
    assert [queue["queue"] for queue in only["queues"]] == ["fast", "mail"]
    assert [each["connection"] for each in (await run(migrated_url, "workers", "--json")).document["workers"]] == [
        "redis"
    ]
    place = (await run(migrated_url, "jobs", "--limit", "3", "--json")).document["next"]
    last = (await run(migrated_url, "jobs", "--after", place, "--json")).document
    assert [(job["connection"], job["queue"]) for job in last["jobs"]] == [("redis", "mail")]


async def test_a_connection_that_does_not_answer_hides_no_other(
    driver: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    await driver.jobs.insert([envelope(queue="mail")])
    for command in ("stats", "failed", "monitor", "workers", "jobs"):
        ran = await run(migrated_url, command)
        assert ran.code == 1, command
        assert ran.out
        assert ran.err.count("\n") == 1
        assert ran.err.startswith("outbox: redis is left out: "), ran.err
    assert "mail" in (await run(migrated_url, "stats")).out


async def test_check_names_the_error_that_jobs_wait_after(driver: DatabaseDriver, migrated_url: str) -> None:
    await driver.jobs.insert(envelopes(3))
    claims = await driver.jobs.claim(["default"], 3, 30)
    failures = [FAILURE, FAILURE, Failure("app.Late", "", "")]
    await driver.jobs.settle(
        [Settlement.retried(claim.fence, 60, failure) for claim, failure in zip(claims, failures, strict=True)]
    )
    ran = await run(migrated_url, "check")
    [warning] = [line for line in ran.out.splitlines() if "another attempt" in line]
    assert warning.startswith("warning")
    assert "3 jobs wait for another attempt after a failure" in warning
    assert "most often tests.Job with ValueError (2 of 3 examined)" in warning


# --- rows that somebody else wrote


async def test_unreadable_values_hide_no_other_row(driver: DatabaseDriver, migrated_url: str, backend: str) -> None:
    if backend != "sqlite":
        pytest.skip("only SQLite keeps any value in any column")
    await driver.jobs.insert(envelopes(2))
    await fail(driver, envelope(queue="failing"), envelope(queue="failing"))
    for statement in (
        "UPDATE queue_jobs SET last_error = x'ff', last_error_at = 'never' WHERE rowid = 1",
        "UPDATE queue_failed_jobs SET failed_at = 'never', name = x'ff' WHERE rowid = 1",
        "INSERT INTO queue_workers SELECT x'77777777777777777777777777777777', 'w', 'h', 1, 'q', 1, 0, 0, 0, "
        "available_at, available_at, x'ff', NULL, NULL, NULL, NULL FROM queue_jobs LIMIT 1",
    ):
        await execute(driver, statement)
    assert len((await run(migrated_url, "jobs", "--json")).document["jobs"]) == 2
    assert len((await run(migrated_url, "failed", "--json")).document["failed_jobs"]) == 2
    assert len((await run(migrated_url, "failed", "--groups", "--json")).document["groups"]) == 2
    assert (await run(migrated_url, "workers", "--json")).document["workers"][0]["jobs"] == []
    for command in ("jobs", "failed", "workers", "monitor", "stats"):
        ran = await run(migrated_url, command)
        assert ran.code == 0
        assert ran.out
