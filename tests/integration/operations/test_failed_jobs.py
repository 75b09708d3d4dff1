"""Failed jobs in the store: read, put back and removed, whole and once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import JobState
from outbox.errors import InvalidPayload, JobNotFound
from outbox.ids import new_job_id
from outbox.settlement import Settlement
from tests.conformance.jobs import claim_one, envelope, envelopes
from tests.support.commands import REFUSED, age_failure, break_payload, execute, fail
from tests.support.row_locks import arrivals, locked

HOUR = 3600.0
BROKEN = '{"order_id": 7, "note": "\0 \N{PILE OF POO} \\ud83d'


@pytest.fixture
async def holder(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    """Of whoever holds a lock."""
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


# --- retry


async def test_a_retried_job_is_as_it_was_dispatched(driver: DatabaseDriver) -> None:
    job = envelope(queue="mail", priority=2, payload='{"to": "J\N{LATIN SMALL LETTER U WITH DIAERESIS}rgen"}')
    job = job._replace(headers='{"max_tries": 7}')
    await fail(driver, job)
    assert await driver.failed.retry([job.id]) == [job.id]
    stored = await driver.jobs.get(job.id)
    assert stored is not None
    assert (stored.queue, stored.name, stored.priority, stored.attempts) == ("mail", job.name, 2, 0)
    assert (stored.state, stored.reserved_until) == (JobState.READY, None)
    assert json.loads(stored.payload) == json.loads(job.payload)
    assert json.loads(stored.headers) == {"max_tries": 7}
    assert await driver.failed.get(job.id) is None
    assert (await claim_one(driver, "mail")).attempt == 1


async def test_only_failed_jobs_are_retried(driver: DatabaseDriver) -> None:
    [claim] = await fail(driver, envelope())
    live = envelope()
    await driver.jobs.insert([live])
    assert await driver.failed.retry([new_job_id(), live.id, claim.fence.job_id]) == [claim.fence.job_id]
    assert await driver.failed.retry([claim.fence.job_id]) == []
    assert len(await driver.jobs.list_jobs()) == 2


async def test_a_retry_that_breaks_off_changes_nothing(driver: DatabaseDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    [claim] = await fail(driver, envelope())
    with monkeypatch.context() as broken:
        broken.setattr(type(driver.database.dialect), "delete", lambda *_: text("DELETE FROM nowhere"))
        with pytest.raises(Exception, match="nowhere"):
            await driver.failed.retry([claim.fence.job_id])
    assert await driver.jobs.list_jobs() == []
    assert await driver.failed.get(claim.fence.job_id) is not None


async def test_two_operators_put_a_job_back_once(
    driver: DatabaseDriver, other: DatabaseDriver, holder: DatabaseDriver
) -> None:
    [claim] = await fail(driver, envelope())
    job_id = claim.fence.job_id
    refused: list[object] = []
    with arrivals(driver, other) as waiting:
        for engine in (driver.database.engine, other.database.engine):
            event.listen(engine.sync_engine, "handle_error", refused.append)
        async with locked(holder, "queue_failed_jobs", job_id):
            retries = [asyncio.create_task(operator.failed.retry([job_id])) for operator in (driver, other)]
            await waiting.wait_for(2)
        results = await asyncio.gather(*retries)
    assert sorted(results) == [[], [job_id]]
    assert [job.id for job in await driver.jobs.list_jobs()] == [job_id]
    assert await driver.failed.page() == []
    assert refused == []


async def test_a_live_job_of_the_same_id_is_left_alone(driver: DatabaseDriver) -> None:
    job = envelope()
    await fail(driver, job)
    await driver.jobs.insert([job])
    running = await claim_one(driver)
    assert await driver.failed.retry([job.id]) == [job.id]
    assert await driver.failed.get(job.id) is None
    assert len((await driver.jobs.settle([Settlement.completed(running.fence)])).accepted) == 1


async def test_a_broken_payload_is_named_and_nothing_is_changed(driver: DatabaseDriver) -> None:
    good, bad = await fail(driver, envelope(1), envelope(2))
    await break_payload(driver, bad, BROKEN)
    with pytest.raises(InvalidPayload, match=str(bad.fence.job_id)):
        await driver.failed.retry([good.fence.job_id, bad.fence.job_id])
    assert await driver.jobs.list_jobs() == []
    assert len(await driver.failed.page()) == 2


async def test_broken_headers_are_refused_like_a_broken_payload(driver: DatabaseDriver) -> None:
    [claim] = await fail(driver, envelope())
    await execute(driver, "UPDATE queue_failed_jobs SET headers = 'none'")
    with pytest.raises(InvalidPayload):
        await driver.failed.retry([claim.fence.job_id])
    assert await driver.failed.retry_all() == 0


async def test_retrying_all_skips_broken_payloads_and_keeps_them(driver: DatabaseDriver) -> None:
    good, bad = await fail(driver, envelope(1), envelope(2))
    await break_payload(driver, bad, BROKEN)
    assert await driver.failed.retry_all() == 1
    assert [job.id for job in await driver.jobs.list_jobs()] == [good.fence.job_id]
    assert await driver.failed.unretryable() == [bad.fence.job_id]
    kept = await driver.failed.get(bad.fence.job_id)
    assert kept is not None
    assert kept.payload == BROKEN


async def test_retrying_all_of_a_queue_leaves_the_others(driver: DatabaseDriver) -> None:
    await fail(driver, envelope(queue="mail"), envelope(queue="mail"), envelope(queue="slow"))
    assert await driver.failed.retry_all("mail") == 2
    assert {job.queue for job in await driver.jobs.list_jobs()} == {"mail"}
    assert [job.queue for job in await driver.failed.page()] == ["slow"]


async def test_retrying_all_leaves_what_fails_after_it_began(driver: DatabaseDriver) -> None:
    early, late = await fail(driver, envelope(1), envelope(2))
    await age_failure(driver, late, -HOUR)
    assert await driver.failed.retry_all() == 1
    assert [job.id for job in await driver.failed.page()] == [late.fence.job_id]
    assert [job.id for job in await driver.jobs.list_jobs()] == [early.fence.job_id]


@pytest.mark.parametrize("verb", ["retry_all", "flush"])
async def test_many_failed_jobs_go_in_short_transactions(driver: DatabaseDriver, verb: str) -> None:
    await fail(driver, *envelopes(2_500))
    removals = 0

    @event.listens_for(driver.database.engine.sync_engine, "before_cursor_execute")
    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal removals
        removals += statement.startswith("DELETE")

    assert await getattr(driver.failed, verb)() == 2_500
    assert removals == 3
    [left] = await driver.queues.counts() or [None]
    assert (left is None) if verb == "flush" else (left is not None and (left.ready, left.failed) == (2_500, 0))


async def test_an_answer_that_was_lost_with_the_connection_is_looked_up(
    driver: DatabaseDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    [claim] = await fail(driver, envelope())
    commit = AsyncConnection.commit
    lost = 0

    async def commit_and_lose_the_answer(connection: AsyncConnection) -> None:
        nonlocal lost
        await commit(connection)
        lost += 1
        if lost == 1:
            raise ConnectionResetError("gone")

    monkeypatch.setattr(AsyncConnection, "commit", commit_and_lose_the_answer)
    assert await driver.failed.retry([claim.fence.job_id]) == [claim.fence.job_id]
    assert lost == 1
    assert len(await driver.jobs.list_jobs()) == 1


# --- forget and flush


async def test_forgetting_tells_which_there_were(driver: DatabaseDriver) -> None:
    one, two = await fail(driver, envelope(1), envelope(2))
    assert await driver.failed.forget([new_job_id(), two.fence.job_id]) == [two.fence.job_id]
    assert [job.id for job in await driver.failed.page()] == [one.fence.job_id]


async def test_flush_takes_what_is_older_by_the_databases_clock(driver: DatabaseDriver) -> None:
    older, younger = await fail(driver, envelope(1), envelope(2))
    await age_failure(driver, older, HOUR + 60)
    await age_failure(driver, younger, HOUR - 60)
    assert await driver.failed.flush(older_than=HOUR) == 1
    assert [job.id for job in await driver.failed.page()] == [younger.fence.job_id]
    assert await driver.failed.flush() == 1


async def test_flush_of_a_queue_leaves_the_others(driver: DatabaseDriver) -> None:
    await fail(driver, envelope(queue="mail"), envelope(queue="slow"))
    assert await driver.failed.flush("mail") == 1
    assert [job.queue for job in await driver.failed.page()] == ["slow"]


@pytest.mark.parametrize("verb", ["retry", "forget", "flush"])
async def test_nobody_waits_for_rows_of_others(
    driver: DatabaseDriver, other: DatabaseDriver, backend: str, verb: str
) -> None:
    """Where most of a small table is meant, a server would rather read all of it, and wait for the row in the middle
    that somebody is writing."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    claims = await fail(driver, *envelopes(20, queue="mail"))
    busy = claims[9].fence.job_id
    await execute(driver, "UPDATE queue_failed_jobs SET queue = 'slow' WHERE id = :id", id=busy.bytes)
    mine = [claim.fence.job_id for claim in claims if claim.fence.job_id != busy]
    async with locked(other, "queue_failed_jobs", busy), asyncio.timeout(40):
        if verb == "flush":
            assert await driver.failed.flush("mail") == 19
        else:
            assert await getattr(driver.failed, verb)(mine) == mine


