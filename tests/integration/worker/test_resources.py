"""Resources of a worker's lifespan, on every database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

import outbox
from outbox import Job, Resources, dispatch, find
from outbox.drivers.database import DatabaseDriver
from outbox.errors import ConfigurationError
from outbox.events import JobGivenBack, JobSettled, ResourceFailed, WorkerStopped
from outbox.settlement import Outcome
from tests.servers import sql
from tests.support.embedded_worker import working

QUEUE = "resources"
steps: list[str] = []


class Client: ...


class Handle: ...


class Uses(Job):
    name = "tests.resources.Uses"
    queue = QUEUE
    max_tries = 1

    fails: bool = False

    async def handle(self, client: Client, handle: Handle) -> None:
        steps.append("handle")
        if self.fails:
            raise ValueError("no")


class InSession(Job):
    name = "tests.resources.InSession"
    queue = QUEUE

    async def handle(self, handle: Handle, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        steps.append("handle")


class Elsewhere(Job):
    name = "tests.resources.Elsewhere"
    queue = "elsewhere"

    def handle(self, only_there: Elsewhere) -> None: ...


@pytest.fixture(autouse=True)
async def _environment(monkeypatch: pytest.MonkeyPatch, migrated_url: str) -> AsyncIterator[None]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    steps.clear()
    yield
    await outbox.disconnect()


def lifespan_of(stored: Callable[[], int], *, closes: bool = True):  # type: ignore[no-untyped-def]
    """Notes how many jobs are stored when a resource of a job is closed: that is after the settlement."""

    async def handle() -> AsyncIterator[Handle]:
        yield Handle()
        steps.append(f"close with {stored()} stored")
        if not closes:
            raise OSError("disk full")

    @asynccontextmanager
    async def lifespan(resources: Resources) -> AsyncIterator[None]:
        steps.append("open")
        resources.provide(Client, Client())
        resources.provide(Handle, handle, scope="job")
        yield
        steps.append("close")

    return lifespan


def stored_in(url: str) -> Callable[[], int]:
    def count() -> int:
        with sql.connection(url) as connection:
            return int(connection.scalar(text("SELECT COUNT(*) FROM queue_jobs")) or 0)

    return count


@pytest.mark.parametrize("job", [Uses(), Uses(fails=True), InSession()], ids=["completed", "failed", "in session"])
async def test_resources_of_a_job_are_closed_after_its_settlement(migrated_url: str, job: Job) -> None:
    await dispatch(job)
    lifespan = lifespan_of(stored_in(migrated_url))
    async with working(migrated_url, queue=QUEUE, lifespan=lifespan) as worker:
        await worker.event(JobSettled)
    assert steps == ["open", "handle", "close with 0 stored", "close"]


async def test_a_resource_that_is_not_closed_changes_no_end(migrated_url: str) -> None:
    await dispatch(Uses())
    lifespan = lifespan_of(stored_in(migrated_url), closes=False)
    async with working(migrated_url, queue=QUEUE, lifespan=lifespan) as worker:
        event = await worker.event(ResourceFailed)
        [settled] = worker.of(JobSettled)
    assert settled.outcome is Outcome.COMPLETED
    assert "disk full" in event.failure.traceback
    assert steps[-1] == "close"


async def test_a_worker_without_a_resource_does_not_start_and_loses_nothing(migrated_url: str) -> None:
    job_id = await dispatch(Uses())

    @asynccontextmanager
    async def lifespan(resources: Resources) -> AsyncIterator[None]:
        resources.provide(Client, Client())
        yield
        steps.append("close")

    with pytest.raises(ConfigurationError, match=r"nothing provides `handle: .*Handle` of .*Uses\.handle"):
        async with working(migrated_url, queue=QUEUE, lifespan=lifespan):
            pass
    assert steps == ["close"], "what it has opened is closed"
    with pytest.raises(ConfigurationError, match=r"nothing provides `client: .*Client` of .*Uses\.handle"):
        async with working(migrated_url, queue=QUEUE):
            pass
    found = await find(job_id)
    assert getattr(found, "attempts", None) == 0


async def test_a_job_of_another_queue_goes_back_for_another_worker(migrated_url: str, database: DatabaseDriver) -> None:
    job_id = await dispatch(Elsewhere(), queue=QUEUE)
    async with working(migrated_url, queue=QUEUE, lifespan=lifespan_of(lambda: 0)) as worker:
        event = await worker.event(JobGivenBack)
        settled = await worker.event(JobSettled)
    assert "nothing provides `only_there: " in event.reason
    assert settled.outcome is Outcome.SNOOZED
    left = await database.jobs.get(job_id)
    assert left is not None
    assert left.attempts == 0


async def test_a_lifespan_that_raises_ends_the_worker_before_it_claims(migrated_url: str) -> None:
    job_id = await dispatch(Uses())

    @asynccontextmanager
    async def lifespan(resources: Resources) -> AsyncIterator[None]:
        raise ConnectionError("no service")
        yield

    with pytest.raises(ConnectionError, match="no service"):
        async with working(migrated_url, queue=QUEUE, lifespan=lifespan):
            pass
    found = await find(job_id)
    assert getattr(found, "attempts", None) == 0


@pytest.mark.parametrize(
    ("lifespan", "message"),
    [
        ("nowhere", "--lifespan 'nowhere' is not MODULE:FUNCTION"),
        (f"{__name__}:missing", "has no 'missing'"),
        (lambda resources: None, "a lifespan returns an async context manager"),
    ],
)
async def test_a_lifespan_that_is_none_is_refused(migrated_url: str, lifespan: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        async with working(migrated_url, queue=QUEUE, lifespan=lifespan):
            pass


async def test_the_worker_of_an_application_has_a_lifespan(migrated_url: str) -> None:
    async with outbox.Worker(queue=QUEUE, lifespan=lifespan_of(stored_in(migrated_url))) as worker:
        stopped: list[object] = []
        worker.events.listen(stopped.append, WorkerStopped)
        assert steps == ["open"]
    assert steps == ["open", "close"]
    assert stopped
