"""`dispatch_now`: a job that runs in the caller's process, with the life of one that a worker runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

import outbox
import outbox.sync
from outbox import Job, Outbox, Resources, dispatch_now
from outbox.drivers.database import DatabaseDriver
from outbox.errors import InvalidJob, InvalidOption, JobFailed, JobTimeout, MissingResource
from outbox.events import Event, JobSettled, JobStarted
from outbox.settings import Settings
from outbox.settlement import Outcome

log: list[str] = []


async def around(job: Job, call_next: outbox.CallNext) -> Any:
    log.append("before")
    value = await call_next(job)
    log.append("after")
    return f"<{value}>"


class Does(Job):
    name = "tests.dispatch_now.Does"
    middleware = (around,)
    what: str = "return"
    queue = "slow"

    async def handle(self) -> Any:
        context = self.context
        log.append(f"{context.queue} {context.connection} {context.attempt}/{context.max_tries}")
        match self.what:
            case "raise":
                raise ValueError("no")
            case "hang":
                await asyncio.Event().wait()
            case "fail":
                context.fail("hopeless")
            case "delete":
                context.delete()
            case "release" | "snooze":
                getattr(context, self.what)(60)
        return self.what

    async def failed(self, error: BaseException) -> None:
        log.append(f"failed {type(error).__name__}")


class Gives(Job):
    """Gives `fail` and `release` what is no instance of an exception, and no number."""

    name = "tests.dispatch_now.Gives"
    gives: ClassVar[dict[str, Any]] = {}

    async def handle(self) -> None:
        for decision, argument in self.gives.items():
            getattr(self.context, decision)(argument)

    async def failed(self, error: BaseException) -> None:
        log.append(f"failed {type(error).__name__}")


class Unmade(Exception):
    def __init__(self, order: int) -> None:
        super().__init__(order)


class InThread(Job):
    name = "tests.dispatch_now.InThread"

    def handle(self) -> int:
        return threading.get_ident()


class WithSession(Job):
    name = "tests.dispatch_now.WithSession"

    async def handle(self, session: AsyncSession) -> None: ...


class Till:
    """A resource."""


class Receipt(list[str]):
    """The same."""


class Pays(Job):
    name = "tests.dispatch_now.Pays"
    queue = "tills"  # of which no worker of a test is there, to miss the resources

    fails: bool = False

    async def handle(self, till: Till, receipt: Receipt) -> str:
        receipt.append(type(till).__name__)
        if self.fails:
            raise ValueError("no")
        return f"{receipt}"

    async def failed(self, error: BaseException) -> None:
        log.append(f"failed {type(error).__name__}")


def printed(job: Job) -> Iterator[Receipt]:
    """A resource of one job."""
    receipt = Receipt([job.name])
    yield receipt
    log.append(f"closed {receipt}")


@pytest.fixture(autouse=True)
def nothing_logged() -> None:
    log.clear()


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    outbox.configure(database_url=migrated_url)
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()
    await outbox.disconnect()
    outbox.configure()


async def test_it_runs_with_its_middleware_and_returns_the_result() -> None:
    assert await dispatch_now(Does(), queue="other") == "<return>"
    assert log == ["before", "other database 1/3", "after"]
    assert await dispatch_now(InThread()) != threading.get_ident()


@pytest.mark.parametrize(("what", "error"), [("raise", ValueError), ("fail", JobFailed), ("hang", JobTimeout)])
async def test_what_fails_it_is_raised_after_its_hook(what: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        await dispatch_now(Does(what=what), timeout=0.1 if what == "hang" else 60, max_tries=9)
    assert log[-1] == f"failed {error.__name__}"
    assert log.count(log[-1]) == 1


@pytest.mark.parametrize(
    ("given", "raised", "says"),
    [
        (LookupError, LookupError, ""),
        (Unmade, JobFailed, "Unmade"),
        (None, JobFailed, "None"),
        (404, JobFailed, "404"),
    ],
)
async def test_a_job_can_fail_with_what_is_no_exception(
    given: object, raised: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gives, "gives", {"fail": given})
    with pytest.raises(raised, match=f"^{says}$"):
        await dispatch_now(Gives())
    assert log == [f"failed {raised.__name__}"]


@pytest.mark.parametrize("decision", ["release", "snooze", "rate_limited"])
async def test_a_job_can_put_itself_back_for_a_timedelta(
    driver: DatabaseDriver, decision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gives, "gives", {decision: timedelta(minutes=1)})
    assert await dispatch_now(Gives()) is None
    [job] = await driver.jobs.list_jobs()
    assert 50 < (job.available_at - await driver.now()).total_seconds() <= 60


async def test_nothing_is_stored_unless_it_puts_itself_back(driver: DatabaseDriver) -> None:
    await dispatch_now(Does())
    assert await dispatch_now(Does(what="delete")) == "<delete>"
    assert await driver.jobs.list_jobs() == []
    for what in ("release", "snooze"):
        assert await dispatch_now(Does(what=what), priority=2) is None
    jobs = await driver.jobs.list_jobs()
    assert [(job.priority, job.queue, job.attempts) for job in jobs] == [(2, "slow", 0)] * 2
    now = await driver.now()
    assert all(50 < (job.available_at - now).total_seconds() <= 60 for job in jobs)


async def test_a_job_that_is_left_out_does_not_run() -> None:
    assert await dispatch_now(Does(), dispatch_if=False) is None
    assert log == []


async def test_listeners_of_the_client_hear_of_it(migrated_url: str) -> None:
    events: list[Event] = []
    async with Outbox(Settings(DATABASE_URL=migrated_url)) as client:  # type: ignore[call-arg]
        client.listen(events.append)
        await dispatch_now(Does())
        with pytest.raises(ValueError, match="no"):
            await dispatch_now(Does(what="raise"))
    assert [type(event) for event in events] == [JobStarted, JobSettled] * 2
    ends = [event.outcome for event in events if isinstance(event, JobSettled)]
    assert ends == [Outcome.COMPLETED, Outcome.FAILED]


async def test_a_caller_that_is_cancelled_stops_the_handler() -> None:
    task = asyncio.create_task(dispatch_now(Does(what="hang"), timeout=0))
    while len(log) < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log[2:] == [], "a job that was stopped has not failed"


@pytest.mark.parametrize("fails", [False, True])
async def test_resources_of_a_job_are_closed_before_it_returns(fails: bool) -> None:
    resources = Resources({Till: Till()})
    resources.provide(Receipt, printed, scope="job")
    receipt = "['tests.dispatch_now.Pays', 'Till']"
    if fails:
        with pytest.raises(ValueError, match="no"):
            await dispatch_now(Pays(fails=True), resources=resources)
        assert log == ["failed ValueError", f"closed {receipt}"]
    else:
        assert await dispatch_now(Pays(), resources=resources) == receipt
        assert log == [f"closed {receipt}"]
    assert await dispatch_now(Pays(), resources={Till: Till(), Receipt: Receipt()}) == "['Till']"


async def test_a_resource_that_is_missing_is_named() -> None:
    with pytest.raises(MissingResource, match=r"nothing provides `receipt: .*give it to dispatch_now as `resources`"):
        await dispatch_now(Pays(), resources={Till: Till()})


@pytest.mark.parametrize("in_a_loop", [False, True])
async def test_code_that_is_not_async_waits_for_the_result(driver: DatabaseDriver, in_a_loop: bool) -> None:
    def call() -> None:
        assert outbox.sync.dispatch_now(Does(), queue="other") == "<return>"
        assert log == ["before", "other database 1/3", "after"]
        assert outbox.sync.dispatch_now(Pays(), resources={Till: Till(), Receipt: Receipt()}) == "['Till']"
        assert outbox.sync.dispatch_now(Does(what="release")) is None
        with pytest.raises(JobTimeout):
            outbox.sync.dispatch_now(Does(what="hang"), timeout=0.1)
        assert log[-1] == "failed JobTimeout"

    if in_a_loop:
        call()
    else:
        await asyncio.to_thread(call)
    assert [job.queue for job in await driver.jobs.list_jobs()] == ["slow"]
    await asyncio.to_thread(outbox.sync.disconnect)


async def test_what_cannot_run_here_is_refused() -> None:
    with pytest.raises(InvalidOption, match="leave out `delay`"):
        await dispatch_now(Does(), delay=1)
    with pytest.raises(InvalidJob, match="takes a session"):
        await dispatch_now(WithSession())
    with pytest.raises(InvalidJob, match="dispatch takes a Job"):
        await dispatch_now("Does")  # type: ignore[arg-type]