# --- reading


async def test_a_failed_job_tells_everything(driver: DatabaseDriver) -> None:
    job = envelope(queue="mail", priority=3)
    await fail(driver, job)
    failed = await driver.failed.get(job.id)
    assert failed is not None
    assert (failed.id, failed.connection, failed.queue, failed.name) == (job.id, "database", "mail", job.name)
    assert (failed.priority, failed.attempts, failed.failure) == (3, 1, REFUSED)
    assert json.loads(failed.payload) == json.loads(job.payload)
    assert abs((failed.failed_at - await driver.now()).total_seconds()) < 60
    assert await driver.failed.get(new_job_id()) is None


async def test_a_poisonous_payload_is_kept_byte_for_byte(driver: DatabaseDriver) -> None:
    [claim] = await fail(driver, envelope())
    await break_payload(driver, claim, BROKEN)
    [listed] = await driver.failed.page()
    assert listed.payload == BROKEN
    assert await driver.failed.get(claim.fence.job_id) == listed


async def test_an_exception_that_another_tool_wrote_hides_nothing(driver: DatabaseDriver) -> None:
    await fail(driver, envelope(), envelope())
    await execute(driver, "UPDATE queue_failed_jobs SET exception = '[]'")
    assert [job.failure.message for job in await driver.failed.page()] == ["[]", "[]"]


