"""A COMMIT is carried out, its answer is lost, and the database stays away for longer than a call goes on trying."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

import outbox
from outbox import clock
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.jobs import lease as lease_module
from outbox.drivers.database.jobs.claim import ClaimTransaction
from outbox.drivers.values import Claim
from outbox.errors import BackendUnavailable
from outbox.settlement import Failure, InsertJobs, Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes
from tests.servers import LocalServer, databases, sql


class Outage:
    """Begins with the answer of the next COMMIT."""

    def __init__(self, driver: DatabaseDriver, *, after: bool = True, begin: Callable[[], None] | None = None) -> None:
        self._lasts = False
        self._after = after
        self._begin = begin
        database = driver.database
        self._engine = database.engine.sync_engine
        self._commit = self._engine.dialect.do_commit
        self._engine.dialect.do_commit = self._lose  # type: ignore[method-assign]
        for pool in {database.engine.pool, database.reader.pool}:
            event.listen(pool, "checkout", self._refuse)

    def _lose(self, connection: object) -> None:
        if self._after:
            self._commit(connection)  # type: ignore[arg-type]
        self._lasts = True
        self._engine.dialect.do_commit = self._commit  # type: ignore[method-assign]
        if self._begin is not None:
            self._begin()
        raise self._error()

    def _refuse(self, *_: object) -> None:
        if self._lasts:
            raise self._error()

    def _error(self) -> Exception:
        errors = self._engine.dialect.dbapi
        if self._engine.dialect.name == "sqlite":
            return errors.OperationalError("disk I/O error")  # type: ignore[no-any-return, union-attr]
        return errors.OperationalError(2013, "Lost connection to server during query")  # type: ignore[no-any-return, union-attr]

    def end(self) -> None:
        self._lasts = False


async def claim_in_doubt(
    driver: DatabaseDriver, *, limit: int = 10, lease: float = 30, after: bool = True, short_jobs: bool = False
) -> Outage:
    outage = Outage(driver, after=after)
    with pytest.raises(BackendUnavailable):
        await (driver.short_jobs if short_jobs else driver.jobs).claim(["default"], limit, lease)
    return outage


async def attempts(driver: DatabaseDriver) -> list[int]:
    return [job.attempts for job in await driver.jobs.list_jobs()]


@pytest.mark.parametrize("short_jobs", [False, True])
@pytest.mark.parametrize("after", [True, False], ids=["committed", "not committed"])
async def test_the_next_claim_has_the_jobs_of_one_in_doubt(
    driver: DatabaseDriver, after: bool, short_jobs: bool
) -> None:
    await driver.jobs.insert(envelopes(3))
    outage = await claim_in_doubt(driver, limit=3, after=after, short_jobs=short_jobs)
    with pytest.raises(BackendUnavailable):
        await driver.jobs.claim(["default"], 3, 30)
    outage.end()
    begun = clock.now()
    claims = await driver.jobs.claim(["default"], 3, 30)
    assert {claim.attempt for claim in claims} == {1}
    assert await attempts(driver) == [1, 1, 1]
    assert all(claim.deadline >= begun + 30 for claim in claims)
    assert await driver.jobs.claim(["default"], 3, 30) == []
    settled = await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    assert len(settled.accepted) == 3
    assert not driver.jobs.unconfirmed.claims


async def test_a_claim_in_doubt_whose_lease_has_ended_still_costs_no_attempt(
    driver: DatabaseDriver, other: DatabaseDriver
) -> None:
    await driver.jobs.insert(envelopes(1))
    outage = await claim_in_doubt(driver, lease=0.2)
    while (await other.jobs.next_due(["default"])).due != 0.0:
        await asyncio.sleep(0.05)
    outage.end()
    claim = await claim_one(driver)
    assert (claim.attempt, claim.rescued) == (1, False)
    assert await other.jobs.claim(["default"], 1, 30) == []


async def test_a_claim_in_doubt_takes_nothing_from_its_next_owner(
    driver: DatabaseDriver, other: DatabaseDriver
) -> None:
    await driver.jobs.insert(envelopes(1))
    outage = await claim_in_doubt(driver, lease=0.2)
    while not (claims := await other.jobs.claim(["default"], 1, 30)):
        await asyncio.sleep(0.05)
    outage.end()
    assert await driver.jobs.claim(["default"], 1, 30) == []
    assert not driver.jobs.unconfirmed.claims
    assert len((await other.jobs.settle([Settlement.completed(claims[0].fence)])).accepted) == 1


async def test_what_there_is_no_room_for_is_given_back_without_an_attempt(
    driver: DatabaseDriver, other: DatabaseDriver
) -> None:
    await driver.jobs.insert(envelopes(5))
    outage = await claim_in_doubt(driver, limit=5)
    outage.end()
    assert len(await driver.jobs.claim(["default"], 2, 30)) == 2
    assert sorted(await attempts(driver)) == [0, 0, 0, 1, 1]
    assert {claim.attempt for claim in await other.jobs.claim(["default"], 5, 30)} == {1}


async def test_a_claim_of_other_queues_gets_none_of_it(driver: DatabaseDriver) -> None:
    await driver.jobs.insert([envelope(), envelope(queue="other")])
    outage = await claim_in_doubt(driver)
    outage.end()
    assert (await claim_one(driver, "other")).queue == "other"
    assert (await claim_one(driver)).queue == "default"


async def test_a_driver_that_is_closed_gives_back_what_it_claimed_in_doubt(
    driver: DatabaseDriver, other: DatabaseDriver
) -> None:
    await driver.jobs.insert(envelopes(2))
    outage = await claim_in_doubt(driver)
    outage.end()
    await driver.close()
    assert await attempts(other) == [0, 0]
    assert len(await other.jobs.claim(["default"], 2, 30)) == 2


async def test_a_driver_is_closed_whether_its_database_answers_or_not(driver: DatabaseDriver) -> None:
    await driver.jobs.insert(envelopes(1))
    await claim_in_doubt(driver)
    await driver.close()


async def test_a_commit_that_a_node_learns_of_late_is_found_by_a_later_claim(
    driver: DatabaseDriver, other: DatabaseDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node of a cluster, at first, shows the jobs as nobody's."""
    know = lease_module.holders

    async def know_nothing(*arguments: object, **options: object) -> dict[bytes, bytes | None]:
        return dict.fromkeys(await know(*arguments, **options))  # type: ignore[arg-type]

    await driver.jobs.insert(envelopes(2))
    outage = await claim_in_doubt(driver)
    outage.end()
    monkeypatch.setattr(lease_module, "holders", know_nothing)
    assert await driver.jobs.claim(["default"], 2, 30) == []
    monkeypatch.setattr(lease_module, "holders", know)
    assert {claim.attempt for claim in await driver.jobs.claim(["default"], 2, 30)} == {1}


