"""What a look tells an idle worker: whether to claim, how long to sleep, and how many others look as well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outbox.drivers.base import Driver
from outbox.drivers.values import WorkerStatus
from outbox.ids import new_token
from outbox.settlement import Settlement
from tests.conformance.jobs import claim_one, envelope


def worker(queues: str, *, running: int = 0) -> WorkerStatus:
    return WorkerStatus(
        id=new_token(),
        name="host:1",
        host="host",
        pid=1,
        queues=queues,
        concurrency=2,
        running=running,
        processed=0,
        failed=0,
    )


async def test_nothing_is_nothing_to_wait_for(driver: Driver) -> None:
    assert (await driver.jobs.next_due(["default", "mail"])).due is None


async def test_what_is_ready_is_due_now_whatever_else_there_is(driver: Driver) -> None:
    await driver.jobs.insert([envelope(delay=3600), envelope(queue="mail", delay=60)])
    await driver.jobs.insert([envelope(priority=9)])
    assert (await driver.jobs.next_due(["mail", "default"])).due == 0.0
    due = (await driver.jobs.next_due(["mail"])).due
    assert due is not None
    assert 50 < due <= 60.1


async def test_what_is_held_is_due_when_its_lease_ends(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver, lease=40)
    due = (await other.jobs.next_due(["default"])).due
    assert due is not None
    assert 30 < due <= 40.1
    await driver.jobs.settle([Settlement.completed(claim.fence)])
    assert (await other.jobs.next_due(["default"])).due is None


async def test_what_is_paused_is_not_waited_for(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope(queue="paused"), envelope(delay=60)])
    await other.queues.pause("paused")
    due = (await driver.jobs.next_due(["paused", "default"])).due
    assert due is not None
    assert due > 50
    assert (await driver.jobs.next_due(["paused"])).due is None
    await other.queues.resume("paused")
    assert (await driver.jobs.next_due(["paused", "default"])).due == 0.0


@pytest.mark.parametrize(("queues", "idle"), [(["default"], 2), (["mail"], 3), (["mail", "default"], 4), (["mai"], 1)])
async def test_those_share_the_looking_who_have_room_and_drain_one_of_the_queues(
    driver: Driver, queues: list[str], idle: int
) -> None:
    drained = ["default", "mail", "high,mail", "default,mail"]
    for one in drained:
        await driver.workers.heartbeat(worker(one))
    await driver.workers.heartbeat(worker("mail,default", running=2))
    assert (await driver.jobs.next_due(queues)).idle == idle


async def test_a_worker_that_fills_up_leaves_the_looking_to_the_others(driver: Driver) -> None:
    first, second = worker("default"), worker("default")
    await driver.workers.heartbeat(first)
    await driver.workers.heartbeat(second)
    assert (await driver.jobs.next_due(["default"])).idle == 2
    await driver.workers.heartbeat(replace(first, running=2))
    assert (await driver.jobs.next_due(["default"])).idle == 1
    await driver.workers.deregister(second.id)
    assert (await driver.jobs.next_due(["default"])).idle == 1, "whoever looks is there"


async def test_a_look_takes_nothing(driver: Driver) -> None:
    await driver.jobs.insert([envelope()])
    for _ in range(3):
        await driver.jobs.next_due(["default"])
    assert (await claim_one(driver)).attempt == 1
