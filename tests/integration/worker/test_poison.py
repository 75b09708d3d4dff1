"""Failing jobs: rows that are no jobs, and handlers that do their worst.

Whatever it is, the healthy jobs beside it complete, the worker goes on, and the row is kept: with a clear reason, its
payload as it was, and to be retried once the class is fixed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from outbox import Job, dispatch_many
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import FailedJob
from outbox.envelope import DEFAULT_PAYLOAD_LIMIT, Envelope, Headers, serialize
from outbox.ids import JobId, new_job_id
from outbox.options import JobOptions
from outbox.settlement import Settlement
from tests.conformance.jobs import claim_one
from tests.servers.sql import connection
from tests.support import failing_jobs
from tests.support.commands import run
from tests.support.orders import async_engine
from tests.support.recorded_jobs import Counted, InThread
from tests.support.worker_processes import WorkerProcess, Workers, numbers

HEALTHY = 12
FAST = ("--stop-when-empty", "--sleep", "0.05", "--backoff", "0")
JOBS = "tests.support.recorded_jobs,tests.support.failing_jobs"
SHORT_TIMEOUTS = f"{JOBS},tests.support.short_timeouts"
FIXED = "tests.support.recorded_jobs,tests.support.fixed_jobs"


@pytest.fixture
async def workers(migrated_url: str, tmp_path: Path) -> AsyncIterator[Workers]:
    workers = Workers(migrated_url, tmp_path, JOBS)
    yield workers
    await workers.close()


async def put_healthy(driver: DatabaseDriver, **options: float) -> None:
    """Some in the loop, some in threads."""
    kinds = (Counted, InThread)
    jobs = [kinds[number % 2](number=number, seconds=0.01) for number in range(HEALTHY)]
    await driver.jobs.insert([serialize(job, JobOptions.checked(**options)) for job in jobs])  # type: ignore[arg-type]


def assert_healthy(workers: Workers) -> None:
    assert numbers(workers.oracle.runs("end")) == list(range(HEALTHY))


async def drain(workers: Workers, *flags: str) -> WorkerProcess:
    """A worker works off everything, and nothing but its log comes out of it."""
    worker = await workers.start(*FAST, *flags)
    assert await worker.exit_code() == 0
    assert worker.other == []
    assert worker.of("lease_lost") == []
    assert len(worker.of("worker_started")) == 1
    return worker


async def failed(driver: DatabaseDriver) -> dict[JobId, FailedJob]:
    return {job.id: job for job in await driver.failed.page(limit=1_000)}


async def mend_and_retry(driver: DatabaseDriver, workers: Workers, url: str) -> None:
    """A deploy, `outbox retry --all`, and each of them succeeds."""
    ids = set(await failed(driver))
    retried = await run(url, "retry", "--all")
    assert (retried.code, retried.out) == (0, f"Retried {len(ids)} failed jobs.\n")
    workers.modules = FIXED
    await drain(workers)
    assert {run.id for run in workers.oracle.runs("fixed")} == {str(job_id) for job_id in ids}
    assert {run.attempt for run in workers.oracle.runs("fixed")} == {1}
    assert await failed(driver) == {}
    assert await driver.jobs.list_jobs() == []


# --- rows that nobody can run


@dataclass(frozen=True)
class Row:
    """Written past outbox, by another tool or by an earlier release, and what its failure has to say."""

    payload: str | bytes
    says: str
    name: str = "failing.Renumbered"
    headers: str = "{}"
    attempts: int = 0
    type: str = "outbox.errors.InvalidPayload"
    retry: str = "succeeds"
    """What becomes of it when it is retried after the deploy."""
    only: tuple[str, ...] = ("sqlite", "mysql", "mariadb")
    """Where the columns let it in."""


def unknown(name: str, payload: str, retry: str = "fails again") -> Row:
    return Row(payload, f"no job class is registered as {name!r}", name, type="outbox.errors.UnknownJob", retry=retry)


def no_object(payload: str) -> Row:
    return Row(payload, "does not validate", retry="fails again")


def broken(payload: str | bytes, says: str = "Invalid JSON", headers: str = "{}") -> Row:
    """MySQL's JSON type holds nothing but JSON; MariaDB's can be told to."""
    return Row(payload, says, headers=headers, retry="is refused", only=("sqlite", "mariadb"))


def bad_headers(headers: str, says: str = "headers cannot be read") -> Row:
    return Row(GOOD, says, headers=headers, retry="fails again")


GOOD = '{"order": 7, "strict": true}'
DEEP = 100_000
ROWS = [
    unknown("failing.Gone", '{"order": 7, "note": "kept"}', retry="succeeds"),
    unknown("os.system", '{"command": "touch run"}'),
    unknown("tests.support.failing_jobs.Doom", "{}"),
    unknown("", "{}"),
    Row('{"order": "7a", "strict": true}', "the field 'order' does not validate"),
    Row('{"strict": true}', "the field 'order' does not validate: Field required"),
    Row('{"order": null, "strict": "?"}', "(and 1 more)"),
    no_object("[1, 2]"),
    no_object("null"),
    no_object('"text"'),
    no_object("[" * 30 + "]" * 30),
    broken('{"order": 7, "str'),
    broken('{"order": \0 "\N{PILE OF POO}"'),
    broken(""),
    broken("[" * DEEP, "recursion limit exceeded"),
    # SQLite thinks that this is JSON.
    Row(b'{"order": "\xff\xfe"}', "does not validate", retry="fails again", only=("sqlite",)),
    bad_headers("null"),
    bad_headers("[]"),
    bad_headers('{"max_tries": 0}', "max_tries is a whole number from 1 to 65535"),
    bad_headers('{"timeout": "soon"}', "a timeout is a number of seconds"),
    bad_headers('{"backoff": {}}', "KeyError"),
    broken(GOOD, "headers cannot be read", headers="{"),
    broken(GOOD, "headers cannot be read", headers="[" * DEEP),
    Row(GOOD, "lease ended", attempts=65_535, type="outbox.errors.AttemptsExhausted"),
    *(
        Row(json.dumps({"error": error}), says, "failing.Picky")
        for error, says in {
            "SystemExit": "raised SystemExit, which is not a validation error: 3",
            "KeyboardInterrupt": "raised KeyboardInterrupt",
            "GeneratorExit": "raised GeneratorExit",
            "CancelledError": "raised CancelledError",
            "Doom": "raised Doom, which is not a validation error: of the process",
            "StopIteration": "raised StopIteration",
            "MemoryError": "raised MemoryError",
            "Unprintable": "raised Unprintable, which is not a validation error: <Unprintable",
            "UnprintableForGood": "raised UnprintableForGood",
            "surrogate": "raised UnicodeEncodeError",
            "NUL": "the field 'error' does not validate: Value error, a NUL: \0.",
            "huge": "the field 'error' does not validate",
            "group": "raised BaseExceptionGroup",
        }.items()
    ),
]


def put_row(url: str, backend: str, row: Row) -> JobId:
    job_id = new_job_id()
    now = "CURRENT_TIMESTAMP" if backend == "sqlite" else "UTC_TIMESTAMP(6)"
    payload = "CAST(:payload AS TEXT)" if backend == "sqlite" else ":payload"
    insert = text(
        "INSERT INTO queue_jobs (id, queue, name, priority, payload, headers, attempts, available_at, created_at) "
        f"VALUES (:id, 'default', :name, 5, {payload}, :headers, :attempts, {now}, {now})"
    )
    values = {"name": row.name, "payload": row.payload, "headers": row.headers, "attempts": row.attempts}
    with connection(url) as database:
        if backend == "mariadb":
            database.execute(text("SET SESSION check_constraint_checks = 0"))
        database.execute(insert, {"id": job_id.bytes, **values})
    return job_id


def same(kept: str, written: str | bytes) -> bool:
    """Byte for byte, except that MySQL writes JSON in its own way."""
    if kept.encode("utf-8", "surrogateescape") == (written if isinstance(written, bytes) else written.encode()):
        return True
    return bool(json.loads(kept) == json.loads(written))


async def test_rows_that_nobody_can_run(
    workers: Workers, driver: DatabaseDriver, migrated_url: str, backend: str, tmp_path: Path
) -> None:
    rows = {put_row(migrated_url, backend, row): row for row in ROWS if backend in row.only}
    await put_healthy(driver)
    worker = await drain(workers)
    assert_healthy(workers)
    assert worker.of("log") == []
    kept = await failed(driver)
    assert set(kept) == set(rows)
    for job_id, row in rows.items():
        job = kept[job_id]
        assert (job.name, job.failure.type) == (row.name, row.type)
        assert row.says in job.failure.message
        assert same(job.payload, row.payload)
        assert same(job.headers, row.headers)
        # Nothing was tried: the class, or the worker, was wrong, and trying again would not have helped.
        assert job.attempts == min(row.attempts + 1, 65_535)
    assert not (tmp_path / "run").exists()
    listed = await run(migrated_url, "failed", "--limit", "100")
    assert (listed.code, len(listed.out.splitlines())) == (0, len(rows) + 1)

    # After a deploy, those whose class is fixed succeed. The others say again what is wrong.
    refused = {job_id for job_id, row in rows.items() if row.retry == "is refused"}
    again = {job_id for job_id, row in rows.items() if row.retry == "fails again"}
    retried = await run(migrated_url, "retry", "--all")
    assert (retried.code, retried.out) == (0, f"Retried {len(set(rows) - refused)} failed jobs.\n")
    for job_id in refused:
        assert str(job_id) in retried.err
        by_id = await run(migrated_url, "retry", str(job_id))
        assert by_id.code == 1
        assert "not JSON" in by_id.err
    workers.modules = FIXED
    await drain(workers)
    left = await failed(driver)
    assert set(left) == refused | again
    assert {run.id for run in workers.oracle.runs("fixed")} == {str(job_id) for job_id in set(rows) - set(left)}
    assert all(same(job.payload, rows[job_id].payload) for job_id, job in left.items())
    assert await driver.jobs.list_jobs() == []


async def test_a_row_that_is_not_json_can_be_held_and_put_back(
    driver: DatabaseDriver, migrated_url: str, backend: str
) -> None:
    row = broken('{"order": 7, "str')
    if backend not in row.only:
        row = no_object("[]")
    put_row(migrated_url, backend, row)
    claim = await claim_one(driver)
    assert (await driver.jobs.extend([claim.fence], 30)).kept == {claim.fence}
    assert len((await driver.jobs.settle([Settlement.snoozed(claim.fence)])).accepted) == 1
    assert (await claim_one(driver)).payload == row.payload


# --- handlers that raise


RAISED = {
    "SystemExit": ("SystemExit", "3"),
    "KeyboardInterrupt": ("KeyboardInterrupt", ""),
    "GeneratorExit": ("GeneratorExit", ""),
    "CancelledError": ("asyncio.exceptions.CancelledError", ""),
    "Doom": ("tests.support.failing_jobs.Doom", "of the process"),
    "StopIteration": ("RuntimeError", "coroutine raised StopIteration"),
    "StopAsyncIteration": ("StopAsyncIteration", ""),
    "TimeoutError": ("TimeoutError", ""),
    "MemoryError": ("MemoryError", ""),
    "Unprintable": (
        "tests.support.failing_jobs.Unprintable",
        "<Unprintable whose message cannot be shown: RuntimeError>",
    ),
    "UnprintableForGood": (
        "tests.support.failing_jobs.UnprintableForGood",
        "<UnprintableForGood whose message cannot be shown: SystemExit>",
    ),
    "surrogate": ("ValueError", "half a character: \\ud83d"),
    "NUL": ("ValueError", "a NUL: \0."),
    "huge": ("ValueError", failing_jobs.HUGE[:8_000]),
    "chained": ("ValueError", "the hen"),
    "group": ("BaseExceptionGroup", "both (2 sub-exceptions)"),
}
OTHERS: dict[str, tuple[Job, str, str]] = {
    "recursion": (failing_jobs.Recurses(), "RecursionError", "maximum recursion depth exceeded"),
    "a generator": (failing_jobs.Yields(), "TypeError", "Yields.handle is a generator: nothing in it has run"),
    "cancelled by itself": (failing_jobs.CancelsItself(), "asyncio.exceptions.CancelledError", ""),
    "its backoff raises, too": (failing_jobs.BadBackoff(), "ValueError", "attempt 2"),
}


async def test_handlers_and_hooks_that_raise_whatever_there_is(
    workers: Workers, driver: DatabaseDriver, migrated_url: str
) -> None:
    assert set(RAISED) == set(failing_jobs.ERRORS)
    expected: dict[JobId, tuple[str, str]] = {}
    hooks: set[JobId] = set()
    envelopes = []

    def put(job: Job, reason: tuple[str, str]) -> JobId:
        envelopes.append(serialize(job))
        expected[envelopes[-1].id] = reason
        return envelopes[-1].id

    for error, reason in RAISED.items():
        put(failing_jobs.Raises(error=error), reason)
        put(failing_jobs.RaisesInThread(error=error), reason)
        for kind in (failing_jobs.BadHook, failing_jobs.BadHookInThread):
            hooks.add(put(kind(error=error), ("ValueError", "the first of two")))
    for job, name, says in OTHERS.values():
        put(job, (name, says))
    await driver.jobs.insert(envelopes)
    await put_healthy(driver)
    worker = await drain(workers, "--max-tries", "2")

    assert_healthy(workers)
    assert [event["message"].split(" failed;")[0] for event in worker.of("log")] == ["failing.BadBackoff.backoff(1)"]
    kept = await failed(driver)
    assert set(kept) == set(expected)
    for job_id, (name, says) in expected.items():
        job = kept[job_id]
        assert job.failure.type == name
        assert job.failure.message.startswith(says)
        assert job.attempts == 2, f"{job.name} {job.payload}: it had two tries"
        assert "failing_jobs.py" in job.failure.traceback or job.name == "failing.Yields", "where it was raised"
    payloads = {envelope.id: json.loads(envelope.payload) for envelope in envelopes}
    assert {job_id: json.loads(job.payload) for job_id, job in kept.items()} == payloads
    called = workers.oracle.runs("hook")
    assert sorted(run.id for run in called) == sorted(map(str, hooks)), "each hook once, after the last attempt"
    assert {event["job_id"] for event in worker.of("hook_failed")} == set(map(str, hooks))

    await mend_and_retry(driver, workers, migrated_url)


# --- texts


def filled(character: str) -> str:
    """A text with which the payload has exactly the largest size that a dispatch accepts."""
    room = DEFAULT_PAYLOAD_LIMIT - len(failing_jobs.Says(text="").model_dump_json())
    return character * (room // len(character.encode())) + "." * (room % len(character.encode()))


TEXTS = {
    "empty": "",
    "NULs": "\0 a NUL \0, and \\u0000",
    "four bytes": "\U0001f4a9 \U0001d11e \U0010ffff",
    "quotes": "' \" \\ \\' %s ? :id -- /* */ ; \r\n\t",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f\u2028\ufeff\ufffe",
    "combining": "e\u0301 \u202e right to left",
    "at the limit": filled("x"),
    "at the limit, in four bytes": filled("\U0001f4a9"),
    "at the limit, escaped": filled("'"),
}


async def dispatch_in_a_session(url: str, jobs: Sequence[Job]) -> list[JobId]:
    engine = async_engine(url)
    async with AsyncSession(engine) as session, session.begin():
        job_ids = await dispatch_many(jobs, session=session)
    await engine.dispose()
    return job_ids


async def test_texts_of_every_kind_and_size(workers: Workers, driver: DatabaseDriver, migrated_url: str) -> None:
    says, chokes = ([kind(text=text) for text in TEXTS.values()] for kind in (failing_jobs.Says, failing_jobs.Chokes))
    said, choked = [await dispatch_in_a_session(migrated_url, jobs) for jobs in (says, chokes)]
    await put_healthy(driver)
    worker = await drain(workers, "--max-tries", "1")
    assert_healthy(workers)
    assert worker.of("log") == []
    heard = {run.id: run.error for run in workers.oracle.runs("said")}
    assert heard == {str(job_id): failing_jobs.digest(text) for job_id, text in zip(said, TEXTS.values(), strict=True)}
    kept = await failed(driver)
    assert {job_id: json.loads(job.payload)["text"] for job_id, job in kept.items()} == dict(
        zip(choked, TEXTS.values(), strict=True)
    )
    assert all(job.failure.message == json.loads(job.payload)["text"][:8_000] for job in kept.values())
    shown = await run(migrated_url, "failed", str(choked[list(TEXTS).index("NULs")]))
    assert shown.code == 0
    assert "\0" not in shown.out
    await mend_and_retry(driver, workers, migrated_url)


on_mariadb = pytest.mark.parametrize("backend", [pytest.param("mariadb", marks=pytest.mark.mariadb)])
"""Whose statements are the shortest by default, 16 MiB; it ends the connection over one that is longer."""


@on_mariadb
async def test_many_long_failures_at_once_are_several_statements(workers: Workers, driver: DatabaseDriver) -> None:
    count = 160
    await driver.jobs.insert(
        [serialize(failing_jobs.Chokes(text="\N{CYRILLIC CAPITAL LETTER ZHE}" * 20_000)) for _ in range(count)]
    )
    await put_healthy(driver)
    worker = await drain(workers, "--max-tries", "1", "--concurrency", str(2 * count))
    assert worker.of("connection_down") == []
    assert_healthy(workers)
    assert len(await failed(driver)) == count


@on_mariadb
async def test_many_large_jobs_at_once_are_several_statements(migrated_url: str, driver: DatabaseDriver) -> None:
    jobs = [failing_jobs.Says(text=TEXTS["at the limit, in four bytes"]) for _ in range(20)]
    await dispatch_in_a_session(migrated_url, jobs)
    assert sum(counts.ready for counts in await driver.queues.counts()) == len(jobs)


# --- handlers that do not end


async def test_a_job_that_blocks_the_loop_for_longer_than_its_lease_keeps_it(
    workers: Workers, driver: DatabaseDriver
) -> None:
    await driver.jobs.insert([serialize(failing_jobs.BlocksTheLoop(number=99, seconds=4.5))])
    await put_healthy(driver)
    fleet = [await workers.start(*FAST, "--lease", "4", "--concurrency", "4") for _ in range(2)]
    assert [await worker.exit_code() for worker in fleet] == [0, 0]
    runs = [run for run in workers.oracle.runs() if run.number == 99]
    assert [(run.what, run.attempt) for run in runs] == [("begin", 1), ("end", 1)], "nobody took it meanwhile"
    assert sorted(set(numbers(workers.oracle.runs("end")))) == [*range(HEALTHY), 99]
    (its_worker,) = (worker for worker in fleet if worker.of("loop_blocked"))
    assert its_worker.of("job_settled", name="failing.BlocksTheLoop", outcome="completed")
    assert [worker.of("lease_lost") for worker in fleet] == [[], []]
    (blocked,) = its_worker.of("loop_blocked")
    assert any("failing.BlocksTheLoop" in running for running in blocked["running"])
    assert await failed(driver) == {}


@pytest.mark.parametrize("backend", ["sqlite"])  # the processes are what is looked at: five start
async def test_a_job_that_blocks_the_loop_for_good_costs_two_processes_and_ends_as_failed(
    workers: Workers, driver: DatabaseDriver
) -> None:
    workers.modules = SHORT_TIMEOUTS
    poison = serialize(failing_jobs.BlocksTheLoop(number=99, seconds=600), JobOptions.checked(timeout=0.2, max_tries=2))
    await driver.jobs.insert([poison])
    await put_healthy(driver)
    # What runs beside it loses an attempt with the process, as with any process that dies.
    flags = ("--processes", "2", "--lease", "1", "--concurrency", "4", "--max-tries", "10")
    worker = await workers.start("--sleep", "0.05", *flags)
    while await driver.jobs.list_jobs(limit=1):
        await asyncio.sleep(0.05)
    assert await worker.terminate() == 0
    assert sorted(set(numbers(workers.oracle.runs("end")))) == list(range(HEALTHY))
    assert [run.attempt for run in workers.oracle.runs("begin") if run.number == 99] == [1, 2]
    assert len(worker.of("process_ended", exit_code=15)) == 2
    assert all("failing.BlocksTheLoop" in event["reason"] for event in worker.of("worker_killed"))
    kept = await failed(driver)
    assert set(kept) == {poison.id}
    assert kept[poison.id].failure.type == "outbox.errors.AttemptsExhausted"
    assert "lease ended 2 times" in kept[poison.id].failure.message
    assert json.loads(kept[poison.id].payload) == {"number": 99, "seconds": 600}


async def test_a_job_that_cancels_all_tasks_costs_no_other_job_anything(
    workers: Workers, driver: DatabaseDriver
) -> None:
    poison = serialize(failing_jobs.CancelsEverything(number=99), JobOptions.checked(max_tries=1))
    await driver.jobs.insert([poison])
    await put_healthy(driver)
    worker = await workers.start("--sleep", "0.05", "--lease", "10", "--concurrency", "4", "--stop-when-empty")
    assert await worker.exit_code() == 0
    assert numbers(workers.oracle.runs("end")) == list(range(HEALTHY))
    assert any("cancelled tasks that are not its own" in event["what"] for event in worker.of("process_altered"))
    assert set(await failed(driver)) == {poison.id}


async def test_jobs_that_never_end_keep_their_slots_and_nothing_else(
    workers: Workers, driver: DatabaseDriver, migrated_url: str
) -> None:
    workers.modules = SHORT_TIMEOUTS
    poison = [
        serialize(job, JobOptions.checked(max_tries=1))
        for job in (failing_jobs.NeverEnds(), failing_jobs.NeverEndsInThread())
    ]
    await driver.jobs.insert(poison)
    worker = await workers.started("--concurrency", "3", "--sleep", "0.05")
    await worker.event("job_overdue", 2)
    await worker.event("job_settled", 2)
    await put_healthy(driver)
    await workers.oracle.wait("end", HEALTHY)
    assert_healthy(workers)
    assert await worker.terminate() == 0
    kept = await failed(driver)
    assert set(kept) == {envelope.id for envelope in poison}
    assert {job.failure.type for job in kept.values()} == {"outbox.errors.JobTimeout"}
    assert all("took longer than its timeout of 0.2 s" in job.failure.message for job in kept.values())
    assert (await run(migrated_url, "retry", "--all")).out == "Retried 2 failed jobs.\n"


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_what_blocks_the_loop_without_being_a_handler_costs_the_process(
    workers: Workers, driver: DatabaseDriver
) -> None:
    """A validator, a hook, a callback that a job left behind: nobody's timeout, and yet every job of the process waits
    for it, under leases that are renewed."""
    workers.modules = SHORT_TIMEOUTS
    headers = Headers(options=JobOptions(max_tries=1)).dump()
    worker = await workers.start("--sleep", "0.05", "--lease", "1", "--timeout", "0.3", "--processes", "2")
    blocking = (failing_jobs.BlocksWhenLoaded, failing_jobs.BlocksInItsHook, failing_jobs.LeavesABlockerBehind)
    for ended, kind in enumerate(blocking, 1):
        assert len(worker.of("process_ended")) == ended - 1, f"before {kind.name}"
        await driver.jobs.insert([Envelope(new_job_id(), "default", kind.name, 5, '{"number": 1}', headers)])
        await worker.event("process_ended", ended, exit_code=15)
    await put_healthy(driver, timeout=60)  # the worker's is for those that block
    while await driver.jobs.list_jobs(limit=1):
        await asyncio.sleep(0.05)
    assert await worker.terminate() == 0
    assert_healthy(workers)