async def test_what_a_claim_took_before_it_took_other_jobs_is_found_by_the_next_one(
    driver: DatabaseDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the second try had gone to another node of a cluster, on which the first one's jobs were nobody's."""

    async def know_nothing(self: object, connection: object) -> None: ...

    await driver.jobs.insert(envelopes(2))
    outage = Outage(driver, begin=lambda: outage.end())
    monkeypatch.setattr(ClaimTransaction, "recover", know_nothing)
    [second] = await driver.jobs.claim(["default"], 1, 30)
    [first] = await driver.jobs.claim(["default"], 1, 30)
    assert {first.fence.job_id, second.fence.job_id} == {job.id for job in await driver.jobs.list_jobs()}
    assert await attempts(driver) == [1, 1]
    assert await driver.jobs.claim(["default"], 1, 30) == []


async def test_what_was_not_carried_out_waits_for_nobody_and_is_forgotten(
    driver: DatabaseDriver, migrated_url: str, backend: str
) -> None:
    """The server has not noticed that the claim's transaction has lost its client: it still holds its locks."""
    if backend == "sqlite":
        pytest.skip("SQLite has no server")
    [job] = await driver.jobs.insert(envelopes(1)) or await driver.jobs.list_jobs()
    outage = await claim_in_doubt(driver, lease=0.5, after=False)
    outage.end()
    engine = create_async_engine(migrated_url)
    async with engine.connect() as forgotten:
        await forgotten.execute(text("SELECT id FROM queue_jobs WHERE id = :id FOR UPDATE"), {"id": job.id.bytes})
        async with asyncio.timeout(60):
            assert await driver.jobs.claim(["default"], 1, 30) == []
            while driver.jobs.unconfirmed.claims:
                await asyncio.sleep(0.05)
                await driver.jobs.claim(["default"], 1, 30)
    await engine.dispose()
    assert (await claim_one(driver)).attempt == 1


async def test_a_server_killed_between_commit_and_answer_costs_no_attempt(local_database: LocalServer) -> None:
    driver = fresh_driver(local_database)
    await driver.jobs.insert(envelopes(3))
    outage = Outage(driver, begin=local_database.kill)
    with pytest.raises(BackendUnavailable):
        await driver.jobs.claim(["default"], 10, 30)
    outage.end()
    with pytest.raises(BackendUnavailable):
        await driver.jobs.claim(["default"], 10, 30)
    await asyncio.to_thread(local_database.start)
    claims = await driver.jobs.claim(["default"], 10, 30)
    assert [claim.attempt for claim in claims] == [1, 1, 1]
    assert await attempts(driver) == [1, 1, 1]
    settled = await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    assert len(settled.accepted) == 3
    await driver.close()


async def settle_in_doubt(driver: DatabaseDriver, ends: list[Settlement], *, after: bool = True) -> Outage:
    outage = Outage(driver, after=after)
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            await driver.jobs.settle(ends)
    return outage


def ways_to_end(claims: Sequence[Claim]) -> list[Settlement]:
    completed, failed, retried, released, snoozed, cancelled = (claim.fence for claim in claims)
    return [
        Settlement.completed(completed, (InsertJobs((envelope(queue="next"),)),)),
        Settlement.failed(failed, FAILURE),
        Settlement.retried(retried, 0, FAILURE),
        Settlement.released(released, 60),
        Settlement.snoozed(snoozed, 60),
        Settlement.cancelled(cancelled),
    ]


@pytest.mark.parametrize("after", [True, False], ids=["committed", "not committed"])
async def test_settlements_in_doubt_are_accepted_and_written_once(driver: DatabaseDriver, after: bool) -> None:
    await driver.jobs.insert(envelopes(6))
    ends = ways_to_end(await driver.jobs.claim(["default"], 6, 30))
    outage = await settle_in_doubt(driver, ends, after=after)
    outage.end()
    settled = await driver.jobs.settle(ends)
    assert settled.stale == ()
    assert {settlement.fence for settlement in settled.accepted} == {settlement.fence for settlement in ends}
    assert len(await driver.jobs.claim(["next"], 2, 30)) == 1
    assert [failed.attempts for failed in await driver.failed.page()] == [1]
    assert sorted(await attempts(driver)) == [0, 1, 1, 1]
    assert not driver.jobs.unconfirmed.ends
    assert (await driver.jobs.settle(ends)).accepted == ()


async def test_completions_in_doubt_are_accepted(driver: DatabaseDriver) -> None:
    await driver.jobs.insert(envelopes(3))
    ends = [Settlement.completed(claim.fence) for claim in await driver.jobs.claim(["default"], 3, 30)]
    outage = await settle_in_doubt(driver, ends)
    outage.end()
    assert len((await driver.jobs.settle(ends)).accepted) == 3


async def test_of_settlements_in_doubt_those_with_another_outcome_are_stale(
    driver: DatabaseDriver, other: DatabaseDriver
) -> None:
    """They were not written, and the next owner has ended the jobs in other ways."""
    await driver.jobs.insert(envelopes(6))
    ends = ways_to_end(await driver.jobs.claim(["default"], 6, 0.2))
    outage = await settle_in_doubt(driver, ends, after=False)
    claims: list[Claim] = []
    while len(claims) < 6:
        await asyncio.sleep(0.05)
        claims += await other.jobs.claim(["default"], 6, 30)
    fences = {claim.fence.job_id: claim.fence for claim in claims}
    completed, failed, retried, released, snoozed, cancelled = (fences[end.fence.job_id] for end in ends)
    theirs = [
        Settlement.failed(completed, FAILURE),
        Settlement.failed(failed, Failure("AttemptsExhausted", "its lease ended 1 time", "")),
        Settlement.completed(retried),
        Settlement.failed(released, FAILURE),
        Settlement.retried(cancelled, 60, FAILURE),
    ]
    assert len((await other.jobs.settle(theirs)).accepted) == 5
    assert snoozed in fences.values(), "still held by its next owner"
    outage.end()
    settled = await driver.jobs.settle(ends)
    assert settled.accepted == ()
    assert len(await driver.failed.page()) == 3


async def test_one_job_that_is_still_held_says_that_none_was_settled(
    driver: DatabaseDriver, other: DatabaseDriver
) -> None:
    await driver.jobs.insert(envelopes(2))
    ends = [Settlement.completed(claim.fence) for claim in await driver.jobs.claim(["default"], 2, 30)]
    outage = await settle_in_doubt(driver, ends, after=False)
    await other.jobs.cancel([ends[0].fence.job_id])
    outage.end()
    settled = await driver.jobs.settle(ends)
    assert (settled.stale, settled.accepted) == ((ends[0],), (ends[1],))


async def test_a_server_killed_between_commit_and_answer_loses_no_end_of_a_job(local_database: LocalServer) -> None:
    driver = fresh_driver(local_database)
    await driver.jobs.insert(envelopes(6))
    ends = ways_to_end(await driver.jobs.claim(["default"], 6, 30))
    outage = Outage(driver, begin=local_database.kill)
    with pytest.raises(BackendUnavailable):
        await driver.jobs.settle(ends)
    outage.end()
    with pytest.raises(BackendUnavailable):
        await driver.jobs.settle(ends)
    await asyncio.to_thread(local_database.start)
    settled = await driver.jobs.settle(ends)
    assert (len(settled.accepted), settled.stale) == (6, ())
    assert len(await driver.failed.page()) == 1
    await driver.close()


def fresh_driver(server: LocalServer) -> DatabaseDriver:
    with sql.connection(server.url) as operator:
        operator.execute(text("CREATE DATABASE jobs"))
    url = f"{server.url}/jobs"
    databases.create_tables(url, outbox.metadata)
    return DatabaseDriver(url)
