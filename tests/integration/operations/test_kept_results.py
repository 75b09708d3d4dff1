"""Finished jobs that are kept: results, progress and durations, written with the end of the job."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

import outbox
import outbox.sync
from outbox import Job, JobId, dispatch, result
from outbox.drivers.database import DatabaseDriver
from outbox.errors import InvalidOption, JobFailed, JobNotFound
from outbox.policies.results import Progress
from outbox.settlement import KeepFinished, Settlement
from outbox.testing import drain, perform
from tests.conformance.jobs import envelope
from tests.integration.claiming.test_statement_counts import Counting
from tests.support.commands import run
from tests.support.embedded_worker import working
from tests.support.orders import async_engine

LONGEST = 64 * 1024 - 2
VALUES: dict[str, Any] = {
    "dict": {"rows": [1, 2.5, None, "é"]}, "none": None, "time": datetime(2026, 1, 2, tzinfo=UTC),
    "fits": "x" * LONGEST, "long": "x" * (LONGEST + 1), "object": object(),
}  # fmt: skip


class Count(Job):
    name = "tests.kept.Count"
    keep_for = 3600

    returns: str = "dict"

    async def handle(self) -> Any:
        self.context.progress(0.25)
        self.context.progress(0.4, "rows 400 of 1,000")
        return VALUES[self.returns]


class InThread(Job):
    name = "tests.kept.InThread"
    keep_for = 3600

    def handle(self) -> str:
        self.context.progress(1, "all")
        return threading.current_thread().name


class Books(Job):
    """Completes itself, in its own transaction."""

    name = "tests.kept.Books"
    keep_for = 3600
    max_tries = 1

    returns: str = "dict"

    async def handle(self, session: AsyncSession) -> Any:
        await session.execute(text("UPDATE queue_pauses SET queue = queue"))
        return VALUES[self.returns]


class Secret(Count):
    name = "tests.kept.Secret"
    encrypt = True


class Fails(Job):
    name = "tests.kept.Fails"
    keep_for = 3600
    max_tries = 1

    async def handle(self) -> None:
        raise ValueError("no luck")


class Plain(Job):
    name = "tests.kept.Plain"

    async def handle(self) -> object:
        return VALUES["object"]


class Reports(Job):
    """Says how far it is as often as it can, until the test lets it go."""

    name = "tests.kept.Reports"

    async def handle(self) -> None:
        count = 0
        while not let_go.is_set():
            count += 1
            self.context.progress(min(count / 1e6, 1.0), f"round {count}")
            await asyncio.sleep(0)


let_go = asyncio.Event()


@pytest.fixture
async def engine(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncEngine]:
    global let_go
    let_go = asyncio.Event()
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    engine = async_engine(migrated_url)
    yield engine
    await outbox.disconnect()
    await engine.dispose()


@pytest.mark.parametrize("returns", ["dict", "none", "fits"])
@pytest.mark.parametrize("kind", [Count, Books])
async def test_a_finished_job_is_kept_with_its_result(engine: AsyncEngine, kind: type[Any], returns: str) -> None:
    job_id = await dispatch(kind(returns=returns))
    await drain()
    assert await result(job_id, timeout=0) == VALUES[returns]
    job = await outbox.find(job_id)
    assert isinstance(job, outbox.FinishedJob)
    assert (job.name, job.queue, job.attempts, job.value) == (kind.name, "default", 1, VALUES[returns])
    assert json.loads(job.payload) == {"returns": returns}
    assert 0 <= job.seconds < 30
    assert (job.kept_until - job.finished_at).total_seconds() == pytest.approx(3_600, abs=1)
    assert (job.progress, job.progress_text) == ((0.4, "rows 400 of 1,000") if kind is Count else (None, None))
    assert [each.id for each in await outbox.finished_jobs()] == [job_id]


@pytest.mark.parametrize(("returns", "says"), [("long", "65,536|65,537"), ("object", "no JSON")])
@pytest.mark.parametrize("kind", [Count, Books])
async def test_a_result_that_cannot_be_kept_fails_the_job_and_loses_nothing(
    engine: AsyncEngine, database: DatabaseDriver, kind: type[Any], returns: str, says: str
) -> None:
    job_id = await dispatch(kind(returns=returns))
    [ended] = await drain()
    assert ended.failed
    with pytest.raises(JobFailed, match=f"({says}).*keep_for"):
        await result(job_id)
    assert await outbox.finished_jobs() == []
    VALUES[returns], before = "short", VALUES[returns]
    try:
        await outbox.retry(job_id)
        await drain()
        assert await result(job_id) == "short"
    finally:
        VALUES[returns] = before


async def test_the_result_of_an_encrypted_job_is_encrypted(
    engine: AsyncEngine, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", old)
    job_id = await dispatch(Secret())
    await drain()
    assert await result(job_id, timeout=0) == VALUES["dict"]
    [job] = await outbox.finished_jobs()
    assert "rows" not in f"{job.payload} {job.result} {job.progress_text}"
    assert (job.progress, job.progress_text) == (0.4, "")
    assert "encrypted; --decrypt shows it" in (await run(migrated_url, "show", str(job_id))).out
    shown = await run(migrated_url, "show", str(job_id), "--decrypt", "--json")
    assert shown.document["job"]["result"] == VALUES["dict"]
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", f"{new},{old}")
    assert "1 row" in (await run(migrated_url, "rekey")).out
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", new)
    assert await result(job_id, timeout=0) == VALUES["dict"]


async def test_a_dispatch_decides_before_the_class(engine: AsyncEngine) -> None:
    kept = await dispatch(Plain(), keep_for=0)
    await dispatch(Count(), keep_for=0)
    await drain()
    assert await outbox.finished_jobs() == []
    with pytest.raises(JobNotFound, match="keep_for"):
        await result(kept)
    job_id = await dispatch(Count(), keep_for=60)
    await drain()
    [job] = await outbox.finished_jobs()
    assert job.id == job_id
    assert (job.kept_until - job.finished_at).total_seconds() == pytest.approx(60, abs=1)


async def test_waiting_for_a_result(engine: AsyncEngine, migrated_url: str) -> None:
    missing = JobId(int=7)
    with pytest.raises(JobNotFound, match="has not committed"):
        await result(missing)
    for wrong in (-1, "soon", float("inf")):
        with pytest.raises(InvalidOption):
            await result(missing, timeout=wrong)  # type: ignore[arg-type]
    fails = await dispatch(Fails())
    job_id = await dispatch(InThread())
    with pytest.raises(TimeoutError, match="has not ended after 0.05 s: it is ready"):
        await result(job_id, timeout=0.05)
    waiting = asyncio.ensure_future(result(job_id, timeout=60))
    async with working(migrated_url):
        assert "outbox" in await waiting
    with pytest.raises(JobFailed, match="ValueError: no luck"):
        await result(fails)
    assert await asyncio.to_thread(outbox.sync.result, job_id, timeout=1) == await waiting
    await asyncio.to_thread(outbox.sync.disconnect)


async def test_progress_of_a_running_job_is_written_once_a_second(
    engine: AsyncEngine, database: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []
    report = type(database.finished).report

    async def note(self: Any, reports: Any) -> None:
        written.append((asyncio.get_running_loop().time(), reports))
        await report(self, reports)

    monkeypatch.setattr(type(database.finished), "report", note)
    job_id = await dispatch(Reports())
    async with working(migrated_url):
        async with asyncio.timeout(60):
            while len(written) < 3:
                await asyncio.sleep(0.05)
        said = await outbox.progress(job_id)
        shown = await run(migrated_url, "show", str(job_id))
        let_go.set()
    assert said is not None
    assert said.text.startswith("round ")
    assert 0 < said.fraction <= 1
    assert "policies    progress " in shown.out
    assert "%, round " in shown.out
    moments = [moment for moment, _ in written]
    assert all(after - before >= 0.99 for before, after in pairwise(moments))
    await database.policies.upkeep()
    assert await outbox.progress(job_id) is None, "the job has ended"


async def test_progress_is_fenced(database: DatabaseDriver) -> None:
    await database.jobs.insert([envelope(1)])
    [claim] = await database.jobs.claim(["default"], 1, 30)
    stale = claim.fence._replace(token=b"\x01" * 16)
    await database.finished.report([(stale, Progress(0.9, "from the dead"))])
    assert await database.finished.progress(claim.fence.job_id) is None
    for fraction in (0.1, 0.2):
        await database.finished.report([(claim.fence, Progress(fraction, "100% é'\\"))])
        said = await database.finished.progress(claim.fence.job_id)
        assert said is not None
        assert said[:2] == (fraction, "100% é'\\")
    await database.finished.report([(stale, Progress(0.9, "from the dead"))])
    said = await database.finished.progress(claim.fence.job_id)
    assert said is not None
    assert said.fraction == 0.2


async def test_a_settlement_that_came_too_late_keeps_nothing(database: DatabaseDriver) -> None:
    await database.jobs.insert([envelope(1), envelope(2)])
    claims = await database.jobs.claim(["default"], 2, 30)
    ends = []
    for number, claim in enumerate(claims):
        fence = claim.fence if number else claim.fence._replace(token=b"\x01" * 16)
        kept = KeepFinished(fence.job_id, "default", claim.name, 5, "{}", "{}", 1, 60.0, "null", None, 0.5)
        ends.append(Settlement.completed(fence, (kept,)))
    settled = await database.jobs.settle(ends)
    assert (len(settled.accepted), len(settled.stale)) == (1, 1)
    assert [job.id for job in await database.finished.latest()] == [claims[1].fence.job_id]


async def test_finished_jobs_are_forgotten_when_their_time_is_over(
    engine: AsyncEngine, database: DatabaseDriver, migrated_url: str
) -> None:
    for _ in range(2):
        await dispatch(Count())
    await drain()
    assert await database.finished.prune() == 0
    [first, second] = await outbox.finished_jobs()
    async with engine.begin() as connection:
        statement = text("UPDATE queue_finished_jobs SET kept_until = '2020-01-01 00:00:00.000000' WHERE id = :id")
        await connection.execute(statement, {"id": first.id.bytes})
    ran = await run(migrated_url, "prune")
    assert ran.out == "Removed 0 failed jobs and 0 silent workers.\nForgot 1 finished job.\n"
    assert [job.id for job in await outbox.finished_jobs()] == [second.id]
    with pytest.raises(JobNotFound):
        await result(first.id)


async def test_the_commands_show_finished_jobs(engine: AsyncEngine, migrated_url: str) -> None:
    assert (await run(migrated_url, "jobs", "--state", "finished")).out == "No finished jobs are kept.\n"
    job_id = await dispatch(Count(), queue="counts")
    await drain()
    listed = await run(migrated_url, "jobs", "--state", "finished")
    assert str(job_id) in listed.out
    assert "tests.kept.Count" in listed.out
    assert (await run(migrated_url, "jobs", "--state", "finished", "--queue", "mail")).out == "No such jobs.\n"
    [document] = (await run(migrated_url, "jobs", "--state", "finished", "--json")).document["jobs"]
    assert (document["result"], document["progress"], document["state"]) == (VALUES["dict"], 0.4, "finished")
    shown = await run(migrated_url, "show", str(job_id))
    assert "40%, rows 400 of 1,000" in shown.out
    assert '"rows"' in shown.out
    assert (await run(migrated_url, "show", str(job_id), "--json")).document["job"] == document
    assert (await run(migrated_url, "jobs", "--state", "finished", "--after", "x")).code == 2


async def test_finished_jobs_come_by_pages(
    database: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.jobs.insert([envelope(number) for number in range(7)])
    for number, claim in enumerate(await database.jobs.claim(["default"], 7, 30)):
        queue = "default" if number else "rare"
        kept = KeepFinished(claim.fence.job_id, queue, claim.name, 5, "{}", "{}", 1, 60.0, "null", None, 0.5)
        await database.jobs.settle([Settlement.completed(claim.fence, (kept,))])
    every = [job.id for job in await database.finished.latest()]
    found: list[str] = []
    after: list[str] = []
    for _ in range(4):
        page = await run(migrated_url, "jobs", "--state", "finished", "--limit", "2", "--json", *after)
        found += [job["id"] for job in page.document["jobs"]]
        after = ["--after", page.document["next"] or ""]
    assert (found, page.document["next"]) == ([str(job_id) for job_id in every], None)
    said = await run(migrated_url, "jobs", "--state", "finished", "--limit", "2")
    assert "there are more: --after " in said.err
    monkeypatch.setattr("outbox.drivers.database.finished_jobs.EXAMINED_PER_PAGE", 3)
    first = await database.finished.page("rare")
    assert (first.jobs, first.next and first.next.id) == ([], every[2]), "three jobs were looked at"
    second = await database.finished.page("rare", after=first.next)
    third = await database.finished.page("rare", after=second.next)
    assert [[job.id for job in page.jobs] for page in (second, third)] == [[], [every[6]]]


async def test_what_is_wrong_is_said(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    with pytest.raises(InvalidOption, match="keep_for keeps a job in the database"):
        await dispatch(Count(), connection="redis")
    for wrong in (-1, True, "long"):
        with pytest.raises(InvalidOption, match="keep_for is seconds"):
            await dispatch(Count(), keep_for=wrong)  # type: ignore[arg-type]

    class Wrong(Job):
        name = "tests.kept.Wrong"
        fraction: Any
        text: Any

        async def handle(self) -> None:
            self.context.progress(self.fraction, self.text)

    for fraction, said in ((1.1, ""), (-0.1, ""), (True, ""), ("half", ""), (0.5, 7)):
        performed = await perform(Wrong(fraction=fraction, text=said), max_tries=1)
        assert isinstance(performed.error, InvalidOption)
    performed = await perform(Wrong(fraction=0.5, text="y" * 300))
    assert performed.completed
    assert performed.job is not None
    assert performed.job.context.reported == (0.5, "y" * 255)


async def test_keeping_costs_one_insert_for_many_jobs(migrated_url: str, timeless: None) -> None:
    """Other jobs pay nothing: `test_statement_counts` counts them."""
    driver = DatabaseDriver(migrated_url)
    await driver.check()
    counting = Counting(driver)
    await driver.jobs.insert([envelope(number) for number in range(20)])
    claims = await driver.jobs.claim(["default"], 20, 30)
    counting.since()
    await driver.jobs.settle(
        [
            Settlement.completed(
                claim.fence,
                (KeepFinished(claim.fence.job_id, "default", claim.name, 5, "{}", "{}", 1, 60.0, "7", None, 0.5),),
            )
            for claim in claims
        ]
    )
    assert counting.since() == ["SELECT", "DELETE", "INSERT"]
    await driver.close()
