"""Failed jobs chosen by name, error and age, and counted in groups."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from outbox.drivers.base import Driver
from outbox.drivers.filters import FailedFilter
from outbox.ids import JobId
from outbox.settlement import Failure, Settlement
from tests.conformance.jobs import envelope

REFUSED = Failure("app.mail.Refused", "550 no such mailbox: Größe 'x'", "")
LATE = Failure("TimeoutError", "took 30 s", "")


async def fail(driver: Driver, name: str, failure: Failure, queue: str = "mail", count: int = 1) -> list[JobId]:
    jobs = [envelope(queue=queue)._replace(name=name) for _ in range(count)]
    await driver.jobs.insert(jobs)
    claims = await driver.jobs.claim([queue], count, 30)
    await driver.jobs.settle([Settlement.failed(claim.fence, failure) for claim in claims])
    return sorted(job.id for job in jobs)


@pytest.fixture
async def failures(driver: Driver) -> dict[str, list[JobId]]:
    return {
        "refused": await fail(driver, "app.Receipt", REFUSED, count=3),
        "late": await fail(driver, "app.Receipt", LATE, count=2),
        "other": await fail(driver, "app.Report", LATE, queue="slow"),
    }


CHOICES: list[tuple[FailedFilter, Sequence[str]]] = [
    (FailedFilter(), ["refused", "late", "other"]),
    (FailedFilter(name="app.Receipt"), ["refused", "late"]),
    (FailedFilter(name="app.Rece"), []),
    (FailedFilter(error="app.mail.Refused"), ["refused"]),
    (FailedFilter(error="Refused"), ["refused"]),
    (FailedFilter(error="efused"), []),
    (FailedFilter(error="TimeoutError"), ["late", "other"]),
    (FailedFilter(error="Größe 'x'"), ["refused"]),
    (FailedFilter(error="550"), ["refused"]),
    (FailedFilter(error="no SUCH"), []),
    (FailedFilter(error="%"), []),
    (FailedFilter(name="app.Receipt", error="TimeoutError", since=3600), ["late"]),
    (FailedFilter(since=3600), ["refused", "late", "other"]),
    (FailedFilter(since=-3600), []),
]


@pytest.mark.parametrize(("matching", "chosen"), CHOICES)
async def test_a_filter_lists_and_removes_the_same_jobs(
    driver: Driver, failures: dict[str, list[JobId]], matching: FailedFilter, chosen: Sequence[str]
) -> None:
    expected = sorted(job_id for each in chosen for job_id in failures[each])
    assert sorted(job.id for job in await driver.failed.page(matching=matching)) == expected
    groups = await driver.failed.groups(matching=matching)
    assert sum(group.count for group in groups) == len(expected)
    assert await driver.failed.flush(matching=matching) == len(expected)
    left = {job_id for ids in failures.values() for job_id in ids} - set(expected)
    assert {job.id for job in await driver.failed.page()} == left


async def test_a_filter_puts_back_what_it_lists(driver: Driver, failures: dict[str, list[JobId]]) -> None:
    assert await driver.failed.retry_all("mail", matching=FailedFilter(error="TimeoutError")) == 2
    assert sorted(job.id for job in await driver.jobs.list_jobs()) == failures["late"]
    assert len(await driver.failed.page()) == 4
    assert await driver.failed.retry_all(matching=FailedFilter(name="app.Nothing")) == 0


async def test_filtered_pages_follow_each_other(driver: Driver) -> None:
    wanted = []
    for _ in range(3):
        await fail(driver, "app.Receipt", LATE, count=2)
        wanted += await fail(driver, "app.Receipt", REFUSED, count=2)
    matching = FailedFilter(error="Refused")
    first = await driver.failed.page(limit=4, matching=matching)
    second = await driver.failed.page(limit=4, before=first[-1].id, matching=matching)
    assert (len(first), len(second)) == (4, 2)
    assert sorted(job.id for job in (*first, *second)) == sorted(wanted)


async def test_groups_have_counts_and_times(driver: Driver, failures: dict[str, list[JobId]]) -> None:
    jobs = await driver.failed.page()
    groups = await driver.failed.groups()
    assert [(group.name, group.error, group.count) for group in groups] == [
        ("app.Receipt", "app.mail.Refused", 3),
        ("app.Receipt", "TimeoutError", 2),
        ("app.Report", "TimeoutError", 1),
    ]
    for group in groups:
        times = [job.failed_at for job in jobs if (job.name, job.failure.type) == (group.name, group.error)]
        assert (group.first, group.last) == (min(times), max(times))
    assert [group.count for group in await driver.failed.groups("slow")] == [1]
    assert len(await driver.failed.groups(limit=1)) == 1


async def test_a_group_is_one_problem_whatever_its_numbers(driver: Driver) -> None:
    ids = []
    for number in range(3):
        message = f"no order {number} of 'customer {number}'"
        ids += await fail(driver, "app.Receipt", Failure("LookupError", message, ""))
    other = await fail(driver, "app.Receipt", Failure("LookupError", "no customer 3", ""))
    [first, second] = await driver.failed.groups()
    assert (first.count, second.count) == (3, 1)
    assert first.fingerprint != second.fingerprint
    assert await driver.failed.hours([second, first]) == [[0] * 23 + [1], [0] * 23 + [3]]
    matching = FailedFilter(group=first.fingerprint)
    assert sorted(job.id for job in await driver.failed.page(matching=matching)) == sorted(ids)
    assert [group.count for group in await driver.failed.groups(matching=matching)] == [3]
    assert {job.fingerprint for job in await driver.failed.page(matching=matching)} == {first.fingerprint}
    assert await driver.failed.retry_all(matching=matching) == 3
    assert sorted(job.id for job in await driver.jobs.list_jobs()) == sorted(ids)
    assert await driver.failed.flush(matching=FailedFilter(group=second.fingerprint)) == 1
    assert await driver.failed.get(other[0]) is None
