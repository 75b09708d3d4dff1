"""Rows that are no jobs, and handlers that do their worst: each ends where it should, and the worker works on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outbox.drivers.base import FailedJob
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import DEFAULT_PAYLOAD_LIMIT, Envelope, Headers, Options, seal
from outbox.ids import new_job_id
from tests.crash.jobs import Blocks, Counted, Endless, ExitsIn, Speaks
from tests.crash.running import Workers, numbers


@pytest.fixture
async def workers(migrated_url: str, tmp_path: Path) -> AsyncIterator[Workers]:
    workers = Workers(migrated_url, tmp_path)
    yield workers
    await workers.close()


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


def row(name: str, payload: str, headers: str = "{}") -> Envelope:
    return Envelope(new_job_id(), "default", name, 5, payload, headers)


async def test_the_zoo(workers: Workers, driver: DatabaseDriver, backend: str) -> None:
    once = Options(headers=Headers(max_tries=1).dump())
    bad_rows = {
        "unknown": row("gone.in.ThisRelease", '{"kept": [1, 2, "three"]}'),
        "invalid": row(Counted.name, '{"number": "not a number"}'),
        "not an object": row(Counted.name, "[1, 2]"),
        "headers": row(Counted.name, '{"number": 1}', '{"max_tries": "many"}'),
    }
    if backend == "sqlite":
        # The others refuse it in a JSON column.
        bad_rows["broken"] = row(Counted.name, '{"number": 1')
    bad_handlers = {
        "SystemExit": seal(ExitsIn(way="SystemExit"), once),
        "KeyboardInterrupt": seal(ExitsIn(way="KeyboardInterrupt"), once),
        "GeneratorExit": seal(ExitsIn(way="GeneratorExit"), once),
        "CancelledError": seal(ExitsIn(way="CancelledError"), once),
        "never ends": seal(Endless(), Options(headers=Headers(max_tries=1, timeout=0.5).dump())),
    }
    texts = [
        "",
        "NUL \0 inside",
        "four bytes: 𝄞 😀",
        "quotes ' \" \\ and lines\n\r\t",
        "x" * (DEFAULT_PAYLOAD_LIMIT - 100),
    ]
    good = [seal(Speaks(number=number, text=text)) for number, text in enumerate(texts)]
    good += [seal(Counted(number=99)), seal(Blocks(number=100, seconds=1.5))]
    await driver.insert([*bad_rows.values(), *good, *bad_handlers.values()])
    worker = await workers.start("--stop-when-empty", "--concurrency", "3", "--sleep", "0.1", "--lease", "1")
    assert await worker.exit_code() == 0
    assert numbers(workers.oracle.runs("end")) == [*range(len(texts)), 99, 100]
    lengths = {run.number: run.error for run in workers.oracle.runs("end") if run.number < len(texts)}
    assert lengths == {number: ascii(text[:50]) + str(len(text)) for number, text in enumerate(texts)}
    for each in worker.events: print({k: (str(v)[:400]) for k, v in each.items() if k not in ("level","queue","connection")})
    assert worker.of("lease_lost") == worker.of("log") == []

    failed = {job.id: job for job in await driver.list_failed()}
    assert set(failed) == {envelope.id for envelope in (*bad_rows.values(), *bad_handlers.values())}

    def kind(envelope: Envelope) -> str:
        return failed[envelope.id].failure.type

    assert kind(bad_rows.pop("unknown")) == "outbox.errors.UnknownJob"
    assert {kind(envelope) for envelope in bad_rows.values()} == {"outbox.errors.InvalidPayload"}
    assert kind(bad_handlers.pop("never ends")) == "outbox.errors.JobTimeout"
    assert {kind(envelope).rpartition(".")[2] for envelope in bad_handlers.values()} == set(bad_handlers)
    for envelope in bad_rows.values():
        assert same_json(failed[envelope.id], envelope)


def same_json(job: FailedJob, envelope: Envelope) -> bool:
    """MySQL writes JSON its own way; blanks aside, nothing may be different."""
    return job.payload.replace(" ", "") == envelope.payload.replace(" ", "")
