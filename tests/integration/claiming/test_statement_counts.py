"""Counted, not timed: what a batch costs in statements does not depend on how many jobs are in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from sqlalchemy import event

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.dialects.mysql import MySQL
from outbox.drivers.database.operations.policies import DatabasePolicies
from outbox.drivers.database.policies import registry
from outbox.drivers.values import Claim
from outbox.envelope import serialize_many
from outbox.settlement import Fence, InsertJobs, Settlement
from tests.conformance.jobs import FAILURE, envelope, envelopes
from tests.integration.policies.unique_job_classes import Sync

LEASE = 300
"""Seconds. Longer than it takes to claim hundreds of jobs one by one."""

ENDS: Sequence[Callable[[Fence], Settlement]] = (
    Settlement.completed,
    lambda fence: Settlement.retried(fence, 60, FAILURE),
    lambda fence: Settlement.failed(fence, FAILURE),
    lambda fence: Settlement.snoozed(fence, 60),
    lambda fence: Settlement.completed(fence, (InsertJobs((envelope(queue="next"),)),)),
)


class Counting:
    """A driver, and the statements that it sends."""

    def __init__(self, driver: DatabaseDriver) -> None:
        self.driver = driver
        self.sent: list[str] = []
        engine, reader = driver.database.engine, driver.database.reader
        # On SQLite the reader is the same engine with an option, and tells of its statements there as well.
        for each in (engine,) if reader.pool is engine.pool else (engine, reader):
            event.listen(each.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            self.sent.append(statement.removeprefix(MySQL.unchecked).split()[0])

    def since(self) -> list[str]:
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
async def counting(migrated_url: str, timeless: None) -> AsyncIterator[Counting]:
    driver = DatabaseDriver(migrated_url)
    # The first connection asks the server for its version and settings.
    await driver.check()
    await driver.queues.counts()
    counting = Counting(driver)
    yield counting
    await driver.close()


async def claimed(counting: Counting, count: int) -> list[Claim]:
    await counting.driver.jobs.insert(envelopes(count))
    counting.since()
    claims = await counting.driver.jobs.claim(["default"], count, 30)
    assert len(claims) == count
    return claims


@pytest.mark.parametrize("count", [1, 10, 400])
async def test_a_claim_is_a_select_and_an_update(counting: Counting, count: int) -> None:
    await claimed(counting, count)
    assert len(counting.since()) == 2


@pytest.mark.parametrize("count", [1, 10, 400])
async def test_completions_of_one_claim_are_one_delete(counting: Counting, count: int) -> None:
    claims = await claimed(counting, count)
    counting.since()
    await counting.driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    assert counting.since() == ["DELETE"]


@pytest.mark.parametrize(("claims", "sent"), [(2, ["DELETE"] * 2), (3, ["SELECT", "DELETE"])])
async def test_completions_of_several_claims_are_two_statements(
    counting: Counting, claims: int, sent: list[str]
) -> None:
    held = [claim for _ in range(claims) for claim in await claimed(counting, 10)]
    counting.since()
    settled = await counting.driver.jobs.settle([Settlement.completed(claim.fence) for claim in held])
    assert counting.since() == sent
    assert len(settled.accepted) == 10 * claims


async def test_completions_of_two_claims_in_turns_are_locked_in_the_order_of_their_keys(counting: Counting) -> None:
    """Two statements would lock the rows of one claim after those of the other, and could meet somebody in between."""
    await counting.driver.jobs.insert(envelopes(10))
    odd = await counting.driver.jobs.claim(["default"], 5, 30)
    await counting.driver.jobs.settle([Settlement.snoozed(claim.fence) for claim in odd[::2]])
    even = await counting.driver.jobs.claim(["default"], 3 + 5, 30)
    held = [claim.fence for claim in (*odd[1::2], *even)]
    assert len(held) == 10
    counting.since()
    settled = await counting.driver.jobs.settle([Settlement.completed(fence) for fence in held])
    assert counting.since() == ["SELECT", "DELETE"]
    assert len(settled.accepted) == 10


async def test_a_stale_completion_among_those_of_two_claims_changes_nothing(counting: Counting) -> None:
    held = [claim for _ in range(2) for claim in await claimed(counting, 10)]
    taken, *others = (claim.fence for claim in held)
    await counting.driver.jobs.settle([Settlement.completed(taken)])
    settled = await counting.driver.jobs.settle([Settlement.completed(claim.fence) for claim in held])
    assert [settlement.fence for settlement in settled.stale] == [taken]
    assert {settlement.fence for settlement in settled.accepted} == set(others)


@pytest.mark.parametrize("count", [5, 50, 400])
async def test_a_batch_of_every_kind_is_a_constant_number_of_statements(counting: Counting, count: int) -> None:
    """One to lock and compare, one each for failures, put-backs, deletions and follow-ups."""
    claims = await claimed(counting, count)
    counting.since()
    settled = await counting.driver.jobs.settle(
        [ENDS[position % len(ENDS)](claim.fence) for position, claim in enumerate(claims)]
    )
    assert len(settled.accepted) == count
    assert len(counting.since()) == 5


@pytest.mark.parametrize("count", [1, 10, 400])
async def test_renewing_the_leases_of_one_claim_is_one_update(counting: Counting, count: int) -> None:
    claims = await claimed(counting, count)
    counting.since()
    await counting.driver.jobs.extend([claim.fence for claim in claims], 30)
    assert len(counting.since()) == 1


async def claimed_one_by_one(counting: Counting, count: int) -> list[Fence]:
    """Every job is held under a token of its own."""
    await counting.driver.jobs.insert(envelopes(count))
    fences = [claim.fence for _ in range(count) for claim in await counting.driver.jobs.claim(["default"], 1, LEASE)]
    assert len({fence.token for fence in fences}) == count
    counting.since()
    return fences


async def test_what_300_tokens_hold_is_renewed_released_and_completed_in_constant_statements(
    counting: Counting,
) -> None:
    driver = counting.driver
    fences = await claimed_one_by_one(counting, 300)
    lease = await driver.jobs.extend(fences, 30)
    assert (len(lease.kept), counting.since()) == (300, ["UPDATE"])
    settled = await driver.jobs.settle([Settlement.completed(fence) for fence in fences[:100]])
    assert (len(settled.accepted), counting.since()) == (100, ["SELECT", "DELETE"])
    settled = await driver.jobs.settle([Settlement.failed(fence, FAILURE) for fence in fences[100:200]])
    assert (len(settled.accepted), len(counting.since())) == (100, 3)
    settled = await driver.jobs.settle([Settlement.snoozed(fence) for fence in fences[200:]])
    assert (len(settled.accepted), counting.since()) == (100, ["SELECT", "UPDATE"])


async def test_a_stale_pair_renews_nobody_elses_row(counting: Counting) -> None:
    """Neither a row of another holder, nor a row of the same worker under another of its tokens."""
    driver = counting.driver
    first, second, third = await claimed_one_by_one(counting, 3)
    crossed = Fence(first.job_id, second.token)
    await driver.jobs.settle([Settlement.snoozed(third)])
    [again] = await driver.jobs.claim(["default"], 1, LEASE)
    before = await driver.jobs.get(again.fence.job_id)
    counting.since()
    lease = await driver.jobs.extend([crossed, second, third], 600)
    assert (lease.kept, lease.lost) == ({second}, {crossed, third})
    assert counting.since() == ["UPDATE", "SELECT"]
    assert await driver.jobs.get(again.fence.job_id) == before
    held = await driver.jobs.get(first.job_id)
    assert held is not None
    assert held.reserved_until is not None
    assert (held.reserved_until - await driver.now()).total_seconds() <= LEASE
    lease = await driver.jobs.extend([first, crossed], 600)
    assert (lease.kept, lease.lost) == ({first}, {crossed})


async def test_an_idle_look_is_one_statement_for_any_number_of_queues(counting: Counting) -> None:
    await counting.driver.jobs.next_due([f"queue-{number}" for number in range(200)])
    assert len(counting.since()) == 1


@pytest.mark.parametrize("count", [20, 200])
async def test_a_claim_from_many_queues_is_a_constant_number_of_statements(counting: Counting, count: int) -> None:
    """Else jobs that were found first would be locked for a round trip to each of the other queues."""
    queues = [f"queue-{number}" for number in range(count)]
    await counting.driver.jobs.insert([envelope(queue=queue) for queue in queues])
    counting.since()
    taken = []
    while claims := await counting.driver.jobs.claim(queues, count, 30):
        taken += claims
        assert len(counting.since()) <= 1 + 8 + 1
    assert [claim.queue for claim in taken] == queues, "in the order of preference"


async def test_inserting_is_one_statement_per_thousand(counting: Counting) -> None:
    await counting.driver.jobs.insert(envelopes(3_000))
    assert counting.since() == ["INSERT"] * 3


@pytest.mark.parametrize("count", [1, 10, 400])
async def test_unique_jobs_are_dispatched_in_a_constant_number_of_statements(counting: Counting, count: int) -> None:
    """The slots of the keys, the keys, who has them, the jobs of the keys, the jobs."""
    jobs = serialize_many([Sync(customer_id=number) for number in range(count)])
    await counting.driver.policies.insert_unique(jobs)
    assert len(counting.since()) == 5


async def test_the_upkeep_asks_one_question_about_all_policies_operations_and_the_audit_log(
    counting: Counting,
) -> None:
    await counting.driver.policies.upkeep()
    idle = len(counting.since())
    await registry.upkeep(counting.driver.database)
    policies = len(counting.since())
    await DatabasePolicies(counting.driver.database).upkeep()
    assert (policies, idle) == (1, len(counting.since()))