async def test_pages_follow_each_other_even_where_jobs_failed_at_one_moment(driver: DatabaseDriver) -> None:
    claims = await fail(driver, *envelopes(10))
    await age_failure(driver, claims[4], HOUR)
    await age_failure(driver, claims[7], -HOUR)
    ids = [claim.fence.job_id for claim in claims]
    expected = [ids[7], *sorted(set(ids) - {ids[4], ids[7]}, reverse=True), ids[4]]
    found = []
    page = await driver.failed.page(limit=3)
    while page:
        found += [job.id for job in page]
        assert len(found) <= len(ids)
        page = await driver.failed.page(limit=3, before=page[-1].id)
    assert found == expected


async def test_a_page_after_a_job_that_is_gone_is_refused(driver: DatabaseDriver) -> None:
    """An empty page would say that there are no more."""
    await fail(driver, envelope())
    with pytest.raises(JobNotFound):
        await driver.failed.page(before=new_job_id())


@pytest.mark.parametrize("digits", [8, 9, 12, 31])
async def test_a_job_is_found_by_either_end_of_its_id(driver: DatabaseDriver, digits: int) -> None:
    [claim] = await fail(driver, envelope())
    job_id = claim.fence.job_id
    assert await driver.failed.find(job_id.hex[:digits]) == [job_id]
    assert await driver.failed.find(job_id.hex[-digits:]) == [job_id]
    assert await driver.failed.find(job_id.hex[1:digits]) == []
    assert await driver.jobs.find(job_id.hex[:digits]) == []
