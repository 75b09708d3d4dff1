"""Running jobs that are cancelled: their handlers hear of it within a second, on every store and from any process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

import outbox
import outbox.sync
from outbox import Job, clock, dispatch
from outbox.envelope import serialize
from outbox.errors import ConfigurationError
from outbox.events import JobCancelled, JobSettled, LeaseLost
from outbox.settlement import Settlement
from tests.integration.every_store.conftest import Store
from tests.support.commands import run_process
from tests.support.embedded_worker import TIMEOUT
from tests.support.orders import async_engine
from tests.support.standstills import Standstills

heard: list[tuple[str, float]] = []
"""What was seen of a cancellation, and when."""
hooked = threading.Event()
begun = threading.Event()


def note(what: str) -> None:
    heard.append((what, clock.now()))


class Waits(Job):
    name = "tests.cancelled.Waits"
    timeout = 0

    async def handle(self) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            note(f"CancelledError, cancelled={self.context.cancelled}")
            raise

    async def cancelled(self) -> None:
        note("hook")
        hooked.set()


class Asks(Job):
    name = "tests.cancelled.Asks"
    timeout = 0

    def handle(self) -> None:
        begun.set()
        while not self.context.cancelled:
            time.sleep(0.005)
        note("asked")

    def cancelled(self) -> None:
        note("hook")
        hooked.set()


class Deaf(Job):
    """Does not ask."""

    name = "tests.cancelled.Deaf"
    timeout = 0

    def handle(self) -> None:
        begun.set()
        try:
            while True:
                time.sleep(0.005)
        except BaseException as error:
            note(type(error).__name__)
            raise

    def cancelled(self) -> None:
        raise ValueError("nobody is told")


class Fine(Job):
    name = "tests.cancelled.Fine"
    called: ClassVar[list[str]] = []

    async def handle(self) -> None: ...

    def cancelled(self) -> None:
        self.called.append("hook")


@pytest.fixture(autouse=True)
def nothing_heard() -> None:
    heard.clear()
    begun.clear()
    hooked.clear()
    Fine.called.clear()


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, TIMEOUT)


async def by_this_process(_: Store, job_id: outbox.JobId) -> None:
    assert await outbox.cancel(job_id)


async def by_sync_code(_: Store, job_id: outbox.JobId) -> None:
    assert await asyncio.to_thread(outbox.sync.cancel, job_id)


async def without_a_word(store: Store, job_id: outbox.JobId) -> None:
    """As a process does whose messages do not arrive."""
    assert await store.driver.jobs.cancel([job_id]) == [job_id]


@pytest.mark.parametrize("cancel", [by_this_process, by_sync_code, without_a_word])
@pytest.mark.parametrize("kind", [Waits, Asks])
async def test_a_handler_hears_of_it_within_a_second(
    store: Store, kind: type[Job], cancel: Callable[[Store, outbox.JobId], Awaitable[None]]
) -> None:
    async with store.worker(lease=60) as embedded:
        job_id = await dispatch(kind())
        await until(begun)
        await cancel(store, job_id)
        with Standstills() as standstills:
            cancelled_at = clock.now()
            await until(hooked)
        (what, when), (hook, _) = heard
        assert (what, hook) == ("asked" if kind is Asks else "CancelledError, cancelled=True", "hook")
        assert when - cancelled_at - standstills.seconds < 1.0
        event = await embedded.event(JobCancelled)
        assert event.job_id == job_id
    assert embedded.of(JobSettled) == embedded.of(LeaseLost) == []
    assert await store.driver.failed.get(job_id) is None
    assert await store.driver.jobs.get(job_id) is None


async def test_a_thread_that_does_not_ask_is_interrupted_a_second_later(store: Store) -> None:
    async with store.worker(lease=60) as embedded:
        job_id = await dispatch(Deaf())
        await until(begun)
        cancelled_at = clock.now()
        assert await outbox.cancel(job_id)
        await embedded.event(JobCancelled)
        [(what, when)] = heard
        assert (what, when - cancelled_at >= 0.9) == ("Interrupted", True)


async def test_it_is_too_late_for_a_job_that_has_ended(store: Store) -> None:
    async with store.worker() as embedded:
        job_id = await dispatch(Fine())
        await embedded.event(JobSettled)
        assert not await outbox.cancel(job_id)
    assert embedded.of(JobCancelled) == []
    assert Fine.called == []


async def test_an_end_that_comes_after_the_cancellation_changes_nothing(store: Store) -> None:
    await store.driver.jobs.insert([serialize(Fine())])
    [claim] = await store.driver.jobs.claim(["default"], 1, 30)
    assert await store.driver.jobs.missing([claim.fence.job_id]) == frozenset()
    assert await store.driver.jobs.cancel([claim.fence.job_id]) == [claim.fence.job_id]
    assert await store.driver.jobs.missing([claim.fence.job_id]) == {claim.fence.job_id}
    settled = await store.driver.jobs.settle([Settlement.completed(claim.fence)])
    assert (settled.accepted, len(settled.stale)) == ((), 1)


async def test_a_waiting_job_is_gone_without_a_hook(store: Store) -> None:
    job_id = await dispatch(Fine(), delay=60)
    assert await outbox.cancel(job_id)
    async with store.worker() as embedded:
        await embedded.idle()
    assert (embedded.of(JobCancelled), Fine.called) == ([], [])


async def test_a_session_cancels_when_it_commits(store: Store) -> None:
    if store.redis_url is not None:
        pytest.skip("a session reaches the jobs of its own database")
    engine = async_engine(store.url)
    async with store.worker(lease=60) as embedded:
        job_id = await dispatch(Waits())
        await until(begun)
        async with AsyncSession(engine) as session, session.begin():
            assert await outbox.cancel(job_id, session=session)
        with Standstills() as standstills:
            cancelled_at = clock.now()
            await until(hooked)
        assert heard[0][1] - cancelled_at - standstills.seconds < 1.0
        await embedded.event(JobCancelled)
    await engine.dispose()


async def test_the_command_stops_the_job_and_says_when_it_is_too_late(store: Store, tmp_path: Any) -> None:
    async with store.worker(lease=60):
        job_id = await dispatch(Waits())
        await until(begun)
        ran = await run_process(tmp_path, "cancel", str(job_id), **store.environment)
        assert (ran.code, ran.out) == (0, "Cancelled 1 job.\n")
        await until(hooked)
    late = await run_process(tmp_path, "cancel", str(job_id), **store.environment)
    assert late.code == 1
    assert "too late, there is no live job" in late.err


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="`cancelled` is called without arguments"):

        class Wrong(Job):
            def cancelled(self, error: BaseException) -> None: ...
