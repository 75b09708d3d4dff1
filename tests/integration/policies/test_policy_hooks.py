"""What every policy is asked and told, and what a claim makes of its verdicts."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.jobs.cancel import cancel_in_session
from outbox.drivers.database.policies import registry
from outbox.drivers.database.policies.base import (
    Leave,
    Park,
    Refusal,
    Run,
    Skip,
)
from outbox.drivers.filters import JobFilter
from outbox.drivers.values import JobState, PolicyNews
from outbox.errors import DuplicateJob
from outbox.events import JobSkipped
from outbox.policies.base import Policies
from outbox.settlement import Outcome, Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes
from tests.servers import sql
from tests.support.orders import sync_engine
from tests.support.told_policy import Told, gated


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Told:
    return _only(monkeypatch, Policies.KEY)[0]


@pytest.fixture
def key_and_rate(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    return _only(monkeypatch, Policies.KEY, Policies.RATE)


def _only(monkeypatch: pytest.MonkeyPatch, *policies: Policies) -> list[Told]:
    told = [Told(policy) for policy in policies]
    monkeypatch.setattr(registry, "POLICIES", told)
    return told


@pytest.fixture
def news(database: DatabaseDriver) -> list[PolicyNews]:
    heard: list[PolicyNews] = []
    database.policies.on_news = heard.append
    return heard


async def test_policies_learn_of_their_jobs_with_the_insert(database: DatabaseDriver, key: Told) -> None:
    mine, rates = gated(), gated(Policies.RATE)
    await database.jobs.insert([envelope(), mine, rates])
    await database.jobs.insert([*envelopes(50), more := gated()])
    assert key.dispatches == [mine.id, more.id]
    stored = [await database.jobs.get(job.id) for job in (mine, rates, more)]
    assert [job and job.policies for job in stored] == [Policies.KEY, Policies.RATE, Policies.KEY]


async def test_a_parked_job_is_out_of_reach_until_its_policy_unparks_it(database: DatabaseDriver, key: Told) -> None:
    first, second = gated(), gated()
    await database.jobs.insert([first, second])
    key.verdicts = {second.id: Park()}
    claim = await claim_one(database)
    assert claim.fence.job_id == first.id
    assert claim.policies == Policies.KEY
    assert await database.jobs.claim(["default"], 10, 30) == []
    assert [(job.id, job.state) for job in await database.jobs.list_jobs()][-1] == (second.id, JobState.PARKED)
    [counts] = await database.queues.counts()
    assert (counts.parked, counts.ready, counts.delayed, counts.reserved) == (1, 0, 0, 1)
    for queue in (None, "default"):
        page = await database.jobs.page(JobFilter(queue, state=JobState.PARKED))
        assert [job.id for job in page.jobs] == [second.id]
    key.verdicts, key.unparks = {}, second.id
    settled = await database.jobs.settle(
        [Settlement.completed(claim.fence).leaving(claim.policies or 0, claim.headers)]
    )
    assert key.left == [(first.id, Outcome.COMPLETED)]
    assert key.after_commit == [first.id]
    assert settled.news.queues == {"default", "other"}
    assert (await claim_one(database)).fence.job_id == second.id


async def test_nothing_is_due_where_all_is_parked(database: DatabaseDriver, key: Told) -> None:
    job = gated()
    key.verdicts = {job.id: Park()}
    await database.jobs.insert([job])
    assert await database.jobs.claim(["default"], 10, 30) == []
    assert (await database.jobs.next_due(["default"])).due is None


async def test_a_job_is_parked_for_a_time(database: DatabaseDriver, key: Told) -> None:
    job = gated()
    key.verdicts = {job.id: Park(40.0)}
    await database.jobs.insert([job])
    assert await database.jobs.claim(["default"], 10, 30) == []
    due = (await database.jobs.next_due(["default"])).due
    assert due is not None
    assert 30 < due < 40.001, "the days of SQLite's julianday() have steps of 40 µs"
    stored = await database.jobs.get(job.id)
    assert stored is not None
    assert stored.state is JobState.DELAYED


async def test_a_job_that_is_left_is_found_again_soon_and_uses_no_attempt(database: DatabaseDriver, key: Told) -> None:
    job = gated()
    key.verdicts = {job.id: Leave()}
    await database.jobs.insert([job])
    assert await database.jobs.claim(["default"], 10, 30) == []
    due = (await database.jobs.next_due(["default"])).due
    assert due is not None
    assert due <= 0.251  # SQLite's clock has milliseconds
    stored = await database.jobs.get(job.id)
    assert stored is not None
    assert stored.attempts == 0


async def test_a_skipped_job_is_removed_and_reported(
    database: DatabaseDriver, key: Told, news: list[PolicyNews]
) -> None:
    skipped, runs = gated(), gated()
    key.verdicts = {skipped.id: Skip("another one runs")}
    await database.jobs.insert([skipped, runs])
    assert [claim.fence.job_id for claim in await database.jobs.claim(["default"], 10, 30)] == [runs.id]
    assert await database.jobs.get(skipped.id) is None
    assert key.left == [(skipped.id, Outcome.SKIPPED)]
    [told] = news
    assert told.events == (JobSkipped(skipped.id, "tests.Job", "default", "database", 1, "another one runs"),)


async def test_a_claim_looks_on_behind_jobs_that_are_not_admitted(database: DatabaseDriver, key: Told) -> None:
    busy = [gated() for _ in range(7)]
    key.verdicts = {job.id: Park() for job in busy}
    await database.jobs.insert([*busy, last := envelope()])
    assert [claim.fence.job_id for claim in await database.jobs.claim(["default"], 2, 30)] == [last.id]


async def test_a_job_runs_with_the_payload_that_its_policy_gives(database: DatabaseDriver, key: Told) -> None:
    job = gated()
    key.verdicts = {job.id: Run('{"number": 7}')}
    await database.jobs.insert([job])
    assert (await claim_one(database)).payload == '{"number": 7}'


async def test_all_policies_have_to_admit_and_learn_who_starts(
    database: DatabaseDriver, key_and_rate: list[Told]
) -> None:
    key, rate = key_and_rate
    both = Policies.KEY | Policies.RATE
    free, limited, full = gated(both), gated(both), gated(both)
    key.verdicts, rate.verdicts = {full.id: Park(), free.id: Run('{"number": 7}')}, {limited.id: Park(60.0)}
    rate.verdicts[free.id] = Run()
    await database.jobs.insert([free, limited, full])
    [claim] = await database.jobs.claim(["default"], 10, 30)
    assert (claim.fence.job_id, claim.payload) == (free.id, '{"number": 7}')
    assert key.starts[0] == ([free.id], [limited.id])
    assert rate.starts[0] == ([free.id], [])


async def test_operators_tell_policies(database: DatabaseDriver, key: Told, news: list[PolicyNews]) -> None:
    cancelled, cleared, failed, waits = gated(), gated(), gated(), gated()
    await database.jobs.insert([cancelled, waits])
    key.verdicts = {waits.id: Park()}
    await database.jobs.claim(["default"], 1, 0.0)
    key.unparks = waits.id
    await database.jobs.cancel([cancelled.id])
    assert key.left == [(cancelled.id, Outcome.CANCELLED)]
    await database.jobs.insert([cleared])
    await database.queues.clear("default")
    assert sorted(key.left[1:]) == sorted([(waits.id, Outcome.CANCELLED), (cleared.id, Outcome.CANCELLED)])
    await database.jobs.insert([failed])
    claim = await claim_one(database)
    await database.jobs.settle([Settlement.failed(claim.fence, FAILURE).leaving(claim.policies or 0, claim.headers)])
    assert key.left[-1] == (failed.id, Outcome.FAILED)
    kept = await database.failed.get(failed.id)
    assert kept is not None
    assert kept.policies == Policies.KEY
    await database.failed.forget([failed.id])
    assert key.left[-1] == (failed.id, Outcome.FORGOTTEN)


async def test_a_failed_job_returns_with_its_policies_unless_one_refuses(database: DatabaseDriver, key: Told) -> None:
    jobs = [gated(), gated()]
    await database.jobs.insert(jobs)
    claims = await database.jobs.claim(["default"], 2, 30)
    ends = [Settlement.failed(each.fence, FAILURE).leaving(each.policies or 0, each.headers) for each in claims]
    await database.jobs.settle(ends)
    refused, free = jobs[0].id, jobs[1].id
    key.refused = {refused: Refusal("its key is taken", free)}
    with pytest.raises(DuplicateJob, match="stays failed: its key is taken") as raised:
        await database.failed.retry([refused])
    assert raised.value.job_id == free
    assert await database.failed.retry_all() == 1
    assert await database.failed.get(refused) is not None
    stored = await database.jobs.get(free)
    assert stored is not None
    assert stored.policies == Policies.KEY


async def test_a_row_that_nobody_can_read_leaves_its_policies(
    database: DatabaseDriver, key: Told, migrated_url: str
) -> None:
    job = gated()
    await database.jobs.insert([job])
    with sql.connection(migrated_url) as connection:
        connection.execute(text("UPDATE queue_jobs SET priority = 12"))
    assert await database.jobs.fail_unreadable() == 1
    assert key.left == [(job.id, Outcome.FAILED)]


async def test_a_session_cancels(database: DatabaseDriver, key: Told, migrated_url: str) -> None:
    job, plain = gated(), envelope()
    await database.jobs.insert([job, plain])
    engine = sync_engine(migrated_url)
    with Session(engine) as session:
        assert cancel_in_session(session, plain.id)
        assert cancel_in_session(session, job.id)
        assert not cancel_in_session(session, job.id)
        session.commit()
    engine.dispose()
    assert key.left == [(job.id, Outcome.CANCELLED)]
    assert await database.jobs.list_jobs() == []


async def test_operators_see_what_policies_do(database: DatabaseDriver, key: Told) -> None:
    await database.jobs.insert([job := gated(), plain := envelope()])
    stored, other = await database.jobs.get(job.id), await database.jobs.get(plain.id)
    assert stored is not None
    assert other is not None
    assert await database.policies.explain(stored) == [f"KEY of {job.id}"]
    assert await database.policies.explain(other) == []


async def test_plain_settlements_beside_those_of_policies_take_their_short_way(
    database: DatabaseDriver, key: Told
) -> None:
    await database.jobs.insert([envelope(), gated()])
    plain, mine = await database.jobs.claim(["default"], 2, 30)
    ends = [
        Settlement.completed(mine.fence).leaving(mine.policies or 0, mine.headers),
        Settlement.completed(plain.fence),
    ]
    settled = await database.jobs.settle(ends)
    assert settled.accepted == (ends[1], ends[0])
    assert key.left == [(mine.fence.job_id, Outcome.COMPLETED)]
